"""Which tensors a module has, under which canonical names, and which of them take noise.

What `noisytune._perturb.names` cannot know from a string: ties, heads, wrappers, padding rows, and what is new.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn

from noisytune._perturb import doubtful, fixed, names, refusals
from noisytune._perturb.steps import choose
from noisytune.config import ROLES, TOKEN_EMBEDDINGS, NoisyTuneConfig
from noisytune.torch._adapters import adapter_tensors
from noisytune.torch._canonical import Part, parts_in_files, pretrained_models
from noisytune.torch._layout import Box
from noisytune.torch._receipt import config_of
from noisytune.torch._refusals import CODES, looks_quantised, problem
from noisytune.torch._tensors import TensorTarget, identity, shape_of

_FROM_CHECKPOINT = "from a checkpoint"
_LOST = "; copying and sharding drop the marks, so exclude a new head by its name"


def find_targets(module: nn.Module, config: NoisyTuneConfig) -> tuple[list[TensorTarget], list[str]]:
    """Every tensor of a module, with the reason where it is left alone, and what the user should know.

    Raises:
        ConfigError: a glob or a role matches no tensor.
        UnsupportedTensorError: two tensors have the same canonical name.
    """
    models = pretrained_models(module)
    adapters = adapter_tensors(module)
    targets, told = _named_targets(module, models, adapters)
    for target in targets:
        if id(target.tensor) in adapters:
            target.left_alone = refusals.ADAPTER
        elif not target.tensor.is_floating_point() and target.dtype not in CODES:
            target.left_alone = refusals.not_floating(target.dtype)
    fixed.mark(targets, [config_of(model).to_dict() for model in models.values()])
    if set(ROLES) & {*config.include, *config.exclude}:
        _set_roles(module, targets)
    choose(targets, config, f"{type(module).__name__} has no input embeddings that are a table of tokens")
    origins, notices = _origins(module, models, adapters)
    _leave_new_tensors_alone(targets, origins, config)
    if config.scope == "all":
        notices = []
    if config.noise_lambda > 0 and any(parameter.grad is not None for parameter in module.parameters()):
        notices.append(
            "some parameters have gradients: an optimizer, EMA or reference copy made before now holds clean weights"
        )
        warnings.warn(f"noisytune: {notices[-1]}", stacklevel=4)
    if config.noise_lambda > 0 and any(target.left_alone == refusals.ADAPTER for target in targets):
        notices.append(
            "the base of an adapter is perturbed: an adapter trained on it needs the same noise on a clean base"
        )
    return targets, notices + told + doubtful.notices(targets, _first_rows)


def _first_rows(target: TensorTarget) -> Any:
    """The first two rows of a matrix that this process holds whole."""
    tensor = target.tensor.detach()
    if type(tensor) is not torch.Tensor or tensor.is_meta or tensor.shape != target.shape or target.boxes:
        return None
    return tensor[:2].float().cpu().numpy()


def _named_targets(
    module: nn.Module, models: dict[str, nn.Module], adapters: set[int]
) -> tuple[list[TensorTarget], list[str]]:
    """A target for each tensor of the files, and what the user should know.

    Parameters that are the same numbers in memory are one, under its owner's name. Several parameters may hold parts of
    one tensor of the files, and one parameter may hold several tensors.
    """
    named = list(module.named_parameters(remove_duplicate=False))
    own = {name: shape_of(parameter) for name, parameter in named if id(parameter) not in adapters}
    parts, notices = parts_in_files(models, own)
    tied_copies = _names_of_tied_copies(models)
    padding_rows = _padding_rows(module)
    groups: dict[Any, list[tuple[str, torch.Tensor]]] = {}
    for name, parameter in named:
        groups.setdefault(identity(parameter), []).append((name, parameter))
    owners = {
        memory: min(
            (name for name, _ in group),
            key=lambda n: (_is_head(parts.get(n)), names.without_wrappers(n) in tied_copies),
        )
        for memory, group in groups.items()
    }
    memory_of = {name: memory for memory, group in groups.items() for name, _ in group}
    targets: list[TensorTarget] = []
    joined: dict[tuple[str, str], TensorTarget] = {}
    for memory, group in groups.items():
        own_names = [name for name, _ in group]
        owner = owners[memory]
        # What a trained copy was made of may be tied: it has that tensor's name and padding, as without the adapter.
        source = memory_of.get(names.original_of(owner), memory)
        original = owners[source]
        ordered, tensor = [owner, *(name for name in own_names if name != owner)], group[0][1]
        if original not in parts:
            targets.append(TensorTarget.of(names.without_wrappers(original), ordered, tensor))
        for part in parts.get(original, ()):
            copy = "" if part.box is None else owner.replace(part.box.tensor, "")  # PEFT keeps two of a layer
            target = joined.get((part.name, copy)) if part.box else None
            if target is None:
                target = TensorTarget.of(part.name, list(ordered), tensor)
                target.shape = part.shape
                targets.append(target)
            else:
                target.own_names += ordered
            if part.box is not None:
                joined[part.name, copy] = target
                target.boxes.append((tensor, part.box))
            if (row := _row_in_files(padding_rows.get(memory, padding_rows.get(source)), part.box)) is not None:
                target.padding_row = row
    return targets, notices


def _is_head(parts: Sequence[Part] | None) -> bool:
    """Whether a tensor is outside the base model. What the base shares with a head is the base's, as without it."""
    return parts is not None and any(names.HEAD in part.name for part in parts)


