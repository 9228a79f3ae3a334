"""A task from the user's own file: one or two text columns and a label."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from noisytune.errors import DataError, require
from noisytune.lab.kinds.metrics import METRICS
from noisytune.lab.tasks._columns import choose_columns
from noisytune.lab.tasks._data import DEFAULTS, Kind, Split, TaskData, TaskOptions
from noisytune.lab.tasks._labels import Reading, is_missing, read_labels
from noisytune.lab.tasks._tables import Table, read_table

DEV_SHARE = 0.2
"""Share of the distinct texts that becomes dev where no dev file is given."""


def load_file(path: Path, options: TaskOptions = DEFAULTS) -> TaskData:
    """Read a file, and a dev file where one is given, as a task.

    Args:
        path: CSV, TSV, JSON Lines or Parquet.
        options: ``text_columns``, ``label_column``, ``dev_file``, ``metric`` and ``split_seed`` are read here.

    Raises:
        DataError: the file cannot be read, columns cannot be found, or the labels make no task.
        MissingExtraError: scikit-learn or pyarrow is not installed.
    """
    given = tuple(name for name in (*options.text_columns, options.label_column) if name is not None)
    notices: list[str] = []
    parts: list[Rows] = []
    for file in (path, options.dev_file):
        if file is None:
            continue
        table = read_table(file, given)
        notices += table.notices
        if not parts:
            columns, guesses = choose_columns(table, options.text_columns, options.label_column)
            notices += guesses
        parts.append(read_rows(table, *columns))
    cells = [cell for rows in parts for texts, cell in zip(rows.texts, rows.labels, strict=True) if None not in texts]
    reading = read_labels(cells, options.metric, f"{path}: column {columns[1]!r}")
    notices += reading.notices
    kept = [drop_incomplete(rows, reading, notices) for rows in parts]
    check_labels(kept, reading, columns[1])
    if len(kept) == 2:
        train, dev = (as_split(rows, reading) for rows in kept)
        known = set(train.texts)
        if repeated := sum(texts in known for texts in dev.texts):
            notices.append(
                f"{repeated} of {len(dev)} dev rows have the same text as a training row: the scores flatter"
            )
    else:
        train, dev = hold_out(as_split(kept[0], reading), reading.kind, path, options.split_seed, notices)
    present = set(dev.targets)
    if absent := [name for i, name in enumerate(reading.names) if i not in present]:
        notices.append(f"dev has no example of {some(absent)}")
    metric = options.metric or next(key for key, m in METRICS.items() if m.kind == reading.kind)
    # A benchmark's folder says more than the name of its training file.
    name = path.resolve().parent.name if path.stem.lower() in ("train", "data") else ""
    return TaskData(name or path.stem, reading.kind, metric, reading.names, train, dev, tuple(notices))


@dataclass(frozen=True)
class Rows:
    """A file's examples before their labels are understood."""

    path: Path
    texts: list[tuple[str | None, ...]]
    labels: list[object]


def read_rows(table: Table, text_columns: tuple[str, ...], label_column: str) -> Rows:
    """The chosen columns; numbers among the texts become text.

    Raises:
        DataError: no such column, or a cell that holds a list or an object.
    """
    for name in (*text_columns, label_column):
        if name not in table.columns:
            raise DataError(f"{table.path}: no column {name!r}; the columns are {table.names}")
        odd = next((cell for cell in table.columns[name] if isinstance(cell, (list, tuple, dict, bytes))), None)
        if odd is not None:
            raise DataError(
                f"{table.path}: column {name!r} holds a {type(odd).__name__}; one text or label a cell is needed"
            )
    texts = [[None if is_missing(cell) else str(cell) for cell in table.columns[name]] for name in text_columns]
    return Rows(table.path, list(zip(*texts, strict=True)), table.columns[label_column])


