"""Which tensors a module has, under which canonical names, and which of them take noise.

What `noisytune.names` cannot know from a string: ties, heads, wrappers, padding rows, and the kinds of parameters that
must be refused.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from noisytune import _dtensor, names
from noisytune._dtensor import Facts, Piece
from noisytune.config import NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.manifest import TensorEntry

NUMPY_DTYPES: dict[torch.dtype, Any] = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
    torch.float8_e5m2fnuz: ml_dtypes.float8_e5m2fnuz,
}


_LOST = "; copying and sharding drop the marks, so exclude a new head by its name"


@dataclass
class Target:
    """A tensor of the model, once, however many names it has."""

    name: str
    own_names: list[str]
    tensor: torch.Tensor
    padding_row: int | None = None
    left_alone: str | None = None
    facts: Facts | None = None
    noise_std: float | None = None
    """The standard deviation that scales the noise: the tensor's own, or the pooled one."""
    realised: Facts | None = None
    """Of what was added."""

    @cached_property
    def piece(self) -> Piece:
        """What this process holds of the tensor."""
        return _dtensor.piece_of(self.tensor)

    @property
    def padding(self) -> range:
        """Flat indices of the padding row; empty if there is none."""
        if self.padding_row is None:
            return range(0)
        width = self.tensor.numel() // self.tensor.shape[0]
        return range(self.padding_row * width, (self.padding_row + 1) * width)

    @property
    def where(self) -> str:
        """For error messages: which tensor."""
        shape = "unknown" if is_lazy(self.tensor) else tuple(self.tensor.shape)
        return f"{self.own_names[0]} ({self.dtype}, shape {shape})"

    @property
    def dtype(self) -> str:
        """Such as "float32"."""
        return str(self.tensor.dtype).removeprefix("torch.")

    def entry(self, noise_lambda: float) -> TensorEntry:
        """The target's line in the manifest."""
        return TensorEntry(
            name=self.name,
            own_names=tuple(self.own_names),
            shape=tuple(self.tensor.shape),
            dtype=self.dtype,
            std=self.facts.moments.std if self.facts and self.facts.moments.n > 1 else None,
            scale=None if self.noise_std is None else noise_lambda * self.noise_std,
            realised_std=self.realised.moments.std if self.realised else None,
            left_alone=self.left_alone,
        )


def config_of(module: nn.Module) -> Any:
    """The Hugging Face config of a pretrained model; None for other modules."""
    return module.__dict__.get("config") if hasattr(type(module), "base_model_prefix") else None


def find_targets(module: nn.Module, config: NoisyTuneConfig) -> tuple[list[Target], list[str]]:
    notices: list[str] = []
    named = list(module.named_parameters(remove_duplicate=False))
    canonical = _canonical_names(module, [name for name, _ in named])
    tied_copies = _names_of_tied_copies(module)
    groups: dict[Any, list[tuple[str, torch.Tensor]]] = {}
    for name, parameter in named:
        groups.setdefault(_identity(parameter), []).append((name, parameter))
    padding_rows = _padding_rows(module)
    targets = []
    for identity, group in groups.items():
        own_names = [name for name, _ in group]
        owner = next((name for name in own_names if names.without_wrappers(name) not in tied_copies), own_names[0])
        others = [name for name in own_names if name != owner]
        target = Target(canonical[owner], [owner, *others], group[0][1])
        target.padding_row = padding_rows.get(identity)
        targets.append(target)
    _refuse_collisions(targets)
    usual = [target for target in targets if not names.is_adapter(target.own_names[0])]
    names.check_globs((name for t in usual for name in (t.name, *t.own_names)), config.include, config.exclude)
    fresh = _not_pretrained(module, config, notices)
    for target in targets:
        target.left_alone = _why_left_alone(target, config, fresh)
    if any(parameter.grad is not None for _, parameter in named):
        notices.append(
            "some parameters have gradients: an optimizer, EMA or reference copy made before now holds clean weights"
        )
        warnings.warn(f"noisytune: {notices[-1]}", stacklevel=5)
    if any(names.is_adapter(target.own_names[0]) for target in targets):
        notices.append(
            "the base of an adapter is perturbed: an adapter trained on it needs the same noise on a clean base"
        )
    return targets, notices


def _identity(tensor: torch.Tensor) -> Any:
    """Equal for two parameters if and only if they are the same numbers in memory."""
    if is_lazy(tensor) or type(tensor.detach()) is not torch.Tensor or tensor.is_meta or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


def _pretrained_models(module: nn.Module) -> dict[str, nn.Module]:
    """The outermost Hugging Face models inside, by path with a trailing dot (the module itself: an empty path)."""
    found: dict[str, nn.Module] = {}
    for path, part in module.named_modules():
        prefix = path + "." if path else ""
        if config_of(part) is not None and not any(prefix.startswith(outer) for outer in found):
            found[prefix] = part
    return found


def _canonical_names(module: nn.Module, own_names: list[str]) -> dict[str, str]:
    models = _pretrained_models(module)
    canonical = {}
    for name in own_names:
        path = next((path for path in models if name.startswith(path)), None)
        if path is None:
            canonical[name] = (names.HEAD if models else "") + names.without_wrappers(name)
            continue
        model: Any = models[path]
        base_prefix = None if model.base_model is model else model.base_model_prefix
        qualifier = names.without_wrappers(path) if len(models) > 1 else ""
        canonical[name] = qualifier + names.canonical(name.removeprefix(path), base_prefix)
    return canonical


