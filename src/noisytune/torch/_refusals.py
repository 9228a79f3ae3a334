"""Which torch weights cannot take noise, with the reason. All of it is refused before anything is written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from noisytune._noise.facts import DTYPES
from noisytune._perturb import refusals
from noisytune._perturb.quantised import refuse_codes
from noisytune.errors import UnsupportedTensorError
from noisytune.torch import _deepspeed, _dtensor
from noisytune.torch._adapters import refuse_adapters_that_know_the_weights
from noisytune.torch._tensors import TensorTarget, is_strided, piece_of

_PARAMETRISED = re.compile(r"(?:^|\.)parametrizations\.(?!\w+\.original[01]$)|\.lora_magnitude_vector")
"""Names of what stands for a weight. Weight norm's magnitude and direction are weights, as the files hold them."""

CODES = ("int8", "uint8")
"""Dtypes that quantised weights are kept in."""


def refuse_tensors(targets: Sequence[TensorTarget]) -> None:
    """Refuse each chosen tensor that cannot take noise, or that overlaps another.

    Raises:
        UnsupportedTensorError: names the tensor and the reason.
    """
    refusals.refuse_unsupported(targets, problem)
    chosen = {id(tensor): (t, tensor) for t in targets if t.left_alone is None for tensor in t.tensors}
    held = [(target, piece_of(tensor).values) for target, tensor in chosen.values()]
    refusals.refuse_overlaps([_span(target, values) for target, values in held if values.numel()])


def _span(target: TensorTarget, values: torch.Tensor) -> refusals.Span:
    reach = sum((n - 1) * step for n, step in zip(values.shape, values.stride(), strict=True))
    start = values.data_ptr()
    return refusals.Span(
        values.untyped_storage().data_ptr(), start, start + (reach + 1) * values.element_size(), target
    )


def problem(target: TensorTarget) -> str | None:
    """What is wrong with a tensor that cannot take noise, or None."""
    return next(filter(None, (_problem(target, tensor) for tensor in target.tensors)), None)


def _problem(target: TensorTarget, tensor: torch.Tensor) -> str | None:
    kind = type(tensor).__name__
    if is_lazy(tensor):
        return "is lazy, it has no values yet: run a forward pass first"
    if kind == "FlatParameter" or getattr(tensor, "_fsdp_flattened", False):
        return "is flattened by FSDP: perturb before wrapping the model in FSDP"
    if found := _deepspeed.problem(tensor):
        return found
    if _deepspeed.is_partitioned(tensor):
        if target.boxes and not _has_pieces(target):
            return "is cut by DeepSpeed across what the files hold: perturb the checkpoint, with noisytune perturb"
        tensor = piece_of(tensor).values
    if _dtensor.is_dtensor(tensor):
        if found := _dtensor.problem(tensor):
            return found
        tensor = piece_of(tensor).values
        kind = type(tensor).__name__
    if not is_strided(tensor):
        return f"is {'nested' if tensor.is_nested else f'kept as {tensor.layout}'}: make it dense, or exclude it"
    if looks_quantised(tensor):
        return refusals.quantised(kind)
    if tensor.is_meta:
        return "is on the meta device: load the weights first (weights offloaded to disk cannot be perturbed)"
    if tensor.is_inference():
        return "is an inference tensor: load the model outside torch.inference_mode()"
    if tensor.numel() and any(
        step == 0 and length > 1 for step, length in zip(tensor.stride(), tensor.shape, strict=True)
    ):
        return "is expanded, so that several elements share one place in memory: clone it first"
    if any(_PARAMETRISED.search(name) for name in target.own_names):
        return "is parametrised: perturb before adding the parametrisation, or exclude it"
    return None if target.dtype in DTYPES else refusals.NO_DTYPE


def _has_pieces(target: TensorTarget) -> bool:
    try:
        return bool(target.pieces)
    except ValueError:
        return False


def looks_quantised(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds bytes, or is of a class that only its own library understands."""
    if is_lazy(tensor) or _dtensor.is_dtensor(tensor):
        return False
    return tensor.dtype in (torch.int8, torch.uint8) or type(tensor.detach()) is not torch.Tensor


def refuse_unsupported(module: nn.Module, targets: Sequence[TensorTarget]) -> None:
    """Refuse a module that is quantised or has adapters which know its weights, and what `refuse_tensors` refuses."""
    for name, part in module.named_modules():
        if part.__dict__.get("hf_quantizer") is not None or type(part).__module__.startswith("torch.ao.nn.quantized"):
            raise UnsupportedTensorError(f"{name or 'the model'} {refusals.quantised(type(part).__name__)}")
        is_cut = (part.__dict__.get("_tp_size") or 1) > 1
        if is_cut and not any(_dtensor.is_dtensor(parameter) for parameter in part.parameters()):
            raise UnsupportedTensorError(
                f"{name or 'the model'} is cut for tensor parallelism into plain tensors: take transformers 5.16 or "
                "newer, or perturb the checkpoint, with noisytune perturb"
            )
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedTensorError(f"{name or 'the model'} is compiled by TorchScript: perturb before torch.jit")
    held = chain(module.named_parameters(), module.named_buffers())
    refuse_codes([TensorTarget.of(name, [name], tensor) for name, tensor in held])
    refuse_adapters_that_know_the_weights(module)
    refuse_tensors(targets)
