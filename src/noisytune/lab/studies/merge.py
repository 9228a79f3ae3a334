"""Whether a study can go on in a run folder that holds one already, and what the folder holds then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from noisytune._pretrained import Model
from noisytune.errors import RunFolderError
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.records import StudyRecord


def extend(earlier: StudyRecord | None, study: StudyRecord, folder: Path) -> StudyRecord:
    """What a run folder holds once ``study`` is done in it: seeds and arms of both, on the folder's tasks.

    Trials of an arm whose settings mean something else now are left out; their records stay in the folder.

    Args:
        earlier: what is in the folder, or None.
        study: what is asked for now. Its name and margin win.
        folder: for the error message.

    Raises:
        RunFolderError: the two cannot be compared: another model, training, task or baseline.
    """
    if earlier is None:
        return study
    difference = _difference(earlier, study)
    if difference:
        raise RunFolderError(f"{folder} holds another study: {difference}; choose another run folder")
    tasks = {task["name"]: task for task in (*earlier.tasks, *study.tasks)}
    entries = {_place(entry): entry for entry in (*_still_meant(earlier, study), *study.trials)}
    seeds = sorted({entry["seed"] for entry in entries.values()})
    arms = {entry["arm"] for entry in entries.values()}
    places = {seed: place for place, seed in enumerate(seeds)}
    return replace(
        study,
        tasks=list(tasks.values()),
        arms=[arm for arm in dict.fromkeys([*earlier.arms, *study.arms]) if arm in arms],
        seeds=seeds,
        trials=sorted(entries.values(), key=lambda entry: places[entry["seed"]]),
    )


def other_setting(earlier: Mapping[str, Any], training: Mapping[str, Any]) -> str | None:
    """The first setting in which two trainings differ, in words; None where they are the same.

    Args:
        earlier: as in `noisytune.records.StudyRecord.training`. What is missing has its default.
        training: the same of what is asked for now.

    >>> other_setting({"epochs": 1}, {"epochs": 2}), other_setting({}, {"select": "last"})
    ('its epochs is 1, not 2', None)
    """
    defaults = {one.name: one.default for one in fields(TrainingSettings)}
    for setting in {**earlier, **training}:
        old, new = (one.get(setting, defaults.get(setting)) for one in (earlier, training))
        if old != new:
            return f"its {setting} is {old}, not {new}"
    return None


def under_known_names(
    model: Model, tasks: Iterable[TaskData], earlier: StudyRecord
) -> tuple[Model, tuple[TaskData, ...]]:
    """Rename what a run folder holds already to what it is called there: contents decide, names do not.

    A model that the folder knows as ``bert`` and that is now given as ``./copy-of-bert`` becomes ``bert``.

    Args:
        model: what is asked for now.
        tasks: what is asked for now.
        earlier: what is in the folder.
    """
    if model.digest == earlier.model["digest"]:
        model = replace(model, name=earlier.model["name"])
    known = {task["name"]: task["digest"] for task in earlier.tasks}
    names = {digest: name for name, digest in known.items()}
    return model, tuple(
        task if known.get(task.name) == task.digest else replace(task, name=names.get(task.digest, task.name))
        for task in tasks
    )


def _still_meant(earlier: StudyRecord, study: StudyRecord) -> list[dict[str, Any]]:
    """The earlier entries of arms that still mean the same: a method that was mended has other keys.

    An arm is compared with the baseline: where that has changed on a task, no earlier entry of the task is left.
    """
    changed = {(task, arm) for task, arm, _ in other_trials(earlier, study)}
    return [
        entry
        for entry in earlier.trials
        if not changed & {(entry["task"], entry["arm"]), (entry["task"], earlier.arms[0])}
    ]


def other_trials(one: StudyRecord, other: StudyRecord) -> list[tuple[str, str, int]]:
    """Task, arm and seed of the places in both studies that hold different trials, in the order of the first."""
    keys = {_place(entry): entry["key"] for entry in other.trials}
    return [_place(entry) for entry in one.trials if keys.get(_place(entry), entry["key"]) != entry["key"]]


def _place(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["task"], entry["arm"], entry["seed"]


def _difference(earlier: StudyRecord, study: StudyRecord) -> str | None:
    """Why two studies cannot share a folder, or None."""
    if earlier.model["digest"] != study.model["digest"]:
        names = {earlier.model["name"], study.model["name"]}
        same_name = " (the same name, but other weights, configuration or tokenizer)" if len(names) == 1 else ""
        return f"its model is {earlier.model['name']}, not {study.model['name']}{same_name}"
    if other := other_setting(earlier.training, study.training):
        return other
    metrics = {task["name"]: task["metric"] for task in earlier.tasks}
    if study.training.get("select") == "best":
        for task in study.tasks:
            if metrics.get(task["name"], task["metric"]) != task["metric"]:
                return f"its epochs of {task['name']} are chosen by {metrics[task['name']]}, not by {task['metric']}"
    digests = {task["name"]: task["digest"] for task in earlier.tasks}
    for task in study.tasks:
        if task["name"] not in digests:
            several = len(digests) > 1
            return f"its {'tasks are' if several else 'task is'} {', '.join(digests)}, not {task['name']}"
        if digests[task["name"]] != task["digest"]:
            return f"its task {task['name']} has other examples (or another number or selection of them)"
    if earlier.arms[0] != study.arms[0]:
        return f"its baseline is {earlier.arms[0]}, not {study.arms[0]}"
    return None
