"""The field and the moments as Numba compiles them; `noisytune._noise.kernels` is how to call them.

LLVM makes vectors of the loops, and `benchmarks/perturb.py` shows whether it did: loops are written for that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from noisytune import field
from noisytune._noise import moments as reference
from noisytune._noise._compiler import compiled

Array = npt.NDArray[Any]
_Real = float | np.floating[Any]

_BLOCK, _LANE = field.BLOCK, field.LANE
_M0, _M1 = (np.uint64(m) for m in field.MULTIPLIERS)
_W0, _W1 = (np.uint64(w) for w in field.WEYL)
_ROUNDS = field.ROUNDS
_LOW, _32, _8 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8)
_13, _16 = np.uint32(13), np.uint32(16)
_HALF = np.float32(0.5 - 2**-25)
_SUMS = {"reassoc", "contract"}


@compiled()
def _bits(value: _Real) -> np.uint32:
    return np.float32(value).view(np.uint32)


@compiled()
def _float(bits: np.uint32) -> np.float32:
    return np.uint32(bits).view(np.float32)


@compiled(inline="always")
def _first_rounds(block: np.uint64, k0: np.uint64, k1: np.uint64) -> tuple[np.uint64, ...]:
    """What the first two rounds have in common for all counters of a block, whose other three words are 0 or equal."""
    k0, k1 = k0 & _LOW, k1 & _LOW
    counter = block * np.uint64(_LANE)
    product = ((counter >> _32) ^ k0) * _M0
    return counter & _LOW, k1, (k0 + _W0) & _LOW, (k1 + _W1) & _LOW, product >> _32, product & _LOW


@compiled(inline="always")
def _philox(t: int, common: tuple[np.uint64, ...]) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """The four words of counter ``t`` of a block, from what `_first_rounds` found for all of them.

    Words are kept in 64 bits: packing them after each product would double the time. The counter's sum is masked,
    which changes nothing, so that LLVM sees a product of two 32-bit numbers.
    """
    low, k1, r0, r1, high_product, low_product = common
    p0 = ((low + np.uint64(t)) & _LOW) * _M0
    p1 = ((p0 >> _32) ^ k1) * _M1
    x0, x1, x2, x3 = (p1 >> _32) ^ r0, p1 & _LOW, high_product ^ (p0 & _LOW) ^ r1, low_product
    for _ in range(_ROUNDS - 2):
        r0, r1 = (r0 + _W0) & _LOW, (r1 + _W1) & _LOW
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1 = (p1 >> _32) ^ x1 ^ r0, p1 & _LOW
        x2, x3 = (p0 >> _32) ^ x3 ^ r1, p0 & _LOW
    return x0, x1, x2, x3


@compiled(inline="always")
def _random_words(block: np.uint64, k0: np.uint64, k1: np.uint64, out: Array) -> None:
    common = _first_rounds(block, k0, k1)
    for t in range(_LANE):
        x0, x1, x2, x3 = _philox(t, common)
        out[t] = np.uint32(x0)
        out[t + _LANE] = np.uint32(x1)
        out[t + 2 * _LANE] = np.uint32(x2)
        out[t + 3 * _LANE] = np.uint32(x3)


@compiled(inline="always")
def _uniform(x: np.uint64) -> np.float32:
    """Exact, whether or not the product and the difference are one instruction."""
    return np.float32(np.int32(x >> _8)) * np.float32(2**-24) - _HALF


@compiled(fastmath={"contract"})
def _noise(word: np.uint32, is_gaussian: bool) -> np.float32:
    """From what `_fill` left."""
    return _float(word) if is_gaussian else _uniform(np.uint64(word))


@compiled(inline="always")
def _to_gaussian(words: Array) -> None:
    """Each pair of words becomes the bits of two Gaussian numbers: Box and Muller."""
    for t in range(_LANE):
        for first in (t, t + 2 * _LANE):
            x, y = np.float64(words[first] >> np.uint32(8)), np.float64(words[first + _LANE] >> np.uint32(8))
            radius = math.sqrt(-2.0 * math.log((x + 1.0) * 2.0**-24) / 12.0)
            angle = 2.0 * math.pi * (y * 2.0**-24)
            words[first] = _bits(radius * math.cos(angle))
            words[first + _LANE] = _bits(radius * math.sin(angle))


@compiled()
def _from_bfloat16(word: np.uint16) -> np.float32:
    return _float(np.uint32(word) << _16)


@compiled()
def _to_bfloat16(value: np.float32) -> np.uint16:
    word = _bits(value)
    return np.uint16((word + np.uint32(0x7FFF) + ((word >> _16) & np.uint32(1))) >> _16)


@compiled()
def _from_float16(word: np.uint16) -> np.float32:
    """By way of large numbers: a thread may be set to take subnormal ones of float32 for 0."""
    magnitude = np.uint32((np.uint32(word) & np.uint32(0x7FFF)) << _13)
    is_subnormal = magnitude < np.uint32(0x00800000)
    exponent = np.uint32(0x70800000) if is_subnormal else np.uint32(0x70000000)  # infinity and NaN stay what they are
    one = np.float32(2.0**98) if is_subnormal else np.float32(0)  # what a subnormal number does not begin with
    bits = _bits((_float(np.uint32(magnitude + exponent)) - one) * np.float32(2.0**-112))
    return _float(bits | ((np.uint32(word) & np.uint32(0x8000)) << _16))


@compiled()
def _to_float16(value: np.float32) -> np.int16:
    word = _bits(value)
    bits = word & np.uint32(0x7FFFFFFF)
    # below 2**-14 the sum with 0.5 rounds a subnormal at its last bit
    subnormal = _bits(abs(value) + np.float32(0.5)) - np.uint32(0x3F000000)
    odd = (bits >> _13) & np.uint32(1)
    normal = (bits - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> _13
    half = subnormal if bits < np.uint32(0x38800000) else normal
    return np.int16(half | ((word >> _16) & np.uint32(0x8000)))


def _number(weight: Any) -> Any:
    """The number that a weight stands for. Numba has no small floats: uint16 means bfloat16, and int16 float16."""


def _weight(number: Any, like: Any) -> Any:
    """The weight nearest to a number, of the type of ``like``."""


@overload(_number, strict=False)
def _number_by_type(weight: Any) -> Any:
    if weight == types.uint16:
        return lambda weight: _from_bfloat16(weight)
    if weight == types.int16:
        return lambda weight: _from_float16(weight)
    return lambda weight: weight


@overload(_weight, strict=False)
def _weight_by_type(number: Any, like: Any) -> Any:
    if like == types.uint16:
        return lambda number, like: _to_bfloat16(number)
    if like == types.int16:
        return lambda number, like: _to_float16(number)
    return lambda number, like: number


@compiled(fastmath=_SUMS)
def _sums(weights: Array, first: _Real) -> tuple[float, float]:
    """Of the deviations from ``first``, and of their squares. Four places are read at a time: memory answers faster."""
    total, squares = 0.0, 0.0
    quarter = weights.size // 4
    for i in range(quarter):
        d0, d1 = _number(weights[i]) - first, _number(weights[i + quarter]) - first
        d2, d3 = _number(weights[i + 2 * quarter]) - first, _number(weights[i + 3 * quarter]) - first
        total += (d0 + d1) + (d2 + d3)
        squares += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
    for i in range(4 * quarter, weights.size):
        deviation = _number(weights[i]) - first
        total += deviation
        squares += deviation * deviation
    return total, squares


@compiled(for_python=True)
def moments(weights: Array, means: Array, m2s: Array) -> None:
    """Of each block. One read: deviations are taken from the first element, which lies at most sqrt(n) standard
    deviations from the mean, so at most a factor n of float64's precision is lost."""
    for block in range(means.size):
        piece = weights[block * reference.BLOCK : (block + 1) * reference.BLOCK]
        first = np.float64(_number(piece[0]))
        total, squares = _sums(piece, first)
        means[block] = first + total / piece.size
        m2s[block] = squares - total * (total / piece.size)


