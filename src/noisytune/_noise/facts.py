"""What must be known of numbers before noise is added to them: moments, NaN and infinity, and the largest value.

Facts of pieces merge into those of the whole, so that files, threads and ranks come to the same judgement.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cache
from typing import NamedTuple

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
    """Largest absolute value; or, up to half of the dtype's largest one, what none exceeds."""


@cache
def limit(dtype: str) -> float:
    """The largest value of a dtype.

    >>> limit("float16")
    65504.0
    """
    return float(ml_dtypes.finfo(DTYPES[dtype]).max)  # type: ignore[no-untyped-call]


def largest(moments: Moments, dtype: str, exact: Callable[[], float]) -> float:
    """`Facts.largest`, without another look at values that their moments show to be far from the dtype's largest.

    Args:
        moments: of the values.
        dtype: of the values, as in `DTYPES`.
        exact: finds their largest absolute value.

    >>> largest(Moments(9, 1.0, 4.0), "float16", lambda: 2.5), largest(Moments(9, 3e4, 1e8), "float16", lambda: 3.5e4)
    (3.0, 35000.0)
    """
    if not moments.is_finite:
        return 0.0
    bound = abs(moments.mean) + math.sqrt(moments.m2)  # each deviation's square is a part of the sum
    return exact() if bound > limit(dtype) / 2 else bound


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
    return Facts(moments, non_finite, largest(moments, values.dtype.name, lambda: _largest(values)))


def merge(parts: Sequence[Facts]) -> Facts:
    """The facts of everything in ``parts``, in the order of the elements."""
    return Facts(
        reference.merge([part.moments for part in parts]),
        sum(part.non_finite for part in parts),
        max((part.largest for part in parts), default=0.0),
    )


def _largest(values: Array) -> float:
    """Without the sign, words are ordered as the numbers that they stand for."""
    word = np.dtype(f"u{values.itemsize}")
    without_sign = values.view(word) & (np.iinfo(word).max >> 1)
    return float(without_sign.max(keepdims=True).view(values.dtype)[0])
