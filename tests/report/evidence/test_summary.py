"""From records to pairs, rows and words."""

import doctest
import math
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from noisytune import report
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence import pairs
from noisytune.report.evidence.forgetting import forgetting
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.pilot import pilot
from noisytune.report.evidence.summary import decided, pooled_rows, primary_rows, summary_rows
from noisytune.report.page import facts, wording
from noisytune.report.page.notes import next_step, notes, page_notes
from noisytune.report.page.wording import verdict_sentence
from noisytune.report.statistics import paired, power, shape
from noisytune.report.statistics.paired import Verdict
from noisytune.report.statistics.sign_flip import sign_flips
from tests.support.records import synthetic

Built = tuple[StudyRecord, list[TrialRecord]]
Build = Callable[..., Built]
GAINS = [1.2, -0.7, 0.9, 0.0, 1.4]


@pytest.mark.parametrize("module", [wording, facts, shape, pairs])
def test_examples_in_the_docstrings(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]


def _notes(built: Built) -> str:
    study, records = built
    evidence = gather(study, records)
    return " ".join(page_notes(evidence, primary_rows(evidence)))


def _next(built: Built) -> str:
    study, records = built
    evidence = gather(study, records)
    return next_step(evidence, primary_rows(evidence))


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
    assert "3 pairs cannot settle a difference of any size, 7 can" in verdict_sentence(*built)


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
        ([1.4, 1.6, 1.5, 1.3, 1.7, 1.5, 1.5], 1.0, Verdict.HELPED, "raised accuracy on topics by 1.50 points"),
        ([-1.4, -1.6, -1.5, -1.3, -1.7, -1.5, -1.5], 1.0, Verdict.HURT, "lowered accuracy on topics by 1.50 points"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, 0.0], 1.0, Verdict.EQUIVALENT, "within the margin of ±1 point"),
        ([0.1, -0.1, 0.2, -0.2, 0.1, 0.0, 0.1], 0.1, Verdict.INCONCLUSIVE, "could have detected a difference of"),
        ([1.5] * 40 + [-90.0], 1.0, Verdict.MIXED, "in 40 of 41 pairs and worse in 1, yet the mean difference is"),
    ],
)
def test_verdicts_in_words(build: Build, gains: list[float], margin: float, verdict: Verdict, words: str) -> None:
    study, records = build({"λ = 0.15": gains}, margin=margin)
    (row,) = summary_rows(study, records)
    assert row.verdict is verdict
    assert words in verdict_sentence(study, records)
    assert "NoisyTune (λ = 0.15)" in verdict_sentence(study, records)
    assert decided(study, records) == (verdict is not Verdict.INCONCLUSIVE)


@pytest.mark.parametrize("gain", [0.5, 0.0, -3.0])
def test_all_differences_equal(build: Build, gain: float) -> None:
    built = build({"λ = 0.15": [gain] * 6})
    (row,) = summary_rows(*built)
    assert (row.sd, row.low, row.high) == (0.0, -math.inf, math.inf)
    assert row.verdict is Verdict.INCONCLUSIVE
    assert not decided(*built)
    assert "they show no spread" in _notes(built)
    assert "6 pairs cannot settle a difference of any size, 7 can" in verdict_sentence(*built)
    assert "narrow the interval" not in _next(built)


def test_more_equal_differences_settle_it_unless_they_tie(build: Build) -> None:
    built = build({"λ = 0.15": [0.5] * 9})
    assert summary_rows(*built)[0].verdict is Verdict.HELPED
    assert decided(*built)
    built = build({"λ = 0.15": [0.0] * 40})
    assert summary_rows(*built)[0].e == 1.0
    assert "40 pairs that all tie show no difference of any size" in verdict_sentence(*built)


def test_where_the_interval_alone_would_say_something_else_a_note_says_so(build: Build) -> None:
    close = [1.4, 1.6, 1.5, 1.3, 1.7, 1.5]
    (row,) = summary_rows(*build({"λ = 0.15": close}))
    assert (row.verdict, row.by_interval) == (Verdict.INCONCLUSIVE, Verdict.HELPED)
    said = _notes(build({"λ = 0.15": close}))
    assert "λ = 0.15 on topics (e = 13.3 of 20): inconclusive, where the interval alone" in said
    assert "would say helped" in said
    assert "interval alone" not in _notes(build({"λ = 0.15": [*close, 1.5]}))


