"""Room for a vector of each sentence from each layer that is asked for: in memory, or on disk where they are many."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

IN_MEMORY = 2**31
"""Bytes; what needs more goes to a temporary file, which is gone when nobody looks at it any more."""


def room(rows: int, layers: int, width: int, in_memory: int = IN_MEMORY) -> npt.NDArray[np.float32]:
    """An array to fill, shape (rows, layers, width), in which each layer lies in one piece.

    Args:
        rows: how many.
        layers: of each.
        width: of a vector.
        in_memory: bytes that may lie in memory.

    >>> room(2, 3, 4).shape, room(2, 3, 4, in_memory=0).shape
    ((2, 3, 4), (2, 3, 4))
    """
    shape: Any = (layers, rows, width)
    if 4 * layers * rows * width <= in_memory:
        return np.empty(shape, np.float32).transpose(1, 0, 2)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape).transpose(1, 0, 2)
