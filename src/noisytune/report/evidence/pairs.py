"""Which finished trials make pairs? A study and its records in, comparisons out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from typing import Any, TypeVar

import numpy as np

from noisytune._metrics import direction
from noisytune.records import FailureRecord, StudyRecord, TrialRecord
from noisytune.report.statistics.intervals import Floats

TRIALS_UP_TO = 600
"""Trials of a study up to which each is shown; of more, what they are together."""


@dataclass(frozen=True)
class Pair:
    """One seed's two runs, which differ in the arm only."""

    seed: int
    baseline: TrialRecord
    arm: TrialRecord
    before: float
    """Baseline's primary score, points."""
    after: float
    """The arm's, points."""
    direction: int = 1
    """-1 where a lower score is better."""
    is_bounded: bool = True
    """Whether both scores are known, or an unknown one cannot be much worse than what stands for it; a loss can."""

    @property
    def both_ok(self) -> bool:
        """Whether neither run collapsed, diverged or stayed untrained."""
        return self.baseline.status == self.arm.status == "ok"

    @property
    def difference(self) -> float:
        """Arm minus baseline, points, or baseline minus arm where a lower score is better: above 0 the arm is better.

        Rounded so that equal differences of decimal scores are equal numbers.
        """
        return round(self.direction * (self.after - self.before), 9)


@dataclass(frozen=True)
class Comparison:
    """One arm against the baseline on one task."""

    task: dict[str, Any]
    """The task's entry in the study."""
    arm: str
    label: str
    """The arm for a sentence, for example ``NoisyTune (λ = 0.15)``."""
    noise_lambda: float | None
    pairs: tuple[Pair, ...]
    """In the order of the study's seeds."""
    planned: int

    @property
    def is_bounded(self) -> bool:
        """Whether an interval can hold its difference: see `Pair.is_bounded`."""
        return all(pair.is_bounded for pair in self.pairs)

    @cached_property
    def differences(self) -> Floats:
        """Shape (pairs,), points."""
        return np.array([pair.difference for pair in self.pairs], dtype=np.float64)


@dataclass(frozen=True)
class Evidence:
    """A study's plan with what has been done of it."""

    study: StudyRecord
    trials: dict[str, TrialRecord]
    """Finished trials of the plan by key, in the plan's order."""
    comparisons: tuple[Comparison, ...]
    """Task by task, arm by arm."""
    failed: dict[str, FailureRecord] = field(default_factory=dict)
    """Trials of the plan that failed and are not finished, by key, in the plan's order."""
    found: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """What `once` keeps."""

    @property
    def planned(self) -> int:
        """Trials in the plan."""
        return len(self.study.trials)

    @property
    def few(self) -> bool:
        """Whether a page has room for every trial by itself, in its figures and its tables."""
        return self.planned <= TRIALS_UP_TO

    @property
    def done(self) -> int:
        """Trials finished, collapsed, diverged and untrained ones included."""
        return len(self.trials)

    @property
    def complete(self) -> bool:
        """Whether nothing of the plan is missing."""
        return self.done == self.planned

    @cached_property
    def metrics(self) -> dict[str, str]:
        """The primary metric's key by task."""
        return {task["name"]: task["metric"] for task in self.study.tasks}

    @cached_property
    def runs(self) -> dict[tuple[str, str], list[TrialRecord]]:
        """Finished trials by task and arm, every task and arm of the study among them."""
        found: dict[tuple[str, str], list[TrialRecord]] = {
            (task["name"], arm): [] for task in self.study.tasks for arm in self.study.arms
        }
        for record in self.trials.values():
            found[record.task, record.arm].append(record)
        return found

    @cached_property
    def begun(self) -> tuple[str, ...]:
        """The arms that are judged and of which a trial is finished, without the baseline."""
        seen = {record.arm for record in self.trials.values()} - self.beside
        return tuple(arm for arm in self.study.arms[1:] if arm in seen)

    @cached_property
    def beside(self) -> frozenset[str]:
        """Arms that are shown and not judged: each run is one of those from which the baseline's best was chosen.

        Such an arm tells what choosing gains. Compared with the baseline it loses by the choice alone.
        """
        chosen = {(r.task, r.arm, r.seed): r.settings["chosen"] for r in self.trials.values() if "chosen" in r.settings}
        among: set[str] = set()
        others: set[str] = set()
        for (task, arm, seed), own in chosen.items():
            of_baseline = chosen.get((task, self.study.arms[0], seed), {"from": ()})
            (among if own["key"] in of_baseline["from"] else others).add(arm)
        return frozenset(among - others - {self.study.arms[0]})

    @cached_property
    def worst(self) -> dict[str, float]:
        """What an undefined score counts as, by metric: the worst score of the study, or 0 where none is worse.

        A run that gave nothing may not rank above one that gave a bad score, as 0 would where R² is negative.
        """
        found = dict.fromkeys(self.metrics.values(), 0.0)
        lower = {task["metric"] for task in self.study.tasks if direction(task["kind"], task["metric"]) < 0}
        for record in self.trials.values():
            metric = self.metrics[record.task]
            worse = max if metric in lower else min
            found[metric] = worse(found[metric], record.scores.get(metric, 0.0))
        return found

    def score(self, record: TrialRecord) -> float:
        """A trial's primary score in points; an undefined one counts as `worst`."""
        metric = self.metrics[record.task]
        return 100.0 * record.scores.get(metric, self.worst[metric])

    def undefined(self, record: TrialRecord) -> bool:
        """Whether the trial has no primary score, such as a correlation with constant predictions."""
        return self.metrics[record.task] not in record.scores