def _row_in_files(row: int | None, box: Box | None) -> int | None:
    """Where a row of a tensor in memory lies in a tensor of the files; None where it lies in another one."""
    if row is None or box is None:
        return row
    is_inside = box.axes[:1] == (0,) and row in box.here[0]
    return box.there[0][box.here[0].index(row)] if is_inside else None


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
    """Note which targets hold token embeddings; tied tensors are one target, trained copies have the same name."""
    tables = {identity(weight) for weight in token_embeddings(module)}
    named = {target.name for target in targets if identity(target.tensor) in tables}
    for target in targets:
        if target.name in named:
            target.roles = (TOKEN_EMBEDDINGS,)


def token_embeddings(module: nn.Module) -> Iterator[torch.Tensor]:
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
        # copies lose the mark: PEFT's modules_to_save goes by the original, which may be tied to another
        every = [(name, p) for name, p in model.named_parameters(remove_duplicate=False) if id(p) not in adapters]
        marked = {names.without_wrappers(name) for name, p in every if getattr(p, "_is_hf_initialized", False)}
        unmarked = {name: p for name, p in named.items() if names.without_wrappers(name) not in marked}
        what = f"{path or 'the model'}: " if len(models) > 1 else ""
        if len(unmarked) == len(named):
            notices.append(f"{what}no parameter is marked as loaded from a checkpoint: all count as pretrained{_LOST}")
            continue
        found |= {id(p): refusals.NEW if name in unmarked else _FROM_CHECKPOINT for name, p in named.items()}
        if head := _resized_head(model, unmarked):
            notices.append(
                f"{what}{head} is not marked as loaded from a checkpoint, while the input embeddings are: if "
                "resize_token_embeddings made it, save the model and load it again; it is left alone"
            )
        if doubtful := _new_in_base(model, unmarked):
            notices.append(
                f"{what}{len(doubtful)} tensors of the base model are not marked as loaded from a checkpoint "
                f"({', '.join(doubtful[:2])} ...): they are left alone; scope='all' perturbs them"
            )
    if models:
        found |= {id(parameter): refusals.OUTSIDE for parameter in module.parameters() if id(parameter) not in inside}
    return found, notices


def _resized_head(model: Any, unmarked: dict[str, nn.Parameter]) -> str | None:
    """The output layer's weight where the checkpoint had one and this is another: its input embeddings were resized."""
    if type(model).__name__ not in (model.config.architectures or ()) or not hasattr(model, "get_output_embeddings"):
        return None
    head, tables = model.get_output_embeddings(), {id(table) for table in token_embeddings(model)}
    new = {id(parameter): name for name, parameter in unmarked.items()}
    return None if tables & new.keys() else new.get(id(getattr(head, "weight", None)))


def _new_in_base(model: Any, unmarked: dict[str, nn.Parameter]) -> list[str]:
    """Names of new tensors where only a model with a head should have some: inside the base model."""
    if model.base_model is model:
        return []
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    return [name for name, parameter in unmarked.items() if id(parameter) in inside]
