"""Studies as YAML files: a few lines that say what to compare. The paper's own lie in ``studies/``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from noisytune._pretrained import Model
from noisytune._settings import nearest, read, settings_of, switch
from noisytune._text import encodable
from noisytune.errors import ConfigError
from noisytune.lab.store import file_name
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.compare import EQUAL_COMPUTE, equal_compute, seeds_of
from noisytune.lab.studies.document import Document, read_document
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import (
    BENCHMARKS,
    TASKS,
    TaskData,
    TaskOptions,
    described,
    limit,
    load_tasks,
    noticed,
    trained_as,
    with_files,
)
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings

_KEYS = ("name", "model", "models", "tasks", "train_shares", "arms", "equal_compute", "seeds", "margin", "training")
MOST_IN_A_LIST = 1_000
"""Arms, models, tasks or shares of a study."""
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


@dataclass(frozen=True)
class Wanted:
    """A task that a study asks for."""

    name: str
    """Or a file."""
    options: TaskOptions
    training: dict[str, Any]
    """Settings of its own."""


@dataclass(frozen=True)
class StudyFile:
    """What a study file asks for, before models are found and data loaded."""

    name: str
    models: tuple[str | None, ...]
    """Names or directories; None is the default model."""
    wanted: tuple[Wanted, ...]
    shares: tuple[float, ...]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    margin: float
    training: dict[str, Any]
    """What is given for all tasks."""
    changed: frozenset[str]
    """Names of those that take the place of what the file says."""
    notice: str
    """On tasks whose files a download lacks."""
    equal_compute: bool = switch(EQUAL_COMPUTE)

    @classmethod
    def read(cls, path: Path, changes: Changes = AS_WRITTEN, content: bytes | None = None) -> StudyFile:
        """Read a file; arguments and errors as for `read_studies`."""
        document = read_document(path, content)
        _check_keys(document, (), _KEYS)
        arms = [_arm(document, place, arm) for place, arm in enumerate(_list(document, "arms", changes.arms))]
        shares = _list(document, "train_shares") if "train_shares" in document.content else []
        wanted, notice = _wanted(document, changes)
        return cls(
            name=_text(document, "name", document.content.get("name") or encodable(path.stem)),
            models=tuple(changes.models or _models(document)),
            wanted=wanted,
            shares=tuple(_share(document, share, place) for place, share in enumerate(shares)),
            arms=(PLAIN, *(arm for arm in arms if arm != PLAIN)),
            equal_compute=read(
                cls, "equal_compute", document.content.get("equal_compute", False), f"{document.at('equal_compute')}: "
            ),
            seeds=_seeds(document, changes.seeds),
            margin=_number(document, "margin", document.content.get("margin", 1.0)),
            training=_settings(document, TrainingSettings, "training") | dict(changes.training),
            changed=frozenset(changes.training),
            notice=notice,
        )

    @property
    def settings(self) -> TrainingSettings:
        """How tasks without settings of their own are trained."""
        return TrainingSettings(**self.training)

    def given(self, wanted: Wanted) -> set[str]:
        """The training settings that are given for all tasks and count for this one."""
        return (set(self.training) - set(wanted.training)) | self.changed

    def load(self, wanted: Wanted) -> tuple[TaskData, ...]:
        """The task, or those that its name stands for, each in its shares."""
        tasks = load_tasks(wanted.name, wanted.options)
        own = [trained_as(task, wanted.training, self.given(wanted)) for task in tasks]
        seed = wanted.options.split_seed
        return tuple(part for task in own for part in ([_part(task, s, seed) for s in self.shares] or [task]))

    def study(self, model: Model, tasks: tuple[TaskData, ...]) -> Study:
        """The study of a model."""
        study = Study(
            name=self.name,
            model=model,
            tasks=(noticed(tasks[0], self.notice), *tasks[1:]),
            arms=self.arms,
            seeds=self.seeds,
            training=self.settings,
            margin=self.margin,
        )
        return replace(study, arms=self.all_arms(study.trained))

    def all_arms(self, trained: Sequence[tuple[TrainingSettings, int]]) -> tuple[Arm, ...]:
        """The arms, with baselines that cost as much where they are asked for.

        Args:
            trained: as for `noisytune.lab.studies.compare.equal_compute`.
        """
        return equal_compute(self.arms, trained) if self.equal_compute else self.arms


def paper_studies() -> list[str]:
    """The names of the studies of the paper's tables and figures.

    >>> paper_studies()
    ['figure2', 'figure3', 'figure4', 'figure5', 'figure6', 'table2', 'table3']
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


