"""Which columns of a user's table hold the text and the label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks._data import TaskOptions
from noisytune.lab.tasks._labels import is_missing
from noisytune.lab.tasks._tables import Table

TEXT_NAMES: tuple[tuple[str, ...], ...] = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "answer"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("message", "reply"),
    ("text",),
    ("sentence",),
    ("content",),
    ("message",),
    ("review",),
    ("comment",),
    ("tweet",),
    ("utterance",),
)
"""What the text columns of published data sets are called."""

LABEL_NAMES = (
    "label",
    "labels",
    "gold_label",
    "is_duplicate",
    "class",
    "category",
    "target",
    "score",
    "similarity",
    "sentiment",
    "intent",
    "topic",
)
"""What their label columns are called."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table make a task."""

    texts: tuple[str, ...]
    label: str
    joined: bool = False
    """Whether the texts make one, in place of a pair."""


def choose_columns(table: Table, options: TaskOptions) -> tuple[Columns, tuple[str, ...]]:
    """The text columns and the label column, guessed by their names where they are not given and only one guess fits.

    Args:
        table: the training file.
        options: ``text_columns`` (none, one or two), ``join_columns`` and ``label_column`` are read here.

    Returns:
        The columns, and notices.

    Raises:
        DataError: no guess fits or several do, more than two text columns, or a column that is used twice.
        ConfigError: both ``text_columns`` and ``join_columns``.
    """
    notices = []
    if options.text_columns and options.join_columns:
        raise ConfigError("text_columns and join_columns exclude each other: give one of them")
    if len(options.text_columns) > 2:
        raise DataError(
            f"{len(options.text_columns)} text columns are too many: give one, or two for pairs, with text_columns; "
            "join_columns makes one text of several"
        )
    texts = tuple(find_column(table, name) for name in options.text_columns or options.join_columns)
    # A name matches in any case, and only where it is spelt once.
    spellings = Counter(folded(name) for name in table.columns)
    spelt = {folded(name): name for name in table.columns if spellings[folded(name)] == 1}
    if options.label_column is not None:
        label = find_column(table, options.label_column)
    else:
        labels = [spelt[name] for name in LABEL_NAMES if name in spelt and spelt[name] not in texts]
        if len(labels) != 1:
            raise unclear(table, "label", "label_column", labels, LABEL_NAMES)
        label = labels[0]
        notices.append(f"label column: {label!r} (guessed from its name; label_column chooses another)")
    if not texts:
        found = [tuple(spelt[name] for name in names) for names in TEXT_NAMES if all(name in spelt for name in names)]
        found = [names for names in found if label not in names]
        found = [names for names in found if not any(set(names) < set(others) for others in found)]
        if len(found) != 1:
            known = [name for names in TEXT_NAMES for name in names]
            raise unclear(table, "text", "text_columns", [" + ".join(names) for names in found], known)
        texts = found[0]
        quoted = " and ".join(repr(name) for name in texts)
        notices.append(f"text: {quoted} (guessed from the names; text_columns chooses others)")
    used = (*texts, label)
    if len(set(used)) < len(used):
        raise DataError(f"{table.path}: a column is used twice ({', '.join(used)}); text and label need their own")
    return Columns(texts, label, joined=bool(options.join_columns)), tuple(notices)


def find_column(table: Table, name: str) -> str:
    """The column of that name, or the only one whose name differs in case or in white space around it.

    Raises:
        DataError: there is none, or there are several; the nearest is named.
    """
    if name in table.columns:
        return name
    alike = [column for column in table.columns if folded(column) == folded(name)]
    if len(alike) == 1:
        return alike[0]
    if alike:
        raise DataError(f"{table.path}: column {name!r} may be {' or '.join(map(repr, alike))}; give its exact name")
    near = get_close_matches(folded(name), {folded(column): column for column in table.columns}, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise DataError(f"{table.path}: no column {name!r}; {hint}the columns are {table.names}")


def read_groups(table: Table, name: str | None) -> tuple[str, ...]:
    """What each row belongs to; none where no column is given.

    Args:
        table: what there is.
        name: of the column.

    Raises:
        DataError: no such column, or a cell that holds a list or an object.
    """
    if name is None:
        return ()
    cells = table.columns[find_column(table, name)]
    return tuple(group_of(cell, f"{table.path}: row {i}", i) for i, cell in enumerate(cells, start=1))


def group_of(cell: object, where: str, place: int) -> str:
    """The group that a cell names. A row without one stands for itself.

    Args:
        cell: of the ``group_column``.
        where: file and row, for messages.
        place: of the row, from 1.

    Raises:
        DataError: a list or an object.

    >>> group_of(7, "chats.csv: row 3", 3), group_of(None, "chats.csv: row 3", 3)
    ('7', '\\x00row 3')
    """
    if isinstance(cell, list | tuple | dict):
        raise DataError(f"{where}: its group is a {type(cell).__name__}; group_column must hold one name a row")
    return f"\0row {place}" if is_missing(cell) else str(cell)


def group_in(record: Mapping[str, object], name: str, where: str, place: int) -> str:
    """The group that a record names.

    Args:
        record: of a file of JSON.
        name: the ``group_column``.
        where: file and record, for messages.
        place: as for `group_of`.

    Raises:
        DataError: it has no such key, or as `group_of`.
    """
    if name not in record:
        raise DataError(f"{where}: {name!r} is none of its keys ({', '.join(record)}); group_column says which")
    return group_of(record[name], where, place)


def folded(name: str) -> str:
    """A column's name without what people do not see as a difference."""
    return name.strip().casefold()


def unclear(table: Table, what: str, setting: str, found: list[str], known: Iterable[str]) -> DataError:
    """The error for a guess that fits nowhere or more than once."""
    twins = [name for name in table.columns if folded(name) in known and spelt_twice(table, name)]
    if found:
        seen = f"several could be the {what} ({', '.join(found)})"
    elif twins:
        seen = f"columns {' and '.join(map(repr, twins))} differ in case alone"
    else:
        seen = f"none is known as the {what} by its name"
    return DataError(f"{table.path}: {seen}; say which with {setting}; the columns are {table.names}")


def spelt_twice(table: Table, name: str) -> bool:
    """Whether another column's name differs in case alone."""
    return sum(folded(other) == folded(name) for other in table.columns) > 1
