"""Which tensors a module has, under which canonical names, and which of them take noise.

What `noisytune._perturb.names` cannot know from a string: ties, heads, wrappers, padding rows, and the kinds of
parameters that must be refused.
"""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import nn

from noisytune._perturb import names
from noisytune._perturb import steps as perturbation
from noisytune.config import NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.torch._adapters import adapter_tensors, refuse_adapters_that_know_the_weights
from noisytune.torch._tensors import TensorTarget, identity, looks_quantised
from noisytune.torch._tensors import refuse_unsupported as refuse_tensors

_LOST = "; copying and sharding drop the marks, so exclude a new head by its name"


def config_of(module: nn.Module) -> Any:
    """The Hugging Face config of a pretrained model; None for other modules."""
    return module.__dict__.get("config") if hasattr(type(module), "base_model_prefix") else None


def find_targets(module: nn.Module, config: NoisyTuneConfig) -> tuple[list[TensorTarget], list[str]]:
    notices: list[str] = []
    named = list(module.named_parameters(remove_duplicate=False))
    models = _pretrained_models(module)
    canonical = _canonical_names(models, [name for name, _ in named])
    tied_copies = _names_of_tied_copies(models)
    groups: dict[Any, list[tuple[str, torch.Tensor]]] = {}
    for name, parameter in named:
        groups.setdefault(identity(parameter), []).append((name, parameter))
    padding_rows = _padding_rows(module)
    targets = []
    for memory, group in groups.items():
        own_names = [name for name, _ in group]
        owner = next((name for name in own_names if names.without_wrappers(name) not in tied_copies), own_names[0])
        others = [name for name in own_names if name != owner]
        target = TensorTarget(canonical[owner], [owner, *others], group[0][1])
        target.padding_row = padding_rows.get(memory)
        targets.append(target)
    _refuse_collisions(targets)
    adapters = adapter_tensors(module)
    usual = [target for target in targets if id(target.tensor) not in adapters]
    names.check_globs((name for t in usual for name in (t.name, *t.own_names)), config.include, config.exclude)
    fresh = {} if config.scope == "all" else _not_pretrained(module, models, adapters, notices)
    for target in targets:
        target.left_alone = "adapter" if id(target.tensor) in adapters else _why_left_alone(target, config, fresh)
    if any(parameter.grad is not None for _, parameter in named):
        notices.append(
            "some parameters have gradients: an optimizer, EMA or reference copy made before now holds clean weights"
        )
        warnings.warn(f"noisytune: {notices[-1]}", stacklevel=5)
    if adapters:
        notices.append(
            "the base of an adapter is perturbed: an adapter trained on it needs the same noise on a clean base"
        )
    return targets, notices


def _pretrained_models(module: nn.Module) -> dict[str, nn.Module]:
    """The outermost Hugging Face models inside, by path with a trailing dot (the module itself: an empty path)."""
    found: dict[str, nn.Module] = {}
    for path, part in module.named_modules():
        prefix = path + "." if path else ""
        if config_of(part) is not None and not any(prefix.startswith(outer) for outer in found):
            found[prefix] = part
    return found


def _canonical_names(models: dict[str, nn.Module], own_names: list[str]) -> dict[str, str]:
    canonical = {}
    for name in own_names:
        if not any(name.startswith(path) for path in models):
            canonical[name] = (names.HEAD if models else "") + names.without_wrappers(name)
    for path, model in models.items():
        inside = [name.removeprefix(path) for name in own_names if name.startswith(path)]
        base: Any = model
        base_prefix = None if base.base_model is model else base.base_model_prefix
        qualifier = names.without_wrappers(path) if len(models) > 1 else ""
        for name, in_file in _names_in_files(model, inside).items():
            canonical[path + name] = qualifier + names.canonical(in_file, base_prefix)
    return canonical


