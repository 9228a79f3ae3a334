"""What arms cost, and what was chosen from many: told beside the gain, and not counted as one."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from noisytune.errors import ConfigError
from noisytune.records import StudyRecord, TrialRecord, digest
from noisytune.report import gate, notes, render_html, render_markdown, report_json, summary_rows, verdict_sentence
from noisytune.report.evidence.choices import choice_rows
from noisytune.report.evidence.compute import arm_costs
from noisytune.report.evidence.pairs import gather
from tests.support.records import synthetic


def told(
    arms: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]], gain: dict[str, float], seeds: int = 6
) -> tuple[StudyRecord, list[TrialRecord]]:
    """A study whose arms have methods, settings of the training, and facts; accuracy 0.5 and the arm's gain."""
    study, (some, *_) = synthetic(seeds=1, examples=4)
    name = study.tasks[0]["name"]
    records = []
    for seed in range(seeds):
        for arm, (methods, training, applied) in arms.items():
            settings = some.settings | {
                "task": {"name": name, "digest": "d", "train_size": 100},
                "arm": {"name": arm, "methods": [{"method": method} for method in methods]},
                "seed": seed,
                "training": {"epochs": 3, "batch_size": 10, "max_steps": None} | training,
            }
            scores = {"accuracy": 0.5 + seed / 100 + gain.get(arm, 0.0) * (1 + seed / 10)}
            states = {"dev": {"status": "ok", "scores": scores}}
            record = replace(some, key=digest(settings), settings=settings, scores=scores, applied=applied, outputs={})
            records.append(replace(record, evaluations=states))
    plan = [{"key": r.key, "task": name, "arm": r.arm, "seed": r.seed} for r in records]
    return replace(study, arms=list(arms), seeds=list(range(seeds)), trials=plan), records


TWICE = {
    "plain": ([], {}, {}),
    "sam": (["sam"], {}, {"sam": {"passes": 2.0}}),
    "noisytune(0.1, soup=3)+rdrop": (
        ["noisytune", "rdrop"],
        {},
        {"noisytune": {"passes": 3.0}, "rdrop": {"passes": 2.0}},
    ),
    "ema": (["ema"], {}, {"ema": {"decay": 0.9}}),
}


def test_an_arm_that_reads_twice_says_so() -> None:
    study, records = told(TWICE, {"sam": 0.02})
    assert {cost.arm: cost.passes for cost in arm_costs(gather(study, records))} == {
        "sam": 2.0,
        "noisytune(0.1, soup=3)+rdrop": 6.0,
    }
    said = [note for note in notes(study, records) if "tokens" in note]
    assert said[0].startswith("sam reads 2.00 times the tokens of plain")
    assert "--equal-compute" in said[0]
    for page in (render_html(study, records), render_markdown(study, records)):
        assert "Tokens" in page


def test_beside_a_baseline_that_reads_as_many_the_gain_is_that_of_the_method() -> None:
    arms = TWICE | {"plain(epochs=6)": ([], {"epochs": 6}, {}), "plain(epochs=18)": ([], {"epochs": 18}, {})}
    study, records = told(arms, {"sam": 0.02, "plain(epochs=6)": 0.03})
    costs = {cost.arm: cost for cost in arm_costs(gather(study, records))}
    sam = costs["sam"]
    assert (sam.beside, costs["noisytune(0.1, soup=3)+rdrop"].beside) == ("plain(epochs=6)", "plain(epochs=18)")
    assert (costs["plain(epochs=6)"].passes, costs["plain(epochs=6)"].beside) == (2.0, "")
    assert sam.difference is not None
    assert sam.difference.n == 6
    assert sam.difference.mean == pytest.approx(-1.25)
    (said,) = (note for note in notes(study, records) if note.startswith("sam reads"))
    assert "beside plain(epochs=6), which reads as many, it gains" in said
    assert "1.25 points" in said
    assert not any(note.startswith("plain(") for note in notes(study, records))


def test_steps_count_where_they_are_given() -> None:
    study, records = told({"plain": ([], {"max_steps": 5}, {}), "longer": ([], {"max_steps": 10}, {})}, {})
    (cost,) = arm_costs(gather(study, records))
    assert (cost.arm, cost.passes) == ("longer", 2.0)


def test_studies_without_costs_say_nothing() -> None:
    study, records = synthetic()
    assert arm_costs(gather(study, records)) == []
    assert choice_rows(gather(study, records)) == []


