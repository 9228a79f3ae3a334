"""The noise field, version 1: which noise belongs to which element.

noise(seed, name, i) is a pure function of the seed, the tensor's canonical name and the element's flat row-major index
in the full tensor. So it cannot depend on rank, order, device, chunking, thread count or framework. This file is the
specification: plain NumPy, slow and exact. `noisytune._noise.kernels` computes the same bits fast.

::

    key       64 bits: BLAKE2b of the name in UTF-8, digest 8 bytes, salt = seed (8 bytes, little endian),
              person = b"noisytune-field1".
    counter   block = i // 4096, r = i % 4096, lane = r // 1024, t = r % 1024, c = block * 1024 + t;
              Philox counter (c low, c high, 0, 0). Output `lane` of Philox4x32-10 is the element's 32 bits x:
              the four outputs serve four elements that are 1024 apart.
    uniform   u = (x >> 8) * 2**-24 - (0.5 - 2**-25): exact in float32, symmetric, inside (-1/2, 1/2), never 0.
    gaussian  Box-Muller on the output pairs (0, 1) and (2, 3), times 1/sqrt(12): the variance of u.
    apply     w' = cast(float32(w) + float32(s * u)), s = float32(lambda * std): two roundings and a cast, never a
              fused multiply-add.

Sources: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", SC (Philox); Box and Muller 1958.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune.config import Distribution

VERSION = 1
"""Of the field. Results made with one version are not comparable, bit for bit, with another's."""

BLOCK = 4096
"""Elements served by one run of 1024 Philox counters."""

LANE = BLOCK // 4

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Array = npt.NDArray[Any]


