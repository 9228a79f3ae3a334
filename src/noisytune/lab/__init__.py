"""Paired, multi-seed evidence: a study is arms x tasks x seeds, a trial is one of them, a record is what it gave.

    from noisytune.lab import compare
    result = compare("bert-base-uncased", "reviews.csv", arms=["noisytune"], seeds=8)
    print(result)

What is here is the lab's Python API; each name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from noisytune._comparison import Result, compare, explore
    from noisytune._pretrained import Model
    from noisytune.lab.engines import InlineEngine, LocalEngine
    from noisytune.lab.store import Store
    from noisytune.lab.studies.attempts import Rules
    from noisytune.lab.studies.run import run_study
    from noisytune.lab.studies.study import Study
    from noisytune.lab.tasks import TaskData, TaskOptions, load_task, load_tasks, task_from_rows
    from noisytune.lab.trials.arm import PLAIN, Arm
    from noisytune.lab.trials.function import OwnTrial
    from noisytune.lab.trials.settings import TrainingSettings

__all__ = [
    "PLAIN",
    "Arm",
    "InlineEngine",
    "LocalEngine",
    "Model",
    "OwnTrial",
    "Result",
    "Rules",
    "Store",
    "Study",
    "TaskData",
    "TaskOptions",
    "TrainingSettings",
    "compare",
    "explore",
    "load_task",
    "load_tasks",
    "run_study",
    "task_from_rows",
]

_ROOMS = {
    "PLAIN": "lab.trials.arm",
    "Arm": "lab.trials.arm",
    "InlineEngine": "lab.engines",
    "LocalEngine": "lab.engines",
    "Model": "_pretrained",
    "OwnTrial": "lab.trials.function",
    "Result": "_comparison",
    "Rules": "lab.studies.attempts",
    "Store": "lab.store",
    "Study": "lab.studies.study",
    "TaskData": "lab.tasks",
    "TaskOptions": "lab.tasks",
    "TrainingSettings": "lab.trials.settings",
    "compare": "_comparison",
    "explore": "_comparison",
    "load_task": "lab.tasks",
    "load_tasks": "lab.tasks",
    "run_study": "lab.studies.run",
    "task_from_rows": "lab.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"noisytune.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return __all__