def test_what_choosing_gains_is_told_beside_what_chance_gives() -> None:
    rng, chosen, means = np.random.default_rng(0), list[float](), list[float]()
    study, records = told({"best of 4 restarts": ([], {}, {}), "plain": ([], {}, {})}, {}, seeds=3)
    changed = []
    for record in records:
        scores = rng.normal(0.6, 0.02, 4 if record.arm != "plain" else 1)
        best = int(rng.integers(len(scores)))
        candidates = [{"number": i, "chosen_by": 0.9, "score": float(score)} for i, score in enumerate(scores)]
        facts = {"chosen": {"from": candidates, "number": best, "metric": "accuracy", "trainings": 3.2}}
        changed.append(replace(record, applied=facts, scores={"accuracy": float(scores[best])}))
        if record.arm != "plain":
            chosen.append(float(scores[best]))
            means.append(float(scores.mean()))
    first, second = choice_rows(gather(study, changed))
    assert (first.trained, first.trainings, first.chosen_by) == (4, 3.2, pytest.approx(90))
    assert first.gain == pytest.approx(100 * (np.mean(chosen) - np.mean(means)))
    assert 0.5 < first.highest / 2.0 < 2.0, "1.03 standard deviations of two points"
    assert second.trained == 1
    assert math.isnan(second.highest)
    assert any("choosing gained" in note for note in notes(study, changed))
    assert "What was chosen" in render_markdown(study, changed)
    assert arm_costs(gather(study, changed)) == []


def test_an_arm_that_is_one_of_those_the_baseline_was_chosen_from_is_shown_and_not_judged() -> None:
    """`explore`: one plain training loses to the best of four by the choice alone, which is no harm of anything."""
    best, noises = "best of 4 restarts", "best of 9 noises"
    arms: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = dict.fromkeys(
        (best, noises, "plain"), ([], {}, {})
    )
    study, records = told(arms, {"plain": -0.02}, seeds=8)
    changed = []
    for record in records:
        restarts = [f"restart {record.seed} {i}" for i in range(4)]
        chosen = {
            best: {"key": restarts[2], "from": restarts},
            noises: {"key": f"noise {record.seed} 3", "from": [f"noise {record.seed} 3"]},
            "plain": {"key": restarts[0], "from": restarts[:1]},
        }
        changed.append(replace(record, settings=record.settings | {"chosen": chosen[record.arm]}))
    assert verdict_sentence(study, records).startswith("Hurt")
    assert verdict_sentence(study, changed).startswith("Inconclusive after 8 pairs")
    evidence = gather(study, changed)
    assert (evidence.beside, evidence.begun) == ({"plain"}, (noises,))
    assert [row.arm for row in summary_rows(study, changed)] == [noises, "plain"]
    assert {row.e_needed for row in summary_rows(study, changed)} == {20.0}
    assert [one.arm for one in gate(study, changed, "not-worse")] == [noises]
    with pytest.raises(ConfigError, match="arm plain is shown and not judged"):
        gate(study, changed, "helped", "plain")
    told_json = report_json(study, changed)
    assert {one["arm"]: one["primary"] for one in told_json["comparisons"]} == {noises: True, "plain": False}
    assert "plain" in render_html(study, changed)


@pytest.mark.parametrize("fallen", [False, True])
def test_what_choosing_gains_and_the_most_that_chance_would(fallen: bool) -> None:
    """The best of four over their mean, and the mean of the highest of four normal draws."""
    study, records = synthetic(seeds=3, arms=2)
    told = {"kind": "language", "metric": "nll", "metric_label": "nats"} if fallen else {}
    study = replace(study, tasks=[task | told for task in study.tasks])
    metric, best_of = study.tasks[0]["metric"], np.argmin if fallen else np.argmax
    rng, chosen, gains, variances = np.random.default_rng(0), list[TrialRecord](), list[float](), list[float]()
    for record in records:
        scores = rng.normal(0.6, 0.02, 4)
        best = int(best_of(scores))
        trained = [{"number": i, "chosen_by": 0.5, "score": score} for i, score in enumerate(scores.tolist())]
        applied = {"chosen": {"from": trained, "number": best, "metric": metric, "trainings": 4.0}}
        chosen.append(replace(record, applied=applied, scores={metric: float(scores[best])}))
        if record.arm == "plain":
            gains.append(abs(scores[best] - scores.mean()))
            variances.append(scores.var(ddof=1))
    row = choice_rows(gather(study, chosen))[0]
    assert row.gain == pytest.approx(100 * np.mean(gains))
    highest = np.random.default_rng(1).normal(size=(400_000, 4)).max(axis=1).mean()
    assert row.highest == pytest.approx(100 * highest * math.sqrt(np.mean(variances)), rel=0.01)