@compiled()
def _perturbed(old: _Real, scale: _Real, noise: _Real) -> _Real:
    return old + scale * noise


@compiled()
def _difference(new: _Real, old: _Real, unit: _Real) -> np.float32:
    return np.float32((new - old) * unit)


@compiled(fastmath=_SUMS)
def _apply(weights: Array, noise: Array, scale: _Real, unit: _Real, is_gaussian: bool) -> tuple[float, float]:
    """Adds, and sums what was added, times ``unit``. Only the sums may be reordered: the functions called are compiled
    without that."""
    total, squares = np.float32(0), np.float32(0)
    for i in range(weights.size):
        old = _number(weights[i])
        weight = _weight(_perturbed(old, scale, _noise(noise[i], is_gaussian)), weights[i])
        weights[i] = weight
        added = _difference(_number(weight), old, unit)
        total += added
        squares += added * added
    return np.float64(total), np.float64(squares)


@compiled(fastmath=_SUMS)
def _add_uniform_block(
    weights: Array, block: np.uint64, scale: _Real, unit: _Real, k0: np.uint64, k1: np.uint64
) -> tuple[float, float]:
    """A whole block in one pass, which keeps the memory busy while numbers are made. Otherwise as `_apply`."""
    common = _first_rounds(block, k0, k1)
    total, squares = np.float32(0), np.float32(0)
    for t in range(_LANE):
        x0, x1, x2, x3 = _philox(t, common)
        old = weights[t], weights[t + _LANE], weights[t + 2 * _LANE], weights[t + 3 * _LANE]
        new0 = _perturbed(old[0], scale, _uniform(x0))
        new1 = _perturbed(old[1], scale, _uniform(x1))
        new2 = _perturbed(old[2], scale, _uniform(x2))
        new3 = _perturbed(old[3], scale, _uniform(x3))
        weights[t] = new0
        weights[t + _LANE] = new1
        weights[t + 2 * _LANE] = new2
        weights[t + 3 * _LANE] = new3
        added0, added1 = _difference(new0, old[0], unit), _difference(new1, old[1], unit)
        added2, added3 = _difference(new2, old[2], unit), _difference(new3, old[3], unit)
        total += (added0 + added1) + (added2 + added3)
        squares += (added0 * added0 + added1 * added1) + (added2 * added2 + added3 * added3)
    return np.float64(total), np.float64(squares)


