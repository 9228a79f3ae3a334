"""How checkpoints are shown: a tensor a row, or a role of parameters a row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from noisytune import _table
from noisytune._console import Console
from noisytune._text import terminal

if TYPE_CHECKING:
    from noisytune.checkpoint._diff import Change, Difference
    from noisytune.manifest import TensorEntry


def tensor_rows(entries: Iterable[TensorEntry]) -> list[dict[str, Any]]:
    """Tensors as JSON values."""
    return [
        {
            "name": entry.own_names[0],
            "canonical_name": entry.name,
            "copies": list(entry.own_names[1:]),
            "shape": list(entry.shape),
            "dtype": entry.dtype,
            "std": entry.std,
            "scale": entry.scale,
            "noise_std": None if entry.scale is None else entry.scale / math.sqrt(12),
            "left_alone": entry.left_alone,
        }
        for entry in entries
    ]


def print_tensors(out: Console, entries: Iterable[TensorEntry]) -> None:
    """A tensor a row, and what noise would do to it."""
    rows = []
    for entry in entries:
        noise = f"left: {entry.left_alone}" if entry.scale is None else f"+-{entry.scale / 2:.3g}"
        std = "-" if entry.std is None else f"{entry.std:.3g}"
        rows.append((entry.own_names[0], "x".join(map(str, entry.shape)) or "-", entry.dtype, std, noise))
    lines = _table.lines(("tensor", "shape", "dtype", "std", "noise"), rows, out.width)
    out.file.write("\n".join(lines) + "\n")  # Rich takes seconds for thousands of lines


def print_names(out: Console, entries: Iterable[TensorEntry]) -> None:
    """A tensor a row: its canonical name, and those in the files. Globs know it by each of them."""
    rows = [(entry.name, ", ".join(entry.own_names)) for entry in entries]
    out.file.write("\n".join(_table.lines(("canonical name", "in the files"), rows, out.width)) + "\n")


def difference(found: Difference) -> dict[str, Any]:
    """Changes of the roles of parameters, and of all together, as JSON values."""
    return {
        "roles": [_change(role) for role in found.roles()],
        "all": _change(found.total()),
        "only_first": list(found.only_first),
        "only_second": list(found.only_second),
    }


def _change(role: Change) -> dict[str, Any]:
    return {
        "role": role.name,
        "relative_l1": role.relative if math.isfinite(role.relative) else None,
        "tensors": role.tensors,
        "elements": role.elements,
    }


LONGEST_BAR = 24
"""Characters."""


def print_difference(out: Console, found: Difference) -> None:
    """A role a row, with a bar."""
    roles = found.roles()
    largest = max((role.relative for role in roles if math.isfinite(role.relative)), default=0.0) or 1.0
    shown = [*roles, found.total()]
    rows = [(terminal(one.name), str(one.tensors), f"{one.elements:,}", f"{one.relative:.4%}") for one in shown]
    headings = ("role", "tensors", "elements", "change")
    taken = sum(max(map(len, column)) + 2 for column in zip(headings, *rows, strict=True))
    longest = min(max(out.width - taken, 0), LONGEST_BAR)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "role" else "right", no_wrap=True)
    table.add_column("")
    for one, row in zip(shown, rows, strict=True):
        table.add_row(*row, "█" * round(longest * min(one.relative / largest, 1.0)))
    out.print(table)
    for which, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            names = f"{', '.join(only[:5])}{' ...' if len(only) > 5 else ''}"
            out.print(f"Only in {which}, not compared: {names}", soft_wrap=True)


def plot_difference(found: Difference, path: Path) -> None:
    """The same as bars, written in the format that the file's name says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    roles = found.roles()
    figure = Figure(figsize=(7, 0.4 * len(roles) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh([role.name for role in roles], [100 * role.relative for role in roles])
    axes.invert_yaxis()
    axes.set_xlabel("relative change, sum |B - A| / sum |A| (%)")
    figure.savefig(path)
