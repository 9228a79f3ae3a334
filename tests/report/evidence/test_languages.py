"""Languages of a task: means, tests and transfer gaps against numbers worked out another way."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from support.records import NOISY, Built, multilingual

from noisytune.records import TrialRecord
from noisytune.report.evidence.languages import languages
from noisytune.report.evidence.pairs import gather
from noisytune.report.statistics.sign_flip import sign_flip

ARMS = ("plain", NOISY, "noisytune(0.1)")


@pytest.fixture(scope="module")
def built() -> Built:
    return multilingual(tasks=("xnli", "tatoeba", "mlqa"), arms=ARMS, seeds=6, codes=("ar", "de", "en", "sw", "zh"))


def scores(records: list[TrialRecord], task: str, arm: str, code: str, metric: str) -> np.ndarray:
    mine = sorted((r for r in records if (r.task, r.arm) == (task, arm)), key=lambda record: record.seed)
    return np.array([100 * record.evaluations[code]["scores"][metric] for record in mine])


def test_every_language_has_its_mean_and_its_paired_difference(built: Built) -> None:
    study, records = built
    found = languages(gather(study, records))
    assert [one.task["name"] for one in found] == ["xtreme/xnli", "xtreme/tatoeba", "xtreme/mlqa"]
    for one in found:
        metric, task = one.task["metric"], one.task["name"]
        assert one.arms == ARMS[1:]
        assert [row.code for row in one.rows] == one.task["facts"]["languages"]
        for row in one.rows:
            before = scores(records, task, "plain", row.code, metric)
            assert row.baseline == pytest.approx(before.mean())
            for arm, cell in zip(ARMS[1:], row.cells, strict=True):
                gains = scores(records, task, arm, row.code, metric) - before
                assert cell.arm == arm
                assert cell.difference == pytest.approx(gains.mean())
                assert cell.p == sign_flip(gains).p
    assert found[0].rows[0].parts == ()
    first = found[2].rows[0]
    assert first.parts == pytest.approx((first.baseline + 8, first.baseline - 8))
    assert first.cells[0].parts == pytest.approx([first.cells[0].difference] * 2)


def test_the_tests_of_a_task_are_one_family(built: Built) -> None:
    for one in languages(gather(*built)):
        cells = [cell for row in one.rows for cell in row.cells]
        ordered = sorted(cells, key=lambda cell: cell.p)
        expected, floor = [], 0.0
        for rank, cell in enumerate(ordered):
            floor = max(floor, min(1.0, (len(cells) - rank) * cell.p))
            expected.append(floor)
        assert [cell.p_holm for cell in ordered] == pytest.approx(expected)
        assert len(cells) == 2 * len(one.rows)


def test_the_transfer_gap_is_english_minus_the_others_and_needs_english(built: Built) -> None:
    study, records = built
    xnli, tatoeba, _ = languages(gather(study, records))
    assert tatoeba.gaps == ()
    gaps = {}
    for arm in ARMS:
        others = [scores(records, "xtreme/xnli", arm, code, "accuracy") for code in ("de", "sw", "zh")]
        gaps[arm] = scores(records, "xtreme/xnli", arm, "en", "accuracy") - np.mean(others, axis=0)
    assert [gap.arm for gap in xnli.gaps] == list(ARMS)
    for gap in xnli.gaps:
        assert gap.gap == pytest.approx(gaps[gap.arm].mean())
        if gap.arm == "plain":
            assert np.isnan(gap.change)
            continue
        change = gaps[gap.arm] - gaps["plain"]
        assert gap.change == pytest.approx(change.mean())
        low, high = stats.t.interval(0.95, 5, change.mean(), stats.sem(change))
        assert (gap.interval.low, gap.interval.high) == pytest.approx((low, high))


def test_a_run_without_scores_counts_as_the_worst_and_a_missing_pair_does_not_count(built: Built) -> None:
    study, records = built
    records = [r for r in records if r.task == "xtreme/xnli" and (r.arm, r.seed) != (ARMS[2], 5)]
    place = next(i for i, r in enumerate(records) if (r.arm, r.seed) == (NOISY, 0))
    diverged = {code: {"status": "diverged", "scores": {}} for code in records[place].evaluations}
    records[place] = replace(records[place], status="diverged", scores={}, evaluations=diverged)
    (one,) = languages(gather(study, records))
    before = scores(records, "xtreme/xnli", "plain", "sw", "accuracy")
    usual = np.array([100 * r.evaluations["sw"]["scores"].get("accuracy", 0) for r in records if r.arm == NOISY])
    row = next(row for row in one.rows if row.code == "sw")
    assert row.cells[0].difference == pytest.approx((usual - before).mean())
    assert row.cells[1].difference == pytest.approx(
        (scores(records, "xtreme/xnli", ARMS[2], "sw", "accuracy") - before[:5]).mean()
    )
    assert one.pairs == 5


def test_tasks_in_one_language_have_no_table(built: Built) -> None:
    study, records = built
    for facts in ({"languages": ["en"]}, {}):
        bare = replace(study, tasks=[task | {"facts": facts} for task in study.tasks])
        assert languages(gather(bare, records)) == []
    assert languages(gather(study, [record for record in records if record.arm == "plain"])) == []


def test_a_language_without_a_score_counts_as_the_worst_of_the_study() -> None:
    study, records = multilingual(tasks=("xnli",), seeds=5, codes=("ar", "de", "en", "sw"))
    study = replace(study, tasks=[task | {"metric": "matthews", "metric_label": "Matthews"} for task in study.tasks])
    changed = []
    for record in records:
        value = -0.4 if (record.arm, record.seed) == ("plain", 1) else 0.5
        scores = {} if record.arm != "plain" and record.seed == 0 else {"matthews": value}
        found = {code: {"status": "ok", "scores": scores} for code in record.evaluations}
        changed.append(replace(record, evaluations=found, scores=scores))
    (one,) = languages(gather(study, changed))
    for row in one.rows:  # seed 0 lost 90 points, and seed 1 gained as many
        assert row.cells[0].difference == pytest.approx(0.0)
