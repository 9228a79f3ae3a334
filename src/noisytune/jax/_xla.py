"""The noise field and the moments as XLA programs, for JAX arrays that the CPU's kernels do not reach.

Uniform noise is that of `noisytune.field` bit for bit, without 64-bit types: 64-bit indices are pairs of words, and
high halves of products come from 16-bit parts. Product and sum are two programs, because within one XLA may contract
them into a fused multiply-add, which skips a rounding. Moments and gaussian noise are computed in float64, which is
switched on for these programs only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from noisytune import field
from noisytune._noise.kernels import Array
from noisytune._noise.moments import Moments
from noisytune.config import Distribution

_LOW16, _LOW32 = 0xFFFF, 0xFFFFFFFF


def moments(weights: jax.Array) -> Moments:
    """The moments of an array of at least one element, however it is sharded."""
    with jax.enable_x64(True):
        mean, m2 = _mean_and_m2(weights)
        return Moments(weights.size, float(mean), float(m2))


@jax.jit
def _mean_and_m2(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Deviations are taken from the minimum: exact zeros for a constant array, and no element has to be fetched."""
    deviation = weights.astype(jnp.float64)
    origin = deviation.min()
    deviation = deviation - origin
    mean = deviation.mean()
    return origin + mean, ((deviation - mean) ** 2).sum()


def largest(weights: jax.Array) -> float:
    """The largest absolute value of an array, however it is sharded."""
    with jax.enable_x64(True):
        return float(jnp.abs(weights.astype(jnp.float64)).max())


def add_noise(
    weights: jax.Array, std: float, noise_lambda: float, distribution: Distribution, seed: int, name: str
) -> tuple[jax.Array, Moments]:
    """Equation (1): the perturbed copy, sharded as the array is, and the moments of what was really added.

    Every device makes the noise of its own part. See `noisytune.field.add_noise`.
    """
    work = np.float64 if weights.dtype == np.float64 else np.float32
    scale = work(noise_lambda * std)
    key = np.array(field.key(seed, name), np.uint32)
    strides = tuple(math.prod(weights.shape[d + 1 :]) for d in range(weights.ndim))

    def perturbed(block: jax.Array, index: tuple[slice, ...]) -> jax.Array:
        start = sum((part.start or 0) * stride for part, stride in zip(index, strides, strict=True))
        words = np.array([start >> 32, start & _LOW32], np.uint32)
        product = _product(key, words, scale, block.shape, strides, distribution)
        new: jax.Array = _sum(block, product)
        return new

    with jax.enable_x64(distribution == "gaussian" or work is np.float64):
        if isinstance(weights.sharding, jax.sharding.SingleDeviceSharding):
            (device,) = weights.sharding.device_set
            with jax.default_device(device):
                new = perturbed(weights, (slice(None),) * weights.ndim)
        else:
            blocks = []
            for shard in weights.addressable_shards:
                with jax.default_device(shard.device):
                    blocks.append(perturbed(shard.data, shard.index))
            new = jax.make_array_from_single_device_arrays(weights.shape, weights.sharding, blocks)
    with jax.enable_x64(True):
        return new, moments(_difference(new, weights))


@jax.jit
def _difference(new: jax.Array, old: jax.Array) -> jax.Array:
    wide = jnp.float64 if new.dtype == jnp.float64 else jnp.float32
    return new.astype(wide) - old.astype(wide)


