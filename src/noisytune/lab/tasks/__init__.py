"""The tasks that a study runs on: embedded ones, GLUE, XTREME, and the user's own files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from noisytune._metrics import METRICS, kinds_with
from noisytune.errors import ConfigError, NotFoundError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._data import DEFAULTS, TaskData, TaskOptions, held_out, hold_out, limit, order_key
from noisytune.lab.tasks._facts import described
from noisytune.lab.tasks._tables import READERS, suffix
from noisytune.lab.tasks.files import load_file
from noisytune.lab.tasks.glue import OFFICIAL, folders, load_glue
from noisytune.lab.tasks.language import LANGUAGE_MODELS
from noisytune.lab.tasks.memory import load_rows
from noisytune.lab.tasks.replies import load_replies
from noisytune.lab.tasks.topics import load_topics
from noisytune.lab.tasks.xtreme import OFFICIAL as OFFICIAL_XTREME
from noisytune.lab.tasks.xtreme import XTREME, NothingToScoreError, lacks, load_xtreme, only_what_fits

__all__ = [
    "BENCHMARKS",
    "GLUE",
    "LANGUAGE_MODELS",
    "TASKS",
    "XTREME",
    "XTREME_ONLY",
    "Split",
    "TaskData",
    "TaskOptions",
    "described",
    "fitting",
    "held_out",
    "hold_out",
    "limit",
    "load_task",
    "load_tasks",
    "noticed",
    "order_key",
    "task_from_rows",
    "trained_as",
    "with_files",
]

GLUE = "glue"
"""Stands for its nine tasks."""
BENCHMARKS = (GLUE, XTREME)
"""Names that stand for several tasks."""

FILES_ONLY = (
    *("text_columns", "join_columns", "label_column", "dev_file", "kind", "missing_labels", "empty_texts"),
    "group_column",
    *LANGUAGE_MODELS,
)
"""Settings that no other task has."""
XTREME_ONLY = ("languages", "setting", "layer", "scored_split")
"""The same of XTREME."""

TASKS: dict[str, Callable[[TaskOptions], TaskData]] = {
    "topics": load_topics,
    "replies": load_replies,
    **{f"glue/{name}": partial(load_glue, name) for name in OFFICIAL},
    **{f"{XTREME}/{name}": partial(load_xtreme, name) for name in OFFICIAL_XTREME},
}
"""Tasks by name."""


def load_task(name_or_file: str, options: TaskOptions = DEFAULTS) -> TaskData:
    """Load a task by its name, or a file by its path.

    Args:
        name_or_file: a name in `TASKS`, or the path of a CSV, TSV, JSON, JSON Lines or Parquet file.
        options: what the user asked for.

    Returns:
        The task, with train and dev no larger than asked for.

    Raises:
        DataError: no such task, or something is wrong with the data.
        ConfigError: an option or a metric that does not fit the task.
        MissingExtraError: the corpus or a library is not installed.

    >>> task = load_task("topics", TaskOptions(train_size=100))
    >>> task.kind, len(task.train)
    ('classification', 100)
    """
    _known_metric(options)
    path = Path(name_or_file)
    known_file = suffix(path) in READERS or path.exists()
    spellings = {
        **{name: name for name in BENCHMARKS},
        **{name.rpartition("/")[2]: name for name in TASKS},
        **{name: name for name in TASKS},
    }
    near = [] if known_file else get_close_matches(name_or_file.lower(), spellings, n=1)
    if options.data_dir and not name_or_file.startswith(BENCHMARKS):
        raise ConfigError(f"data_dir is for the tasks of glue and xtreme, not for {name_or_file!r}")
    if (given := options.given(XTREME_ONLY)) and not name_or_file.startswith(XTREME):
        raise ConfigError(f"{' and '.join(given)} can be given for the tasks of xtreme only, not for {name_or_file!r}")
    if name_or_file in TASKS:
        if for_files := options.given(FILES_ONLY):
            raise ConfigError(f"{' and '.join(for_files)} can be given for files only, not for {name_or_file!r}")
        task = TASKS[name_or_file](options)
    elif known_file or ("/" in name_or_file and not near):
        if options.language != "english":
            raise ConfigError(f"language is for the task topics: {name_or_file} is read as it is")
        task = load_file(path, options)
    else:
        hint = f"did you mean {spellings[near[0]]!r}? " if near else ""
        raise NotFoundError(
            f"no task {name_or_file!r}: {hint}choose {', '.join(TASKS)} or give a file ({', '.join(READERS)})"
        )
    return _ready(task, options)


def task_from_rows(rows: Any, options: TaskOptions = DEFAULTS, *, name: str = "rows", dev: Any = None) -> TaskData:
    """A task from rows in memory, read as a file is.

    Args:
        rows: dicts; tuples ``(text, label)`` or ``(text, text, label)``; a dict of columns; a pandas or polars frame; a
            ``datasets.Dataset``.
        options: what the user asked for.
        name: of the task.
        dev: rows of the dev set. None: ``options.dev_file``, else a fifth of ``rows``.

    Raises:
        DataError: something is wrong with the data.
        ConfigError: an option or a metric that does not fit the task.
        MissingExtraError: a library is not installed.

    >>> rows = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(10)]
    >>> task_from_rows(rows, TaskOptions(train_size=4), name="words").notices[0]
    'words: classification, 4 train and 4 dev examples, 2 classes (bad 2 + 2, good 2 + 2; the largest is 50.0 % of dev)'
    """
    for setting in options.given(("data_dir", "language", *XTREME_ONLY)):
        raise ConfigError(f"{setting} is not for rows in memory, but for the project's own tasks")
    _known_metric(options)
    return _ready(load_rows(rows, options, name=name, dev=dev), options)


def _known_metric(options: TaskOptions) -> None:
    if options.metric is not None and not kinds_with(options.metric):
        known = dict.fromkeys(key for metrics in METRICS.values() for key in metrics)
        raise ConfigError(f"no metric {options.metric!r}: choose one of {', '.join(known)}")


def _ready(task: TaskData, options: TaskOptions) -> TaskData:
    """The last step of every task: its metric, the sizes asked for, and its facts."""
    metric = options.metric or task.metric
    if metric not in (fitting := metrics_for(task)):
        shape = f", {len(task.labels)} classes" if task.labels else ""
        raise ConfigError(
            f"the metric {metric} does not fit the task {task.name!r} ({task.kind}{shape}): "
            f"choose {' or '.join(f'metric={key}' for key in fitting)}"
        )
    take = partial(limit, kind=task.kind, labels=task.labels, seed=options.split_seed)
    trained_on = task.trained_on and _ready(task.trained_on, replace(options, metric=None))
    if trained_on:
        train, about_train = trained_on.train, trained_on.notices
    else:
        train, about_train = take(task.train, options.train_size, option="train_size")
    # Among fewer sentences a search is easier: of retrieval no part is taken.
    size = options.dev_size if task.of_kind.is_trained else None
    taken = {name: take(split, size, option="dev_size") for name, split in task.evaluate.items()}
    about_dev = next(iter(taken.values()))[1]
    evaluate = {name: split for name, (split, _) in taken.items()}
    if size != options.dev_size:
        about_dev = (f"{task.name}: dev_size takes no part of it, all sentences are searched",)
    notices = (*task.notices, *about_train, *about_dev)
    made = replace(task, metric=metric, train=train, evaluate=evaluate, notices=notices, trained_on=trained_on)
    return described(made)


def metrics_for(task: TaskData) -> list[str]:
    """The keys of the metrics that a task can be scored by, its kind's default first."""
    return KINDS[task.kind].metrics(task.labels)