def read_studies(path: Path, changes: Changes = AS_WRITTEN, content: bytes | None = None) -> tuple[Study, ...]:
    """The studies that a file describes, one for each model: the models found and the data loaded.

    ::

        name: figure3                         # for the title; default: the file's name
        model: bert-base-uncased              # or  models: [...]; default: all-MiniLM-L6-v2
        tasks:                                # default: [topics]
          - topics
          - {task: reviews.csv, label_column: stars, train_size: 1000}
          - {task: glue, data_dir: download}             # its nine tasks
          - {task: xtreme/xquad, training: {epochs: 2}}  # trained in its own way
        train_shares: [0.1, 0.5, 1.0]         # of each task's training examples; default: all of them, once
        arms: [noisytune, recadam, noisytune+recadam]      # the baseline, plain, is always the first
        equal_compute: true                   # plain fine-tuning that costs as much as the dear arms; default: false
        seeds: 8                              # the default: 0 to 7; or a list
        margin: 1.0                           # points
        training: {epochs: 3, learning_rate: 2.0e-5}       # fields of TrainingSettings

    Args:
        path: the file. Models and data files count from its folder.
        changes: what takes the place of what the file says. Models and tasks count from the working directory.
        content: what the file held, where that was kept; None: what it holds.

    Raises:
        ConfigError: the file is no YAML mapping, or a key or a value is not allowed; the nearest key is named.
        DataError: no such file, model or data.
    """
    asked = StudyFile.read(path, changes, content)
    models = [Model.find(name) for name in asked.models]
    refuse_twins(models)
    tasks = tuple(task for wanted in asked.wanted for task in asked.load(wanted))
    return tuple(asked.study(model, tasks) for model in models)


def refuse_twins(models: Iterable[Model | str]) -> None:
    """See that no model of a study is there twice, and no name, after which its files are called.

    Args:
        models: found, or the names of those that are not here.

    Raises:
        ConfigError: one is.
    """
    names, digests = set[str](), dict[str, str]()
    for model in models:
        name, digest = (model, "") if isinstance(model, str) else (model.name, model.digest)
        if digest in digests:
            raise ConfigError(f"models: {digests[digest]} and {name} are one model: give it once")
        digests |= {digest: name} if digest else {}
        called = file_name(name.rsplit("/")[-1])
        if called in names:
            raise ConfigError(
                f"models: two are called {called}, and so would be their files: rename the directory of one, or write "
                "a study of another name for it"
            )
        names.add(called)


def _arm(document: Document, place: int, arm: Any) -> Arm:
    name = _text(document, "arms", arm, place)
    try:
        return Arm.parse(name)
    except ConfigError as error:
        hint = "; between [ and ] an arm with a comma needs quotes" if name.count("(") != name.count(")") else ""
        raise ConfigError(f"{document.at('arms', place)}: {error}{hint}") from error


def _models(document: Document) -> list[str | None]:
    """Names or directories; None is the default model."""
    content, folder = document.content, document.path.parent
    if "model" in content and "models" in content:
        raise ConfigError(f"{document.at('models')}: give model or models, not both")
    if "models" in content:
        names = _list(document, "models")
        return [_beside(folder, _text(document, "models", name, place)) for place, name in enumerate(names)]
    return [_beside(folder, _text(document, "model", content["model"])) if content.get("model") else None]


