"""Rows of names and numbers: a table where the terminal is wide enough, else a paragraph for each row."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from noisytune._console import Console
from noisytune._text import terminal

_GAP = 2
_NARROWEST = 8
"""Characters of a column into which names may be broken."""


def print_rows(
    out: Console, headings: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1, total: bool = False
) -> None:
    """Print rows so that no number is ever broken.

    Args:
        out: where to.
        headings: of the columns.
        rows: as many cells each.
        names: how many columns, from the left, hold names: these are broken where there is no room. The others hold
            numbers.
        total: whether the last row is that of all others together.

    >>> rows = [("glue/mnli", "5,000"), ("glue/rte", "40")]
    >>> print_rows(Console(width=20), ("task", "trials"), rows)
    task       trials
    glue/mnli   5,000
    glue/rte       40
    >>> print_rows(Console(width=15), ("task", "trials"), rows[:1])
    task: glue/mnli
    trials: 5,000
    <BLANKLINE>
    """
    headings, rows = [terminal(one) for one in headings], [[terminal(cell) for cell in row] for row in rows]
    cells = [max(map(len, column[1:]), default=0) for column in zip(headings, *rows, strict=True)]
    room = out.width - _GAP * (len(headings) - 1) - names * _NARROWEST
    wide = [max(len(heading), cell) for heading, cell in zip(headings, cells, strict=True)]
    if sum(wide[names:]) > room:  # headings are broken first
        wide = [max(min(len(h), _NARROWEST), cell) for h, cell in zip(headings, cells, strict=True)]
    if sum(wide[names:]) > room:
        for row in rows:
            for heading, cell in zip(headings, row, strict=True):
                out.print(f"{heading}: {cell}" if heading else cell)
            out.print()
        return
    left = out.width - _GAP * (len(headings) - 1) - sum(wide[names:])
    for i, sharing in zip(sorted(range(names), key=wide.__getitem__), range(names, 0, -1), strict=True):
        wide[i] = min(wide[i], left // sharing)  # what a short one leaves goes to the longer one
        left -= wide[i]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < names else "right", overflow="fold", width=wide[i])
    for row in rows:
        table.add_row(*row, style="bold" if total and row is rows[-1] else None)
    out.print(table)
