"""The noise field and the moments, compiled for the CPU.

`add_noise_` and `moments` give what `noisytune.field.add_noise` and `noisytune.moments.of` give: uniform noise bit for
bit, gaussian noise to one float32 unit in the last place, moments to float64 rounding. Work goes through buffers that
fit the first-level cache, so the weights are read and written once, and extra memory does not grow with the tensor.

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
from numba import njit

from noisytune import field
from noisytune import moments as reference
from noisytune.config import Distribution
from noisytune.moments import Moments

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

_BLOCK, _LANE = field.BLOCK, field.LANE
_M0, _M1 = (np.uint64(m) for m in field.MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in field.WEYL)
_ROUNDS = field.ROUNDS
_LOW, _32, _8 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_HALF = np.float32(0.5 - 2**-25)


def _compiled(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile when first called, and keep the result beside this file or in the user's cache, whichever is writable."""

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept = njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        except RuntimeError:  # neither is writable: every process compiles, about 4 s
            kept = njit(nogil=True, error_model="numpy", **options)(function)
        return kept  # type: ignore[no-any-return]

    return compiled


@_compiled(inline="always")
def _philox(c: np.uint64, k0: np.uint64, k1: np.uint64) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Words are kept in 64 bits: packing them after each product would double the time."""
    x0, x1, x2, x3 = c & _LOW, c >> _32, np.uint64(0), np.uint64(0)
    for _ in range(_ROUNDS):
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1 = (p1 >> _32) ^ x1 ^ k0, p1 & _LOW
        x2, x3 = (p0 >> _32) ^ x3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return x0, x1, x2, x3


@_compiled(inline="always")
def _uniform(x: np.uint64) -> np.float32:
    return np.float32(np.int32(x >> _8)) * np.float32(2**-24) - _HALF


@_compiled()
def _uniform_block(block: np.uint64, k0: np.uint64, k1: np.uint64, out: Array) -> None:
    first = block * np.uint64(_LANE)
    for t in range(_LANE):
        x0, x1, x2, x3 = _philox(first + np.uint64(t), k0, k1)
        out[t] = _uniform(x0)
        out[t + _LANE] = _uniform(x1)
        out[t + 2 * _LANE] = _uniform(x2)
        out[t + 3 * _LANE] = _uniform(x3)


@_compiled(inline="always")
def _box_muller(x: np.uint64, y: np.uint64) -> tuple[np.float32, np.float32]:
    radius = math.sqrt(-2.0 * math.log((np.float64(x >> _8) + 1.0) * 2.0**-24) / 12.0)
    angle = 2.0 * math.pi * (np.float64(y >> _8) * 2.0**-24)
    return np.float32(radius * math.cos(angle)), np.float32(radius * math.sin(angle))


@_compiled()
def _gaussian_block(block: np.uint64, k0: np.uint64, k1: np.uint64, out: Array) -> None:
    first = block * np.uint64(_LANE)
    for t in range(_LANE):
        x0, x1, x2, x3 = _philox(first + np.uint64(t), k0, k1)
        out[t], out[t + _LANE] = _box_muller(x0, x1)
        out[t + 2 * _LANE], out[t + 3 * _LANE] = _box_muller(x2, x3)


@_compiled(inline="always")
def _fill(block: np.uint64, k0: np.uint64, k1: np.uint64, is_gaussian: bool, out: Array) -> None:
    if is_gaussian:
        _gaussian_block(block, k0, k1, out)
    else:
        _uniform_block(block, k0, k1, out)


@_compiled()
def _decode_bfloat16(source: Array, out: Array) -> None:
    words = out.view(np.uint32)
    for i in range(source.size):
        words[i] = np.uint32(source[i]) << np.uint32(16)


@_compiled()
def _round_to_bfloat16(values: Array, out: Array) -> None:
    """Rounds the values in place, and puts their upper halves out."""
    words = values.view(np.uint32)
    for i in range(out.size):
        half = (words[i] + np.uint32(0x7FFF) + ((words[i] >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        out[i] = np.uint16(half)
        words[i] = half << np.uint32(16)


@_compiled()
def _decode_float16(source: Array, out: Array) -> None:
    words = out.view(np.uint32)
    for i in range(source.size):
        words[i] = (np.uint32(source[i]) & np.uint32(0x7FFF)) << np.uint32(13)
    for i in range(source.size):
        out[i] *= np.float32(2.0**112)  # moves the exponent's bias from 15 to 127, and makes subnormals normal
    for i in range(source.size):
        word = words[i]
        if word >= np.uint32(0x47800000):  # 65536: infinity or NaN
            word |= np.uint32(0x7F800000)
        words[i] = word | ((np.uint32(source[i]) & np.uint32(0x8000)) << np.uint32(16))


@_compiled()
def _encode_float16(values: Array, out: Array) -> None:
    words = values.view(np.uint32)
    magic = np.full(1, 0.5, np.float32)
    magic_word = magic.view(np.uint32)[0]
    sum_ = np.empty(1, np.float32)
    for i in range(out.size):
        sign = (words[i] >> np.uint32(16)) & np.uint32(0x8000)
        word = words[i] & np.uint32(0x7FFFFFFF)
        if word < np.uint32(0x38800000):  # below 2**-14: the sum with 0.5 rounds a subnormal at its last bit
            sum_[0] = abs(values[i]) + magic[0]
            half = sum_.view(np.uint32)[0] - magic_word
        else:
            odd = (word >> np.uint32(13)) & np.uint32(1)
            half = (word - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        out[i] = np.uint16(half | sign)


@_compiled(fastmath={"reassoc"})
def _block_moments(values: Array) -> tuple[float, float]:
    """One read: deviations are taken from the first element, which lies at most sqrt(n) standard deviations from the
    mean, so at most a factor n of float64's precision is lost."""
    first = np.float64(values[0])
    total, squares = 0.0, 0.0
    for i in range(values.size):
        deviation = np.float64(values[i]) - first
        total += deviation
        squares += deviation * deviation
    return first + total / values.size, squares - total * (total / values.size)