def drop_incomplete(rows: Rows, reading: Reading, notices: list[str]) -> Rows:
    """The rows that have every text and a label; says how many were dropped.

    Raises:
        DataError: none is left.
    """
    keep = [
        i
        for i, (texts, label) in enumerate(zip(rows.texts, rows.labels, strict=True))
        if None not in texts and reading.target(label) is not None
    ]
    dropped = len(rows.labels) - len(keep)
    if not keep:
        raise DataError(f"{rows.path}: each of the {dropped} rows lacks a text or a label; check the columns")
    if dropped:
        notices.append(
            f"{rows.path.name}: {dropped} of {len(rows.labels)} rows lack a text or a label and are left out"
        )
    return Rows(rows.path, [rows.texts[i] for i in keep], [rows.labels[i] for i in keep])


def check_labels(parts: list[Rows], reading: Reading, column: str) -> None:
    """Refuse labels that nothing can be learnt from.

    Raises:
        DataError: one class or value only, a class that only dev has, or nearly as many classes as rows.
    """
    train = parts[0]
    where = f"{train.path}: column {column!r}"
    seen = Counter(reading.target(label) for label in train.labels)
    if len(seen) < 2:
        what = "class" if reading.kind == "classification" else "value"
        raise DataError(f"{where} has only one {what}, {train.labels[0]!r}; at least two are needed")
    if reading.kind == "regression":
        return
    if len(seen) > max(2, len(train.labels) / 2):
        raise DataError(
            f"{where} has {len(seen)} classes in {len(train.labels)} rows: it looks like an identifier or a text; "
            f"choose another with --label-column"
        )
    if missing := [name for i, name in enumerate(reading.names) if i not in seen]:
        dev = parts[-1].path
        raise DataError(f"{dev}: {some(missing)} never occurs in {train.path.name}; add training rows or remove it")


def as_split(rows: Rows, reading: Reading) -> Split:
    """Texts and targets, complete."""
    texts = tuple(tuple(text for text in row if text is not None) for row in rows.texts)
    targets = tuple(target for label in rows.labels if (target := reading.target(label)) is not None)
    return Split(texts, targets)


def hold_out(data: Split, kind: Kind, path: Path, seed: int, notices: list[str]) -> tuple[Split, Split]:
    """Train and dev, stratified by class; rows with the same text stay on one side, a class with one text in train.

    Raises:
        DataError: too few texts.
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", extra="lab", needed_for="splitting a file into train and dev")
    from sklearn.model_selection import train_test_split

    first: dict[tuple[str, ...], float] = {}
    for texts, target in zip(data.texts, data.targets, strict=True):
        first.setdefault(texts, target)
    classes = Counter(first.values()) if kind == "classification" else Counter()
    movable = [texts for texts, target in first.items() if classes[target] != 1]
    strata = [first[texts] for texts in movable] if classes else None
    need = sum(count > 1 for count in classes.values()) or 1
    size = max(round(DEV_SHARE * len(movable)), need)
    if len(movable) - size < max(need, 2):
        raise DataError(
            f"{path}: {len(first)} different texts are too few to split off a dev set; add rows or give --dev-file"
        )
    held = set(train_test_split(movable, test_size=size, stratify=strata, random_state=seed)[1])
    sides = [[i for i, texts in enumerate(data.texts) if (texts in held) == dev] for dev in (False, True)]
    train, dev = (data.take(side) for side in sides)
    if classes and set(train.targets) < set(data.targets):
        raise DataError(f"{path}: a class has only texts that other rows label otherwise; remove these rows")
    kinds = "stratified by class" if classes else "at random"
    notices.append(f"no --dev-file: {len(dev)} of {len(data)} rows were split off as dev, {kinds}")
    if repeated := len(data) - len(first):
        notices.append(f"{path.name}: {repeated} rows repeat the text of another row and stay on its side of the split")
    return train, dev


def some(names: list[str]) -> str:
    """A few class names, for a message.

    >>> some(["a", "b"])
    "class 'a', 'b'"
    """
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "class " + ", ".join(repr(name) for name in names[:3]) + more