def key(seed: int, name: str) -> tuple[int, int]:
    """The Philox key of a tensor: (low word, high word).

    Args:
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.

    >>> [hex(word) for word in key(0, "embeddings.word_embeddings.weight")]
    ['0x3e9ac5a', '0x81b5fa13']
    """
    digest = blake2b(name.encode(), digest_size=8, salt=seed.to_bytes(8, "little"), person=b"noisytune-field1").digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def philox4x32(counter: Array, key: tuple[int, int]) -> Array:
    """Philox4x32-10.

    Args:
        counter: uint32, shape (4, n).
        key: two 32-bit words.

    Returns:
        uint32, shape (4, n).

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", with its known answer for zeros:

    >>> [hex(word) for word in philox4x32(np.zeros((4, 1), np.uint32), (0, 0))[:, 0]]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    x = [word.astype(np.uint64) for word in counter]
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(ROUNDS):
        product0, product1 = x[0] * np.uint64(MULTIPLIERS[0]), x[2] * np.uint64(MULTIPLIERS[1])
        x = [
            (product1 >> np.uint64(32)) ^ x[1] ^ np.uint64(k0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ x[3] ^ np.uint64(k1),
            product0 & low,
        ]
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack(x).astype(np.uint32)


def _philox_at(key: tuple[int, int], start: int, count: int) -> Array:
    """All four outputs at the counters of elements ``start`` .. ``start + count``, shape (4, count)."""
    index = np.arange(count, dtype=np.uint64) + np.uint64(start)
    c = index // np.uint64(BLOCK) * np.uint64(LANE) + index % np.uint64(LANE)
    counter = np.zeros((4, count), np.uint32)
    counter[0] = c & np.uint64(0xFFFFFFFF)
    counter[1] = c >> np.uint64(32)
    return philox4x32(counter, key)


def _lane(start: int, count: int) -> Array:
    index = np.arange(count, dtype=np.uint64) + np.uint64(start)
    return (index % np.uint64(BLOCK) // np.uint64(LANE)).astype(np.int64)


def bits(seed: int, name: str, start: int, count: int) -> Array:
    """The 32 random bits of elements ``start`` .. ``start + count``, uint32, shape (count,).

    Args:
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.
        start: flat row-major index of the first element in the full tensor, >= 0.
        count: how many elements, >= 0.

    >>> [hex(x) for x in bits(0, "embeddings.word_embeddings.weight", 0, 2)]
    ['0x3a4afd95', '0x3e7794e3']
    """
    lanes = _philox_at(key(seed, name), start, count)
    return lanes[_lane(start, count), np.arange(count)]


def uniform(seed: int, name: str, start: int, count: int) -> Array:
    """Uniform noise in (-1/2, 1/2), float32, shape (count,). Variance 1/12.

    Args:
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.
        start: flat row-major index of the first element in the full tensor, >= 0.
        count: how many elements, >= 0.

    >>> uniform(0, "weight", 4, 3).tolist() == uniform(0, "weight", 0, 7)[4:].tolist()
    True
    """
    x = bits(seed, name, start, count)
    u: Array = (x >> np.uint32(8)).astype(np.float32) * np.float32(2**-24) - np.float32(0.5 - 2**-25)
    return u


def gaussian(seed: int, name: str, start: int, count: int) -> Array:
    """Gaussian noise of variance 1/12, float32, shape (count,). At most 1.67 in absolute value.

    The first uniform of a pair lies in (0, 1], so that its logarithm is finite. Computed in float64 and rounded once:
    logarithms and sines differ between libraries, so another implementation agrees to one float32 unit in the last
    place, not always bit for bit.

    Args:
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.
        start: flat row-major index of the first element in the full tensor, >= 0.
        count: how many elements, >= 0.

    Source: Box and Muller 1958, "A note on the generation of random normal deviates".

    >>> round(float(gaussian(0, "weight", 0, 100_000).var()), 3) == round(1 / 12, 3)
    True
    """
    x = _philox_at(key(seed, name), start, count)
    lane = _lane(start, count)
    first = np.where(lane < 2, x[0], x[2])
    second = np.where(lane < 2, x[1], x[3])
    radius = np.sqrt(-2.0 * np.log(((first >> np.uint32(8)) + 1.0) * 2.0**-24) / 12.0)
    angle = 2.0 * np.pi * ((second >> np.uint32(8)) * 2.0**-24)
    value: Array = radius * np.where(lane % 2 == 0, np.cos(angle), np.sin(angle))
    return value.astype(np.float32)


def noise(distribution: Distribution, seed: int, name: str, start: int, count: int) -> Array:
    """Noise of variance 1/12, float32, shape (count,).

    Args:
        distribution: "uniform" or "gaussian".
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.
        start: flat row-major index of the first element in the full tensor, >= 0.
        count: how many elements, >= 0.

    >>> noise("uniform", 0, "weight", 0, 2).tolist() == uniform(0, "weight", 0, 2).tolist()
    True
    """
    return (uniform if distribution == "uniform" else gaussian)(seed, name, start, count)


def add_noise(
    weights: Array, std: float, noise_lambda: float, distribution: Distribution, seed: int, name: str
) -> Array:
    """Equation (1): the perturbed copy of a whole tensor.

    Args:
        weights: any floating dtype, also those of ml_dtypes; any shape.
        std: the standard deviation that scales the noise, >= 0.
        noise_lambda: relative strength, >= 0.
        distribution: "uniform" or "gaussian".
        seed: 0 <= seed < 2**64.
        name: the tensor's canonical name.

    Returns:
        an array like ``weights``.

    >>> weights = np.zeros(4, np.float32)
    >>> bool((abs(add_noise(weights, 1.0, 0.15, "uniform", 1, "weight")) < 0.075).all()), weights.tolist()
    (True, [0.0, 0.0, 0.0, 0.0])

    Source: Wu et al. 2022, equation (1).
    """
    work = np.float64 if weights.dtype == np.float64 else np.float32
    values: Array = noise(distribution, seed, name, 0, weights.size).astype(work).reshape(weights.shape)
    added: Array = values * work(noise_lambda * std)
    perturbed: Array = weights.astype(work) + added
    return perturbed.astype(weights.dtype)
