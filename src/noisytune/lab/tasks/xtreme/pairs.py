"""Pairs of sentences with a class: the files of XNLI and PAWS-X, and their translations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._tables import plain_rows
from noisytune.lab.tasks.xtreme.parquet import class_names, columns_of
from noisytune.lab.tasks.xtreme.part import Part, told

SPELLINGS = {"contradictory": "contradiction"}
"""What some files of XNLI call a class."""
CELLS = {2: "text, text", 3: "text, text, label", 5: "text, text, their translations, label"}
"""Rows by their number of cells: of a test file without labels, of a usual file, of XTREME's translations."""
HUB_TEXTS = (("premise", "hypothesis"), ("sentence1", "sentence2"))
"""What the two texts are called on the Hub."""


def read_pairs(path: Path, labels: Sequence[str], code: str, train: bool) -> Part:
    """The pairs of a file without a header: tab separated, quotation marks are plain characters.

    Labels are names or official numbers. A blank sentence stays, as in the official code.

    Args:
        path: the file.
        labels: class names in id order.
        code: of the language.
        train: whether it is trained on.

    Raises:
        DataError: a row has too many or too few cells, or an unknown label; names the line.
    """
    rows = plain_rows(decode(path))
    if not rows:
        raise DataError(f"{path}: no rows; the official download has them")
    width = len(rows[0][1])
    for line, cells in rows:
        if len(cells) != width or width not in CELLS:
            seen = f"line {line} has {len(cells)} cells"
            needed = CELLS.get(width, CELLS[3])
            raise DataError(f"{path}: {seen}, where {needed} are expected; is there a tab in a text?")
    if width == 2:
        return Part(None, len(rows))
    texts = [(cells[-3].strip(), cells[-2].strip()) for _, cells in rows]
    ids = _ids(labels)
    targets = []
    for line, cells in rows:
        label = cells[-1].strip()
        if (found := ids.get(SPELLINGS.get(label, label))) is None:
            raise DataError(f"{path}: line {line}: the label {label!r} is unknown; it must be {' or '.join(labels)}")
        targets.append(found)
    return _part(texts, targets, path.name, "line", [line for line, _ in rows])


def read_hub_pairs(files: Sequence[Path], labels: Sequence[str], code: str, train: bool) -> Part:
    """The same from Parquet files of the Hub.

    Raises:
        DataError: a column is missing, or a label is unknown; names the row.
    """
    columns = columns_of(files, ("label",))
    names = next((pair for pair in HUB_TEXTS if set(pair) <= set(columns)), None)
    if names is None:
        raise DataError(f"{files[0]}: no columns {' and '.join(HUB_TEXTS[0])}; the columns are {', '.join(columns)}")
    known, ids = class_names(files[0], "label"), _ids(labels)
    targets = []
    for row, cell in enumerate(columns["label"], start=1):
        label = known[cell] if known and isinstance(cell, int) and 0 <= cell < len(known) else str(cell)
        if (found := ids.get(label)) is None:
            raise DataError(f"{files[0]}: row {row}: the label {label!r} is unknown; it must be {' or '.join(labels)}")
        targets.append(found)
    texts = [(str(one), str(other)) for one, other in zip(*(columns[name] for name in names), strict=True)]
    return _part(texts, targets, files[0].name, "row", list(range(1, len(texts) + 1)))


def _ids(labels: Sequence[str]) -> dict[str, float]:
    """The id of each class by its name and by its official number."""
    return {key: float(i) for i, label in enumerate(labels) for key in (label, str(i))}


def _part(texts: list[tuple[str, str]], targets: list[float], name: str, unit: str, places: list[int]) -> Part:
    blank = [place for place, pair in zip(places, texts, strict=True) if not all(map(str.strip, pair))]
    notices = told(blank, "rows have a blank sentence", name, unit, "they stay, as in the official code")
    return Part(Split(tuple(texts), tuple(targets)), len(texts), notices)
