"""A task from rows in memory: lists, dicts of columns, and what holds columns by name, as frames and data sets do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from noisytune._metrics import METRICS
from noisytune.errors import DataError
from noisytune.lab.tasks._data import DEFAULTS, TaskData, TaskOptions
from noisytune.lab.tasks._from_tables import task_from_tables
from noisytune.lab.tasks._tables import Table, read_table, table_of_records
from noisytune.lab.tasks.language import from_table
from noisytune.lab.tasks.questions import SPANS, questions_of, read_questions, task_from_questions
from noisytune.lab.tasks.tags import TAGGING, Sentence, read_tags, sentences_of, task_from_sentences

PLAIN = {2: (("text",), "label"), 3: (("text1", "text2"), "label")}
"""Length of a tuple -> names of its text columns and of its label column."""


def load_rows(rows: Any, options: TaskOptions = DEFAULTS, *, name: str = "rows", dev: Any = None) -> TaskData:
    """Read rows as a file is read: the same columns, labels and split.

    Args:
        rows: dicts; tuples ``(text, label)`` or ``(text, text, label)``; a dict of columns; a pandas or polars frame; a
            ``datasets.Dataset``; a ``pyarrow.Table``. Of tagging, text and label are lists of one length. Of spans,
            ``question``, ``context`` and ``answers``, as `noisytune.lab.tasks.questions.read_questions` has them.
            Of language models ``messages``, ``prompt`` and ``completion`` ... as in files.
        options: what is about files is read here. Where it names columns, those of tuples are ``"0"``, ``"1"`` ...
        name: of the task.
        dev: rows of the dev set. None: ``options.dev_file``, else a fifth of ``rows``.

    Raises:
        DataError: no rows, rows of another kind, columns that cannot be found, or labels that make no task.
        MissingExtraError: scikit-learn is not installed.

    >>> task = load_rows([(f"{word} {i}", word) for word in ("good", "bad") for i in range(10)], name="words")
    >>> task.labels, len(task.train), len(task.dev)
    (('bad', 'good'), 16, 4)
    """
    named = bool(options.text_columns or options.join_columns or options.label_column or options.group_column)
    train, width = as_table(rows, name, named)
    if width in PLAIN and not named:
        texts, label = PLAIN[width]
        options = replace(options, text_columns=texts, label_column=label)
    held = None
    if dev is not None:
        held, _ = as_table(dev, f"{name} (dev)", named)
    if options.asks_for(TAGGING):
        return _tagged(name, train, held, options)
    if options.asks_for(SPANS):
        return _asked(name, train, held, options)
    if dev is None and options.dev_file is not None:
        held = read_table(options.dev_file)
    found = from_table(name, train, held, options)
    if found is None and options.metric in METRICS[SPANS]:
        return _asked(name, train, held, options)
    return found or task_from_tables(name, train, held, options)


def _tagged(name: str, train: Table, held: Table | None, options: TaskOptions) -> TaskData:
    """The task of rows that hold words and tags; dev is a file's where no rows are given."""
    read, dev = _sentences(train, options), None
    if held is not None:
        dev = _sentences(held, options)
    elif options.dev_file is not None:
        dev = read_tags(options.dev_file, options)
    return task_from_sentences(name, read, dev, options, where=name)


def _asked(name: str, train: Table, held: Table | None, options: TaskOptions) -> TaskData:
    """The task of rows that hold questions; dev is a file's where no rows are given."""
    group = options.group_column
    read, dev = questions_of(str(train.path), _records(train), group=group), None
    if held is not None:
        dev = questions_of(str(held.path), _records(held), train=False, group=group)
    elif options.dev_file is not None:
        dev = read_questions(options.dev_file, train=False, group=group)
    return task_from_questions(name, read, dev, options, where=name)


def _sentences(table: Table, options: TaskOptions) -> list[Sentence]:
    if not (sentences := list(sentences_of(str(table.path), _records(table), options))):
        raise DataError(f"{table.path}: no words in any row; give lists of words and of tags")
    return sentences


def _records(table: Table) -> Iterator[dict[str, Any]]:
    return (dict(zip(table.columns, cells, strict=True)) for cells in zip(*table.columns.values(), strict=True))


