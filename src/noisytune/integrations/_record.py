"""The noise that a training run started from, in the folders that it writes: noisytune.json and the model card."""

from __future__ import annotations

import json
import re
from pathlib import Path

from noisytune import __version__
from noisytune._perturb.receipt import KEY, settings_in
from noisytune.checkpoint._model_card import recipe
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError
from noisytune.manifest import FILE_NAME, Manifest

_TRAINED = "this noise was added before training: the weights here have been trained since, or belong on noised ones"
_BEGIN, _END = "<!-- noisytune training: begin -->", "<!-- noisytune training: end -->"


def noise_of(folder: str | Path) -> NoisyTuneConfig | None:
    """The settings of the noise that a checkpoint's or an adapter's training started from; None for clean weights.

    Raises:
        NoisyTuneError: what the folder says about it cannot be read.
    """
    folder = Path(folder)
    if (folder / FILE_NAME).is_file():
        return _unless_none(Manifest.read(folder).config)
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise NoisyTuneError(f"{path}: not JSON ({error})") from error
    receipt = config.get(KEY) if isinstance(config, dict) else None
    if receipt is not None and not isinstance(receipt, dict):
        raise NoisyTuneError(f"{path}: {KEY} is no mapping of settings: write the folder again")
    return _unless_none(settings_in(receipt))


def _unless_none(config: NoisyTuneConfig | None) -> NoisyTuneConfig | None:
    """The settings, unless they add no noise."""
    return config if config and config.noise_lambda else None


def write_record(folder: str | Path, manifest: Manifest) -> None:
    """Write noisytune.json beside weights that are about to be saved; makes the folder."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    manifest.with_notices(_TRAINED).write(folder)


def remove_record(folder: str | Path) -> None:
    """Take away what an earlier training on noise wrote into a folder that clean weights are about to be saved in."""
    (Path(folder) / FILE_NAME).unlink(missing_ok=True)
    card = Path(folder) / "README.md"
    if card.is_file() and _BEGIN in (text := card.read_text(encoding="utf-8")):
        card.write_text(_without_section(text), encoding="utf-8")


def _without_section(card: str) -> str:
    return re.sub(rf"\n*{_BEGIN}.*?{_END}\n?", "", card, flags=re.DOTALL)


def carried(config: NoisyTuneConfig) -> Manifest:
    """A manifest of noise that was there before: it names no tensors."""
    return Manifest(config, (), ("the weights carried this noise when they were loaded",))


def with_training_section(card: str, config: NoisyTuneConfig, adapter: bool) -> str:
    """The card with a section at its end, in place of one that was there.

    Args:
        card: of the trained model; may be empty.
        config: of the noise that the training started from.
        adapter: the card is an adapter's, which belongs on noised weights.
    """
    rest = _without_section(card)
    hint = (
        "\n\nThe adapter belongs on weights with this noise: "
        "`noisytune.integrations.transformers.load_adapter(base_model, folder)` adds it and loads the adapter."
        if adapter
        else ""
    )
    section = f"""{_BEGIN}
## Fine-tuned with NoisyTune

A little noise was added to the pretrained weights before fine-tuning:
{recipe(config)}

`{FILE_NAME}` says to which tensors. Written by noisytune {__version__}.{hint}
{_END}
"""
    return f"{rest.rstrip()}\n\n{section}".lstrip()
