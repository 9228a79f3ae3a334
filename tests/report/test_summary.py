"""From records to pairs, rows and words."""

import doctest
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from noisytune.records import StudyRecord, TrialRecord
from noisytune.report import facts, paired, wording
from noisytune.report.evidence import gather
from noisytune.report.paired import Verdict
from noisytune.report.summary import decided, pooled_rows, summary_rows, task_rows
from noisytune.report.wording import notes, verdict_sentence

Built = tuple[StudyRecord, list[TrialRecord]]
Build = Callable[..., Built]
GAINS = [1.2, -0.7, 0.9, 0.0, 1.4]


@pytest.mark.parametrize("module", [wording, facts])
def test_examples_in_the_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def _notes(built: Built) -> str:
    study, records = built
    evidence = gather(study, records)
    return " ".join(notes(evidence, task_rows(evidence)))


def test_row_by_hand(build: Build) -> None:
    (row,) = summary_rows(*build({"λ = 0.15": GAINS}))
    assert (row.task, row.arm, row.n, row.planned, row.pooled) == ("topics", "λ = 0.15", 5, 5, False)
    assert (row.wins, row.ties, row.losses) == (3, 1, 1)
    assert row.difference == pytest.approx(0.56)
    assert row.arm_mean - row.baseline_mean == pytest.approx(0.56)
    expected = paired.summarise(GAINS)
    assert (row.low, row.high) == pytest.approx((expected.anytime.low, expected.anytime.high))
    assert (row.p, row.detectable) == pytest.approx((expected.sign_flip.p, expected.detectable))
    assert row.verdict is Verdict.INCONCLUSIVE


def test_order_of_records_does_not_matter_and_foreign_ones_are_left_out(build: Build) -> None:
    study, records = build()
    strange = replace(records[0], key="feedfacefeedface", scores={"accuracy": 0.0})
    shuffled = random.Random(0).sample([*records, strange], len(records) + 1)
    assert summary_rows(study, shuffled) == summary_rows(study, records)
    assert gather(study, shuffled).done == len(records)


def test_missing_trials_are_counted(build: Build) -> None:
    built = build({"λ = 0.15": GAINS}, missing=[("λ = 0.15", 3), ("baseline", 4), ("λ = 0.15", 4)])
    (row,) = summary_rows(*built)
    assert (row.n, row.planned) == (3, 5)
    assert "7 of 10 trials are done" in _notes(built)
    assert "3 pairs cannot settle a difference of any size, 5 can" in verdict_sentence(*built)


def test_no_pair_yet(build: Build) -> None:
    built = build(missing=[("λ = 0.15", seed) for seed in range(5)])
    (row,) = summary_rows(*built)
    assert row.n == 0
    assert math.isnan(row.difference)
    assert verdict_sentence(*built).startswith("No verdict yet: 5 of 10 trials are done")
    assert not decided(*built)


def test_only_a_baseline(build: Build) -> None:
    study, records = build({}, {})
    assert summary_rows(study, records) == []
    assert verdict_sentence(study, records).startswith("Nothing to compare")


def test_one_seed(build: Build) -> None:
    built = build({"λ = 0.15": [0.4]})
    assert "Inconclusive after 1 pair:" in verdict_sentence(*built)
    assert "unbounded" in verdict_sentence(*built)


@pytest.mark.parametrize(
    ("gains", "margin", "verdict", "words"),
    [
        ([1.4, 1.6, 1.5, 1.3, 1.7, 1.5], 1.0, Verdict.HELPED, "raised accuracy on topics by 1.50 points"),
        ([-1.4, -1.6, -1.5, -1.3, -1.7, -1.5], 1.0, Verdict.HURT, "lowered accuracy on topics by 1.50 points"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, 0.0], 1.0, Verdict.EQUIVALENT, "within the margin of ±1 point"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, 0.0], 0.1, Verdict.INCONCLUSIVE, "could have detected a difference of"),
    ],
)
def test_verdicts_in_words(build: Build, gains: list[float], margin: float, verdict: Verdict, words: str) -> None:
    study, records = build({"λ = 0.15": gains}, margin=margin)
    (row,) = summary_rows(study, records)
    assert row.verdict is verdict
    assert words in verdict_sentence(study, records)
    assert "NoisyTune (λ = 0.15)" in verdict_sentence(study, records)
    assert decided(study, records) == (verdict is not Verdict.INCONCLUSIVE)


def test_all_differences_equal(build: Build) -> None:
    built = build({"λ = 0.15": [0.5] * 6})
    (row,) = summary_rows(*built)
    assert row.sd == 0.0
    assert row.verdict is Verdict.HELPED
    assert "surer than it should be" in _notes(built)


