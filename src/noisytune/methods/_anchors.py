"""The pretrained weights that RecAdam, Mixout and L2-SP pull towards: which parameters they are, and copies of them.

Copies go by name: wrapping, sharding and Mixout put other objects in a parameter's place, and longer names around its
own.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from noisytune._perturb.names import without_wrappers
from noisytune.errors import ConfigError
from noisytune.methods._blocks import base_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_MIXED = re.compile(r"parametrizations\.([^.]+)\.original$")


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter by its name in the plain model, tied ones once, whatever is wrapped around them now."""
    return {_MIXED.sub(r"\1", without_wrappers(name)): p for name, p in model.named_parameters()}


def pretrained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that came from the checkpoint, as in `named`.

    transformers marks what it loaded; a new head, and layers that were re-initialised since, lack the mark. Where
    nothing is marked (FSDP2 drops the marks) the model without its head counts; where it has none, everything.
    """
    every = named(model)
    marked = {name: p for name, p in every.items() if getattr(p, "_is_hf_initialized", False)}
    body = {id(p) for p in base_of(model).parameters()}
    return marked or {name: p for name, p in every.items() if id(p) in body}


def snapshot(model: nn.Module, only: Collection[Tensor] | None = None) -> dict[str, Tensor]:
    """Detached copies of the `pretrained` parameters, by name.

    Args:
        model: what holds them.
        only: copy these; None copies all.
    """
    wanted = None if only is None else {id(parameter) for parameter in only}
    known = pretrained(model).items()
    return {name: p.detach().clone() for name, p in known if wanted is None or id(p) in wanted}


def of_names(names: Collection[str], model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the model has now under names of `pretrained`.

    Raises:
        ConfigError: a name is gone. Nothing would be pulled, and nobody would see it.
    """
    present = named(model)
    if lost := [name for name in names if name not in present]:
        raise ConfigError(
            f"{len(lost)} of {len(names)} pretrained parameters have other names since the methods were attached "
            f"({lost[0]} ...): wrap the model first, then begin"
        )
    return {name: present[name] for name in names}


def in_place(values: Mapping[str, Tensor], model: nn.Module) -> dict[Tensor, Tensor]:
    """Values by name as values of the parameters that the model has now; of a sharded one each rank keeps its part.

    Raises:
        ConfigError: a name is gone, or a shape is another one.
    """
    placed: dict[Tensor, Tensor] = {}
    for name, parameter in of_names(values, model).items():
        value = values[name]
        if value.shape != parameter.shape:
            raise ConfigError(
                f"{name} has shape {tuple(parameter.shape)}, and had {tuple(value.shape)} when the methods were "
                "attached: wrap or shard the model first, then begin"
            )
        placed[parameter] = cut_like(value, parameter).to(parameter.device)
    return placed


def cut_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor, cut over the ranks as a parameter is; the tensor itself where nothing is cut."""
    import torch

    from noisytune.torch._dtensor import is_dtensor, piece_of

    if not is_dtensor(parameter) or is_dtensor(value):
        return value
    from torch.distributed.tensor import DTensor

    sharded: Any = parameter
    for dim, ranges in enumerate(piece_of(parameter).held):
        indices = torch.tensor([i for one in ranges for i in one], dtype=torch.long, device=value.device)
        value = value.index_select(dim, indices)
    mesh = sharded.device_mesh
    shape, stride = parameter.shape, parameter.stride()
    return DTensor.from_local(value.to(mesh.device_type), mesh, sharded.placements, shape=shape, stride=stride)
