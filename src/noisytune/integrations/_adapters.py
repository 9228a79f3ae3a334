"""Adapters (PEFT) that were trained on noised weights: bring both back, or find out that they do not fit."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from noisytune._hub import fetch
from noisytune._perturb.receipt import describe, settings_in
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError, require
from noisytune.integrations._announce import VISIBLE
from noisytune.integrations._record import noise_of
from noisytune.manifest import FILE_NAME, Manifest, TensorEntry
from noisytune.torch import perturb_, receipt

logger = logging.getLogger(__name__)


def noise_below(folder: str | Path, model: nn.Module) -> NoisyTuneConfig | None:
    """The noise of the weights that a checkpoint or an adapter was trained from; None for clean ones.

    What the folder says counts first, then what the adapter's base says. A base that is not here cannot be asked: then
    the model that is at hand is taken for it.

    Args:
        folder: the checkpoint or adapter.
        model: what it is about to be loaded into.

    Raises:
        NoisyTuneError: what a folder says about it cannot be read.
    """
    base = _base_of(folder)
    if (own := noise_of(folder)) is not None or base is None:
        return own
    if Path(base).is_dir():
        return noise_of(base)
    found = settings_in(receipt(model))
    if found and getattr(model, "name_or_path", base) != base:
        logger.log(
            VISIBLE,
            f"NoisyTune: {folder}: the adapter was trained on {base}, which is not here: whether its weights carried "
            f"{describe(found)}, as the model's do, nobody can tell",
        )
    return found


def check_adapter(model: nn.Module, adapter: str | Path) -> None:
    """Refuse a model whose noise is not the one that an adapter was trained on.

    Args:
        model: the base model, or a PEFT model around it.
        adapter: the adapter's folder, or its id on the Hub. Where it has no record of noise, that of its base counts.

    Raises:
        NoisyTuneError: one of them has noise, and the other has none or another.
        DataError: no such folder here, and the Hub did not give it.

    Example: in docs/hosts/peft.md, which the tests execute.
    """
    adapter = _folder_of(adapter)
    wanted, found = noise_below(adapter, model), settings_in(receipt(model))
    if wanted != found:
        raise NoisyTuneError(
            f"{adapter}: the adapter was trained on weights with {describe(wanted)}, the model has {describe(found)}: "
            "load a clean base model and use noisytune.integrations.transformers.load_adapter"
        )


def load_adapter(base_model: nn.Module, adapter: str | Path, **options: Any) -> nn.Module:
    """A base model and an adapter that was trained on it, with the noise of that training in between.

    The noise comes from the adapter's ``noisytune.json``. An adapter without that file belongs on the base that its
    ``adapter_config.json`` names, as it is.

    Args:
        base_model: as it was before training: clean, or loaded from a checkpoint that carries the same noise. Perturbed
            in place. In another dtype than at training the noise is rounded to that one.
        adapter: the adapter's folder, or its id on the Hub.
        **options: for ``PeftModel.from_pretrained``.

    Returns:
        the ``PeftModel``.

    Raises:
        NoisyTuneError: the base carries other noise, or its weights are not those that the adapter was trained on. It
            is left as it was.
        DataError: no such folder here, and the Hub did not give it.
        MissingExtraError: peft is not installed.

    Example: in docs/hosts/peft.md, which the tests execute.
    """
    require("peft", extra="peft", needed_for="load_adapter")
    from peft import PeftModel

    adapter = _folder_of(adapter, **{name: options.pop(name) for name in _OF_THE_HUB if name in options})
    if receipt(base_model) is None:
        base = _base_of(adapter)
        if base and Path(base).is_dir() and (there := noise_of(base)):
            raise NoisyTuneError(
                f"{adapter}: the adapter was trained on {base}, whose weights carry {describe(there)}: "
                "load the base model from there"
            )
        if wanted := noise_of(adapter):
            _refuse_other_weights(base_model, adapter, wanted)
            perturb_(base_model, wanted)
    check_adapter(base_model, adapter)
    model: nn.Module = PeftModel.from_pretrained(base_model, adapter, **options)
    return model


_OF_THE_HUB = ("revision", "token", "cache_dir")
"""Options that say which adapter of the Hub, and how to get it."""


def _folder_of(adapter: str | Path, **options: Any) -> Path:
    """Where an adapter lies, downloaded if it must be: its record is read before its weights are loaded."""
    if Path(adapter).is_dir():
        return Path(adapter)
    return fetch(f"adapter {str(adapter)!r} is no directory here", str(adapter), "the adapter's folder", **options)


def _base_of(adapter: str | Path) -> str | None:
    """What an adapter was trained on, by its own settings: a folder, or a name on the Hub."""
    path = Path(adapter) / "adapter_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise NoisyTuneError(f"{path}: not JSON ({error})") from error
    base = settings.get("base_model_name_or_path") if isinstance(settings, dict) else None
    return base if isinstance(base, str) and base else None


def _refuse_other_weights(base_model: nn.Module, adapter: str | Path, config: NoisyTuneConfig) -> None:
    """The manifest beside the adapter holds each tensor's standard deviation before the noise."""
    if not (Path(adapter) / FILE_NAME).is_file():
        return
    then = {entry.name: entry for entry in Manifest.read(adapter).perturbed}
    now = {entry.name: entry for entry in perturb_(base_model, config.replace(noise_lambda=0)).entries}
    for name, entry in then.items():
        other = now.get(name)
        if other is None or not _same_spread(entry, other):
            seen = f"{other.dtype}, standard deviation {other.std}" if other else "nothing"
            raise NoisyTuneError(
                f"{adapter}: the adapter was trained on other weights: {name} was {entry.dtype}, standard deviation "
                f"{entry.std}, and is {seen}: load the same base model"
            )


def _same_spread(one: TensorEntry, other: TensorEntry) -> bool:
    """Whether two tensors can be the same weights. Rounding to a smaller dtype may change the spread of a vector whose
    elements are nearly equal, such as a layer norm's, by any amount: only matrices are compared there."""
    if one.dtype == other.dtype:
        return math.isclose(one.std or 0, other.std or 0, rel_tol=1e-6)
    coarser = max(torch.finfo(getattr(torch, entry.dtype)).eps for entry in (one, other))
    return len(one.shape) < 2 or math.isclose(one.std or 0, other.std or 0, rel_tol=2 * coarser)
