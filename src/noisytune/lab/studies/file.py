"""Studies as YAML files: a few lines that say what to compare. The paper's own lie in ``studies/``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, DataError, NotFoundError
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import GLUE, TASKS, TaskData, TaskOptions, described, limit, load_tasks, noticed, with_folder
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings

_KEYS = ("name", "model", "models", "tasks", "train_shares", "arms", "seeds", "margin", "training")
_TASK_KEYS = tuple(field.name for field in fields(TaskOptions))
_PAPER = Path(str(files("noisytune._paper"))) / "studies"


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What takes the place of what a study file says; nothing by default."""

    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    """A task that the file has keeps the file's options."""
    arms: tuple[str, ...] = ()
    seeds: int | None = None
    """Seeds 0, 1, ...: so many."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TaskOptions`, of every task."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `TrainingSettings`."""


AS_WRITTEN = Changes()
"""No change."""


def paper_studies() -> list[str]:
    """The names of the studies of the paper's tables and figures.

    >>> paper_studies()
    ['figure2', 'figure3', 'figure4', 'figure5', 'figure6', 'table2']
    """
    return sorted(file.stem for file in _PAPER.glob("*.yaml"))


def paper_study(name: str) -> Path:
    """The file of a study of the paper.

    Raises:
        ConfigError: there is no such study; the nearest one is named.
    """
    if name not in paper_studies():
        near = get_close_matches(name.lower().replace(" ", ""), paper_studies(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(paper_studies())}"
        raise ConfigError(f"there is no study {name!r}: {hint}")
    return _PAPER / f"{name}.yaml"


def read_studies(path: Path, changes: Changes = AS_WRITTEN) -> tuple[Study, ...]:
    """The studies that a file describes, one for each model: the models found and the data loaded.

    ::

        name: figure3                         # for the title; default: the file's name
        model: bert-base-uncased              # or  models: [...]; default: all-MiniLM-L6-v2
        tasks:                                # default: [topics]
          - topics
          - {task: reviews.csv, label_column: stars, train_size: 1000}
        train_shares: [0.1, 0.5, 1.0]         # of each task's training examples; default: all of them, once
          - {task: glue, data_dir: download}             # its nine tasks
        arms: [noisytune, recadam, noisytune+recadam]      # the baseline, plain, is always the first
        seeds: 5                              # 0 to 4; or a list
        margin: 1.0                           # points
        training: {epochs: 3, learning_rate: 2.0e-5}       # fields of TrainingSettings

    Args:
        path: the file. Models and data files count from its folder.
        changes: what takes the place of what the file says. Models and tasks count from the working directory.

    Raises:
        ConfigError: the file is no YAML mapping, or a key or a value is not allowed; the nearest key is named.
        DataError: no such file, model or data.
    """
    content = _read(path)
    _check_keys(str(path), content, _KEYS)
    training = _mapping(path, "training", content.get("training", {}))
    _check_keys(f"{path}: training", training, [field.name for field in fields(TrainingSettings)])
    training |= changes.training
    arms = [Arm.parse(str(arm)) for arm in changes.arms or _list(path, "arms", content.get("arms"))]
    seeds = _seeds(path, changes.seeds or content.get("seeds", 5))
    margin = _margin(path, content.get("margin", 1.0))
    models = [Model.find(name) for name in changes.models or _models(path, content)]
    tasks = tuple(_tasks(path, content, changes))
    return tuple(
        Study(
            name=str(content.get("name", path.stem)),
            model=model,
            tasks=tasks,
            arms=(PLAIN, *(arm for arm in arms if arm != PLAIN)),
            seeds=seeds,
            training=TrainingSettings(**training),
            margin=margin,
        )
        for model in models
    )


def _read(path: Path) -> dict[Any, Any]:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise NotFoundError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot read the study: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected lines such as  arms: [noisytune, recadam]")
    return content


def _models(path: Path, content: Mapping[Any, Any]) -> list[str | None]:
    """Names or directories; None is the default model."""
    if "model" in content and "models" in content:
        raise ConfigError(f"{path}: give model or models, not both")
    if "models" in content:
        return [_beside(path.parent, str(model)) for model in _list(path, "models", content["models"])]
    return [_beside(path.parent, str(content["model"])) if "model" in content else None]


def _tasks(path: Path, content: Mapping[Any, Any], changes: Changes) -> Iterable[TaskData]:
    written = [_task(path, task) for task in _list(path, "tasks", content.get("tasks", ["topics"]))]
    wanted = [(name, dict(written).get(name, {})) for name in changes.tasks] or written
    shares = [_share(path, share) for share in _list(path, "train_shares", content.get("train_shares", [1]))]
    notice = ""
    data_dir = changes.options.get("data_dir")
    if data_dir and not changes.tasks:  # of a study's own tasks, those that the download has
        there, notice = with_folder([name for name, _ in wanted], Path(data_dir))
        wanted = [(name, own) for name, own in wanted if name in there]
    for name, own in wanted:
        options = TaskOptions(**own | dict(changes.options))
        for task in load_tasks(name, options):
            whole, notice = noticed(task, notice), ""
            if "train_shares" not in content:
                yield whole
                continue
            for share in shares:
                yield _part(whole, share, options.split_seed)


def _part(whole: TaskData, share: float, seed: int) -> TaskData:
    """A task with a share of the training examples, which contains every smaller share."""
    if share == 1:
        return replace(whole, part_of=whole.name)
    option = f"{whole.name}, a share of {share:g}: training size"
    size = round(share * len(whole.train))
    train, _ = limit(whole.train, size, kind=whole.kind, labels=whole.labels, option=option, seed=seed)
    notices = whole.notices[1:]  # the first counts the examples of the whole
    name = f"{whole.name} {100 * share:g} %"
    return described(replace(whole, name=name, train=train, part_of=whole.name, notices=notices))


def _task(path: Path, task: Any) -> tuple[str, dict[str, Any]]:
    """Name or file, and options."""
    settings = {"task": task} if isinstance(task, str) else _mapping(path, "tasks", task)
    _check_keys(f"{path}: tasks", settings, ("task", *_TASK_KEYS))
    if "task" not in settings:
        raise ConfigError(f"{path}: a task lacks its name: write  - task: topics")
    options: dict[str, Any] = {key: value for key, value in settings.items() if key != "task"}
    if isinstance(options.get("text_columns"), list):
        options["text_columns"] = tuple(map(str, options["text_columns"]))
    for key in ("dev_file", "data_dir"):
        if key in options:
            options[key] = Path(_beside(path.parent, str(options[key])))
    name = str(settings["task"])
    return name if name in (GLUE, *TASKS) else _beside(path.parent, name), options


def _share(path: Path, share: Any) -> float:
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ConfigError(f"{path}: train_shares must be shares of the training data, 0 < share <= 1, got {share!r}")
    return float(share)


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