@pytest.mark.parametrize("state", ["collapsed", "diverged"])
@pytest.mark.parametrize("failed", ["λ = 0.15", "baseline", "both"])
def test_runs_that_all_failed_decide_nothing(build: Build, state: str, failed: str) -> None:
    arms = ["λ = 0.15", "baseline"] if failed == "both" else [failed]
    gains = [0.1, -0.1, 0.2, -0.2, 0.1, 0.0]
    built = build({"λ = 0.15": gains}, status={(arm, s): state for arm in arms for s in range(6)})
    (row,) = summary_rows(*built)
    assert row.verdict is Verdict.INCONCLUSIVE
    assert not decided(*built)
    assert verdict_sentence(*built).endswith("no pair in which both runs ended well.")


def test_one_failed_task_keeps_the_mean_over_tasks_inconclusive(build: Build) -> None:
    study, records = build({"λ = 0.15": [2.1, 1.9, 2.0, 2.2, 1.8, 2.3, 2.0, 2.1, 1.9]}, tasks=("a", "b"))
    assert summary_rows(study, records)[-1].verdict is Verdict.HELPED
    failed = [replace(r, status="collapsed") if r.task == "b" else r for r in records]
    assert [row.verdict.value for row in summary_rows(study, failed)] == ["helped", "inconclusive", "inconclusive"]
    assert "ended well on every task" in verdict_sentence(study, failed)


def test_noise_that_changes_nothing(build: Build) -> None:
    (row,) = summary_rows(*build({"zero": [0.0] * 6}, {"zero": 0.0}))
    assert (row.difference, row.ties, row.p) == (0.0, 6, 1.0)


def test_collapsed_and_diverged_runs_stay_in_and_are_told(build: Build) -> None:
    built = build(status={("λ = 0.15", 1): "collapsed", ("baseline", 3): "diverged"})
    (row,) = summary_rows(*built)
    assert row.n == 5
    assert row.wins + row.losses == 5
    assert gather(*built).comparisons[0].pairs[3].before == 0.0
    assert "1 run collapsed (1 of λ = 0.15)" in _notes(built)
    assert "1 run diverged (1 of baseline)" in _notes(built)
    assert row.failed == {"collapsed": 1, "diverged": 1}
    assert wording.failures(row) == " (1 collapsed, 1 diverged)"
    (fine,) = summary_rows(*build())
    assert (fine.failed, wording.failures(fine)) == ({}, "")


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({}, "the last epoch's (select last, protocol paper)"),
        ({"select": "last", "protocol": "clean"}, "the last epoch's (select last, protocol clean)"),
        ({"select": "best"}, "best on dev itself, which flatters every arm (select best, protocol paper)"),
        ({"select": "best", "protocol": "clean"}, "a tenth of the training examples"),
    ],
)
def test_which_epoch_is_scored_is_said(build: Build, training: dict[str, str], said: str) -> None:
    study, _ = build()
    assert said in wording.scored_on(replace(study, training=study.training | training))


def test_an_undefined_correlation_counts_as_zero(build: Build) -> None:
    built = build(kind="regression", metric="pearson", status={("λ = 0.15", 2): "collapsed"})
    pair = gather(*built).comparisons[0].pairs[2]
    assert pair.after == 0.0
    assert pair.before > 10
    assert "1 run had no defined score" in _notes(built)


def test_an_undefined_score_counts_as_the_worst_one_of_the_study(build: Build) -> None:
    study, records = build(
        {"λ = 0.15": GAINS}, kind="regression", metric="r2", status={("λ = 0.15", 2): "diverged"}, margin=1.0
    )
    bad = next(r for r in records if (r.arm, r.seed) == ("baseline", 4))
    records = [replace(r, scores={"r2": -3.0}) if r is bad else r for r in records]
    pair = gather(study, records).comparisons[0].pairs[2]
    assert pair.after == -300.0
    assert "counted as the worst score of the study, \u2212300.00 (r2)" in _notes((study, records))
    assert "\u2212300.00 (undefined)" in report.render_html(study, records)


