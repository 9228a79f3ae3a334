"""What was chosen from several trainings, as one trial's record, with what it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from noisytune.lab.tasks import TaskData
from noisytune.records import TrialRecord, digest


@dataclass(frozen=True)
class Chosen:
    """One training of several."""

    arm: str
    """What the choice is called."""
    seed: int
    """Of the pair."""
    number: int
    """Which one was chosen."""
    trained: Mapping[int, TrialRecord]
    """All that it was chosen from, by number. Their primary score is the one that chose."""
    screened: Mapping[int, Sequence[float | None]]
    """Scores of the rounds before, by number; empty where there were none."""
    metric: str
    """What chose."""
    spent: float
    """What the candidates of a seed cost together, in whole trainings."""


def as_record(chosen: Chosen, task: TaskData, trained_on: TaskData) -> TrialRecord:
    """The chosen training as the trial of a study whose score is the task's own, which chose nothing.

    Args:
        chosen: what, and from what.
        task: as the user knows it.
        trained_on: the same without what was held out.
    """
    best = chosen.trained[chosen.number]
    first = next(iter(task.evaluate))
    primary = task.primary or (task.select or first,)
    about = {"name": task.name, "digest": trained_on.digest} | task.roles
    settings = {
        **best.settings,
        "task": {key: value for key, value in best.settings["task"].items() if key not in ("select", "primary")}
        | about,
        "arm": {"name": chosen.arm, "methods": best.settings["arm"]["methods"]},
        "seed": chosen.seed,
        "chosen": {"key": best.key, "from": sorted(record.key for record in chosen.trained.values())},
    }
    candidates = [
        {
            "number": number,
            "seed": record.seed,
            "arm": record.arm,
            "screened": list(chosen.screened.get(number, ())),
            "chosen_by": record.scores.get(chosen.metric),
            "score": _scores(record, primary).get(task.metric),
        }
        for number, record in chosen.trained.items()
    ]
    states = [best.evaluations[name]["status"] for name in primary if name in best.evaluations]
    worse = next((state for state in states if state != "ok"), best.status)
    return replace(
        best,
        key=digest(settings),
        settings=settings,
        status=worse if best.status in ("ok", "collapsed") else best.status,
        scores=_scores(best, primary),
        # What is scored first is what the study is about.
        evaluations={
            name: best.evaluations[name] for name in (*task.evaluate, *best.evaluations) if name in best.evaluations
        },
        applied=best.applied
        | {"chosen": {"from": candidates, "number": chosen.number, "metric": chosen.metric, "trainings": chosen.spent}},
        outputs_digest="",
        outputs=dict(best.outputs),
    )


def _scores(record: TrialRecord, primary: Sequence[str]) -> dict[str, float]:
    """The mean over splits of each score that all of them have."""
    parts = [record.evaluations.get(name, {}).get("scores", {}) for name in primary]
    return {key: float(np.mean([part[key] for part in parts])) for key in parts[0] if all(key in one for one in parts)}
