"""The noise field and the moments in plain torch operations, for weights that do not live in the CPU's memory.

Bit-identical to `noisytune.field` for uniform noise. 32-bit words are carried in int64, which every backend has;
products of two of them wrap, and their high halves are masked after the shift.
"""

from __future__ import annotations

import math
import sys
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Protocol, cast

import numpy as np
import torch

from noisytune import field
from noisytune._noise import moments as reference
from noisytune._noise.moments import Moments
from noisytune.config import Distribution

CHUNK = 1 << 22
"""Elements worked on at a time: bounds the extra memory at about 300 MB."""

_WORD = 0xFFFFFFFF


class Backend(Protocol):
    """What this module and `noisytune.torch._triton` both are."""

    def moments(self, weights: torch.Tensor) -> Moments:
        """The moments of a contiguous 1-dimensional tensor."""

    def add_noise_(
        self,
        weights: torch.Tensor,
        std: float,
        noise_lambda: float,
        distribution: Distribution,
        seed: int,
        name: str,
        *,
        start: int = 0,
    ) -> Moments:
        """Equation (1) in place on a contiguous 1-dimensional tensor."""


def backend(weights: torch.Tensor) -> Backend:
    """The module that works on a tensor outside the CPU's memory: the Triton kernels on CUDA where they run, else this
    one."""
    if weights.is_cuda and weights.element_size() > 1 and _triton_runs(weights.device):
        return cast(Backend, import_module("noisytune.torch._triton"))
    return cast(Backend, sys.modules[__name__])


@cache
def _triton_runs(device: torch.device) -> bool:
    """Tried, not looked up: Triton also needs a C compiler, a driver and a GPU that it supports. Both ways give the
    same noise, so a failure costs nothing but time."""
    if find_spec("triton") is None:
        return False
    try:
        kernels = import_module("noisytune.torch._triton")
        trial = torch.from_numpy(np.zeros(1, np.float32)).to(device)  # DeepSpeed makes torch.zeros' halves in zero.Init
        kernels.add_noise_(trial, 1.0, 1.0, "uniform", 0, "trial")
        return kernels.moments(trial).mean == float(field.uniform(0, "trial", 0, 1)[0])  # type: ignore[no-any-return]
    except Exception:
        return False


def _philox(c: torch.Tensor, key: tuple[int, int]) -> tuple[torch.Tensor, ...]:
    """Philox4x32-10 at counters (c low, c high, 0, 0): four int64 tensors shaped like ``c``, values below 2**32."""
    x0, x1, x2, x3 = c & _WORD, c >> 32, torch.zeros_like(c), torch.zeros_like(c)
    k0, k1 = key
    for _ in range(field.ROUNDS):
        p0, p1 = x0 * field.MULTIPLIERS[0], x2 * field.MULTIPLIERS[1]
        x0, x1 = ((p1 >> 32) & _WORD) ^ x1 ^ k0, p1 & _WORD
        x2, x3 = ((p0 >> 32) & _WORD) ^ x3 ^ k1, p0 & _WORD
        k0, k1 = (k0 + field.WEYL[0]) & _WORD, (k1 + field.WEYL[1]) & _WORD
    return x0, x1, x2, x3


def _uniform(x: torch.Tensor) -> torch.Tensor:
    return (x >> 8).to(torch.float32).mul_(2.0**-24).sub_(0.5 - 2.0**-25)


def _box_muller(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    radius = (((x >> 8).to(wide) + 1) * 2.0**-24).log_().mul_(-2.0 / 12.0).sqrt_()
    angle = (y >> 8).to(wide) * (2.0 * math.pi * 2.0**-24)
    return (radius * angle.cos()).to(torch.float32), (radius * angle.sin()).to(torch.float32)


def noise(
    distribution: Distribution, key: tuple[int, int], start: int, count: int, device: torch.device
) -> torch.Tensor:
    """Noise of variance 1/12 for elements ``start`` .. ``start + count``: float32, shape (count,), made on
    ``device``."""
    first, last = start // field.BLOCK, -(-(start + count) // field.BLOCK)
    c = torch.arange(first * field.LANE, last * field.LANE, dtype=torch.int64, device=device).view(-1, field.LANE)
    x = _philox(c, key)
    values = map(_uniform, x) if distribution == "uniform" else (*_box_muller(x[0], x[1]), *_box_muller(x[2], x[3]))
    skipped = start - first * field.BLOCK
    return torch.stack(tuple(values), dim=1).reshape(-1)[skipped : skipped + count]


def moments(weights: torch.Tensor) -> Moments:
    """The moments of a contiguous 1-dimensional tensor."""
    if weights.numel() == 0:
        return reference.EMPTY
    parts = []
    for chunk in torch.split(weights, CHUNK):
        wide = chunk.cpu() if chunk.device.type == "mps" else chunk
        whole = wide.numel() // reference.BLOCK * reference.BLOCK
        for blocks in (wide[:whole].view(-1, reference.BLOCK), wide[whole:].view(1, -1)):
            if blocks.numel():
                parts.append(_mean_and_m2(blocks.to(torch.float64)))
    return reference.of_blocks(weights.numel(), *torch.cat(parts, dim=1).cpu().numpy())


def _mean_and_m2(blocks: torch.Tensor) -> torch.Tensor:
    """Of each block; shape (2, blocks)."""
    first = blocks[:, :1]
    mean = first + (blocks - first).mean(dim=1, keepdim=True)
    m2 = (blocks - mean).square_().sum(dim=1)
    return torch.stack((mean[:, 0], m2))


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
    """Equation (1) in place on a contiguous 1-dimensional tensor: `noisytune._noise.kernels.add_noise_` for any
    device."""
    work = torch.float64 if weights.dtype == torch.float64 else torch.float32
    scale = float((np.float64 if work == torch.float64 else np.float32)(noise_lambda * std))
    key = field.key(seed, name)
    parts = []
    for offset in range(0, weights.numel(), CHUNK):
        piece = weights[offset : offset + CHUNK]
        old = piece.to(work, copy=True)
        product = noise(distribution, key, start + offset, piece.numel(), weights.device).to(work).mul_(scale)
        piece.copy_(product.add_(old))
        parts.append(moments(piece.to(work) - old))
    return reference.merge(parts)