def load_tasks(names: str, options: TaskOptions = DEFAULTS) -> tuple[TaskData, ...]:
    """Load one or several tasks, each with the same options.

    Args:
        names: what `load_task` takes, or several joined by commas. ``glue`` and ``xtreme`` stand for their nine tasks;
            with ``options.data_dir`` for those whose files are there, and a notice says which are not.
        options: what the user asked for.

    Raises:
        NoisyTuneError: as `load_task`.

    >>> [task.name for task in load_tasks("topics,replies", TaskOptions(train_size=20))]
    ['topics', 'replies']
    """
    if Path(names).is_file():
        return (load_task(names, options),)
    tasks: list[TaskData] = []
    asked = [name for name in map(str.strip, names.split(",")) if name]
    # What only some of them have is for those; what none has is an error.
    shared = any(name not in BENCHMARKS and fitting(name, options) == options for name in asked)
    for name in asked:
        if name in BENCHMARKS:
            tasks += _all_of(name, options)
        else:
            tasks.append(load_task(name, fitting(name, options) if shared else options))
    return tuple(tasks)


def _all_of(benchmark: str, options: TaskOptions) -> list[TaskData]:
    """The tasks of a benchmark, each with the options that fit it."""
    names = [name for name in TASKS if name.startswith(f"{benchmark}/")]
    there, notice = with_files(names, options)
    tasks: list[TaskData] = []
    notices = [notice]
    for name in there:
        try:
            tasks.append(load_task(name, fitting(name, options)))
        except NothingToScoreError as error:
            if name == there[-1] and not tasks:
                raise
            notices.append(f"{name} is left out: {error}")
    for text in filter(None, reversed(notices)):
        tasks[0] = noticed(tasks[0], text)
    return tasks