def _names_in_files(model: nn.Module, own_names: list[str]) -> dict[str, str]:
    """Own name -> the name in the files that ``save_pretrained`` writes: some model types rename on loading (ViT ...).

    Tensors that transformers builds from several, such as fused experts, keep their own names.
    """
    bare = {name: names.without_wrappers(name) for name in own_names}
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            PrefixChange,
            WeightConverter,
            WeightRenaming,
            apply_converters,
            apply_renamings,
        )
    except ImportError:  # releases without such conversions rename nothing
        return bare
    conversions = get_model_conversion_mapping(cast(Any, model), add_legacy=False)[::-1]
    reverse = [change.reverse_transform() for change in conversions if not isinstance(change, PrefixChange)]
    converters = [change for change in reverse if isinstance(change, WeightConverter)]
    renamings = [change for change in reverse if isinstance(change, WeightRenaming)]
    return {
        name: plain if apply_converters(plain, converters)[1] is not None else apply_renamings(plain, renamings)
        for name, plain in bare.items()
    }


def _names_of_tied_copies(models: dict[str, nn.Module]) -> set[str]:
    """Own names, without wrappers, of the parameters that a Hugging Face model ties to another one."""
    return {
        names.without_wrappers(path + copy)
        for path, model in models.items()
        for copy in getattr(model, "all_tied_weights_keys", None) or ()
    }


def _padding_rows(module: nn.Module) -> dict[Any, int]:
    return {
        identity(part.weight): part.padding_idx
        for part in module.modules()
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.padding_idx is not None
    }


def _not_pretrained(
    module: nn.Module, models: dict[str, nn.Module], adapters: set[int], notices: list[str]
) -> dict[int, str]:
    """Why parameters do not count as pretrained, by id. transformers flags those that a checkpoint held."""
    if not models:
        return {}
    inside: set[int] = set()
    fresh: dict[int, str] = {}
    for path, model in models.items():
        named = {name: p for name, p in model.named_parameters() if id(p) not in adapters}
        inside |= {id(parameter) for parameter in named.values()}
        # copies lose the mark: PEFT's modules_to_save goes by the original
        marked = {names.without_wrappers(name) for name, p in named.items() if getattr(p, "_is_hf_initialized", False)}
        unmarked = {name: p for name, p in named.items() if names.without_wrappers(name) not in marked}
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


def _why_left_alone(target: TensorTarget, config: NoisyTuneConfig, fresh: dict[int, str]) -> str | None:
    tensor = target.tensor
    every_name = (target.name, *target.own_names)
    if reason := perturbation.why_left_alone(every_name, config):
        return reason
    if id(tensor) in fresh and not looks_quantised(tensor):
        return fresh[id(tensor)]
    if not tensor.is_floating_point() and tensor.dtype not in (torch.int8, torch.uint8):
        return f"not floating point: {target.dtype}"
    return None


# --- what cannot be perturbed: all of it is refused before anything is written ---


def _refuse_collisions(targets: list[TensorTarget]) -> None:
    seen: dict[str, TensorTarget] = {}
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target and not _same_weights_twice(other, target):
            raise UnsupportedTensorError(
                f"{other.own_names[0]} and {target.own_names[0]} have the same canonical name {target.name!r}: "
                "rename one, or perturb the two parts of the model one by one"
            )


def _same_weights_twice(one: TensorTarget, other: TensorTarget) -> bool:
    """PEFT's modules_to_save keeps two copies of a layer; the same noise on both is right."""
    return any(".modules_to_save." in name or ".original_module." in name for name in one.own_names + other.own_names)


def refuse_unsupported(module: nn.Module, targets: list[TensorTarget]) -> None:
    for name, part in module.named_modules():
        if part.__dict__.get("hf_quantizer") is not None or type(part).__module__.startswith("torch.ao.nn.quantized"):
            raise UnsupportedTensorError(
                f"{name or 'the model'} ({type(part).__name__}) is quantised: perturb the model before quantising"
            )
    refuse_adapters_that_know_the_weights(module)
    refuse_tensors(targets)