def as_table(rows: Any, name: str, named: bool) -> tuple[Table, int]:
    """Columns by name, and the length of the rows where they are tuples, else 0.

    Args:
        rows: as for `load_rows`.
        name: for messages.
        named: whether the user names columns; those of tuples are then called by number.
    """
    columns, width = None, 0
    if hasattr(rows, "column_names"):  # datasets.Dataset, pyarrow.Table
        names = rows.column_names
        if isinstance(names, Mapping):
            raise DataError(f"{name}: several splits ({', '.join(names)}); give one as the rows and one as dev")
        columns = {column: _cells(rows[column], _class_names(rows, column)) for column in names}
    elif hasattr(rows, "columns"):  # frames
        names = list(rows.columns)
        if twice := [column for column in names if names.count(column) > 1]:
            raise DataError(f"{name}: two columns are called {twice[0]!r}; rename one")
        columns = {str(column): _cells(rows[column].to_list()) for column in names}
    elif isinstance(rows, Mapping):
        if strings := [column for column, cells in rows.items() if isinstance(cells, str) or not _is_many(cells)]:
            raise DataError(f"{name}: column {strings[0]!r} is one value; a dict of columns holds a list for each")
        columns = {str(column): _cells(cells) for column, cells in rows.items()}
    if columns is None:
        return _from_items(rows, name, named)
    if len(sizes := {len(cells) for cells in columns.values()}) > 1:
        raise DataError(f"{name}: columns of {' and '.join(map(str, sorted(sizes)))} rows; they must be of one length")
    return _some_rows(Table(Path(name), columns)), width


def _from_items(rows: Any, name: str, named: bool) -> tuple[Table, int]:
    """From dicts or tuples."""
    if isinstance(rows, str | bytes) or not _is_many(rows):
        raise DataError(
            f"{name}: rows are needed (dicts, tuples, a frame), not a {type(rows).__name__}; files have paths"
        )
    items = list(rows)
    if all(isinstance(item, Mapping) for item in items):
        records = [{str(key): cell for key, cell in item.items()} for item in items]
        table = table_of_records(Path(name), records)
        return _some_rows(Table(table.path, {key: _cells(cells) for key, cells in table.columns.items()})), 0
    for place, item in enumerate(items):
        if isinstance(item, str | bytes | Mapping) or not _is_many(item) or len(item) != len(items[0]):
            seen = f"{len(item)} cells" if _is_many(item) and not isinstance(item, str) else type(item).__name__
            raise DataError(f"{name}: row {place} is not like row 0 ({seen}); give dicts, or tuples of one length")
    width = len(items[0])
    if not named and width not in PLAIN:
        raise DataError(f"{name}: rows of {width} cells; give (text, label) or (text, text, label), or dicts")
    names = [str(i) for i in range(width)] if named else [*PLAIN[width][0], PLAIN[width][1]]
    cells = zip(*items, strict=True)
    return Table(Path(name), {key: _cells(column) for key, column in zip(names, cells, strict=True)}), width


def _some_rows(table: Table) -> Table:
    if not any(table.columns.values()):
        raise DataError(f"{table.path}: no rows")
    return table


def _is_many(value: object) -> bool:
    return isinstance(value, Iterable)


def _class_names(rows: Any, column: str) -> list[str] | None:
    """Of a ``datasets.ClassLabel`` column, or one of lists of them."""
    feature = (getattr(rows, "features", None) or {}).get(column)
    return getattr(getattr(feature, "feature", feature), "names", None)


def _cells(cells: Iterable[Any], names: list[str] | None = None) -> list[object]:
    """Plain Python values; None for a missing one. Class ids become their names, and -1 the label that is not given."""
    plain = [_plain(cell) for cell in cells]
    if names is None:
        return plain
    return [_named_class(cell, names) for cell in plain]


def _named_class(cell: object, names: list[str]) -> object:
    if isinstance(cell, list):
        return [_named_class(one, names) for one in cell]
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else None


def _plain(cell: Any) -> object:
    """NumPy's and Arrow's scalars as Python's; pandas' and Arrow's marks of what is missing as None."""
    if type(cell).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(cell, "as_py"):
        return cell.as_py()
    if isinstance(cell, list | tuple):
        return [_plain(one) for one in cell]
    return cell.tolist() if hasattr(cell, "tolist") and hasattr(cell, "shape") else cell
