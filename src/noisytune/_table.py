"""Tables and sentences as plain text: twenty thousand rows at once, and no name broken within a word."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from textwrap import wrap

from noisytune._text import terminal

_GAP = "  "
_LONGEST_REMARK = 16
_NARROW = 20
"""Columns for names below which a longer name has lines of its own, above the rest of its row."""
_WORD = re.compile(r".[^._/:\-]*[._/:\-]*")
"""A part of a name: it may be broken after a dot, a stroke or a line."""


def lines(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """The lines of a table whose first column holds names, and whose last holds a number or a remark.

    A name that is too long is broken after a dot, and stands above its row where its column is narrow; a remark is
    broken between words. What is still too long sticks out.

    Args:
        header: the columns' names.
        rows: as many cells each.
        width: of the terminal, in characters.

    >>> list(lines(["name", "n"], [["encoder.weight", "1"], ["a", "20"]], 12))
    ['name       n', 'encoder.', 'weight', '           1', 'a         20']
    """
    cells = [[terminal(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    if widths[-1] > _LONGEST_REMARK:
        for row in cells:
            row[-1] = "\n".join(wrap(row[-1], _LONGEST_REMARK, break_long_words=False))
        widths[-1] = max(len(line) for row in cells for line in row[-1].split("\n"))
    room = width - sum(widths[1:]) - len(_GAP) * (len(widths) - 1)
    widths[0] = min(widths[0], max(room, 0))
    for row in cells:
        if widths[0] < min(len(row[0]), _NARROW):
            yield from broken(row[0], width)
            row[0] = ""
        yield from _row(row, widths)


def paragraph(text: str, width: int) -> list[str]:
    """The lines of a sentence, broken between words.

    >>> paragraph("Note: 3 tensors are left alone", 20)
    ['Note: 3 tensors are', '  left alone']
    """
    return wrap(terminal(text), width, subsequent_indent=_GAP, break_long_words=False, break_on_hyphens=False)


def terminal_width() -> int:
    """Columns of the terminal, from 60 to 200; 100 where there is none."""
    return min(max(shutil.get_terminal_size((100, 24)).columns, 60), 200)


def _row(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    name, *others, remark = row
    left = broken(name, widths[0])
    first, *more = remark.split("\n")
    right = [_GAP.join(cell.rjust(size) for cell, size in zip((*others, first), widths[1:], strict=True))]
    right += [line.rjust(len(right[0])) for line in more]
    if len(left[0]) > widths[0]:
        yield left.pop(0)
    for i in range(max(len(left), len(right))):
        start = left[i] if i < len(left) else ""
        end = right[i] if i < len(right) else ""
        yield f"{start.ljust(widths[0])}{_GAP}{end}".rstrip()


def broken(name: str, width: int) -> list[str]:
    """The name in lines of at most ``width`` characters where its words allow it.

    >>> broken("encoder.layer.0.weight", 10)
    ['encoder.', 'layer.0.', 'weight']
    """
    if len(name) <= width:
        return [name]
    found = [""]
    for word in _WORD.findall(name):
        if found[-1] and len(found[-1]) + len(word) > width:
            found.append("")
        found[-1] += word
    return found
