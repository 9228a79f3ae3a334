"""The objects of a JSON file: one a line, or a list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

from noisytune.errors import DataError

Record = dict[str, object]


class Written(float):
    """A number of a JSON file that knows how it is written: 1.10 is not 1.1 as a label."""

    def __new__(cls, text: str) -> Self:
        """From its text."""
        made = super().__new__(cls, text)
        made.text = text
        return made

    text: str

    def __str__(self) -> str:
        return self.text


def records_of(path: Path, text: str, *, cells_are_lists: bool = False) -> list[Record]:
    """The objects of a file, one a line or in one list.

    Args:
        path: for messages.
        text: what the file holds.
        cells_are_lists: ``{"tokens": ["a", "b"], "tags": ["O", "O"]}`` is one row then, and not two.

    Raises:
        DataError: it is not JSON, or something else than objects; names the line or the item.
    """
    if text.lstrip().startswith("[") or not _is_lines(text):
        return _list_of(path, text, cells_are_lists)
    return _lines_of(path, text, cells_are_lists)


def _is_lines(text: str) -> bool:
    """Whether the first line that is not blank is a whole value, as in JSON Lines, or not the first of a larger one."""
    first = text.lstrip().partition("\n")[0].rstrip()
    return first.endswith("}") or not first.startswith("{")


def _lines_of(path: Path, text: str, cells_are_lists: bool) -> list[Record]:
    records: list[Record] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        record = _json(path, line, f"line {number} is", "write one object a line")
        if not isinstance(record, dict):
            raise DataError(f"{path}: line {number} is not a JSON object; write one object a line")
        records.append(record)
    return (_rows_in(records[0], cells_are_lists) if len(records) == 1 else None) or records


def _list_of(path: Path, text: str, cells_are_lists: bool) -> list[Record]:
    """The objects of a list, or of the only list in an object."""
    value = _json(path, text, "the file is", "write a list of objects, or one object a line")
    if isinstance(value, dict):
        return _rows_in(value, cells_are_lists) or [value]
    rows: list[Record] = []
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise DataError(f"{path}: item {number} of the list is not a JSON object but a {kind}; write objects")
        rows.append(row)
    return rows


def _rows_in(value: Record, cells_are_lists: bool) -> list[Record] | None:
    """The rows of ``{"data": [...]}`` or of ``{"text": [...], "label": [...]}``, or None."""
    lists = [item for item in value.values() if isinstance(item, list)]
    tables = [[row for row in item if isinstance(row, dict)] for item in lists]
    whole = [rows for rows, item in zip(tables, lists, strict=True) if rows and len(rows) == len(item)]
    if len(whole) == 1:
        return whole[0]
    if cells_are_lists and not all(isinstance(cell, list) for item in lists for cell in item):
        return None
    if 1 < len(lists) == len(value) and len(set(map(len, lists))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    return None


def _json(path: Path, text: str, what: str, instead: str) -> object:
    """A value; half a surrogate pair in it is refused here, and not by whoever encodes it later."""
    try:
        value: object = json.loads(text, parse_float=Written)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        reason = "half a surrogate pair" if isinstance(e, UnicodeEncodeError) else str(e)
        raise DataError(f"{path}: {what} not JSON ({reason}); {instead}") from e
    return value
