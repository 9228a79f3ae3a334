"""The noise field and the moments as Triton kernels, for weights on a CUDA device.

`add_noise_` reads and writes the weights once, `moments` reads them once. Uniform noise is that of `noisytune.field`
bit for bit; gaussian noise agrees to one float32 unit in the last place, because logarithms and cosines differ between
libraries. Contraction into fused multiply-adds is switched off for every kernel: it would skip a rounding.
"""

from __future__ import annotations

import struct

import numpy as np
import torch
import triton
import triton.language as tl

from noisytune import field
from noisytune._noise import moments as reference
from noisytune._noise.moments import Moments
from noisytune.config import Distribution

OPTIONS = {"enable_fp_fusion": False, "num_warps": 4}
"""For every launch and compilation."""

_BLOCK = tl.constexpr(field.BLOCK)
_LANE = tl.constexpr(field.LANE)
_ROUNDS = tl.constexpr(field.ROUNDS)
_STEP = tl.constexpr(2.0**-24)
_HALF = tl.constexpr(0.5 - 2.0**-25)
_TWO_PI = tl.constexpr(6.283185307179586)


@triton.jit
def _read(weights, position, inside, is_bfloat16: tl.constexpr):
    """The weights in float32, or float64 for float64. bfloat16 comes as int16."""
    raw = tl.load(weights + position, mask=inside, other=0)
    if is_bfloat16:
        return (raw.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    elif raw.dtype == tl.float64:  # noqa: RET505  (what follows a return would still be compiled, an else is not)
        return raw
    else:
        return raw.to(tl.float32)


@triton.jit
def _bfloat16_word(value):
    """Round to nearest even, in integers, in the upper half of a word: Triton's interpreter would truncate."""
    word = value.to(tl.uint32, bitcast=True)
    rounded = (word + 0x7FFF + ((word >> 16) & 1)) & 0xFFFF0000
    return tl.where(value == value, rounded, word | 0x00400000)  # rounding up could turn a NaN into an infinity


@triton.jit
def _uniform(x):
    return (x >> 8).to(tl.int32).to(tl.float32) * _STEP - _HALF


@triton.jit
def _box_muller(x, y):
    first = ((x >> 8).to(tl.int32).to(tl.float64) + 1.0) * _STEP
    radius = tl.sqrt(-2.0 * tl.log(first) / 12.0)
    angle = (y >> 8).to(tl.int32).to(tl.float64) * _STEP * _TWO_PI
    return (radius * tl.cos(angle)).to(tl.float32), (radius * tl.sin(angle)).to(tl.float32)


@triton.jit
def _add_to_lane(weights, position, size, noise, scale, is_bfloat16: tl.constexpr):
    """Two roundings and a cast. Returns the sum and the sum of squares of what was really added, in float64: in float32
    the squares of the noise of small weights would be zero."""
    inside = (position >= 0) & (position < size)
    old = _read(weights, position, inside, is_bfloat16)
    product = noise.to(old.dtype) * scale.to(old.dtype)
    new = old + product
    if is_bfloat16:
        word = _bfloat16_word(new)
        tl.store(weights + position, (word >> 16).to(tl.uint16).to(tl.int16, bitcast=True), mask=inside)
        new = word.to(tl.float32, bitcast=True)
    else:
        stored = new.to(weights.dtype.element_ty)
        tl.store(weights + position, stored, mask=inside)
        new = stored.to(old.dtype)
    added = tl.where(inside, new.to(tl.float64) - old.to(tl.float64), 0.0)
    return tl.sum(added), tl.sum(added * added)


@triton.jit(do_not_specialize=["start", "key", "scale_bits"])
def add_kernel(
    weights,
    sums,
    squares,
    size,
    start,
    key,
    scale_bits,
    is_gaussian: tl.constexpr,
    is_bfloat16: tl.constexpr,
    is_aligned: tl.constexpr,
):
    """One block of the field a program: 1024 counters, four elements each."""
    program = tl.program_id(0).to(tl.int64)
    start = start.to(tl.int64)
    block = start // _BLOCK + program
    t = tl.arange(0, _LANE)
    counter = block * _LANE + t
    low, high = counter.to(tl.uint32), (counter >> 32).to(tl.uint32)
    zero = tl.zeros([_LANE], tl.uint32)
    x0, x1, x2, x3 = tl.philox(key.to(tl.uint64), low, high, zero, zero, _ROUNDS)
    if is_gaussian:
        n0, n1 = _box_muller(x0, x1)
        n2, n3 = _box_muller(x2, x3)
    else:
        n0, n1, n2, n3 = _uniform(x0), _uniform(x1), _uniform(x2), _uniform(x3)
    base = block * _BLOCK - start
    if is_aligned:
        base = tl.multiple_of(base, 16)
    position = base + t
    scale = scale_bits.to(tl.int64).to(tl.float64, bitcast=True)
    sum0, square0 = _add_to_lane(weights, position, size, n0, scale, is_bfloat16)
    sum1, square1 = _add_to_lane(weights, position + _LANE, size, n1, scale, is_bfloat16)
    sum2, square2 = _add_to_lane(weights, position + 2 * _LANE, size, n2, scale, is_bfloat16)
    sum3, square3 = _add_to_lane(weights, position + 3 * _LANE, size, n3, scale, is_bfloat16)
    tl.store(sums + program, sum0 + sum1 + sum2 + sum3)
    tl.store(squares + program, square0 + square1 + square2 + square3)


@triton.jit
def moments_kernel(weights, means, m2s, size, is_bfloat16: tl.constexpr, block_size: tl.constexpr, tile: tl.constexpr):
    """One block of the moments a program, in tiles that are merged as they come, so each weight is read once.

    Deviations are taken from the block's first element: exact zeros for a constant block.
    """
    program = tl.program_id(0).to(tl.int64)
    begin = program * block_size
    origin = _read(weights, begin, begin < size, is_bfloat16).to(tl.float64)
    mean, m2 = tl.zeros([1], tl.float64), tl.zeros([1], tl.float64)
    for offset in range(0, block_size, tile):
        position = begin + offset + tl.arange(0, tile)
        inside = position < size
        count = tl.minimum(tl.maximum(size - begin - offset, 0), tile).to(tl.float64)
        deviation = tl.where(inside, _read(weights, position, inside, is_bfloat16).to(tl.float64) - origin, 0.0)
        tile_mean = tl.sum(deviation) / tl.maximum(count, 1.0)
        rest = tl.where(inside, deviation - tile_mean, 0.0)
        delta = tile_mean - mean
        share = count / (count + offset)
        mean += delta * share
        m2 += tl.sum(rest * rest) + delta * delta * offset * share
    tl.store(means + program + tl.arange(0, 1), mean + origin)
    tl.store(m2s + program + tl.arange(0, 1), m2)


def moments(weights: torch.Tensor) -> Moments:
    """The moments of a contiguous 1-dimensional float32, float64, float16 or bfloat16 tensor."""
    size = weights.numel()
    programs = triton.cdiv(size, reference.BLOCK)
    if programs == 0:
        return reference.EMPTY
    both = _two_of_each(programs, weights)
    with _device_of(weights):
        moments_kernel[(programs,)](
            _words(weights), *both, size, _is_bfloat16(weights), reference.BLOCK, field.BLOCK, **OPTIONS
        )
    return reference.of_blocks(size, *both.cpu().numpy())  # waits for the device, once


def add_noise_(
    weights: torch.Tensor,
    std: float,
    noise_lambda: float,
    distribution: Distribution,
    seed: int,
    name: str,
    *,
    start: int = 0,
) -> Moments:
    """Equation (1) in place on a contiguous 1-dimensional float32, float64, float16 or bfloat16 tensor.

    See `noisytune._noise.kernels.add_noise_`.
    """
    size = weights.numel()
    if size == 0:
        return reference.EMPTY
    work = np.float64 if weights.dtype == torch.float64 else np.float32
    scale = float(work(noise_lambda * std))
    (scale_bits,) = struct.unpack("<q", struct.pack("<d", scale))  # as bits: Triton passes every float as float32
    k0, k1 = field.key(seed, name)
    programs = -(-(start + size) // field.BLOCK) - start // field.BLOCK
    both = _two_of_each(programs, weights)
    with _device_of(weights):
        add_kernel[(programs,)](
            _words(weights),
            *both,
            size,
            start,
            k0 | k1 << 32,
            scale_bits,
            distribution == "gaussian",
            _is_bfloat16(weights),
            start % 16 == 0,
            **OPTIONS,
        )
    total, total_squares = both.sum(1).tolist()
    return Moments(size, total / size, max(total_squares - total * total / size, 0.0))


def _two_of_each(programs: int, weights: torch.Tensor) -> torch.Tensor:
    """Room for two results of each program, float64, shape (2, programs), fetched at once. Both rows begin at a
    multiple of 16 bytes, or Triton would compile the kernel a second time. Not by torch.empty, of which DeepSpeed makes
    halves where a model is built."""
    return weights.new_empty((2, -(-programs // 2) * 2), dtype=torch.float64)[:, :programs]


def _is_bfloat16(weights: torch.Tensor) -> bool:
    return weights.dtype == torch.bfloat16


def _words(weights: torch.Tensor) -> torch.Tensor:
    return weights.view(torch.int16) if _is_bfloat16(weights) else weights


def _device_of(weights: torch.Tensor) -> torch.cuda.device_of:
    """Triton launches on the current device, whatever device the tensors are on."""
    return torch.cuda.device_of(weights)
