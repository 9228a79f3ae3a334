"""One torch tensor as a target: reading and writing what this process holds of it, on any device."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Self

import torch
from torch.nn.parameter import is_lazy

from noisytune._noise import facts, kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.facts import DTYPES, Facts
from noisytune._noise.moments import Moments
from noisytune._perturb.target import MemoryTarget
from noisytune.config import Distribution, NoisyTuneConfig
from noisytune.torch import _deepspeed, _device, _dtensor
from noisytune.torch._dtensor import Piece
from noisytune.torch._layout import Box


@dataclass
class TensorTarget(MemoryTarget):
    """A tensor of the files, as torch holds it: one tensor, a part of one, or parts of several; whole or sharded."""

    tensor: torch.Tensor
    """The tensor in memory; the first where there are several."""
    boxes: list[tuple[torch.Tensor, Box]] = field(default_factory=list, kw_only=True)
    """Where transformers joins or splits the files' tensors: which part of which tensor in memory is which part of this
    one. Empty where the tensor is as it is in the files."""
    shares: list[Facts] = field(default_factory=list, kw_only=True)
    """The facts of what this process holds of each box; one where there are none."""

    @classmethod
    def of(cls, name: str, own_names: list[str], tensor: torch.Tensor) -> Self:
        """The target that a tensor is."""
        return cls(name, own_names, shape_of(tensor), str(tensor.dtype).removeprefix("torch."), tensor)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that hold a part of it."""
        return [tensor for tensor, _ in self.boxes] or [self.tensor]

    @cached_property
    def pieces(self) -> list[list[Piece]]:
        """What this process holds, box by box."""
        if not self.boxes:
            return [[piece_of(self.tensor)]]
        return [_dtensor.within(piece_of(tensor), box, self.shape) for tensor, box in self.boxes]

    @property
    def gains_by_threads(self) -> bool:
        """See `MemoryTarget`. Threads that launch kernels on a GPU wait for Python's lock, and are slower than one."""
        return on_cpu(self.tensor)

    @property
    def firsts(self) -> list[int]:
        """Flat index of the first element of each box that this process holds; 0 where it holds none."""
        return [pieces[0].first if pieces else 0 for pieces in self.pieces]

    def whole(self) -> torch.Tensor | None:
        """The tensor as it is in the files, a copy where it is made of several; None where others hold parts of it."""
        pieces = list(chain.from_iterable(self.pieces))
        if sum(piece.values.numel() for piece in pieces) != self.size or any(p.shape != self.shape for p in pieces):
            return None
        if len(pieces) == 1:
            return pieces[0].values
        joined = torch.empty(self.shape, dtype=self.tensor.dtype, device=pieces[0].values.device)
        for piece in pieces:
            if any(len(ranges) != 1 for ranges in piece.held):
                return None
            joined[tuple(slice(ranges[0].start, ranges[0].stop) for ranges in piece.held)] = piece.values
        return joined

    def measure(self, pool: Executor | None) -> Facts:
        """The facts of what this process holds."""
        self.shares = [facts.merge([self._facts_of(piece.values, pool) for piece in pieces]) for pieces in self.pieces]
        if len(self.shares) > 1 and (joined := self.whole()) is not None:
            return self._facts_of(joined, pool)  # in the order of the files: the last bits agree
        return facts.merge(self.shares)

    def _facts_of(self, values: torch.Tensor, pool: Executor | None) -> Facts:
        flat = values.contiguous().reshape(-1)
        if on_cpu(flat):
            return facts.of(as_numpy(flat), pool)
        moments, non_finite = _device.backend(flat).moments(flat), 0
        has_arithmetic = flat.element_size() > 1  # float8 has none
        if not moments.is_finite:
            non_finite = int((~(flat if has_arithmetic else flat.float()).isfinite()).sum())

        def exact() -> float:
            parts = (part if has_arithmetic else part.float() for part in torch.split(flat, 1 << 22))
            return float(torch.stack([part.abs().max() for part in parts]).max())

        return Facts(moments, non_finite, facts.largest(moments, self.dtype, exact))

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        """Add the noise to what this process holds."""
        settings = std, config.noise_lambda, config.distribution, config.seed, self.name
        added = [self._add(piece, settings, pool) for piece in chain.from_iterable(self.pieces)]
        for tensor in self.tensors:
            torch.autograd.graph.increment_version(tensor)
        return moments_module.merge(added)

    def _add(
        self, piece: Piece, settings: tuple[float, float, Distribution, int, str], pool: Executor | None
    ) -> Moments:
        values = piece.values
        flat = values.contiguous().reshape(-1)
        runs = piece.runs(self.padding)
        if on_cpu(flat):
            memory = as_numpy(flat)
            added = [kernels.add_noise_(memory[run], *settings, start=start, pool=pool) for run, start in runs]
        else:
            add_noise_ = _device.backend(flat).add_noise_
            added = [add_noise_(flat[run], *settings, start=start) for run, start in runs]
        if not values.is_contiguous():
            values.copy_(flat.view(values.shape))
        return moments_module.merge(added)


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """Of the full tensor. A lazy one has none yet, a nested one several."""
    if _deepspeed.is_partitioned(tensor):
        return _deepspeed.shape_of(tensor)
    return () if is_lazy(tensor) or tensor.is_nested else tuple(tensor.shape)


def piece_of(tensor: torch.Tensor) -> Piece:
    """What this process holds of a tensor."""
    return _deepspeed.piece_of(tensor) if _deepspeed.is_partitioned(tensor) else _dtensor.piece_of(tensor)


def is_strided(tensor: torch.Tensor) -> bool:
    """Whether its elements lie in memory at regular steps: not so in sparse, nested and oneDNN's tensors."""
    return tensor.layout == torch.strided and not tensor.is_nested


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
    if is_lazy(tensor) or type(tensor.detach()) is not torch.Tensor or not is_strided(tensor):
        return id(tensor)
    if tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype
