"""Which arms read more tokens than the baseline, and what is left of their gains beside one that reads as many?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from noisytune._metrics import direction
from noisytune.records import TrialRecord
from noisytune.report.evidence.pairs import Evidence, once
from noisytune.report.statistics.paired import Summary, summarise

CLOSE = 0.02
"""Shares of the tokens that are as good as none."""


@dataclass(frozen=True)
class ArmCost:
    """An arm that reads its training's tokens more often than the baseline, or less."""

    arm: str
    passes: float
    """How often it reads them for once of the baseline."""
    beside: str
    """Plain fine-tuning that reads at least as many; empty where the study has none."""
    difference: Summary | None
    """The arm against that, in points: of each seed the mean over tasks."""


@once
def arm_costs(evidence: Evidence) -> list[ArmCost]:
    """The arms whose cost is not the baseline's, in the study's order; none of a study that searched or chose."""
    study = evidence.study
    if study.search or any("chosen" in record.applied for record in evidence.trials.values()):
        return []
    passes = {arm: times for arm in study.arms if (times := _passes(evidence, arm)) is not None}
    plain = [arm for arm in passes if all(not one.settings["arm"]["methods"] for one in _records(evidence, arm))]
    found = []
    for arm, times in passes.items():
        if abs(times - 1) <= CLOSE:
            continue
        as_dear = [one for one in plain if passes[one] >= times * (1 - CLOSE)]
        beside = min(as_dear, key=passes.__getitem__) if as_dear and times > 1 and arm not in plain else ""
        differences = _differences(evidence, arm, beside) if beside else []
        found.append(ArmCost(arm, times, beside, summarise(differences) if beside else None))
    return found


def _records(evidence: Evidence, arm: str) -> list[TrialRecord]:
    return [record for record in evidence.trials.values() if record.arm == arm]


def _passes(evidence: Evidence, arm: str) -> float | None:
    """Examples that an arm reads for one of the baseline's, on the task where these are the most; None if unknown."""
    baseline, first = evidence.study.arms[0], dict[str, dict[str, float]]()
    for record in evidence.trials.values():
        if record.arm in (arm, baseline) and (read := _read(record)):
            first.setdefault(record.task, {}).setdefault(record.arm, read)
    both = [read[arm] / read[baseline] for read in first.values() if {arm, baseline} <= read.keys()]
    return max(both, default=None)


def _read(record: TrialRecord) -> float | None:
    """Examples that a trial reads in training, each time counted."""
    training, size = record.settings.get("training", {}), record.settings["task"].get("train_size")
    if "epochs" not in training or not size:
        return None
    steps = training.get("max_steps")
    batch = training.get("batch_size", 1) * training.get("gradient_accumulation", 1)
    times = math.prod(facts.get("passes", 1.0) for facts in record.applied.values())
    return float(times * (training["epochs"] * size if steps is None else steps * batch))


def _differences(evidence: Evidence, arm: str, beside: str) -> list[float]:
    """Gains of each seed in which every task has both runs, points."""
    better = {task["name"]: direction(task["kind"], task["metric"]) for task in evidence.study.tasks}
    found: dict[int, dict[tuple[str, str], float]] = {}
    for record in evidence.trials.values():
        if record.arm in (arm, beside):
            found.setdefault(record.seed, {})[record.task, record.arm] = evidence.score(record)
    return [
        float(np.mean([better[task] * (scores[task, arm] - scores[task, beside]) for task in better]))
        for seed in evidence.study.seeds
        if len(scores := found.get(seed, {})) == 2 * len(better)
    ]
