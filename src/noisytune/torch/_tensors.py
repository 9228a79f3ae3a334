"""One torch tensor as a target: reading and writing what this process holds of it, on any device, and what cannot be
perturbed at all."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch.nn.parameter import is_lazy

from noisytune._noise import kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.moments import Moments
from noisytune._perturb import steps as perturbation
from noisytune.config import NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.torch import _deepspeed, _device, _dtensor
from noisytune.torch._dtensor import Facts, Piece


@dataclass
class TensorTarget(perturbation.Target):
    """A torch tensor, whole or sharded."""

    tensor: torch.Tensor
    facts: Facts | None = None
    """Of this process's piece; of the full tensor once the ranks have shared theirs."""

    @property
    def shape(self) -> tuple[int, ...]:
        return _deepspeed.shape_of(self.tensor) if _deepspeed.is_partitioned(self.tensor) else tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        return str(self.tensor.dtype).removeprefix("torch.")

    @cached_property
    def piece(self) -> Piece:
        """What this process holds of the tensor."""
        partitioned = _deepspeed.is_partitioned(self.tensor)
        return _deepspeed.piece_of(self.tensor) if partitioned else _dtensor.piece_of(self.tensor)

    @property
    def where(self) -> str:
        shape = "unknown" if is_lazy(self.tensor) else self.shape
        return f"{self.own_names[0]} ({self.dtype}, shape {shape})"

    def measure(self, pool: Executor | None) -> Moments:
        flat = self.piece.values.reshape(-1)
        moments = kernels.moments(as_numpy(flat), pool) if on_cpu(flat) else _device.backend(flat).moments(flat)
        non_finite, largest = 0, 0.0
        if not moments.is_finite:
            has_arithmetic = flat.element_size() > 1  # float8 has none
            non_finite = int((~(flat if has_arithmetic else flat.float()).isfinite()).sum())
        if moments.n and torch.finfo(flat.dtype).max < 1e5:
            largest = max(float(chunk.float().abs().max()) for chunk in torch.split(flat, 1 << 20))
        self.facts = Facts(moments, non_finite, largest)
        return moments

    def non_finite(self) -> int:
        return self.facts.non_finite if self.facts else 0

    def largest(self) -> float:
        return self.facts.largest if self.facts else 0.0

    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
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
    dtype = perturbation.DTYPES[str(flat.dtype).removeprefix("torch.")]
    return (flat.view(words) if words else flat).numpy().view(dtype)


def identity(tensor: torch.Tensor) -> Hashable:
    """Equal for two tensors if and only if they are the same numbers in memory."""
    if is_lazy(tensor) or type(tensor.detach()) is not torch.Tensor or tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def refuse_unsupported(targets: Sequence[TensorTarget]) -> None:
    """Raise `UnsupportedTensorError` for a tensor that cannot take noise, or that overlaps another."""
    for target in targets:
        if problem := _problem(target):
            raise UnsupportedTensorError(f"{target.where} {problem}")
    _refuse_overlaps(targets)


def _problem(target: TensorTarget) -> str | None:
    tensor, kind = target.tensor, type(target.tensor).__name__
    if is_lazy(tensor):
        return "is lazy, it has no values yet: run a forward pass first"
    if kind == "FlatParameter" or getattr(tensor, "_fsdp_flattened", False):
        return "is flattened by FSDP: perturb before wrapping the model in FSDP"
    if problem := _deepspeed.problem(tensor):
        return problem
    if _deepspeed.is_partitioned(tensor):
        tensor = target.piece.values
    if _dtensor.is_dtensor(tensor):
        if problem := _dtensor.problem(tensor):
            return problem
        tensor, kind = target.piece.values, type(target.piece.values).__name__
    if looks_quantised(tensor):
        return f"is quantised ({kind}): perturb the model before quantising"
    if tensor.is_meta:
        return "is on the meta device: load the weights first (weights offloaded to disk cannot be perturbed)"
    if tensor.is_inference():
        return "is an inference tensor: load the model outside torch.inference_mode()"
    if any(step == 0 and length > 1 for step, length in zip(tensor.stride(), tensor.shape, strict=True)):
        return "is expanded, so that several elements share one place in memory: clone it first"
    if any(".parametrizations." in f".{name}" or ".lora_magnitude_vector" in name for name in target.own_names):
        return "is parametrised: perturb before adding the parametrisation, or exclude it"
    if target.dtype not in perturbation.DTYPES:
        return "has a dtype that takes no noise: load the model in float32, bfloat16 or float16, or exclude it"
    return None


def looks_quantised(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds bytes, or is of a class that only its own library understands."""
    if is_lazy(tensor) or _dtensor.is_dtensor(tensor):
        return False
    return tensor.dtype in (torch.int8, torch.uint8) or type(tensor.detach()) is not torch.Tensor


def _refuse_overlaps(targets: Sequence[TensorTarget]) -> None:
    spans = []
    for target in targets:
        values = target.piece.values
        if values.numel():
            storage, start = values.untyped_storage().data_ptr(), values.data_ptr()
            reach = sum((n - 1) * step for n, step in zip(values.shape, values.stride(), strict=True))
            spans.append((storage, start, start + (reach + 1) * values.element_size(), target))
    spans.sort(key=lambda span: span[:3])
    for (storage, _, stop, one), (other_storage, start, _, other) in pairwise(spans):
        if storage == other_storage and start < stop:
            raise UnsupportedTensorError(
                f"{one.where} and {other.where} share part of their memory: "
                "noise on one would change the other; exclude one"
            )
