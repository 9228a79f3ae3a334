"""NoisyTune in Lightning: ``Trainer(callbacks=[NoisyTuneCallback(noise_lambda=0.15, seed=1)])``.

The noise goes in before anything is restored or wrapped: in ``setup`` for ``fit``, or after ``configure_model`` where
the module builds its layers there. A checkpoint that ``fit`` resumes from is then restored over it.
"""

from __future__ import annotations

import logging
from typing import Any

from noisytune._perturb import steps as perturbation
from noisytune._perturb.receipt import KEY, describe, none_added, settings_in
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
except ImportError:
    try:
        from pytorch_lightning import Callback, LightningModule, Trainer  # type: ignore[assignment]
    except ImportError as error:
        raise MissingExtraError(
            "noisytune.integrations.lightning needs Lightning: run  pip install 'noisytune[lightning]'"
        ) from error

logger = logging.getLogger(__name__)


class NoisyTuneCallback(Callback):
    """Adds the noise once, when ``fit`` starts; ``validate``, ``test`` and ``predict`` leave the module alone.

    A second ``fit`` of the same module, and weights that carry noise already, get none. Under every strategy each rank
    makes the same noise. The settings go into checkpoints, under the key ``noisytune``.

    Args:
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`. Modules that hold no Hugging Face model have no mark of what was
            pretrained: everything counts, so exclude a new head by its name.

    Raises:
        ConfigError: a setting is out of range; while fitting: a glob matches no tensor, or the checkpoint to resume
            from was trained on other noise, or on none.
        NoisyTuneError: while fitting: as `noisytune.torch.perturb_`; the module is left as it was.

    Example:
        >>> callback = NoisyTuneCallback(noise_lambda=0.15, seed=1, exclude="head.*")
        >>> callback.config.seed
        1

    Source: Wu et al. 2022, equation (1).
    """

    def __init__(self, config: NoisyTuneConfig | None = None, **settings: Any) -> None:
        self.config = perturbation.settled(config, settings)
        self.manifest: Manifest | None = None
        """What was done to which tensor, once ``fit`` has started."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the noise, or see to it that ``configure_model`` ends with it."""
        if stage != "fit":
            return
        if type(pl_module).configure_model is LightningModule.configure_model:
            self._perturb(pl_module)
            return
        build = pl_module.configure_model

        def build_and_perturb() -> None:
            build()
            self._perturb(pl_module)

        # For this instance only; the method comes back once it has been called.
        pl_module.__dict__["configure_model"] = build_and_perturb

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the module's own ``configure_model`` behind."""
        pl_module.__dict__.pop("configure_model", None)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Record the noise."""
        if found := receipt(pl_module):
            checkpoint[KEY] = dict(found)  # a plain one: torch loads checkpoints with weights_only

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on from other noise."""
        ours = settings_in(receipt(pl_module))
        theirs = settings_in(checkpoint.get(KEY))
        if ours is not None and theirs != ours:
            raise ConfigError(
                f"the checkpoint was trained on weights with {describe(theirs)}, this run starts from "
                f"{describe(ours)}: resume with the same settings, or start anew"
            )

    def _perturb(self, module: LightningModule) -> None:
        already = settings_in(receipt(module))
        if already:
            logger.info(none_added(already))
            return
        self.manifest = perturb_(module, self.config)
        logger.info(self.manifest.headline())
        for notice in self.manifest.notices:
            logger.warning("NoisyTune: %s", notice)
