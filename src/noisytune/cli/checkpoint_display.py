"""How checkpoints are shown: a tensor a row, or a kind of parameter a row."""

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
    from noisytune.checkpoint._diff import Difference
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


def difference_rows(found: Difference) -> list[dict[str, Any]]:
    """Changes of the kinds of parameters as JSON values; the last one is that of all together."""
    return [
        {
            "kind": kind.name,
            "relative_l1": kind.relative if math.isfinite(kind.relative) else None,
            "tensors": kind.tensors,
            "elements": kind.elements,
        }
        for kind in (*found.kinds(), found.total())
    ]


def print_difference(out: Console, found: Difference) -> None:
    """A kind of parameter a row, with a bar."""
    kinds = found.kinds()
    largest = max((kind.relative for kind in kinds if math.isfinite(kind.relative)), default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    for column in ("tensors", "elements", "change"):
        table.add_column(column, justify="right")
    table.add_column("")
    for kind in [*kinds, found.total()]:
        bar = "█" * round(24 * min(kind.relative / largest, 1.0))
        table.add_row(terminal(kind.name), str(kind.tensors), f"{kind.elements:,}", f"{kind.relative:.4%}", bar)
    out.print(table)
    for which, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            names = f"{', '.join(only[:5])}{' ...' if len(only) > 5 else ''}"
            out.print(f"Only in {which}, not compared: {names}", soft_wrap=True)


def plot_difference(found: Difference, path: Path) -> None:
    """The same as bars, written to a file of the kind that its name says."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = found.kinds()
    figure = Figure(figsize=(7, 0.4 * len(kinds) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh([kind.name for kind in kinds], [100 * kind.relative for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlabel("relative change, sum |B - A| / sum |A| (%)")
    figure.savefig(path)
