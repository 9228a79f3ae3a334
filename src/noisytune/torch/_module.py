"""Which tensors a module has, under which canonical names, and which of them take noise.

What `noisytune._perturb.names` cannot know from a string: ties, heads, wrappers, padding rows, and what is new.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from noisytune._perturb import doubtful, names, refusals
from noisytune._perturb.steps import choose
from noisytune.config import ROLES, TOKEN_EMBEDDINGS, NoisyTuneConfig
from noisytune.torch._adapters import adapter_tensors
from noisytune.torch._receipt import config_of
from noisytune.torch._refusals import CODES, looks_quantised, problem
from noisytune.torch._tensors import TensorTarget, identity

_FROM_CHECKPOINT = "from a checkpoint"
_LOST = "; copying and sharding drop the marks, so exclude a new head by its name"


def find_targets(module: nn.Module, config: NoisyTuneConfig) -> tuple[list[TensorTarget], list[str]]:
    """Every tensor of a module, with the reason where it is left alone, and what the user should know.

    Raises:
        ConfigError: a glob or a role matches no tensor.
        UnsupportedTensorError: two tensors have the same canonical name.
    """
    models = _pretrained_models(module)
    adapters = adapter_tensors(module)
    targets = _named_targets(module, models)
    for target in targets:
        if id(target.tensor) in adapters:
            target.left_alone = refusals.ADAPTER
        elif not target.tensor.is_floating_point() and target.dtype not in CODES:
            target.left_alone = refusals.not_floating(target.dtype)
    if set(ROLES) & {*config.include, *config.exclude}:
        _set_roles(module, targets)
    choose(targets, config, f"{type(module).__name__} has no input embeddings that are a table of tokens")
    origins, notices = _origins(module, models, adapters)
    _leave_new_tensors_alone(targets, origins, config)
    if config.scope == "all":
        notices = []
    if any(parameter.grad is not None for parameter in module.parameters()):
        notices.append(
            "some parameters have gradients: an optimizer, EMA or reference copy made before now holds clean weights"
        )
        warnings.warn(f"noisytune: {notices[-1]}", stacklevel=4)
    if any(target.left_alone == refusals.ADAPTER for target in targets):
        notices.append(
            "the base of an adapter is perturbed: an adapter trained on it needs the same noise on a clean base"
        )
    return targets, notices + doubtful.notices(targets, _first_rows)


def _first_rows(target: TensorTarget) -> Any:
    """The first two rows of a matrix that this process holds whole."""
    tensor = target.tensor.detach()
    if type(tensor) is not torch.Tensor or tensor.is_meta or tensor.shape != target.shape:
        return None
    return tensor[:2].float().cpu().numpy()


def _named_targets(module: nn.Module, models: dict[str, nn.Module]) -> list[TensorTarget]:
    """A target for each group of parameters that are the same numbers in memory, under its owner's canonical name."""
    named = list(module.named_parameters(remove_duplicate=False))
    canonical = _canonical_names(models, [name for name, _ in named])
    tied_copies = _names_of_tied_copies(models)
    padding_rows = _padding_rows(module)
    groups: dict[Any, list[tuple[str, torch.Tensor]]] = {}
    for name, parameter in named:
        groups.setdefault(identity(parameter), []).append((name, parameter))
    targets = []
    for memory, group in groups.items():
        own_names = [name for name, _ in group]
        owner = next((name for name in own_names if names.without_wrappers(name) not in tied_copies), own_names[0])
        others = [name for name in own_names if name != owner]
        target = TensorTarget.of(canonical[owner], [owner, *others], group[0][1])
        target.padding_row = padding_rows.get(memory)
        targets.append(target)
    return targets


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


def _set_roles(module: nn.Module, targets: list[TensorTarget]) -> None:
    """Note which targets hold token embeddings; tied tensors are one target."""
    tables = {identity(weight) for weight in _token_embeddings(module)}
    for target in targets:
        if identity(target.tensor) in tables:
            target.roles = (TOKEN_EMBEDDINGS,)


def _token_embeddings(module: nn.Module) -> Iterator[torch.Tensor]:
    """Weights of the input embeddings of a model and of the models inside, such as a decoder beside an encoder.

    Patches of images and windows of sound are no tokens: what looks nothing up is passed over.
    """
    for model in module.modules():
        if not hasattr(type(model), "get_input_embeddings"):
            continue
        try:
            found = cast(Any, model).get_input_embeddings()
        except (NotImplementedError, AttributeError):  # how transformers says that there are none
            continue
        for path, part in found.named_modules() if isinstance(found, nn.Module) else ():
            is_itself = names.without_wrappers(f"x.{path}.weight".replace("..", ".")) == "x.weight"
            if isinstance(part, nn.Embedding) and is_itself:
                yield part.weight


def _leave_new_tensors_alone(targets: list[TensorTarget], origins: dict[int, str], config: NoisyTuneConfig) -> None:
    """Note which targets no checkpoint held, and leave them alone unless the scope is "all"."""
    for target in targets:
        origin = origins.get(id(target.tensor))
        if origin is None or looks_quantised(target.tensor):
            continue
        target.is_new = origin != _FROM_CHECKPOINT
        if target.is_new and target.left_alone is None and config.scope != "all":
            target.left_alone = origin
            if problem(target):
                target.is_new = None  # what cannot take noise cannot always be looked at, either


def _origins(module: nn.Module, models: dict[str, nn.Module], adapters: set[int]) -> tuple[dict[int, str], list[str]]:
    """Where parameters come from, by id: `_FROM_CHECKPOINT`, or why they do not count as pretrained. And notices.

    transformers marks those that a checkpoint held. Where all marks are lost, nobody can tell, and none is named.
    """
    found: dict[int, str] = {}
    notices: list[str] = []
    inside: set[int] = set()
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
        found |= {id(p): refusals.NEW if name in unmarked else _FROM_CHECKPOINT for name, p in named.items()}
        if doubtful := _new_in_base(model, unmarked):
            notices.append(
                f"{what}{len(doubtful)} tensors of the base model are not marked as loaded from a checkpoint "
                f"({', '.join(doubtful[:2])} ...): they are left alone; scope='all' perturbs them"
            )
    if models:
        found |= {id(parameter): refusals.OUTSIDE for parameter in module.parameters() if id(parameter) not in inside}
    return found, notices


def _new_in_base(model: Any, unmarked: dict[str, nn.Parameter]) -> list[str]:
    """Names of new tensors where only a model with a head should have some: inside the base model."""
    if model.base_model is model:
        return []
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    return [name for name, parameter in unmarked.items() if id(parameter) in inside]