def fitting(name: str, options: TaskOptions) -> TaskOptions:
    """The options without those that other tasks of the benchmark have and this one has not."""
    benchmark, _, task = name.partition("/")
    return only_what_fits(task, options) if benchmark == XTREME else options


def with_files(names: Sequence[str], options: TaskOptions) -> tuple[list[str], str]:
    """The tasks that can be read: of a benchmark's those whose files a download holds, and all others.

    Args:
        names: of tasks.
        options: with the download, as ``data_dir``; None: the Hub.

    Returns:
        Their names, and a notice on the others. Where none is left, the first, whose error says what is wrong.
    """
    found = folders(options.data_dir) if options.data_dir else OFFICIAL
    reasons: dict[str, str] = {}
    for name in names:
        benchmark, _, task = name.partition("/")
        if benchmark == GLUE and task in OFFICIAL and task not in found:
            reasons[name] = f"no folder in {options.data_dir}"
        elif benchmark == XTREME and task in OFFICIAL_XTREME and (reason := lacks(task, options)):
            reasons[name] = reason
    there = [name for name in names if name not in reasons] or list(names)[:1]
    left_out: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        left_out.setdefault(reason, []).append(name)
    notice = "; ".join(f"{', '.join(mine)}: {reason}, left out" for reason, mine in left_out.items())
    return there, notice


def trained_as(task: TaskData, own: Mapping[str, Any], given: Iterable[str]) -> TaskData:
    """The task with its training settings as far as nothing else was asked for, and a notice on them.

    Args:
        task: with those of its benchmark, if it has any.
        own: what is asked for this task.
        given: names of settings that are asked for all tasks: theirs count instead.
    """
    training = {name: value for name, value in {**task.training, **own}.items() if name not in given}
    source = task.trained_on and trained_as(task.trained_on, own, given)
    shown = (f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in training.items())
    about = f"{task.name}: trained with {', '.join(shown)}" if training and not source else ""
    return noticed(replace(task, training=training, trained_on=source), about)


def noticed(task: TaskData, notice: str) -> TaskData:
    """The task with one notice more, after the one that says what it is; as it is for an empty one."""
    return replace(task, notices=(*task.notices[:1], notice, *task.notices[1:])) if notice else task
