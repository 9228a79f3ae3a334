"""Dropout off in a model's body, and on again: for methods that take its place."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

from noisytune.methods._blocks import base_of

if TYPE_CHECKING:
    from torch import nn

Rates = list[tuple[Any, str, Any]]
"""Where a dropout rate is kept, and what it was: object, attribute, the rate or the configuration that has it."""


def off_(model: nn.Module) -> Rates:
    """Set every dropout rate of the base model to 0; the head keeps its own.

    Attention often keeps its rate as a plain number (``attention_dropout`` of Llama, ``dropout`` of T5), which is found
    by its name. Some layers look it up in the configuration (Falcon, Persimmon, BLT): they get one of their own, so
    that what the model saves stays as it was.

    Returns:
        what `restore_` needs.
    """
    base = base_of(model)
    rates = _rates(base)
    for module, name, _ in rates:
        setattr(module, name, 0.0)
    for module in base.modules():
        config: Any = vars(module).get("config")
        if module not in (base, model) and hasattr(config, "to_dict") and (found := _named_rates(config)):
            own = copy(config)
            for name, _ in found:
                setattr(own, name, 0.0)
            rates.append((module, "config", config))
            module.config = own
    return rates


def active(model: nn.Module) -> bool:
    """Whether any dropout of the model, its head included, has a rate above 0."""
    return bool(_rates(model))


def _rates(model: nn.Module) -> Rates:
    from torch.nn.modules.dropout import _DropoutNd

    rates: Rates = []
    for module in model.modules():
        found = [("p", module.p)] if isinstance(module, _DropoutNd) and module.p > 0 else _named_rates(module)
        rates += [(module, name, rate) for name, rate in found]
    return rates


def _named_rates(holder: Any) -> list[tuple[str, float]]:
    """Numbers above 0 whose names say dropout."""
    return [(n, rate) for n, rate in vars(holder).items() if "drop" in n and isinstance(rate, float) and rate > 0]


def restore_(rates: Rates) -> None:
    """Undo `off_`."""
    for module, name, before in rates:
        setattr(module, name, before)
