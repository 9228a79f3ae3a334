"""The pretrained weights that RecAdam, Mixout and L2-SP pull towards: which parameters they are, and copies of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn


def pretrained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that came from the checkpoint, by their own names, tied ones once.

    transformers marks what it loaded; a new head, and layers that were re-initialised since, lack the mark. A model
    without any mark is no such model: everything counts.
    """
    named = dict(model.named_parameters())
    marked = {name: p for name, p in named.items() if getattr(p, "_is_hf_initialized", False)}
    return marked or named


def snapshot(model: nn.Module, only: Collection[Tensor] | None = None) -> dict[Tensor, Tensor]:
    """Detached copies of the `pretrained` parameters, by parameter: names change where a method wraps a layer.

    Args:
        model: what holds them.
        only: copy these; None copies all.
    """
    wanted = None if only is None else {id(parameter) for parameter in only}
    known = pretrained(model).values()
    return {p: p.detach().clone() for p in known if wanted is None or id(p) in wanted}


def of_trained(anchors: Mapping[Tensor, Tensor], model: nn.Module, groups: Iterable[dict[str, Any]]) -> dict[Any, Any]:
    """The anchors of the parameters that an optimizer trains.

    Raises:
        ConfigError: parameters were replaced since the anchors were taken, as FSDP2 does: nothing would be pulled.
    """
    own = {id(parameter) for parameter in model.parameters()}
    if lost := sum(id(parameter) not in own for parameter in anchors):
        raise ConfigError(
            f"{lost} of {len(anchors)} parameters were replaced since the copies of the pretrained weights were taken: "
            "shard or wrap the model first (FSDP2's fully_shard ...), then begin"
        )
    trained = {id(parameter) for group in groups for parameter in group["params"]}
    return {parameter: value for parameter, value in anchors.items() if id(parameter) in trained}
