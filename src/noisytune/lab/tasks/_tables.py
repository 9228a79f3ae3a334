"""A user's table, read strictly: CSV, TSV, JSON or Parquet into columns of cells."""

from __future__ import annotations

import csv
import io
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from noisytune._text import encodable
from noisytune.errors import DataError, NotFoundError, require
from noisytune.lab.tasks._decoding import PACKED, decode, read_bytes
from noisytune.lab.tasks._json import records_of

Rows = list[list[str]]
Given = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A file's columns, all of one length."""

    path: Path
    columns: dict[str, list[object]]
    """Name -> cells: str from CSV and TSV, any type from JSON and Parquet. None where the cell is empty."""
    notices: tuple[str, ...] = ()

    @property
    def names(self) -> str:
        """The columns, for an error message."""
        names = list(self.columns)
        return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def read_table(path: Path, given: Given = ()) -> Table:
    """Read a file by its suffix.

    Args:
        path: its suffix is in `READERS`, with or without that of a compression. Text is UTF-8, or UTF-16 that shows it.
        given: the columns that the user named. Numbers that the first line of a CSV or TSV does not hold mean that
            it is no header; the columns are then called "0", "1" ...

    Raises:
        DataError: no such file, another suffix, not UTF-8, rows of different lengths, no rows; names the line.
        MissingExtraError: Parquet without pyarrow.
    """
    reader = READERS.get(suffix(path))
    try:
        if reader is None:
            if path.is_dir():
                raise DataError(f"{path}: Is a directory; give a file in it ({', '.join(READERS)})")
            raise DataError(f"{path}: unknown kind of file {path.suffix!r}; noisytune reads {', '.join(READERS)}")
        table = reader(path, given)
    except OSError as e:
        kind = NotFoundError if isinstance(e, FileNotFoundError) else DataError
        raise kind(f"{path}: {e.strerror or 'cannot be read'}; give the path of a {suffix(path)} file") from e
    if not table.columns or not next(iter(table.columns.values())):
        raise DataError(f"{path}: no rows; the file needs at least one below the header")
    return table


def suffix(path: Path) -> str:
    """What kind of file it is by its name, in small letters, whether or not it is compressed.

    >>> suffix(Path("reviews.CSV.gz"))
    '.csv'
    """
    last = path.suffix.lower()
    return Path(path.stem).suffix.lower() if last in PACKED else last


def stem(path: Path) -> str:
    """Its name without what says the kind of file.

    >>> stem(Path("data/reviews.csv.gz"))
    'reviews'
    """
    return encodable(Path(path.stem).stem if path.suffix.lower() in PACKED else path.stem)


def task_name(path: Path) -> str:
    """What a task of a file is called; a benchmark's folder says more than the name of its training file.

    >>> task_name(Path("/data/rte/train.tsv")), task_name(Path("/data/reviews.csv"))
    ('rte', 'reviews')
    """
    folder = encodable(path.resolve().parent.name) if stem(path).lower() in ("train", "data") else ""
    return folder or stem(path)


def read_csv(path: Path, given: Given) -> Table:
    """Quoted by the standard; separated by what a line ``sep=;`` says, or the header shows, commas before others."""
    text = decode(path)
    first, _, rest = text.lstrip().partition("\n")
    if told := re.fullmatch(r'"?sep=(.)"?', first.rstrip("\r"), re.IGNORECASE):
        return _quoted_table(path, rest, told[1], given)
    candidates = [mark for mark in SEPARATORS if mark in first] or [","]
    if "," not in candidates:
        return _quoted_table(path, text, candidates[0], given)
    try:
        return _quoted_table(path, text, ",", given)
    except DataError:
        for mark in candidates[1:]:
            with suppress(DataError):
                return _quoted_table(path, text, mark, given)
        raise


def _quoted_table(path: Path, text: str, delimiter: str, given: Given) -> Table:
    """A table whose separator is known; another one than the comma is a notice."""
    notices = (
        () if delimiter == "," else (f"{path.name}: cells are separated by {SEPARATORS.get(delimiter, delimiter)}",)
    )
    try:
        lines = quoted(text, delimiter)
    except csv.Error as e:
        raise DataError(
            f"{path}: not well-formed CSV ({e}); quote cells with commas, and double the quotes in them"
        ) from e
    if wrong := ragged(lines):
        raise DataError(f"{path}: {wrong}; quote cells that contain the separator {delimiter!r}")
    return to_table(path, [cells for _, cells in lines], given, notices)


SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
"""What may stand between the cells of a CSV file, the usual one first."""


def read_tsv(path: Path, given: Given) -> Table:
    """Tab separated: quoted by the standard where that fits, else quotes are plain characters (as in GLUE)."""
    text = decode(path)
    plain = plain_rows(text)
    try:
        lines = quoted(text, "\t")
    except csv.Error:
        lines = []
    swallowed = any("\t" in cell or "\n" in cell for _, cells in lines for cell in cells)
    if lines and not ragged(lines) and not (swallowed and not ragged(plain)):
        return to_table(path, [cells for _, cells in lines], given, ())
    if wrong := ragged(plain):
        raise DataError(f"{path}: {wrong}; every line needs the same number of tabs")
    notice = f"{path.name}: quotation marks are not in pairs and were read as plain characters"
    return to_table(path, [cells for _, cells in plain], given, (notice,) if '"' in text else ())


def read_json(path: Path, given: Given) -> Table:
    """One JSON object a line, or one list of objects."""
    return table_of_records(path, records_of(path, decode(path)))


def table_of_records(path: Path, records: Sequence[Mapping[str, object]]) -> Table:
    """Objects to columns, each named where it occurs first; a key that an object lacks is an empty cell."""
    names = dict.fromkeys(name for record in records for name in record)
    return Table(path, {name: [record.get(name) for record in records] for name in names})


def read_parquet(path: Path, given: Given) -> Table:
    """Parquet, any column types."""
    require("pyarrow", extra="report", needed_for=f"reading {path.name}")
    import pyarrow.lib
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(read_bytes(path)))
        return Table(path, {name: table[name].to_pylist() for name in table.column_names})
    except (pyarrow.lib.ArrowException, KeyError) as e:
        reason = str(e).splitlines()[0]
        raise DataError(f"{path}: not a Parquet file that can be read ({reason}); write it again") from e


READERS: dict[str, Callable[[Path, Given], Table]] = {
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".json": read_json,
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".parquet": read_parquet,
    ".pq": read_parquet,
}
"""Suffix -> reader."""


def quoted(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Rows by the quoting standard, each with the number of the line that it ends on; blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        with _cells_up_to(len(text)):
            return [(reader.line_num, cells) for cells in reader if not is_blank(cells)]
    except csv.Error as e:
        raise csv.Error(f"line {reader.line_num}: {e}") from e


def plain_rows(text: str) -> list[tuple[int, list[str]]]:
    """Tab-separated rows in which quotation marks mean nothing, each with the number of its line, from 1."""
    numbered = ((n, line.split("\t")) for n, line in enumerate(re.split("\r\n|\r|\n", text), start=1))
    return [(n, cells) for n, cells in numbered if not is_blank(cells)]


def is_blank(cells: list[str]) -> bool:
    """Whether a line holds nothing, or nothing but white space in its only cell."""
    return len(cells) < 2 and not "".join(cells).strip()


_CELL_LIMIT = threading.Lock()


@contextmanager
def _cells_up_to(length: int) -> Iterator[None]:
    """Let the csv module read cells of so many characters. Its limit belongs to the whole process: it is put back."""
    with _CELL_LIMIT:
        before = csv.field_size_limit()
        csv.field_size_limit(max(before, length))
        try:
            yield
        finally:
            csv.field_size_limit(before)


def ragged(lines: list[tuple[int, list[str]]]) -> str | None:
    """What is wrong with the first row that is not as long as the first one, or None."""
    for number, cells in lines:
        if len(cells) != len(lines[0][1]):
            return f"line {number} has {len(cells)} cells, line {lines[0][0]} has {len(lines[0][1])}"
    return None


def to_table(path: Path, rows: Rows, given: Given, notices: tuple[str, ...]) -> Table:
    """Rows to columns; an empty cell is None."""
    if not rows:
        return Table(path, {}, notices)
    names, body = rows[0], rows[1:]
    if given and all(name.isdecimal() for name in given) and not set(given) <= set(names):
        names, body = [str(i) for i in range(len(names))], rows
        notices = (*notices, f"{path.name}: columns are given by number, so the first line is read as an example")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise DataError(f"{path}: two columns are called {twice[0]!r}; rename one")
    cells = list(zip(*body, strict=True)) if body else [()] * len(names)
    columns = {name: [cell or None for cell in column] for name, column in zip(names, cells, strict=True)}
    return Table(path, columns, notices)