@jax.jit
def _sum(weights: jax.Array, product: jax.Array) -> jax.Array:
    return (weights.astype(product.dtype) + product).astype(weights.dtype)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _product(
    key: jax.Array,
    start: jax.Array,
    scale: jax.Array,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    distribution: Distribution,
) -> jax.Array:
    """Noise times ``scale`` for a block of the full array; ``start``: index of the block's first element, in two
    words."""
    high, low = _flat_index(start, shape, strides)
    lane, t = (low >> 10) & 3, low & (field.LANE - 1)
    block_low, block_high = low >> 12 | high << 20, high >> 12
    x = _philox(block_low << 10 | t, block_high << 10 | block_low >> 22, key)
    if distribution == "uniform":
        bits = jnp.where(lane < 2, jnp.where(lane == 0, x[0], x[1]), jnp.where(lane == 2, x[2], x[3]))
        noise = (bits >> 8).astype(jnp.float32) * np.float32(2**-24) - np.float32(0.5 - 2**-25)
    else:
        noise = _box_muller(jnp.where(lane < 2, x[0], x[2]), jnp.where(lane < 2, x[1], x[3]), lane & 1)
    product: jax.Array = noise.astype(scale.dtype) * scale
    return product


def _box_muller(x: jax.Array, y: jax.Array, is_second: jax.Array) -> jax.Array:
    radius = jnp.sqrt(-2.0 * jnp.log(((x >> 8).astype(jnp.float64) + 1.0) * 2.0**-24) / 12.0)
    angle = 2.0 * math.pi * ((y >> 8).astype(jnp.float64) * 2.0**-24)
    return (radius * jnp.where(is_second == 0, jnp.cos(angle), jnp.sin(angle))).astype(jnp.float32)


def _flat_index(start: jax.Array, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """The row-major index in the full array of every element of the block: (high word, low word)."""
    high, low = jnp.broadcast_to(start[0], shape), jnp.broadcast_to(start[1], shape)
    for dimension, stride in enumerate(strides):
        if shape[dimension] == 1:
            continue
        i = jax.lax.broadcasted_iota(jnp.uint32, shape, dimension)
        step_high, step_low = np.uint32(stride >> 32), np.uint32(stride & _LOW32)
        added = low + i * step_low
        high = high + i * step_high + _high_half(i, step_low) + (added < low).astype(jnp.uint32)
        low = added
    return high, low


def _philox(low: jax.Array, high: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
    """Philox4x32-10 at counters (low, high, 0, 0)."""
    m0, m1 = (np.uint32(m) for m in field.MULTIPLIERS)
    x0, x1, x2, x3 = low, high, jnp.zeros_like(low), jnp.zeros_like(low)
    k0, k1 = key[0], key[1]
    for _ in range(field.ROUNDS):
        x0, x1, x2, x3 = _high_half(x2, m1) ^ x1 ^ k0, x2 * m1, _high_half(x0, m0) ^ x3 ^ k1, x0 * m0
        k0, k1 = k0 + np.uint32(field.WEYL[0]), k1 + np.uint32(field.WEYL[1])
    return x0, x1, x2, x3


def _high_half(a: jax.Array, b: np.uint32) -> jax.Array:
    """The upper 32 bits of the 64-bit product of two words."""
    b_low, b_high = np.uint32(b & _LOW16), np.uint32(b >> 16)
    a_low, a_high = a & _LOW16, a >> 16
    low, middle, other = a_low * b_low, a_high * b_low, a_low * b_high
    carry = (low >> 16) + (middle & _LOW16) + (other & _LOW16)
    return a_high * b_high + (middle >> 16) + (other >> 16) + (carry >> 16)


def placed_like(array: Array, leaf: jax.Array) -> jax.Array:
    """A JAX array of the same dtype with these values, where ``leaf`` is."""
    with jax.enable_x64(True):  # else a float64 would become a float32
        placed: jax.Array = jax.device_put(array, leaf.sharding if leaf.committed else None)
        return placed


def stacked_like(parts: Sequence[jax.Array], leaf: jax.Array) -> jax.Array:
    """Arrays as one of the shape of ``leaf``, where ``leaf`` is."""
    with jax.enable_x64(True):
        whole: jax.Array = jax.jit(
            lambda each: jnp.stack(each).reshape(leaf.shape), out_shardings=leaf.sharding if leaf.committed else None
        )(list(parts))
        return whole
