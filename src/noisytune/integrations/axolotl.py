"""NoisyTune in axolotl: a plugin that adds the noise once the model is built, before any adapter is put on.

In the YAML file::

    plugins:
      - noisytune.integrations.axolotl.NoisyTunePlugin
    noisytune:
      noise_lambda: 0.1
"""

from __future__ import annotations

import logging
from typing import Any

from noisytune._perturb.receipt import none_added
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.integrations._announce import VISIBLE, added
from noisytune.integrations._modules import find_noise
from noisytune.integrations._settings import Asked
from noisytune.torch import mark, perturb_

try:
    from axolotl.integrations.base import BasePlugin
    from pydantic import BaseModel
except ImportError as error:
    raise MissingExtraError("noisytune.integrations.axolotl needs axolotl: run  pip install axolotl") from error

__all__ = ["NoisyTuneArgs", "NoisyTunePlugin"]

logger = logging.getLogger(__name__)


class NoisyTuneArgs(BaseModel):
    """What the plugin adds to axolotl's YAML files."""

    noisytune: dict[str, Any] | None = None
    """Fields of `noisytune.config.NoisyTuneConfig`; the seed is axolotl's own unless it is given here."""


class NoisyTunePlugin(BasePlugin):  # type: ignore[misc]
    """Adds the noise to the weights that axolotl has loaded: for full fine-tuning, LoRA, and whatever loads them again.

    Source: Wu et al. 2022, equation (1).
    """

    def get_input_args(self) -> str:
        """Where axolotl finds the plugin's settings."""
        return f"{__name__}.{NoisyTuneArgs.__name__}"

    def register(self, cfg: Any) -> None:
        """Have ``axolotl merge-lora`` build the model: by default it merges files, which no plugin sees."""
        if cfg.get("merge_lora") and _asked(cfg).with_seed_of(cfg.get("seed")).noise_lambda > 0:
            cfg["merge_method"] = "legacy"
            logger.log(VISIBLE, "NoisyTune: merge_method is legacy, which merges onto the weights with their noise")

    def pre_model_load(self, cfg: Any) -> None:
        """Refuse what cannot be, before the weights are read.

        Raises:
            ConfigError: a setting is unknown or out of range, or weights are quantised while they are loaded.
        """
        _asked(cfg)
        if quantised := [name for name in ("load_in_4bit", "load_in_8bit", "gptq") if cfg.get(name)]:
            raise ConfigError(
                f"noisytune: {quantised[0]} quantises weights while they are loaded, and codes take no noise: run  "
                f"noisytune perturb {cfg.get('base_model')} DIR, give base_model: DIR, and leave the plugin out"
            )

    def post_model_build(self, cfg: Any, model: Any) -> None:
        """Add the noise. Weights that carry noise already get none.

        Raises:
            UnsupportedTensorError: as `noisytune.torch.perturb_`.
        """
        asked, seed = _asked(cfg), cfg.get("seed")
        config = asked.with_seed_of(seed)
        if any(parameter.is_meta for parameter in model.parameters()):
            mark(model, config)  # FSDP fills this rank with the first one's weights
            return
        if found := find_noise(model, config).config:
            logger.log(VISIBLE, none_added(found))
            return
        manifest = perturb_(model, config)
        for line in (added(manifest, asked.origin(seed, "axolotl's seed")), *manifest.notices):
            logger.log(VISIBLE, line)


def _asked(cfg: Any) -> Asked:
    return Asked.of(None, dict(cfg.get("noisytune") or {}))