Found = TypeVar("Found")


def once(function: Callable[[Evidence], Found]) -> Callable[[Evidence], Found]:
    """Keep on the evidence what a function finds in it, so that it is computed once however many ask."""

    @wraps(function)
    def kept(evidence: Evidence) -> Found:
        if function not in evidence.found:
            evidence.found[function] = function(evidence)
        found: Found = evidence.found[function]
        return found

    return kept


def all_of(tasks: Sequence[Mapping[str, Any]]) -> str:
    """What the mean over tasks is called; shares of one task's training data are one task.

    >>> all_of([{"name": "rte"}, {"name": "cola"}])
    'all 2 tasks'
    >>> all_of([{"name": f"{task} {share}", "part_of": task} for task in ("rte", "cola") for share in (0.1, 0.5, 1.0)])
    'all 3 shares of 2 tasks'
    """
    wholes = {task.get("part_of") or task["name"] for task in tasks}
    shares, over = divmod(len(tasks), len(wholes))
    if shares == 1 or over:
        return f"all {len(tasks)} tasks"
    return f"all {shares} shares of {len(wholes)} tasks" if len(wholes) > 1 else f"all {shares} shares"


def _noise_lambda(record: TrialRecord) -> float | None:
    """The strength of an arm that is NoisyTune and nothing else: no soup, no noise of a chosen seed."""
    methods = record.settings["arm"]["methods"]
    plainly = [one["method"] for one in methods] == ["noisytune"] and not {"soup", "noise_seed"} & methods[0].keys()
    return float(methods[0]["noise_lambda"]) if plainly else None


def _labels(arms: Iterable[str], lambdas: dict[str, float | None]) -> dict[str, str]:
    """``NoisyTune (λ = ...)`` where that names one arm only, else the arm's own name."""
    labels = {a: f"NoisyTune (λ = {v:g})" if (v := lambdas.get(a)) is not None else a for a in arms}
    used = list(labels.values())
    return {arm: label if used.count(label) == 1 else arm for arm, label in labels.items()}


def gather(study: StudyRecord, records: Iterable[TrialRecord], failures: Iterable[FailureRecord] = ()) -> Evidence:
    """Match the records with the study's plan; records of other plans are left out.

    Args:
        study: the plan.
        records: finished trials in any order, for example all that a run folder holds.
        failures: of trials, in any order; those that are finished or of other plans are left out.

    Returns:
        Every comparison of the plan, with the pairs of which both runs are there.
    """
    known = {record.key: record for record in records}
    plan = {(row["task"], row["arm"], row["seed"]): row["key"] for row in study.trials}
    # A plan may have been edited: a record counts where it says itself that it belongs.
    found = {place: known[key] for place, key in plan.items() if key in known}
    found = {place: record for place, record in found.items() if (record.task, record.arm, record.seed) == place}
    done = {record.key: record for record in found.values()}
    baseline, *arms = study.arms
    lambdas = {record.arm: _noise_lambda(record) for record in done.values()}
    labels = _labels(arms, lambdas)
    evidence = Evidence(study, done, ())
    comparisons = []
    for task in study.tasks:
        better = direction(task["kind"], task["metric"])
        for arm in arms:
            pairs, planned = [], 0
            for seed in study.seeds:
                places = (task["name"], baseline, seed), (task["name"], arm, seed)
                planned += all(place in plan for place in places)
                before, after = map(found.get, places)
                if before and after:
                    bounded = better > 0 or not any(map(evidence.undefined, (before, after)))
                    scores = evidence.score(before), evidence.score(after)
                    pairs.append(Pair(seed, before, after, *scores, better, bounded))
            comparisons.append(Comparison(task, arm, labels[arm], lambdas.get(arm), tuple(pairs), planned))
    reasons = {failure.key: failure for failure in failures}
    failed = {key: reasons[key] for key in plan.values() if key in reasons and key not in done}
    return Evidence(study, done, tuple(comparisons), failed)
