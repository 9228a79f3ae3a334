"""Scores of which less is better, and what training costs on other text."""

from dataclasses import replace

import numpy as np
import pytest

from noisytune._metrics import METRICS
from noisytune.records import StudyRecord, TrialRecord, digest
from noisytune.report.evidence import items
from noisytune.report.evidence.combinations import combinations, pooled_combinations
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.search import search_rows
from noisytune.report.evidence.summary import decided, primary_rows, summary_rows
from noisytune.report.page.gated import gate
from noisytune.report.page.notes import page_notes
from noisytune.report.page.paper_figures import interval_of_score
from noisytune.report.page.scores import score_table
from noisytune.report.page.wording import verdict_sentence
from noisytune.report.statistics.paired import Verdict
from tests.support.records import synthetic


def as_losses(study: StudyRecord, records: list[TrialRecord]) -> tuple[StudyRecord, list[TrialRecord]]:
    """The same study told by its errors."""
    tasks = [task | {"kind": "language", "metric": "nll", "metric_label": "nats"} for task in study.tasks]
    return replace(study, tasks=tasks), [replace(one, scores={"nll": 1 - one.scores["accuracy"]}) for one in records]


def notes_of(study: StudyRecord, records: list[TrialRecord]) -> str:
    evidence = gather(study, records)
    return " ".join(page_notes(evidence, primary_rows(evidence)))


def test_where_less_is_better_a_gain_is_a_fall() -> None:
    """The same study told by its errors: the same differences, verdicts and tests, and words that say which way."""
    study, records = synthetic(seeds=12)
    lower, fallen = as_losses(study, records)
    (up,), (down,) = summary_rows(study, records), summary_rows(lower, fallen)
    for name in ("difference", "low", "high", "p", "wins", "losses", "verdict", "detectable"):
        assert getattr(up, name) == pytest.approx(getattr(down, name)), name
    assert down.baseline_mean == pytest.approx(100 - up.baseline_mean)
    assert "Of nats less is better" in notes_of(lower, fallen)
    better = [replace(one, scores={"nll": 2.0 - (one.arm != "plain") * (1 + 0.001 * one.seed)}) for one in records]
    assert "was better in nats on task-0 by 100.55 points" in verdict_sentence(lower, better)
    lost = [replace(one, scores={}, status="diverged") if one.arm != "plain" else one for one in better]
    evidence = gather(lower, lost)
    assert evidence.score(next(one for one in lost if not one.scores)) == 200.0, "the worst of the study"


def test_a_loss_that_nobody_knows_makes_nothing_equivalent_and_nothing_not_worse() -> None:
    """The worst loss of the study stands for it: four diverged runs of twenty would be a tenth of a point."""
    study, records = synthetic(seeds=20, examples=20, steps=3)
    lower, _ = as_losses(replace(study, margin=1.0), [])
    wave = np.random.default_rng(0).normal(2.0, 0.002, len(records)).tolist()
    alike = [replace(one, scores={"nll": loss}, status="ok") for one, loss in zip(records, wave, strict=True)]
    (row,) = summary_rows(lower, alike)
    assert (row.verdict, decided(lower, alike)) == (Verdict.EQUIVALENT, True)
    lost = [
        replace(r, scores={}, status="diverged") if r.arm != "plain" and r.seed in (3, 8, 12, 17) else r for r in alike
    ]
    (row,) = summary_rows(lower, lost)
    assert (row.verdict, row.low, row.high, decided(lower, lost)) == (Verdict.INCONCLUSIVE, -np.inf, np.inf, False)
    assert [one.answer for one in gate(lower, lost, "not-worse")] == ["undecided"]
    assert "A loss that nobody knows may be of any size" in notes_of(lower, lost)
    accuracy = [replace(one, scores={"accuracy": one.scores.get("nll", 2.0) / 4}) for one in lost]
    assert np.isfinite(summary_rows(study, accuracy)[0].low)


