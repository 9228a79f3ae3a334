"""Dropout off in a model's body, and on again: for methods that take its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from noisytune.methods._blocks import base_of

if TYPE_CHECKING:
    from torch import nn

Rates = list[tuple[Any, str, float]]
"""Where a dropout rate is kept, and what it was: object, attribute, rate."""


def off_(model: nn.Module) -> Rates:
    """Set every dropout rate of the base model to 0; the head keeps its own.

    Attention often keeps its rate as a plain number (``attention_dropout`` of Llama, ``dropout`` of T5), which is found
    by its name.

    Returns:
        what `restore_` needs.
    """
    rates = _rates(base_of(model))
    for module, name, _ in rates:
        setattr(module, name, 0.0)
    return rates


def active(model: nn.Module) -> bool:
    """Whether any dropout of the model, its head included, has a rate above 0."""
    return bool(_rates(model))


def _rates(model: nn.Module) -> Rates:
    from torch.nn.modules.dropout import _DropoutNd

    rates: Rates = []
    for module in model.modules():
        names = ["p"] if isinstance(module, _DropoutNd) else [n for n in vars(module) if "drop" in n]
        rates += [(module, n, rate) for n in names if isinstance(rate := getattr(module, n), float) and rate > 0]
    return rates


def restore_(rates: Rates) -> None:
    """Undo `off_`."""
    for module, name, rate in rates:
        setattr(module, name, rate)