def test_noise_that_changes_nothing(build: Build) -> None:
    (row,) = summary_rows(*build({"zero": [0.0] * 6}, {"zero": 0.0}))
    assert (row.difference, row.ties, row.p) == (0.0, 6, 1.0)
    assert row.verdict is Verdict.EQUIVALENT


def test_collapsed_and_diverged_runs_stay_in_and_are_told(build: Build) -> None:
    built = build(status={("λ = 0.15", 1): "collapsed", ("baseline", 3): "diverged"})
    (row,) = summary_rows(*built)
    assert row.n == 5
    assert row.wins + row.losses == 5
    assert gather(*built).comparisons[0].pairs[3].before == 0.0
    assert "1 run collapsed (1 of λ = 0.15)" in _notes(built)
    assert "1 run diverged (1 of baseline)" in _notes(built)


def test_an_undefined_correlation_counts_as_zero(build: Build) -> None:
    built = build(kind="regression", metric="pearson", status={("λ = 0.15", 2): "collapsed"})
    pair = gather(*built).comparisons[0].pairs[2]
    assert pair.after == 0.0
    assert pair.before > 10
    assert "1 run had no defined score" in _notes(built)


def test_several_arms_share_the_error_rate(build: Build) -> None:
    gains = {"λ = 0.1": [0.1, 0.5, 0.3, -0.2, 0.6, 0.2, 0.4, 0.1], "λ = 0.2": [2.0, 1.5, 1.8, 2.2, 1.9, 1.7, 2.1, 1.6]}
    built = build(gains, {"λ = 0.1": 0.1, "λ = 0.2": 0.2})
    first, second = summary_rows(*built)
    expected = paired.summarise(gains["λ = 0.1"], comparisons=2)
    assert (first.low, first.high) == pytest.approx((expected.anytime.low, expected.anytime.high))
    assert [first.p_holm, second.p_holm] == pytest.approx(paired.holm([first.p, second.p]))
    said = verdict_sentence(*built)
    assert said.startswith("Helped after 8 pairs: NoisyTune (λ = 0.2)")
    assert "simultaneous" in said
    assert said.endswith("The other arm: equivalent.")
    assert f"{paired.selection_bias(3):.2f} standard errors" in _notes(built)
    assert decided(*built)


def test_several_tasks_are_pooled_over_seeds_with_every_task(build: Build) -> None:
    study, records = build({"λ = 0.15": GAINS}, tasks=("a", "b", "c"))
    records = [r for r in records if (r.task, r.arm, r.seed) != ("b", "λ = 0.15", 4)]
    rows = summary_rows(study, records)
    assert [(row.task, row.n, row.pooled) for row in rows] == [
        ("a", 5, False),
        ("b", 4, False),
        ("c", 5, False),
        ("all 3 tasks", 4, True),
    ]
    expected = paired.summarise([gain + 0.3 for gain in GAINS[:4]])
    assert rows[3].difference == pytest.approx(expected.mean)
    assert (rows[3].low, rows[3].high) == pytest.approx((expected.anytime.low, expected.anytime.high))
    assert "over all 3 tasks" in verdict_sentence(study, records)
    assert pooled_rows(gather(*build())) == []


def test_arms_that_share_a_lambda_keep_their_names(build: Build) -> None:
    built = build({"uniform": [1.0, 2.0], "gaussian": [0.0, 1.0]}, {"uniform": 0.15, "gaussian": 0.15})
    assert [row.label for row in summary_rows(*built)] == ["uniform", "gaussian"]


def test_a_baseline_that_learned_nothing_is_told(build: Build) -> None:
    study, records = build()
    study = replace(study, tasks=[{**study.tasks[0], "majority": 0.9}])
    assert "hardly beats the majority class" in _notes((study, records))


def test_advice_is_kept_for_a_finished_inconclusive_study(build: Build) -> None:
    assert "more --seeds" in _notes(build())
    assert "more --seeds" not in _notes(build(missing=[("baseline", 0)]))
    assert "more --seeds" not in _notes(build({"λ = 0.15": [1.5, 1.4, 1.6, 1.5, 1.3, 1.7]}))


@pytest.mark.parametrize(("n", "said"), [(5, "cannot reach p < .05"), (6, "0.031"), (40, "by random flips"), (0, "")])
def test_smallest_p(n: int, said: str) -> None:
    assert said in wording.smallest_p(n)


def test_importing_the_report_and_deciding_load_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys, noisytune.report; assert 'scipy' not in sys.modules; noisytune.report.decided; "
        "assert not {'torch', 'matplotlib', 'jinja2', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
