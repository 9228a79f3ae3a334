"""Adapters (PEFT) that were trained on noised weights: bring both back, or find out that they do not fit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

from noisytune._perturb.receipt import describe, settings_in
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError, require
from noisytune.integrations._record import noise_of
from noisytune.manifest import FILE_NAME, Manifest
from noisytune.torch import perturb_, receipt


def check_adapter(model: nn.Module, adapter: str | Path) -> None:
    """Refuse a model whose noise is not the one that an adapter was trained on.

    Args:
        model: the base model, or a PEFT model around it.
        adapter: the adapter's folder.

    Raises:
        NoisyTuneError: one of them has noise, and the other has none or another.
    """
    wanted, found = noise_of(adapter), settings_in(receipt(model))
    if wanted != found:
        raise NoisyTuneError(
            f"{adapter}: the adapter was trained on weights with {describe(wanted)}, the model has {describe(found)}: "
            "load a clean base model and use noisytune.integrations.transformers.load_adapter"
        )


def load_adapter(base_model: nn.Module, adapter: str | Path, **options: Any) -> nn.Module:
    """A base model and an adapter that was trained on it, with the noise of that training in between.

    The noise comes from the adapter's ``noisytune.json``; an adapter without that file is loaded on the clean base.

    Args:
        base_model: as it was before training: clean, or loaded from a checkpoint that carries the same noise. Perturbed
            in place.
        adapter: the adapter's folder.
        **options: for ``PeftModel.from_pretrained``.

    Returns:
        the ``PeftModel``.

    Raises:
        NoisyTuneError: the base carries other noise, or its weights are not those that the adapter was trained on. It
            is left as it was.
        MissingExtraError: peft is not installed.
    """
    require("peft", extra="peft", needed_for="load_adapter")
    from peft import PeftModel

    wanted = noise_of(adapter)
    if wanted is not None and receipt(base_model) is None:
        _refuse_other_weights(base_model, adapter, wanted)
        perturb_(base_model, wanted)
    check_adapter(base_model, adapter)
    model: nn.Module = PeftModel.from_pretrained(base_model, adapter, **options)
    return model


def _refuse_other_weights(base_model: nn.Module, adapter: str | Path, config: NoisyTuneConfig) -> None:
    """The manifest beside the adapter holds each tensor's standard deviation before the noise."""
    if not (Path(adapter) / FILE_NAME).is_file():
        return
    then = {entry.name: entry for entry in Manifest.read(adapter).perturbed}
    now = {entry.name: entry for entry in perturb_(base_model, config.replace(noise_lambda=0)).entries}
    for name, entry in then.items():
        other = now.get(name)
        same_std = other is not None and math.isclose(other.std or 0, entry.std or 0, rel_tol=1e-6)
        if other is None or other.dtype != entry.dtype or not same_std:
            seen = f"{other.dtype}, standard deviation {other.std}" if other else "nothing"
            raise NoisyTuneError(
                f"{adapter}: the adapter was trained on other weights: {name} was {entry.dtype}, standard deviation "
                f"{entry.std}, and is {seen}: load the same base model, in the same dtype"
            )