def _wanted(document: Document, changes: Changes) -> tuple[tuple[Wanted, ...], str]:
    """The tasks that are asked for, and a notice on those whose files a download lacks."""
    tasks = _list(document, "tasks") if "tasks" in document.content else ["topics"]
    written = [_task(document, place, task) for place, task in enumerate(tasks)]
    known = {name: (options, own) for name, options, own in written}
    asked = [(name, *known.get(name, ({}, {}))) for name in changes.tasks] or written
    wanted = [Wanted(name, TaskOptions(**options | dict(changes.options)), own) for name, options, own in asked]
    if not changes.options.get("data_dir") or changes.tasks:
        return tuple(wanted), ""
    # Of a study's own tasks, those that the download has.
    there, notice = with_files([one.name for one in wanted], TaskOptions(**dict(changes.options)))
    return tuple(one for one in wanted if one.name in there), notice


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


def _task(document: Document, place: int, task: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Name or file, options, and training settings of its own."""
    folder = document.path.parent
    own: dict[str, Any] = {}
    if isinstance(task, str):
        name, options = task, {}
    else:
        _check_keys(document, ("tasks", place), ("task", "training", *settings_of(TaskOptions)))
        if not task.get("task"):
            raise ConfigError(f"{document.at('tasks', place)}: a task lacks its name: write  - task: topics")
        name = _text(document, "tasks", task["task"], place)
        options = _settings(document, TaskOptions, "tasks", place, but=("task", "training"))
        if "training" in task:
            own = _settings(document, TrainingSettings, "tasks", place, "training")
    for key in ("dev_file", "data_dir"):
        if options.get(key):
            options[key] = Path(_beside(folder, str(options[key])))
    return name if name in (*BENCHMARKS, *TASKS) else _beside(folder, name), options, own


def _share(document: Document, value: Any, place: int) -> float:
    share = _number(document, "train_shares", value, place)
    if not 0 < share <= 1:
        allowed = "shares of the training data, 0 < share <= 1"
        raise ConfigError(f"{document.at('train_shares', place)}: train_shares must be {allowed}, got {share:g}")
    return share


def _beside(folder: Path, name: str) -> str:
    """A path from the study's folder if there is such a file, else the name as it is."""
    return str(folder / name) if (folder / name).exists() else name


def _seeds(document: Document, instead: int | None) -> tuple[int, ...]:
    written = instead or document.content.get("seeds", USUAL_SEEDS)
    try:
        return seeds_of([int(seed) for seed in written] if isinstance(written, list) else int(written))
    except (TypeError, ValueError) as error:
        said = error if isinstance(error, ConfigError) else f"seeds must be whole numbers, got {written!r}"
        raise ConfigError(f"{document.at('seeds')}: {said}") from error


def _number(document: Document, key: str, value: Any, *place: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{document.at(key, *place)}: {key} must be a number, got {value!r}")
    return number


def _text(document: Document, key: str, value: Any, *place: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ConfigError(f"{document.at(key, *place)}: {key} must be a name, got {value!r}")
    return value


def _list(document: Document, key: str, instead: Sequence[str] = ()) -> list[Any]:
    value = list(instead) or document.content.get(key)
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{document.at(key)}: {key} must be a list such as  {key}: [a, b], got {value!r}")
    if len(value) > MOST_IN_A_LIST:
        raise ConfigError(f"{document.at(key)}: {key} holds {len(value):,}, more than {MOST_IN_A_LIST:,}")
    return value


def _settings(document: Document, owner: type, *keys: str | int, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """A mapping of the file as settings of a dataclass."""
    known = settings_of(owner)
    _check_keys(document, keys, (*but, *known))
    return {
        name: read(owner, name, value, f"{document.at(*keys, name)}: ")
        for name, value in _mapping(document, *keys).items()
        if name not in but
    }


def _mapping(document: Document, *keys: str | int) -> dict[str, Any]:
    value: Any = document.content
    for key in keys:
        value = value.get(key, {}) if isinstance(key, str) else value[key]
    if not isinstance(value, dict):
        name = next(key for key in reversed(keys) if isinstance(key, str))
        raise ConfigError(f"{document.at(*keys)}: {name} must hold lines such as  name: value, got {value!r}")
    return value


def _check_keys(document: Document, keys: tuple[str | int, ...], known: Iterable[str]) -> None:
    known = list(known)
    for key in _mapping(document, *keys):
        if key not in known:
            raise ConfigError(f"{document.at(*keys, key)}: there is no key {key!r}: {nearest(key, known)}")
