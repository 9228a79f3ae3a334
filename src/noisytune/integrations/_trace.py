"""Noise in weights whose record was lost: the noise itself is the record.

Noise is a function of the seed, the tensor's name and the element's index, so anyone can draw it again and look how far
the weights go along with it. Weights that never met it are uncorrelated with it, whatever they are: with n elements the
correlation times sqrt(n) is a standard normal number. Weights that carry it correlate by lambda / sqrt(12), also after
a fine-tuning, which moves weights little. So a state dict that was loaded into another model is recognised.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune._noise import kernels
from noisytune.config import Distribution, NoisyTuneConfig

Array = npt.NDArray[Any]

_USUAL_SEEDS = (*range(32), 42, 100, 123, 1234, 1337, 2024, 2025, 2026, 3407)
"""Tried besides the one that is asked for."""

_FOUND = 6.0
"""Standard deviations of chance. Together the seeds are taken for found by mistake once in ten million models."""

_EXPECTED = 10.0
"""Standard deviations that the sample is made for."""

_MOST = 1 << 21
"""Elements of a sample."""

TENSORS = 8
"""Tensors that they come from: the largest ones."""


@dataclass(frozen=True)
class Trace:
    """What was found in a sample of a model's weights."""

    config: NoisyTuneConfig | None
    """The settings of the noise that is there, its lambda estimated; None if there is none, or nobody can tell."""
    is_certain: bool
    """Whether noise as strong as that asked for would have been seen."""


def look(tensors: Iterable[tuple[str, Array]], config: NoisyTuneConfig) -> Trace:
    """Look for noise of the seed that is asked for, and of the usual ones.

    Args:
        tensors: canonical name and weights, flat, from the tensor's first element on: `sample_size` elements of each of
            the `TENSORS` largest.
        config: the noise that is about to be added.

    Example:
        >>> weights = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
        >>> _ = kernels.add_noise_(weights, 1.0, 0.15, "uniform", 3, "a")
        >>> look([("a", weights)], NoisyTuneConfig(seed=1)).config.seed
        3
    """
    sample = [(name, _standard(weights)) for name, weights in tensors]
    n = sum(weights.size for _, weights in sample)
    if n == 0 or config.noise_lambda == 0:
        return Trace(None, config.noise_lambda == 0)
    is_certain = config.noise_lambda * math.sqrt(n / 12) >= _EXPECTED * 0.9
    for seed in dict.fromkeys((config.seed, *_USUAL_SEEDS)):
        along = sum(_along(name, weights, config.distribution, seed) for name, weights in sample)
        if along > _FOUND * math.sqrt(n):
            strength = along / n * math.sqrt(12)
            unsure = 0.1 * config.noise_lambda + 3 * math.sqrt(12 / n)  # training moves weights; chance of the sample
            is_asked = seed == config.seed and abs(strength - config.noise_lambda) <= unsure
            return Trace(config if is_asked else config.replace(seed=seed, noise_lambda=round(strength, 2)), True)
    return Trace(None, is_certain)


def sample_size(config: NoisyTuneConfig) -> int:
    """Elements of one tensor that are worth looking at: noise of this strength is then seen in one large tensor."""
    return min(math.ceil(12 * (_EXPECTED / max(config.noise_lambda, 1e-3)) ** 2), _MOST // TENSORS)


def _standard(weights: Array) -> Array:
    """Mean 0 and standard deviation 1; nothing of a tensor that has no spread or is not finite."""
    values = weights.astype(np.float64)  # such as 1e30 overflows float32
    if not np.isfinite(values).all() or not values.any() or values.std() == 0:
        return values[:0]
    standard: Array = ((values - values.mean()) / values.std()).astype(np.float32)
    return standard


def _along(name: str, weights: Array, distribution: Distribution, seed: int) -> float:
    """The sum of the products with the noise of unit variance."""
    noise = np.zeros(weights.size, np.float32)
    kernels.add_noise_(noise, math.sqrt(12), 1.0, distribution, seed, name)
    return float(weights @ noise)
