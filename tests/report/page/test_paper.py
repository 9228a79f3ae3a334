"""The paper's table and figures: which cells, which arms, which numbers; independent of how they are drawn."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.records import NOISY, multilingual

from noisytune._console import Console
from noisytune._paper import numbers as paper
from noisytune.cli.study_display import print_summary
from noisytune.lab.tasks.xtreme import OFFICIAL
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report import findings, render_html, render_markdown, render_overview
from noisytune.report.evidence.combinations import combinations, pooled_combinations
from noisytune.report.evidence.norms import movements
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.summary import primary_rows
from noisytune.report.page.paper_figures import noise_types
from noisytune.report.page.render import render_overview_markdown
from noisytune.report.page.scores import score_table

Built = tuple[StudyRecord, list[TrialRecord]]
Build = Callable[..., Built]
GLUE = tuple(f"glue/{task}" for task in paper.TASKS)
GAINS = [0.4, -0.2, 1.0, 0.3, 0.1]
TYPES = {
    "noisytune(0.15)": {},
    "noisytune(0.15, distribution=gaussian)": {"distribution": "gaussian"},
    "noisytune(0.15, scale=global)": {"scale": "global"},
    "noisytune(0.15, distribution=gaussian, scale=global)": {"distribution": "gaussian", "scale": "global"},
}


def built(build: Build, arms: Sequence[str], **changes: Any) -> Built:
    gains = {arm: [gain + place for gain in GAINS] for place, arm in enumerate(arms)}
    return build(gains=gains, **{"lambdas": dict.fromkeys(arms, 0.15), "baseline": "plain", "name": "table2"} | changes)


def of_type(study: StudyRecord, records: list[TrialRecord]) -> Built:
    for record in records:
        for method in record.settings["arm"]["methods"]:
            method |= {"scale": "matrix"} | TYPES.get(record.arm, {})
    return study, records


def with_norms(records: list[TrialRecord], slower: float = 0.9) -> list[TrialRecord]:
    """Query and key moved by 1 % and 2 % times the seed + 1, the noisy arm by less, and both grew by 0.5 %."""
    changed = []
    for record in records:
        share = 0.01 * (record.seed + 1) * (1.0 if record.arm == "plain" else slower + 0.01 * record.seed)
        norms = {
            kind: {"elements": 100.0, "before": 50.0, "after": 50.25, "moved": 50.0 * share * times}
            for kind, times in (("query", 1), ("key", 2), ("head", 9))
        }
        changed.append(replace(record, norms=norms))
    return changed


def test_the_averages_of_table_2_are_the_means_of_its_rows() -> None:
    for model in ("bert-base-uncased", "xlnet-base-cased", "roberta-base", "electra-base-discriminator"):
        for arm in ("plain", "noisytune(0.15)"):
            found = paper.printed(f"someone/{model}", arm)
            assert found is not None
            assert len(found.scores) == 9
            assert round(sum(score for (score,) in found.scores.values()) / 9, 1) == pytest.approx(
                found.average, abs=0.051
            )
    assert paper.printed("bert-base-multilingual-cased", "plain") is None
    assert paper.printed("bert-base-uncased", "noisytune(0.1)") is None


@pytest.mark.parametrize("setting", ["transfer", "translate-train-all"])
@pytest.mark.parametrize("model", ["xlm-roberta-base", "xlm-roberta-large"])
@pytest.mark.parametrize("arm", ["plain", NOISY])
def test_the_averages_of_table_3_are_those_of_its_four_categories(model: str, arm: str, setting: str) -> None:
    found = paper.printed(f"someone/{model}", arm, setting)
    assert found is not None
    assert list(found.scores) == [f"xtreme/{name}" for name in OFFICIAL]
    by_category: dict[str, list[float]] = {}
    for name, official in OFFICIAL.items():
        by_category.setdefault(official.category, []).append(float(np.mean(found.scores[f"xtreme/{name}"])))
    assert len(by_category) == 4
    of_categories = float(np.mean([np.mean(scores) for scores in by_category.values()]))
    of_tasks = float(np.mean([score for scores in by_category.values() for score in scores]))
    assert of_categories == pytest.approx(found.average, abs=0.0501)
    assert abs(of_tasks - found.average) > 0.2
    assert paper.printed(model, "noisytune(0.1)", setting) is None
    assert paper.printed(model, arm, "another") is None
    assert paper.printed(model, arm) is None


def test_table_3_has_the_papers_layout() -> None:
    study, records = multilingual(codes=("ar", "de", "en", "sw"))
    evidence = gather(study, records)
    table = score_table([evidence])
    assert [name for name, _ in table.columns] == [*paper.XTREME_TASKS, "Avg. of tasks", "Avg. of categories"]
    assert table.columns[0][1] == "accuracy, 3 of 4 languages"
    assert [metric for _, metric in table.columns[-2:]] == ["mean of 9", "mean of 4"]
    plain, noisy, gain, printed, printed_noisy = table.rows
    assert printed.name == "the paper: XLM-R base, transfer"
    assert printed_noisy.name == "the paper: XLM-R base+NoisyTune, transfer"
    assert printed.paper == (
        *("74.8", "84.8", "75.5", "61.6", "77.6", "73.8", "71.9/56.6", "65.2/47.0", "55.5/38.4"),
        *("", "70.0"),
    )
    means = [score.mean for score in plain.scores]
    groups = (means[:2], means[2:4], means[4:6], means[6:9])
    assert means[-2] == pytest.approx(np.mean(means[:9]))
    assert means[-1] == pytest.approx(np.mean([np.mean(group) for group in groups]))
    for before, after, row in zip(plain.scores, noisy.scores, gain.gains, strict=True):
        assert row is not None
        assert row.difference == pytest.approx(after.mean - before.mean)
    f1, exact = plain.scores[6].parts
    assert (f1 + exact) / 2 == pytest.approx(means[6])
    assert f1 - exact == pytest.approx(16)
    assert all(score.parts == () for score in plain.scores[:6])
    for said in (render_html(study, records), render_markdown(study, records)):
        assert "71.9/56.6" in said
        assert "as the paper averages" in said
        assert "its Table 3: all languages" in said


def test_the_terminal_shows_the_scores_beside_the_papers(build: Build) -> None:
    study, records = multilingual(codes=("ar", "de", "en", "sw"))
    headings, *lines = findings(study, records).beside_paper
    assert headings[1:3] == ("FacebookAI/xlm-roberta-base", f"+ {NOISY}")
    assert headings[3:] == ("the paper: XLM-R base, transfer", "the paper: XLM-R base+NoisyTune, transfer")
    cells = {line[0]: line[1:] for line in lines}
    assert list(cells) == [*paper.XTREME_TASKS, "Avg. of tasks", "Avg. of categories"]
    assert cells["xquad"][2:] == ("71.9/56.6", "72.3/57.1")
    assert re.fullmatch(r"\d\d\.\d\d \(\d\d\.\d\d/\d\d\.\d\d\)", cells["xquad"][0])
    assert cells["Avg. of categories"][2:] == ("70.0", "70.5")
    out = io.StringIO()
    print_summary(Console(file=out, width=100), study, records, Path("report.html"))
    assert "71.9/56.6" in out.getvalue()
    assert findings(*build()).beside_paper == []


def test_a_study_without_one_of_the_tasks_has_averages_of_its_own_and_none_of_the_papers() -> None:
    study, records = multilingual(tasks=("xnli", "xquad"), codes=("de", "en", "sw"))
    table = score_table([gather(study, records)])
    assert [metric for _, metric in table.columns[-2:]] == ["mean of 2", "mean of 2"]
    assert [row.paper for row in table.rows[3:]] == [("74.8", "71.9/56.6", "", ""), ("75.2", "72.3/57.1", "", "")]
    study, records = multilingual(tasks=("xnli", "pawsx"), codes=("de", "en", "sw"), setting="translate-train-all")
    table = score_table([gather(study, records)])
    assert [name for name, _ in table.columns] == ["xnli", "pawsx", "Avg."]
    assert table.rows[3].paper == ("78.5", "88.2", "")


def test_table_2_has_the_papers_layout(build: Build) -> None:
    models = ["google-bert/bert-base-uncased", "FacebookAI/roberta-base"]
    each = [gather(*built(build, ["noisytune(0.15)"], tasks=GLUE, model=model)) for model in models]
    table = score_table(each)
    assert [name for name, _ in table.columns] == [*paper.TASKS, "Avg.", "Avg. without WNLI"]
    assert [row.name for row in table.rows] == [
        "google-bert/bert-base-uncased",
        "+ noisytune(0.15)",
        "difference",
        "the paper: BERT",
        "the paper: BERT+NoisyTune",
        "FacebookAI/roberta-base",
        "+ noisytune(0.15)",
        "difference",
        "the paper: RoBERTa",
        "the paper: RoBERTa+NoisyTune",
    ]
    plain, noisy, gain, printed, _ = table.rows[:5]
    assert printed.paper == ("84.4", "91.5", "90.9", "67.7", "93.0", "87.1", "58.1", "89.4", "54.4", "79.6", "")
    by_hand = {
        task: np.mean(
            [100 * r.scores["accuracy"] for r in each[0].trials.values() if (r.task, r.arm) == (task, "plain")]
        )
        for task in GLUE
    }
    assert [score.mean for score in plain.scores[:9]] == pytest.approx(list(by_hand.values()))
    assert plain.scores[9].mean == pytest.approx(np.mean(list(by_hand.values())))
    assert plain.scores[10].mean == pytest.approx(np.mean(list(by_hand.values())[:8]))
    for before, after, row in zip(plain.scores, noisy.scores, gain.gains, strict=True):
        assert row is not None
        assert row.difference == pytest.approx(after.mean - before.mean)
        assert after.best is (after.mean > before.mean)
        assert not (before.best and after.best)


def test_an_average_needs_every_task_and_a_tie_is_not_bold(build: Build) -> None:
    study, records = built(build, ["noisytune(0.15)"], tasks=GLUE[:3], lambdas={})
    records = [record for record in records if (record.task, record.arm) != (GLUE[0], "plain")]
    table = score_table([gather(study, records)])
    assert math.isnan(table.rows[0].scores[-1].mean)
    assert math.isfinite(table.rows[1].scores[-1].mean)
    same = build(gains={"noisytune(0.15)": [0.0, 0.0]}, tasks=GLUE[:1], baseline="plain")
    assert not any(score.best for row in score_table([gather(*same)]).rows for score in row.scores)


def test_failed_runs_are_flagged_in_the_table(build: Build) -> None:
    study, records = built(build, ["noisytune(0.15)"], tasks=GLUE[:2], status={("noisytune(0.15)", 1): "collapsed"})
    table = score_table([gather(study, records)])
    assert [score.failed for score in table.rows[1].scores[:2]] == [1, 1]
    assert "†1" in render_html(study, records)
    assert "†1" in render_markdown(study, records)


def test_noise_types_have_the_papers_names_and_order(build: Build) -> None:
    evidence = gather(*of_type(*built(build, list(TYPES))))
    found = noise_types(evidence, primary_rows(evidence))
    assert [name for name, _ in found] == [
        "global Gaussian",
        "global uniform",
        "matrix-wise Gaussian",
        "matrix-wise uniform",
    ]
    assert [row.arm for _, row in found] == list(reversed(TYPES))
    lone = gather(*of_type(*built(build, ["noisytune(0.15)"])))
    assert noise_types(lone, primary_rows(lone)) == []


def test_strengths_of_two_kinds_of_noise_are_two_curves(build: Build) -> None:
    """Two arms of one strength: neither can be sorted before the other, and no line joins the kinds."""
    strengths = {"a": 0.1, "b": 0.15, "c": 0.1, "d": 0.15}
    study, records = build(gains={arm: [0.5, 0.7, 0.1] for arm in strengths}, lambdas=strengths)
    changed = []
    for record in records:
        methods = [
            one | {"distribution": "gaussian" if record.arm in "cd" else "uniform"}
            for one in record.settings["arm"]["methods"]
        ]
        changed.append(replace(record, settings=record.settings | {"arm": {"name": record.arm, "methods": methods}}))
    page = render_html(study, changed)
    (description,) = re.findall(r"distribution uniform, λ = 0.1: [^<]*", page)
    assert description.count("λ = ") == 4
    assert description.index("distribution gaussian") > description.index("distribution uniform, λ = 0.15")
    assert "distribution" not in "".join(re.findall(r"λ = 0.1: [^<]*", render_html(*build())))


def test_movement_is_paired_and_leaves_the_head_out(build: Build) -> None:
    study, records = built(build, ["noisytune(0.15)"])
    found = movements(gather(study, with_norms(records)))
    assert [(m.role, m.arm, m.n) for m in found] == [
        ("query", "plain", 5),
        ("query", "noisytune(0.15)", 5),
        ("key", "plain", 5),
        ("key", "noisytune(0.15)", 5),
    ]
    assert [m.moved for m in found[::2]] == pytest.approx([3.0, 6.0])
    assert [m.grown for m in found] == pytest.approx([0.5] * 4)
    against = 100 * np.multiply([-0.10, -0.09, -0.08, -0.07, -0.06], [1, 2, 3, 4, 5]) / 3
    assert found[1].against == pytest.approx(np.mean(against))
    interval = stats.ttest_1samp(against, 0.0).confidence_interval()
    assert (found[1].interval.low, found[1].interval.high) == pytest.approx(tuple(interval))
    assert movements(gather(study, records)) == []
    page = render_html(study, with_norms(records))
    assert "Relative change of each role of parameter" in page
    assert "Relative change of each role" not in render_html(study, records)


def test_pooled_combinations_are_means_over_tasks(build: Build) -> None:
    arms = {"recadam": [{"method": "recadam"}], "noisytune+recadam": [{"method": "noisytune"}, {"method": "recadam"}]}
    study, records = built(build, list(arms), tasks=GLUE[:3], missing=[("recadam", 2)])
    for record in records:
        record.settings["arm"]["methods"] = arms.get(record.arm, [])
    evidence = gather(study, records)
    (pooled,), each = pooled_combinations(evidence), combinations(evidence)
    assert pooled.seeds == (0, 1, 3, 4)
    assert pooled.task["name"] == "all 3 tasks"
    assert pooled.before == pytest.approx(np.mean([c.before for c in each], axis=0))
    assert pooled.after == pytest.approx(np.mean([c.after for c in each], axis=0))


def shares(build: Build) -> Built:
    names = ["glue/mrpc 10 %", "glue/mrpc 50 %", "glue/mrpc"]
    study, records = built(build, ["noisytune(0.15)"], tasks=names, name="figure4")
    for task, size in zip(study.tasks, (366, 1834, 3668), strict=True):
        task |= {"part_of": "glue/mrpc", "train_size": size}
    return study, records


def test_shares_make_a_curve_and_no_average(build: Build) -> None:
    study, records = shares(build)
    page = render_html(study, records)
    assert "How much training data" in page
    assert "at 366, " in page
    table = score_table([gather(study, records)])
    assert [f"glue/{name}" for name, _ in table.columns] == [task["name"] for task in study.tasks]


def test_several_models_have_one_page_that_leads_to_each(build: Build) -> None:
    models = {"table2-bert": "google-bert/bert-base-uncased", "table2-x y": "<b>&other"}
    built_each = [(*built(build, ["noisytune(0.15)"], tasks=GLUE[:2], model=m), page) for page, m in models.items()]
    page = render_overview(built_each)
    assert page == render_overview(built_each)
    assert 'href="table2-bert.html"' in page
    assert 'href="table2-x%20y.html"' in page
    assert "<b>&other" not in page
    assert "the paper: BERT+NoisyTune" in page
    text = render_overview_markdown(built_each)
    assert "the paper: BERT+NoisyTune" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines[:9]} == {5}
