"""Whether a torch module carries noise already: its receipt says so, or its weights do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from noisytune._perturb.receipt import settings_in
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, UnsupportedTensorError
from noisytune.integrations._announce import TOO_SMALL, TRACED
from noisytune.integrations._trace import TENSORS, Array, Trace, look, sample_size
from noisytune.torch import mark, receipt
from noisytune.torch._module import find_targets

_NOT_SEEN = "; none of it is to be seen in them: if other weights were loaded since, load the model afresh"


@dataclass(frozen=True)
class Found:
    """The noise that weights carry, and what is to be said about it."""

    config: NoisyTuneConfig | None
    """None for weights that carry none, as far as one can tell."""
    remark: str = ""
    """For the end of the line in the log."""


def find_noise(module: nn.Module, config: NoisyTuneConfig) -> Found:
    """Look for noise in a module's receipt and in its weights. Noise without a receipt gets one.

    Args:
        module: the receipt is put on it.
        config: the noise that is about to be added.
    """
    if recorded := settings_in(receipt(module)):
        trace = _trace(module, recorded)
        return Found(recorded, _NOT_SEEN if trace.config is None and trace.is_certain else "")
    trace = _trace(module, config)
    if trace.config:
        mark(module, trace.config)
        return Found(trace.config, TRACED)
    return Found(None, "" if trace.is_certain else TOO_SMALL)


def refuse_averages(holders: Iterable[object], instead: str) -> None:
    """Refuse averages (EMA, SWA) that were made of the clean weights and would find their way into the trained ones.

    Args:
        holders: the attributes of these are looked at.
        instead: what to do, for the message.

    Raises:
        UnsupportedTensorError: names the attribute.
    """
    for holder in holders:
        for name, value in getattr(holder, "__dict__", {}).items():
            if isinstance(value, AveragedModel) and receipt(value) is None:
                raise UnsupportedTensorError(
                    f"{name} ({type(value).__name__}) holds a copy of the clean weights: {instead}"
                )


def _trace(module: nn.Module, config: NoisyTuneConfig) -> Trace:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # perturb_ says it
        try:
            targets, _ = find_targets(module, config)
        except ConfigError:  # globs of another run may match nothing here
            return Trace(None, False)
    tensors = {t.name: t.tensor for t in targets if t.left_alone is None and _can_be_read(t.tensor)}
    largest = sorted(tensors.items(), key=lambda pair: -pair[1].numel())[:TENSORS]
    return look([(name, _first(tensor, sample_size(config))) for name, tensor in largest], config)


def _can_be_read(tensor: torch.Tensor) -> bool:
    """Whole and here: neither a rank's share, nor packed, nor elsewhere."""
    is_plain = type(tensor) in (torch.Tensor, nn.Parameter) and not hasattr(tensor, "ds_id")
    return is_plain and tensor.is_floating_point() and tensor.device.type != "meta" and tensor.numel() > 0


def _first(tensor: torch.Tensor, count: int) -> Array:
    flat: Array = tensor.detach().reshape(-1)[:count].float().cpu().numpy()
    return flat