@_compiled()
def _perturbed(old: float, scale: float, noise: float) -> float:
    return old + scale * noise


@_compiled()
def _difference(new: float, old: float) -> np.float32:
    return np.float32(new - old)


@_compiled(fastmath={"reassoc"})
def _sum_and_squares(new: Array, old: Array) -> tuple[float, float]:
    """Of the differences. Only the sums may be reordered: the two functions above are compiled without that."""
    total, squares = np.float32(0), np.float32(0)
    for i in range(new.size):
        added = _difference(new[i], old[i])
        total += added
        squares += added * added
    return np.float64(total), np.float64(squares)


@_compiled(fastmath={"reassoc"})
def _add_uniform_block(
    weights: Array, block: np.uint64, scale: float, k0: np.uint64, k1: np.uint64
) -> tuple[float, float]:
    """A whole block in one pass. Only the sums may be reordered, as above."""
    first = block * np.uint64(_LANE)
    total, squares = np.float32(0), np.float32(0)
    for t in range(_LANE):
        x0, x1, x2, x3 = _philox(first + np.uint64(t), k0, k1)
        old = weights[t], weights[t + _LANE], weights[t + 2 * _LANE], weights[t + 3 * _LANE]
        new0 = _perturbed(old[0], scale, _uniform(x0))
        new1 = _perturbed(old[1], scale, _uniform(x1))
        new2 = _perturbed(old[2], scale, _uniform(x2))
        new3 = _perturbed(old[3], scale, _uniform(x3))
        weights[t] = new0
        weights[t + _LANE] = new1
        weights[t + 2 * _LANE] = new2
        weights[t + 3 * _LANE] = new3
        added0, added1 = _difference(new0, old[0]), _difference(new1, old[1])
        added2, added3 = _difference(new2, old[2]), _difference(new3, old[3])
        total += added0 + added1 + added2 + added3
        squares += added0 * added0 + added1 * added1 + added2 * added2 + added3 * added3
    return np.float64(total), np.float64(squares)


@_compiled()
def _apply(weights: Array, old: Array, noise: Array, scale: float) -> None:
    """Leaves in ``noise`` and ``old`` two numbers whose difference is what was added."""
    for i in range(weights.size):
        before = weights[i]
        after = before + scale * noise[i]
        weights[i] = after
        noise[i] = after - before
        old[i] = 0


