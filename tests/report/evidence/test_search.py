"""The search on the page: the whole budget, the winners, and what chance alone would give."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from noisytune.records import StudyRecord, TrialRecord, digest
from noisytune.report import notes, render_html, render_markdown, scored_on, verdict_sentence
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.search import SearchRow, SearchTrial, gain_by_chance, search_rows, seed_spread

Build = Callable[..., tuple[StudyRecord, list[TrialRecord]]]


def a_search(values: dict[str, list[float | None]], protocol: str = "clean", chosen_on: int = 25) -> dict[str, Any]:
    """Searches by arm; the winner is the first of the highest."""
    arms = []
    for arm, scores in values.items():
        trials = [
            {
                "number": i,
                "seed": 1_000_000 + i,
                "key": digest([arm, i]),
                "settings": {"learning_rate": 1e-5 * (1 + i), "epochs": 3}
                | ({} if arm == "baseline" else {"noise_lambda": 0.05 * i}),
                "value": value,
            }
            for i, value in enumerate(scores)
        ]
        winner = max((i for i, v in enumerate(scores) if v is not None), key=lambda i: scores[i] or 0.0)
        arms.append({"asked": f"asked {arm}", "arm": arm, "winner": winner, "trials": trials})
    return {
        "protocol": protocol,
        "sampler": "random",
        "budget": len(next(iter(values.values()))),
        "space": {"learning_rate": [1e-5, 2e-5], "epochs": [3], "noise_lambda": [0.0, 0.05]},
        "trained_on": 231,
        "chosen_on": chosen_on,
        "arms": arms,
    }


VALUES: dict[str, list[float | None]] = {"baseline": [0.5, 0.7, None, 0.6], "λ = 0.15": [0.4, 0.55, 0.65, 0.9]}


def test_what_chance_gives_is_what_pure_noise_gives() -> None:
    """Many arms whose settings all do the same: the winner's score in the search against its mean with fresh seeds."""
    rng, rows = np.random.default_rng(0), []
    for _ in range(4000):
        scores = rng.normal(70, 2, 7).tolist()
        trials = tuple(SearchTrial(i + 1, i, {}, score, max(scores[: i + 1])) for i, score in enumerate(scores))
        winner = max(trials, key=lambda trial: trial.score)
        rows.append(SearchRow("a", "a", trials, winner, tuple(rng.normal(70, 2, 10).tolist())))
    seen = np.mean([row.winner.score - row.mean for row in rows])
    assert gain_by_chance(rows, 7) == pytest.approx(seen, rel=0.02)
    assert seen == pytest.approx(1.352 * 2, rel=0.02)


def test_the_spread_is_pooled_over_the_arms_around_their_own_means(build: Build) -> None:
    study, records = build()
    rows = search_rows(gather(replace(study, search=a_search(VALUES)), records))
    centred = [score - row.mean for row in rows for score in row.reruns]
    assert seed_spread(rows) == pytest.approx(np.sqrt(np.sum(np.square(centred)) / (len(centred) - 2)))
    assert [len(row.reruns) for row in rows] == [5, 5]


def test_the_best_so_far_and_trials_without_a_score(build: Build) -> None:
    study, records = build()
    plain, noisy = search_rows(gather(replace(study, search=a_search(VALUES)), records))
    assert [trial.best for trial in plain.trials] == [50, 70, 70, 70]
    assert [trial.best for trial in noisy.trials] == pytest.approx([40, 55, 65, 90])
    assert (plain.unscored, plain.winner.number, noisy.winner.number) == (1, 2, 4)


def test_the_protocol_stands_beside_the_scores(build: Build) -> None:
    study, records = build()
    clean = replace(study, search=a_search(VALUES))
    paper = replace(study, search=a_search(VALUES, "paper", 1000))
    assert "protocol clean), chosen on 25 training examples held out from the other 231" in scored_on(clean)
    assert "protocol paper), chosen on 1,000 dev examples, the same that are reported" in scored_on(paper)
    assert "looks better than it is by at least about" in notes(clean, records)[0]
    assert "on dev examples that chose nothing" in notes(clean, records)[0]
    assert "but on the dev examples that chose the settings" in notes(paper, records)[0]
    assert "1.03 standard deviations" in notes(paper, records)[0]
    assert "search" not in scored_on(study).lower()


@pytest.mark.parametrize("missing", [[], [("λ = 0.15", s) for s in range(5)], [("baseline", s) for s in range(1, 5)]])
@pytest.mark.parametrize("values", [VALUES, {"baseline": [0.5], "λ = 0.15": [0.6]}])
def test_the_page_shows_every_trial(
    build: Build, missing: list[tuple[str, int]], values: dict[str, list[float | None]]
) -> None:
    study, records = build(missing=missing)
    study = replace(study, search=a_search(values))
    page, text = render_html(study, records), render_markdown(study, records)
    figure = re.search(r'<svg role="img" [^>]*aria-labelledby="search-title.*?</svg>', page, re.DOTALL)
    assert figure
    ElementTree.fromstring(figure[0])
    for shown in (page, text):
        assert shown.count("asked baseline") >= 1 + len(values["baseline"])
        assert "Only the arm differs" not in shown
        assert "nan" not in re.sub(r"<svg.*?</svg>", "", shown, flags=re.DOTALL).lower().replace("nant", "")
    assert render_html(study, records) == page


def test_names_on_the_page_are_escaped(build: Build) -> None:
    study, records = build()
    search = a_search(VALUES)
    search["arms"][1]["asked"] = "<b>|x"
    study = replace(study, search=search)
    assert "<b>|x" not in render_html(study, records)
    assert r"&lt;b&gt;\|x" in render_markdown(study, records)


def test_a_study_without_a_search_has_no_such_part(build: Build) -> None:
    study, records = build()
    assert "The search" not in render_html(study, records)
    assert StudyRecord.from_json(study.to_json(), "here").search is None


def test_a_search_survives_the_file(build: Build) -> None:
    study = replace(build()[0], search=a_search(VALUES))
    assert StudyRecord.from_json(study.to_json(), "here") == study


def test_the_headline_says_that_the_search_chose_no_noise(build: Build) -> None:
    study, records = build()
    chosen = replace(study, search=a_search(VALUES | {"λ = 0.15": [0.9, 0.4, 0.5, 0.6]}))
    assert "established and the search chose no noise (λ = 0). " in verdict_sentence(chosen, records)
    assert any("no noise (λ = 0) for asked λ = 0.15" in note for note in notes(chosen, records))
    other = replace(study, search=a_search(VALUES))
    assert "chose no noise" not in verdict_sentence(other, records) + " ".join(notes(other, records))
