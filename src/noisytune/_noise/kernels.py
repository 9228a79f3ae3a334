"""The noise field and the moments, compiled for the CPU.

`add_noise_` and `moments` give what `noisytune.field.add_noise` and `noisytune._noise.moments.of` give: uniform noise
bit for bit, gaussian noise to one float32 unit in the last place, moments to float64 rounding. Work goes through small
buffers, so the weights are read and written once, and extra memory does not grow with the tensor.

The compiled functions release the interpreter lock; threads share a tensor by whole chunks, so their number changes
nothing in the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from noisytune import field
from noisytune._noise import _numba
from noisytune._noise import moments as reference
from noisytune._noise.moments import Moments
from noisytune.config import Distribution

Array = npt.NDArray[Any]

CHUNK = 1 << 20
"""Elements that one task of a thread works on: whole blocks of the field and of the moments."""

FLOAT8 = tuple(
    np.dtype(dtype)
    for dtype in (
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
    )
)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16, *FLOAT8)
"""Every dtype that takes noise."""


_WORDS = {BFLOAT16: np.uint16, np.dtype(np.float16): np.int16}
"""The types by which `noisytune._noise._numba` knows the small floats."""


def _as_compiled(weights: Array) -> Array:
    """The same memory with a type that Numba has."""
    words = _WORDS.get(weights.dtype)
    return weights if words is None else weights.view(words)


def _chunks(size: int, start: int) -> list[slice]:
    """Slices of ``size`` elements that lie at ``start`` of the full tensor, cut where the full tensor's chunks are."""
    cuts = [0, *range(CHUNK - start % CHUNK, size, CHUNK), size]
    return [slice(a, b) for a, b in pairwise(cuts) if a < b]


def _map(pool: Executor | None, function: Callable[[slice], Moments], slices: list[slice]) -> Moments:
    parts = map(function, slices) if pool is None or len(slices) == 1 else pool.map(function, slices)
    return reference.merge(list(parts))


def moments(weights: Array, pool: Executor | None = None) -> Moments:
    """The moments of a tensor, equal to `noisytune._noise.moments.of` up to float64 rounding.

    Args:
        weights: contiguous, 1-dimensional, one of `DTYPES`.
        pool: threads to share the work; None works in this one. Changes nothing in the result.
    """

    def of_chunk(chunk: slice) -> Moments:
        piece = weights[chunk]
        if piece.dtype in FLOAT8:
            piece = piece.astype(np.float32)
        means, m2s = np.empty((2, -(-piece.size // reference.BLOCK)))
        _numba.moments(_as_compiled(piece), means, m2s)
        return reference.of_blocks(piece.size, means, m2s)

    if 0 < weights.size <= CHUNK:
        return of_chunk(slice(0, weights.size))
    return _map(pool, of_chunk, _chunks(weights.size, 0))


def add_noise_(
    weights: Array,
    std: float,
    noise_lambda: float,
    distribution: Distribution,
    seed: int,
    name: str,
    *,
    start: int = 0,
    pool: Executor | None = None,
) -> Moments:
    """Equation (1) in place, on the whole tensor or on a run of it.

    Args:
        weights: contiguous, writable, 1-dimensional, one of `DTYPES`.
        std: the standard deviation that scales the noise, >= 0.
        noise_lambda: relative strength, >= 0.
        distribution: "uniform" or "gaussian".
        seed: 0 <= seed < 2**64.
        name: the canonical name of the tensor.
        start: flat index, in the full tensor, of ``weights[0]``.
        pool: threads to share the work; None works in this one. Changes nothing in the result.

    Returns:
        the moments of what was really added, after rounding to the dtype (to about six digits).

    Example:
        >>> weights = np.linspace(-1, 1, 5, dtype=np.float32)
        >>> added = add_noise_(weights, 0.79, 0.15, "uniform", seed=1, name="encoder.weight")
        >>> added.n, bool(abs(weights - np.linspace(-1, 1, 5)).max() < 0.15 * 0.79 / 2)
        (5, True)
    """
    work = np.float64 if weights.dtype == np.float64 else np.float32
    scale = work(noise_lambda * std)
    unit = work(2.0 ** min(-math.frexp(scale)[1], 126))
    k0, k1 = (np.uint64(word) for word in field.key(seed, name))
    is_gaussian = distribution == "gaussian"

    def add_to(chunk: slice) -> Moments:
        piece = weights[chunk]
        if weights.dtype in FLOAT8:
            return add_to_float8(piece, chunk.start)
        words, place = _as_compiled(piece), start + chunk.start
        return added(piece.size, *_numba.add(words, place, scale, unit, is_gaussian, k0, k1))

    def add_to_float8(piece: Array, offset: int) -> Moments:
        old = piece.astype(np.float32)
        new = old.copy()
        _numba.add(new, start + offset, scale, unit, is_gaussian, k0, k1)
        piece[...] = new.astype(piece.dtype)
        return reference.of(piece.astype(np.float32) - old)

    def added(n: int, total: float, squares: float) -> Moments:
        spread = max(squares - total * total / n, 0.0)
        return Moments(n, total / n / float(unit), spread / float(unit) / float(unit))

    return _map(pool, add_to, _chunks(weights.size, start))
