"""One torch tensor as a target: reading and writing what this process holds of it, on any device."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch.nn.parameter import is_lazy

from noisytune._noise import facts, kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.facts import DTYPES, Facts
from noisytune._noise.moments import Moments
from noisytune._perturb.target import MemoryTarget
from noisytune.config import NoisyTuneConfig
from noisytune.torch import _deepspeed, _device, _dtensor
from noisytune.torch._dtensor import Piece


@dataclass
class TensorTarget(MemoryTarget):
    """A torch tensor, whole or sharded."""

    tensor: torch.Tensor

    @classmethod
    def of(cls, name: str, own_names: list[str], tensor: torch.Tensor) -> Self:
        """The target that a tensor is. A lazy one has no shape yet."""
        if _deepspeed.is_partitioned(tensor):
            shape = _deepspeed.shape_of(tensor)
        else:
            shape = () if is_lazy(tensor) else tuple(tensor.shape)
        return cls(name, own_names, shape, str(tensor.dtype).removeprefix("torch."), tensor)

    @cached_property
    def piece(self) -> Piece:
        """What this process holds of the tensor."""
        partitioned = _deepspeed.is_partitioned(self.tensor)
        return _deepspeed.piece_of(self.tensor) if partitioned else _dtensor.piece_of(self.tensor)

    def measure(self, pool: Executor | None) -> Facts:
        """The facts of this process's piece."""
        flat = self.piece.values.reshape(-1)
        if on_cpu(flat):
            return facts.of(as_numpy(flat), pool)
        moments, non_finite, largest = _device.backend(flat).moments(flat), 0, 0.0
        if not moments.is_finite:
            has_arithmetic = flat.element_size() > 1  # float8 has none
            non_finite = int((~(flat if has_arithmetic else flat.float()).isfinite()).sum())
        if moments.n and facts.limit(self.dtype) is not None:
            largest = max(float(chunk.float().abs().max()) for chunk in torch.split(flat, 1 << 20))
        return Facts(moments, non_finite, largest)

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        """Add the noise to this process's piece."""
        values = self.piece.values
        flat = values.reshape(-1)
        settings = std, config.noise_lambda, config.distribution, config.seed, self.name
        runs = self.piece.runs(self.padding)
        if on_cpu(flat):
            memory = as_numpy(flat)
            added = [kernels.add_noise_(memory[run], *settings, start=start, pool=pool) for run, start in runs]
        else:
            add_noise_ = _device.backend(flat).add_noise_
            added = [add_noise_(flat[run], *settings, start=start) for run, start in runs]
        if not values.is_contiguous():
            values.copy_(flat.view(values.shape))
        torch.autograd.graph.increment_version(self.tensor)
        return moments_module.merge(added)


def on_cpu(tensor: torch.Tensor) -> bool:
    """Whether the compiled kernels reach the tensor's memory."""
    return tensor.device.type == "cpu"


def as_numpy(flat: torch.Tensor) -> kernels.Array:
    """The memory of a contiguous CPU tensor as an array of the same dtype, without a copy."""
    words = {1: torch.uint8, 2: torch.uint16}.get(flat.element_size())
    dtype = DTYPES[str(flat.dtype).removeprefix("torch.")]
    return (flat.view(words) if words else flat).numpy().view(dtype)


def identity(tensor: torch.Tensor) -> Hashable:
    """Equal for two tensors if and only if they are the same numbers in memory."""
    if is_lazy(tensor) or type(tensor.detach()) is not torch.Tensor or tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