def _names_of_tied_copies(module: nn.Module) -> set[str]:
    """Own names, without wrappers, of the parameters that a Hugging Face model ties to another one."""
    return {
        names.without_wrappers(path + copy)
        for path, model in _pretrained_models(module).items()
        for copy in getattr(model, "all_tied_weights_keys", None) or ()
    }


def _padding_rows(module: nn.Module) -> dict[Any, int]:
    return {
        _identity(part.weight): part.padding_idx
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None
    }


def _not_pretrained(module: nn.Module, config: NoisyTuneConfig, notices: list[str]) -> dict[int, str]:
    """Why parameters do not count as pretrained, by id. transformers flags those that a checkpoint held."""
    models = _pretrained_models(module)
    if config.scope == "all" or not models:
        return {}
    inside: set[int] = set()
    fresh: dict[int, str] = {}
    for path, model in models.items():
        named = dict(model.named_parameters())
        inside |= {id(parameter) for parameter in named.values()}
        unmarked = {name: p for name, p in named.items() if not getattr(p, "_is_hf_initialized", False)}
        what = f"{path or 'the model'}: " if len(models) > 1 else ""
        if len(unmarked) == len(named):
            notices.append(f"{what}no parameter is marked as loaded from a checkpoint: all count as pretrained{_LOST}")
            continue
        fresh |= {id(parameter): "freshly initialised" for parameter in unmarked.values()}
        base: Any = model
        in_base = {id(parameter) for parameter in base.base_model.parameters()}
        if base.base_model is not model and (doubtful := [name for name, p in unmarked.items() if id(p) in in_base]):
            notices.append(
                f"{what}{len(doubtful)} tensors of the base model are not marked as loaded from a checkpoint "
                f"({', '.join(doubtful[:2])} ...): they are left alone; scope='all' perturbs them"
            )
    return fresh | {id(p): "outside the pretrained model" for p in module.parameters() if id(p) not in inside}


def _why_left_alone(target: Target, config: NoisyTuneConfig, fresh: dict[int, str]) -> str | None:
    tensor = target.tensor
    every_name = (target.name, *target.own_names)
    if names.is_adapter(target.own_names[0]):
        return "adapter"
    if config.include and not names.match(every_name, config.include):
        return "not included"
    if names.match(every_name, config.exclude):
        return "excluded"
    if id(tensor) in fresh:
        return fresh[id(tensor)]
    if not tensor.is_floating_point() and tensor.dtype not in (torch.int8, torch.uint8):
        return f"not floating point: {target.dtype}"
    return None


# --- what cannot be perturbed: all of it is refused before anything is written ---


def _refuse_collisions(targets: list[Target]) -> None:
    seen: dict[str, Target] = {}
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target and not _same_weights_twice(other, target):
            raise UnsupportedTensorError(
                f"{other.own_names[0]} and {target.own_names[0]} have the same canonical name {target.name!r}: "
                "rename one, or perturb the two parts of the model one by one"
            )


def _same_weights_twice(one: Target, other: Target) -> bool:
    """PEFT's modules_to_save keeps two copies of a layer; the same noise on both is right."""
    return any(".modules_to_save." in name or ".original_module." in name for name in one.own_names + other.own_names)


def refuse_unsupported(module: nn.Module, targets: list[Target]) -> None:
    for name, part in module.named_modules():
        if part.__dict__.get("hf_quantizer") is not None or type(part).__module__.startswith("torch.ao.nn.quantized"):
            raise UnsupportedTensorError(
                f"{name or 'the model'} ({type(part).__name__}) is quantised: perturb the model before quantising"
            )
    for target in targets:
        if problem := _problem(target):
            raise UnsupportedTensorError(f"{target.where} {problem}")
    _refuse_overlaps(targets)


def _problem(target: Target) -> str | None:
    tensor, kind = target.tensor, type(target.tensor).__name__
    if is_lazy(tensor):
        return "is lazy, it has no values yet: run a forward pass first"
    if kind == "FlatParameter" or getattr(tensor, "_fsdp_flattened", False):
        return "is flattened by FSDP: perturb before wrapping the model in FSDP"
    if hasattr(tensor, "ds_id"):
        return "is partitioned by DeepSpeed ZeRO: perturb before deepspeed.initialize, outside zero.Init"
    if _dtensor.is_dtensor(tensor):
        if problem := _dtensor.problem(tensor):
            return problem
        tensor, kind = target.piece.values, type(target.piece.values).__name__
    if tensor.dtype in (torch.int8, torch.uint8) or type(tensor.detach()) is not torch.Tensor:
        return f"is quantised ({kind}): perturb the model before quantising"
    if tensor.is_meta:
        return "is on the meta device: load the weights first (weights offloaded to disk cannot be perturbed)"
    if any(step == 0 and length > 1 for step, length in zip(tensor.stride(), tensor.shape, strict=True)):
        return "is expanded, so that several elements share one place in memory: clone it first"
    if tensor.is_inference():
        return "is an inference tensor: load the model outside torch.inference_mode()"
    if any(".parametrizations." in f".{name}" or ".lora_magnitude_vector" in name for name in target.own_names):
        return "is parametrised: perturb before adding the parametrisation, or exclude it"
    if tensor.dtype not in NUMPY_DTYPES:
        return "has a dtype that takes no noise: load the model in float32, bfloat16 or float16, or exclude it"
    return None


def _refuse_overlaps(targets: list[Target]) -> None:
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