@_compiled()
def _apply_half(words: Array, old: Array, noise: Array, scale: float, is_bfloat16: bool) -> None:
    """As `_apply`."""
    if is_bfloat16:
        _decode_bfloat16(words, old)
    else:
        _decode_float16(words, old)
    for i in range(words.size):
        noise[i] = old[i] + scale * noise[i]
    if is_bfloat16:
        _round_to_bfloat16(noise, words)
    else:
        _encode_float16(noise, words)
        _decode_float16(words, noise)


@_compiled()
def _add(
    weights: Array, start: int, scale: float, is_gaussian: bool, is_bfloat16: bool, k0: np.uint64, k1: np.uint64
) -> tuple[float, float]:
    noise, old = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    total, squares = 0.0, 0.0
    done = 0
    while done < weights.size:
        block, inside = (start + done) // _BLOCK, (start + done) % _BLOCK
        count = min(_BLOCK - inside, weights.size - done)
        piece, values = weights[done : done + count], noise[inside : inside + count]
        if weights.itemsize > 2 and count == _BLOCK and not is_gaussian:
            part, part_squares = _add_uniform_block(piece, np.uint64(block), scale, k0, k1)
        else:
            _fill(np.uint64(block), k0, k1, is_gaussian, noise)
            if weights.itemsize == 2:
                _apply_half(piece, old[:count], values, scale, is_bfloat16)
            else:
                _apply(piece, old[:count], values, scale)
            part, part_squares = _sum_and_squares(values, old[:count])
        total += part
        squares += part_squares
        done += count
    return total, squares


def _chunks(size: int, start: int) -> list[slice]:
    """Slices of ``size`` elements that lie at ``start`` of the full tensor, cut where the full tensor's chunks are."""
    cuts = [0, *range(CHUNK - start % CHUNK, size, CHUNK), size]
    return [slice(a, b) for a, b in pairwise(cuts) if a < b]


def _map(pool: Executor | None, function: Callable[[slice], Moments], slices: list[slice]) -> Moments:
    parts = map(function, slices) if pool is None or len(slices) == 1 else pool.map(function, slices)
    return reference.merge(list(parts))


def moments(weights: Array, pool: Executor | None = None) -> Moments:
    """The moments of a tensor, equal to `noisytune.moments.of` up to float64 rounding.

    Args:
        weights: contiguous, 1-dimensional, one of `DTYPES`.
        pool: threads to share the work; None works in this one. Changes nothing in the result.
    """

    def of_chunk(chunk: slice) -> Moments:
        starts = range(chunk.start, chunk.stop, reference.BLOCK)
        return reference.merge([of_block(weights[a : min(a + reference.BLOCK, chunk.stop)]) for a in starts])

    def of_block(block: Array) -> Moments:
        values = block
        if block.dtype == np.float16:
            values = np.empty(block.size, np.float32)
            _decode_float16(block.view(np.uint16), values)
        elif block.dtype not in DTYPES[:2]:
            values = block.astype(np.float32)
        return Moments(block.size, *_block_moments(values))

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
    k0, k1 = (np.uint64(word) for word in field.key(seed, name))
    is_gaussian, is_bfloat16 = distribution == "gaussian", weights.dtype == BFLOAT16

    def add_to(chunk: slice) -> Moments:
        piece = weights[chunk]
        if weights.dtype in FLOAT8:
            return add_to_float8(piece, chunk.start)
        words = piece.view(np.uint16) if piece.itemsize == 2 else piece
        return added(piece.size, *_add(words, start + chunk.start, scale, is_gaussian, is_bfloat16, k0, k1))

    def add_to_float8(piece: Array, offset: int) -> Moments:
        old = piece.astype(np.float32)
        new = old.copy()
        _add(new, start + offset, scale, is_gaussian, False, k0, k1)
        piece[...] = new.astype(piece.dtype)
        return reference.of(piece.astype(np.float32) - old)

    def added(n: int, total: float, squares: float) -> Moments:
        return Moments(n, total / n, max(squares - total * total / n, 0.0))

    return _map(pool, add_to, _chunks(weights.size, start))
