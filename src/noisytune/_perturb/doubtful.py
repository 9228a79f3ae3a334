"""What takes noise, or takes none, although somebody may not expect it: said in a notice, not decided here.

Each expert, or layer, of a stack counts as a matrix. Fixed tables of sinusoidal positions are parameters, but are never
learnt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune._perturb.refusals import FIXED
from noisytune._perturb.target import Target

Rows = Callable[[Any], npt.NDArray[Any] | None]
"""Gives the first two rows of a target's matrix, shape (2, width); None where they are not at hand."""


def notices(targets: Iterable[Target], first_rows: Rows) -> list[str]:
    """One line for each sort of doubtful tensor.

    Args:
        targets: those that are left alone count only where the reason is that they are never learnt.
        first_rows: asked of tables whose names speak of positions.
    """
    fixed, kept = [], []
    targets = list(targets)
    for target in targets:
        if target.left_alone == FIXED:
            kept.append(target)
        if target.left_alone is not None:
            continue
        if len(target.shape) == 2 and target.shape[0] > 1 and _POSITIONS.search(target.name):
            rows = first_rows(target)
            if rows is not None and is_sinusoidal(rows):
                fixed.append(target)
    told = stacked(targets)
    if kept:
        told.append(f"{_some(kept)} is never learnt, by the model's code, and is left alone: scope='all' perturbs it")
    if fixed:
        told.append(
            f"{_some(fixed)} is a fixed table of sinusoidal positions, which is never learnt, and gets noise as any "
            "parameter does: exclude leaves it alone"
        )
    return told


def stacked(targets: Iterable[Target]) -> list[str]:
    """The line that says that the matrices of a stack count one by one; none where there is no stack."""
    found = [target for target in targets if target.left_alone is None and target.name.endswith("]")]
    if not found:
        return []
    return [
        f"{_some(found)} is one of the experts or layers that are stacked in one tensor: each has noise by its own "
        "standard deviation, as every matrix does"
    ]


_POSITIONS = re.compile(r"pos(ition|_emb|itional)|embed_pos", re.IGNORECASE)


def is_sinusoidal(rows: npt.NDArray[Any]) -> bool:
    """Whether the first two rows are sines and cosines of positions 0 and 1, in whatever order of columns.

    >>> angles = np.arange(2)[:, None] / 10_000 ** (np.arange(8) / 8)
    >>> is_sinusoidal(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)), is_sinusoidal(np.ones((2, 16)))
    (True, False)
    """
    zero, one = rows.astype(np.float64)
    half = zero.size // 2
    if zero.size < 4 or sorted(zero.tolist()) != [0.0] * (zero.size - half) + [1.0] * half:
        return False
    return bool(np.abs(one).max() <= 1 and abs(one - np.sin(1.0)).min() < 0.01 and abs(one - np.cos(1.0)).min() < 0.01)


def _some(targets: list[Target]) -> str:
    more = f" (and {len(targets) - 1} more)" if len(targets) > 1 else ""
    return targets[0].own_names[0] + more
