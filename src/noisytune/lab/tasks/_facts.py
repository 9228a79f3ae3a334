"""What was noticed about a task's data, as plain JSON for the study's record, and its first line for the terminal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from noisytune.lab.kinds import Split
from noisytune.lab.tasks._data import TaskData
from noisytune.lab.tasks._from_tables import some

SHOWN = 8
"""More classes than these are abbreviated."""


def described(task: TaskData) -> TaskData:
    """The task with its facts, and a first notice that says what it was taken for.

    ``facts`` has what the loader noticed and ``examples``, ``lengths``, and ``classes`` (with their numbers of
    examples), ``majority`` and ``absent_from_dev``, or ``values``::

        {"rows": [{"source": "reviews.csv", "rows": 600}],
         "left_out": [{"source": "reviews.csv", "reason": "no label", "rows": 38}],
         "split_off": 112, "repeated": 3,
         "examples": {"train": 450, "dev": 112},
         "lengths": {"train": {"characters": {"median": 80, "mean": 91.5, "largest": 300}, "words": {...}}, ...},
         "classes": [{"name": "bad", "train": 150, "dev": 37}, ...],
         "majority": 0.67, "absent_from_dev": []}
    """
    splits = {"train": task.train, "dev": task.dev}
    splits |= {name: split for name, split in task.evaluate.items() if split is not task.dev}
    facts: dict[str, Any] = {
        **task.facts,
        "examples": {name: len(split) for name, split in splits.items()},
        "lengths": {name: lengths(split) for name, split in splits.items()},
    }
    notices = []
    if task.labels:
        counts = {name: task.of_kind.counts(split.targets, len(task.labels)) for name, split in splits.items()}
        facts["classes"] = [
            {"name": label} | {name: of[i] for name, of in counts.items()} for i, label in enumerate(task.labels)
        ]
        facts["majority"] = task.majority
        facts["absent_from_dev"] = [label for i, label in enumerate(task.labels) if not counts["dev"][i]]
        if facts["absent_from_dev"]:
            notices.append(f"dev has no example of {some(facts['absent_from_dev'])}")
    elif values := {name: found for name, split in splits.items() if (found := task.of_kind.values(split.targets))}:
        facts["values"] = values
    return replace(task, facts=facts, notices=(first_line(task, facts), *task.notices, *notices))


def first_line(task: TaskData, facts: dict[str, Any]) -> str:
    """What the task was taken for, in one line."""
    of = f" of {task.trained_on.name}" if task.trained_on else ""
    taken = f"{task.name}: {task.kind}, {len(task.train):,} train{of} and {len(task.dev):,} dev examples"
    if not task.labels:
        seen = facts.get("values", {}).get("train")
        if not seen:
            return taken
        return f"{taken}, values {seen['smallest']:g} to {seen['largest']:g}, mean {seen['mean']:.4g}"
    classes = facts["classes"]
    listed = ", ".join(f"{c['name']} {c['train']:,} + {c['dev']:,}" for c in classes)
    if len(classes) > SHOWN:
        by_size = sorted(classes, key=lambda c: -c["train"])
        most, least = (f"{c['name']} {c['train']:,} + {c['dev']:,}" for c in (by_size[0], by_size[-1]))
        listed = f"from {most} to {least}"
    if facts["majority"] is not None:
        listed += f"; the largest is {100 * facts['majority']:.1f} % of dev"
    return f"{taken}, {len(classes)} classes ({listed})"


def lengths(split: Split) -> dict[str, dict[str, float]]:
    """Characters and words of an example, its texts together; words are what stands between white space."""
    counted = {
        "characters": [sum(map(len, texts)) for texts in split.texts],
        "words": [sum(len(text.split()) for text in texts) for texts in split.texts],
    }
    return {
        what: {
            "median": float(np.median(numbers)),
            "mean": round(float(np.mean(numbers)), 2),
            "largest": float(np.max(numbers)),
        }
        for what, numbers in counted.items()
    }