def test_failures_on_one_side_make_the_interval_doubtful_and_the_page_says_so(build: Build) -> None:
    gains = [1.4, 1.6, 1.5, 1.3, 1.7, 1.55]
    assert "may be off" not in _notes(build({"λ = 0.15": gains}))
    mixed = build({"λ = 0.15": gains}, status={("λ = 0.15", 1): "collapsed"})
    assert (
        "λ = 0.15 on topics: one run of a pair collapsed, diverged or stayed untrained and the other did not"
        in _notes(mixed)
    )
    assert "helped, hurt and mixed do not rest on it" in report.render_markdown(*mixed)
    far = build({"λ = 0.15": [*gains, 1.2, -20.0]})
    assert "λ = 0.15 on topics: a difference lies far from all others" in _notes(far)
    study, records = build({"λ = 0.15": gains}, tasks=("a", "b"), status={("λ = 0.15", 1): "collapsed"})
    assert "λ = 0.15 over all 2 tasks: one run of a pair" in _notes((study, records))


def test_public_notes_are_the_cautions_without_progress_and_advice(build: Build) -> None:
    assert report.notes(*build()) == notes(*build()) == []
    study, records = build(status={("λ = 0.15", 1): "collapsed"}, missing=[("λ = 0.15", 4)])
    found = report.notes(study, iter(records))
    assert found[0] == "1 run collapsed (1 of λ = 0.15); none is left out."
    assert "may be off" in found[1]
    assert not any("not complete" in line or "--seeds" in line for line in found)


def test_an_arm_that_has_not_begun_costs_the_others_nothing(build: Build) -> None:
    gains = {"λ = 0.1": [1.4, 1.6, 1.5, 1.3, 1.7], "λ = 15": [0.0] * 5}
    lambdas = {"λ = 0.1": 0.1, "λ = 15": 15.0}
    alone, idle = build({"λ = 0.1": gains["λ = 0.1"]}, {"λ = 0.1": 0.1}), [("λ = 15", s) for s in range(5)]
    both = build(gains, lambdas, missing=idle)
    (one,), (same, other) = summary_rows(*alone), summary_rows(*both)
    assert (same.low, same.high, same.p_holm) == (one.low, one.high, one.p_holm)
    assert other.n == 0
    assert verdict_sentence(*both).startswith(verdict_sentence(*alone))
    assert "settings" not in _notes(both)
    begun = summary_rows(*build(gains, lambdas, missing=idle[1:]))[0]
    assert begun.p_holm == 2 * one.p_holm
    assert not math.isfinite(begun.low)


def test_deciding_on_the_arms_asked_for(build: Build) -> None:
    gains = {"good": [1.4, 1.6, 1.5, 1.3, 1.7, 1.55, 1.5, 1.6], "open": [9.0, -9.0, 4.0, -3.0, 1.0, 0.0, 5.0, -2.0]}
    lambdas = {"good": 0.1, "open": 0.2}
    study, records = build(gains, lambdas)
    assert not decided(study, records)
    assert decided(study, records, ["baseline", "good"])
    assert not decided(study, records, ["good", "open"])
    assert not decided(study, records, ["good", "unheard of"])
    assert not decided(study, records, ["baseline"])
    begun = [r for r in records if r.arm != "open"]
    assert decided(study, begun)
    assert not decided(study, begun, ["good", "open"])


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
    assert f"{power.selection_bias(3):.2f} standard errors" in _notes(built)
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


@pytest.mark.parametrize(
    ("gains", "margin", "said"),
    [
        ([1.2, -0.7, 0.9, 0.2, 1.4], 1.0, "Run the same study with more seeds: finished trials are kept."),
        ([1.5, 1.4, 1.6, 1.5, 1.3, 1.7, 1.5], 1.0, "Use it here."),
        ([-1.5, -1.4, -1.6, -1.5, -1.3, -1.7, -1.5], 1.0, "Leave it out here, or compare a weaker setting."),
        ([0.1, -0.1, 0.2, -0.2, 0.05, -0.05, 0.15, -0.15] * 3, 3.0, "what it changes does not matter."),
        ([1.5] * 40 + [-60.0], 1.0, "Look at the pairs that went the other way"),
    ],
)
def test_each_verdict_has_its_next_step(build: Build, gains: list[float], margin: float, said: str) -> None:
    built = build({"λ = 0.15": gains}, margin=margin)
    assert said in _next(built)
    page = " ".join(report.render_html(*built).split())
    assert f"<strong>Next:</strong> {_next(built)}" in page
    assert f"Next: {_next(built).split('.')[0]}" in report.render_markdown(*built)
    assert _next(build({"λ = 0.15": gains}, margin=margin, missing=[("baseline", 0)])).startswith(
        "Run the same command:"
    )


