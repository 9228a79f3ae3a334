"""Whether a torch module carries noise already: its receipt says so, or its weights do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from noisytune._perturb.receipt import none_added, settings_in
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, UnsupportedTensorError
from noisytune.integrations._announce import CANNOT_TELL, NOT_WHOLE, TOO_SMALL, TRACED
from noisytune.integrations._trace import TENSORS, Array, Trace, look, sample_size
from noisytune.torch import mark, receipt
from noisytune.torch._module import find_targets
from noisytune.torch._receipt import unmarked
from noisytune.torch._tensors import TensorTarget

_NOT_SEEN = "; none of it is to be seen in them: if other weights were loaded since, load the model afresh"
_PARTLY = "; {}{} came in later and may be clean: if so, put the model together first, and perturb it then"


@dataclass(frozen=True)
class Found:
    """The noise that weights carry, and what is to be said about it."""

    config: NoisyTuneConfig | None
    """None for weights that carry none, as far as one can tell."""
    remark: str = ""
    """For the end of the line in the log."""


def find_noise(module: nn.Module, config: NoisyTuneConfig) -> Found:
    """Look for noise in a module's receipt and in its weights. Noise without a receipt gets one.

    A receipt that the weights deny is warned of: the training would start from clean weights.

    Args:
        module: the receipt is put on it.
        config: the noise that is about to be added.
    """
    if recorded := settings_in(receipt(module)):
        doubt, is_sure = _doubt(module, recorded)
        if doubt:
            warnings.warn(none_added(recorded) + doubt, stacklevel=3)
        return Found(recorded, doubt or ("" if is_sure else CANNOT_TELL))
    targets = _chosen(module, config)
    trace = _trace(targets, config)
    if trace.config:
        mark(module, trace.config)
        return Found(trace.config, TRACED)
    if trace.is_certain:
        return Found(None)
    return Found(None, TOO_SMALL if _readable(targets) or not targets else NOT_WHOLE)


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


def _doubt(module: nn.Module, recorded: NoisyTuneConfig) -> tuple[str, bool]:
    """What speaks against a receipt; nothing, most of the time. And whether its noise was seen, or could not be looked
    for: a small model neither has it nor lacks it for sure."""
    targets = _chosen(module, recorded)
    trace = _trace(targets, recorded)
    if trace.config is None and trace.is_certain:
        return _NOT_SEEN, True
    is_sure = trace.config is not None or not _readable(targets)
    names = unmarked(module)
    later = [t.own_names[0] for t in targets if t.own_names[0] in names and _can_be_read(t.tensor)]
    return _PARTLY.format(later[0], f" and {len(later) - 1} more" if later[1:] else "") if later else "", is_sure


def _chosen(module: nn.Module, config: NoisyTuneConfig) -> list[TensorTarget]:
    """The tensors that take noise with these settings; none where globs of another run match nothing here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # perturb_ says it
        try:
            targets, _ = find_targets(module, config)
        except ConfigError:
            return []
    return [target for target in targets if target.left_alone is None]


def _trace(targets: list[TensorTarget], config: NoisyTuneConfig) -> Trace:
    readable = sorted(_readable(targets), key=lambda target: -target.size)[:TENSORS]
    held = [(target.name, target.whole()) for target in readable]
    return look([(name, _first(tensor, sample_size(config))) for name, tensor in held if tensor is not None], config)


def _readable(targets: list[TensorTarget]) -> list[TensorTarget]:
    return [target for target in targets if all(map(_can_be_read, target.tensors))]


def _can_be_read(tensor: torch.Tensor) -> bool:
    """Whole and here: neither a rank's share, nor packed, nor elsewhere."""
    is_plain = type(tensor) in (torch.Tensor, nn.Parameter) and not hasattr(tensor, "ds_id")
    return is_plain and tensor.is_floating_point() and tensor.device.type != "meta" and tensor.numel() > 0


def _first(tensor: torch.Tensor, count: int) -> Array:
    flat: Array = tensor.detach().reshape(-1)[:count].float().cpu().numpy()
    return flat
