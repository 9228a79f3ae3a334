"""The pretrained weights that RecAdam, Mixout and L2-SP pull towards: which parameters they are, and copies of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def snapshot(model: nn.Module) -> dict[Tensor, Tensor]:
    """Detached copies of the `pretrained` parameters, by parameter: names change where a method wraps a layer."""
    return {parameter: parameter.detach().clone() for parameter in pretrained(model).values()}