def test_judged_scores_are_not_run(build: Build) -> None:
    study, records = build()
    assert _next((replace(study, training={"paired_by": "seed"}), records)).startswith(
        "Judge the scores of more seeds."
    )


@pytest.mark.parametrize(
    ("n", "said"),
    [
        (5, "cannot reach p < .05"),
        (6, "p is 0.031"),
        (20, "is exact, and the smallest possible p is 1.9e-06"),
        (25, "by random flips, and the smallest possible p is 1e-05"),
        (0, ""),
    ],
)
def test_smallest_p(n: int, said: str) -> None:
    assert said in wording.smallest_p(n)


def test_smallest_p_goes_by_the_flips() -> None:
    (least,) = sign_flips([[1 + i / 24 for i in range(25)]], flips=999)
    assert least.p == 0.001
    assert "the smallest possible p is 0.001." in wording.smallest_p(25, 999)


def test_where_one_task_has_pairs_and_another_has_none_the_page_says_so() -> None:
    study, records = synthetic(tasks=2, seeds=3, examples=20, steps=3)
    assert "no seed has both its baseline and its arm on every task." in verdict_sentence(
        study, [record for record in records if record.task == "task-0"]
    )
    assert "no seed has both its baseline and its arm." in verdict_sentence(
        study, [record for record in records if record.arm == "plain"]
    )


def test_importing_the_report_and_deciding_load_neither_matplotlib_nor_torch() -> None:
    code = (
        "import sys, noisytune.report; assert 'scipy' not in sys.modules; noisytune.report.decided; "
        "assert not {'torch', 'matplotlib', 'jinja2', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_record_counts_where_it_says_itself_that_it_belongs(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]],
) -> None:
    """A plan that was edited to call the plain runs noisy gives no pairs, and no error."""
    study, records = build()
    plain = {row["seed"]: row["key"] for row in study.trials if row["arm"] == study.arms[0]}
    edited = [row | {"key": plain[row["seed"]]} for row in study.trials]
    (row,) = summary_rows(replace(study, trials=edited), records)
    assert row.n == 0


def test_the_pooled_row_is_one_comparison() -> None:
    evidence = gather(*synthetic(tasks=3, arms=2, seeds=9))
    (row,) = pooled_rows(evidence)
    pairs = [pair for comparison in evidence.comparisons for pair in comparison.pairs]
    by_seed = [np.mean([pair.difference for pair in pairs if pair.seed == seed]) for seed in evidence.study.seeds]
    wanted = paired.summarise(by_seed)
    assert row.e_needed == 20.0
    assert math.isfinite(row.low)
    assert (row.low, row.high) == pytest.approx((wanted.anytime.low, wanted.anytime.high))


def test_pairs_are_planned_where_both_arms_are() -> None:
    study, records = synthetic(seeds=5)
    left = next(one for one in study.trials if one["arm"] != "plain" and one["seed"] == 4)
    (row,) = summary_rows(replace(study, trials=[one for one in study.trials if one is not left]), records)
    assert (row.n, row.planned) == (4, 4)


def test_a_pilot_s_spread_is_exceeded_by_one_in_ten() -> None:
    found = pilot(*synthetic(seeds=9))
    free = found.pairs - 1
    assert found.sd_high > found.sd
    assert stats.chi2.cdf(free * found.sd**2 / found.sd_high**2, free) == pytest.approx(0.1)


def test_what_is_forgotten_of_two_texts_is_told_apart() -> None:
    study, records = synthetic(seeds=3)
    texts = {
        name: {"status": "ok", "scores": {"nll": nats + 1}, "before": {"nll": nats}}
        for name, nats in (("wiki", 2.0), ("code", 5.0))
    }
    records = [replace(r, evaluations={"dev": {"status": "ok", "scores": r.scores}} | texts) for r in records]
    found = {one.split: (one.before, one.after["plain"]) for one in forgetting(gather(study, records))}
    assert found == {"wiki": (200.0, 300.0), "code": (500.0, 600.0)}
