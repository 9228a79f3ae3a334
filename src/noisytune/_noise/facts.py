"""What must be known of numbers before noise is added to them: moments, NaN and infinity, and the largest value.

Facts of pieces merge into those of the whole, so that files, threads and ranks come to the same judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from noisytune._noise import kernels
from noisytune._noise import moments as reference
from noisytune._noise.kernels import Array
from noisytune._noise.moments import Moments

DTYPES = {dtype.name: dtype for dtype in kernels.DTYPES}
"""Every dtype that takes noise, by the name that NumPy, torch and JAX all give it."""


class Facts(NamedTuple):
    """What is known of a tensor's values."""

    moments: Moments
    non_finite: int = 0
    """How many values are NaN or infinite."""
    largest: float = 0.0
    """Largest absolute value, where noise could overflow the dtype; 0 elsewhere."""


@cache
def limit(dtype: str) -> float | None:
    """The largest value of a dtype that noise could overflow; None for the others, whose range is too wide.

    >>> limit("float16"), limit("bfloat16")
    (65504.0, None)
    """
    largest = float(ml_dtypes.finfo(DTYPES[dtype]).max)  # type: ignore[no-untyped-call]
    return largest if largest < 1e5 else None


def of(values: Array, pool: Executor | None = None) -> Facts:
    """The facts of a contiguous 1-dimensional array.

    Args:
        values: one of `noisytune._noise.kernels.DTYPES`.
        pool: threads to share the work; None works in this one. Changes nothing in the result.

    >>> of(np.array([1.0, np.nan, -np.inf], np.float16)).non_finite
    2
    """
    moments = kernels.moments(values, pool)
    non_finite = 0
    if not moments.is_finite:
        wide = values if values.dtype == np.float64 else values.astype(np.float32)
        non_finite = int((~np.isfinite(wide)).sum())
    return Facts(moments, non_finite, _largest(values) if values.size and limit(values.dtype.name) else 0.0)


def merge(parts: Sequence[Facts]) -> Facts:
    """The facts of everything in ``parts``, in the order of the elements."""
    return Facts(
        reference.merge([part.moments for part in parts]),
        sum(part.non_finite for part in parts),
        max((part.largest for part in parts), default=0.0),
    )


def _largest(values: Array) -> float:
    """Of a small dtype. Without the sign, words are ordered as the numbers that they stand for."""
    word: Any = np.uint8 if values.itemsize == 1 else np.uint16
    without_sign = values.view(word) & word(0x7F if values.itemsize == 1 else 0x7FFF)
    return float(without_sign.max(keepdims=True).view(values.dtype)[0])