def test_an_interval_about_a_mean_loss_holds_the_mean() -> None:
    study, records = synthetic(seeds=8, examples=20, steps=3)
    lower, _ = as_losses(study, [])
    losses = [replace(r, scores={"nll": 2.1 - 0.02 * (r.arm != "plain") - 0.001 * r.seed % 3}) for r in records]
    (row,) = summary_rows(lower, losses)
    low, high = interval_of_score(row)
    assert low <= row.arm_mean <= high
    assert high - low == pytest.approx(row.fixed_high - row.fixed_low)


def test_what_training_costs_elsewhere_is_told() -> None:
    study, records = synthetic(seeds=3)
    assert "not trained on" not in notes_of(study, records)
    watched = [
        replace(
            one, evaluations={"dev": {"status": "ok", "scores": one.scores}} | elsewhere(2.5 + (one.arm != "plain"))
        )
        for one in records
    ]
    assert (
        "A text that was not trained on (task-0, elsewhere): 200.00 points of nats per token before training, "
        "250.00 (plain), 350.00 (noisytune(0.05)) after it; more is forgetting." in notes_of(study, watched)
    )


def elsewhere(nll: float) -> dict[str, dict[str, object]]:
    return {"elsewhere": {"status": "ok", "scores": {"nll": nll}, "before": {"nll": 2.0}}}


def test_noise_adds_to_another_method_by_as_much() -> None:
    study, records = synthetic(tasks=2, arms=4, seeds=8)
    noise, recadam = {"method": "noisytune", "noise_lambda": 0.1}, {"method": "recadam"}
    methods = dict(zip(study.arms, ([], [noise], [recadam], [noise, recadam]), strict=True))
    records = [replace(r, settings=r.settings | {"arm": {"name": r.arm, "methods": methods[r.arm]}}) for r in records]
    up, down = gather(study, records), gather(*as_losses(study, records))
    for found in (combinations, pooled_combinations):
        for one, other in zip(found(up), found(down), strict=True):
            assert other.summary.mean == pytest.approx(one.summary.mean)
            assert (other.summary.wins, other.summary.losses) == (one.summary.wins, one.summary.losses)


def test_a_search_goes_down() -> None:
    study, records = as_losses(*synthetic(seeds=3))
    trials = [
        {"number": i, "seed": i, "key": digest([i]), "settings": {}, "value": value}
        for i, value in enumerate((2.0, None, 1.5, 1.8))
    ]
    search = {"protocol": "clean", "sampler": "random", "budget": 4, "space": {}, "trained_on": 1, "chosen_on": 1}
    arms = [{"asked": "plain", "arm": "plain", "winner": 2, "trials": trials}]
    (row,) = search_rows(gather(replace(study, search=search | {"arms": arms}), records))
    assert [trial.best for trial in row.trials] == [200.0, 200.0, 150.0, 150.0]


def test_a_bootstrap_of_losses_that_fell_lies_above_zero() -> None:
    before = np.random.default_rng(0).uniform(1, 2, (3, 50, 1))
    found = items.hierarchical_bootstrap(before, before - 0.5, METRICS["scores"]["loss"], seed=0, resamples=50)
    assert found.mean == pytest.approx(50.0)
    assert found.interval.low > 0


def test_the_lowest_mean_is_marked_and_of_both_directions_none() -> None:
    study, records = as_losses(*synthetic(tasks=2, arms=2, seeds=3))
    records = [replace(one, scores={"nll": 2.0 - 0.5 * (one.arm != "plain")}) for one in records]
    plain, noisy, *_ = score_table([gather(study, records)]).rows
    assert [score.best for score in plain.scores] == [False] * 3
    assert [score.best for score in noisy.scores] == [True] * 3
    first, second = study.tasks
    mixed = [first | {"kind": "classification", "metric": "accuracy"}, second]
    told = [replace(one, scores={"accuracy": 0.5, **one.scores}) for one in records]
    _, noisy, *_ = score_table([gather(replace(study, tasks=mixed), told)]).rows
    assert [score.best for score in noisy.scores] == [False, True, False]
