"""Steps of a training: points that a setting names, as a step or a share of all; and whether one was taken."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from noisytune._settings import number
from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from torch.optim import Optimizer

MOST = 1 / 3
"""The share of a training that a default does not pass."""


def was_skipped(optimizer: Optimizer) -> bool:
    """Whether a step of an optimizer left the weights as they were: a loss scaler found gradients that are not finite,
    and told a fused optimizer so. For hooks that come after a step.

    >>> import torch
    >>> was_skipped(torch.optim.SGD([torch.zeros(1)]))
    False
    """
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found > 0)


def steps(about: str) -> Any:
    """A field for a point in the training: a step from 1 on, a share of all steps below 1, or None, the default.

    None lets the method choose: see `in_steps`.
    """
    return number(None, about, "a step >= 1, or a share of the steps, 0 < share < 1", lambda x: 0 < x < math.inf)


def in_steps(value: float | None, total: int | None, usual: float) -> float:
    """The optimizer step that a setting of `steps` means.

    Args:
        value: a step, a share, or None.
        total: optimizer steps of the training; None where the loop does not say.
        usual: what None means in a long training, the authors' number; in a short one at most `MOST` of it.

    Raises:
        ConfigError: a share is given, and the loop does not say how long it trains.

    >>> in_steps(20, 51, 250), in_steps(0.5, 50, 250), in_steps(None, 60, 250), in_steps(None, 9_000, 250)
    (20, 25.0, 20.0, 250)
    """
    if value is None:
        return usual if total is None else min(usual, max(1.0, MOST * total))
    if value >= 1:
        return value
    if total is None:
        raise ConfigError(f"a share of the training ({value:g}) needs its length: give Run(total_steps=...)")
    return value * total