@compiled(inline="always")
def _fill(block: np.uint64, k0: np.uint64, k1: np.uint64, is_gaussian: bool, words: Array) -> None:
    """Words for `_noise`."""
    _random_words(block, k0, k1, words)
    if is_gaussian:
        _to_gaussian(words)


@compiled(for_python=True)
def add(
    weights: Array, start: int, scale: _Real, unit: _Real, is_gaussian: bool, k0: np.uint64, k1: np.uint64
) -> tuple[float, float]:
    """Noise on a run of elements that begins at ``start``. Returns the sums of what was added, and of its squares; of
    it times ``unit``, a power of two that brings it near 1, so that float32 holds the squares."""
    noise = np.empty(_BLOCK, np.uint32)
    total, squares = 0.0, 0.0
    done = 0
    while done < weights.size:
        block, inside = (start + done) // _BLOCK, (start + done) % _BLOCK
        count = min(_BLOCK - inside, weights.size - done)
        piece, values = weights[done : done + count], noise[inside : inside + count]
        if weights.itemsize > 2 and count == _BLOCK and not is_gaussian:  # small floats are slower that way
            part, part_squares = _add_uniform_block(piece, np.uint64(block), scale, unit, k0, k1)
        else:
            _fill(np.uint64(block), k0, k1, is_gaussian, noise)
            part, part_squares = _apply(piece, values, scale, unit, is_gaussian)
        total += part
        squares += part_squares
        done += count
    return total, squares
