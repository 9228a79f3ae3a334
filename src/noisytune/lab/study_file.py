"""Studies as YAML files: a few lines that say what to compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from noisytune.errors import ConfigError, DataError
from noisytune.lab.model import Model, usual_learning_rate
from noisytune.lab.study import Study
from noisytune.lab.tasks import GLUE, TASKS, TaskData, TaskOptions, load_tasks
from noisytune.lab.trial import PLAIN, Arm, TrainingSettings

_KEYS = ("name", "model", "tasks", "arms", "seeds", "margin", "training")
_TASK_KEYS = tuple(field.name for field in fields(TaskOptions))


def read_study(path: Path) -> Study:
    """The study that a file describes, its model found and its data loaded.

    ::

        name: figure3                         # for the title; default: the file's name
        model: bert-base-uncased              # default: all-MiniLM-L6-v2
        tasks:                                # default: [topics]
          - topics
          - {task: reviews.csv, label_column: stars, train_size: 1000}
          - {task: glue, data_dir: download}             # its nine tasks
        arms: [noisytune, recadam, noisytune+recadam]      # the baseline, plain, is always the first
        seeds: 5                              # 0 to 4; or a list
        margin: 1.0                           # points
        training: {epochs: 3, learning_rate: 2.0e-5}       # fields of TrainingSettings

    Args:
        path: the file. Models and data files count from its folder.

    Raises:
        ConfigError: the file is no YAML mapping, or a key or a value is not allowed; the nearest key is named.
        DataError: no such file, model or data.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the study: {error}") from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected lines such as  arms: [noisytune, recadam]")
    _check_keys(str(path), content, _KEYS)
    where = path.parent
    model = content.get("model")
    shared = {"learning_rate": usual_learning_rate(model), "warmup": 0.1, "weight_decay": 0.01}
    training = shared | _mapping(path, "training", content.get("training", {}))
    _check_keys(f"{path}: training", training, [field.name for field in fields(TrainingSettings)])
    arms = [Arm.parse(str(arm)) for arm in _list(path, "arms", content.get("arms"))]
    return Study(
        name=str(content.get("name", path.stem)),
        model=Model.find(None if model is None else _beside(where, str(model))),
        tasks=tuple(
            task for written in _list(path, "tasks", content.get("tasks", ["topics"])) for task in _tasks(path, written)
        ),
        arms=(PLAIN, *(arm for arm in arms if arm != PLAIN)),
        seeds=_seeds(path, content.get("seeds", 5)),
        training=TrainingSettings(**training),
        margin=_margin(path, content.get("margin", 1.0)),
    )


def _tasks(path: Path, task: Any) -> tuple[TaskData, ...]:
    settings = {"task": task} if isinstance(task, str) else _mapping(path, "tasks", task)
    _check_keys(f"{path}: tasks", settings, ("task", *_TASK_KEYS))
    if "task" not in settings:
        raise ConfigError(f"{path}: a task lacks its name: write  - task: topics")
    options: dict[str, Any] = {key: value for key, value in settings.items() if key != "task"}
    if isinstance(options.get("text_columns"), list):
        options["text_columns"] = tuple(map(str, options["text_columns"]))
    for key in {"dev_file", "data_dir"} & set(options):
        options[key] = Path(_beside(path.parent, str(options[key])))
    name = str(settings["task"])
    return load_tasks(name if name in (GLUE, *TASKS) else _beside(path.parent, name), TaskOptions(**options))


def _beside(folder: Path, name: str) -> str:
    """A path from the study's folder if there is such a file, else the name as it is."""
    return str(folder / name) if (folder / name).exists() else name


def _seeds(path: Path, seeds: Any) -> tuple[int, ...]:
    if type(seeds) is int and seeds >= 1:
        return tuple(range(seeds))
    if isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds):
        return tuple(seeds)
    raise ConfigError(f"{path}: seeds must be a number of seeds >= 1 or a list of whole numbers, got {seeds!r}")


def _margin(path: Path, margin: Any) -> float:
    if isinstance(margin, bool) or not isinstance(margin, int | float):
        raise ConfigError(f"{path}: margin must be a number of points, got {margin!r}")
    return float(margin)


def _list(path: Path, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{path}: {key} must be a list such as  {key}: [a, b], got {value!r}")
    return value


def _mapping(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key} must hold lines such as  name: value, got {value!r}")
    return value


def _check_keys(where: str, content: Mapping[Any, Any], known: Iterable[str]) -> None:
    known = list(known)
    for key in content:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"{where}: there is no key {key!r}: {hint}")
