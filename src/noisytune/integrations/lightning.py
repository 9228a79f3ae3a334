"""NoisyTune in Lightning: ``Trainer(callbacks=[NoisyTuneCallback(noise_lambda=0.15, seed=1)])``.

The noise goes in before anything is restored or wrapped: in ``setup`` for ``fit``, or after ``configure_model`` where
the module builds its layers there. A checkpoint that ``fit`` resumes from is then restored over it.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Unpack

from torch import nn

from noisytune._perturb.receipt import KEY, describe, none_added, settings_in
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.integrations._announce import VISIBLE, added, only_in_training
from noisytune.integrations._modules import find_noise, refuse_averages
from noisytune.integrations._settings import Asked
from noisytune.manifest import Manifest
from noisytune.torch import mark, perturb_, receipt

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
        **settings: fields of `NoisyTuneConfig`. Without a seed, that of ``seed_everything`` counts. Modules that
            hold no Hugging Face model have no mark of what was pretrained: everything counts, so exclude a new head by
            its name.

    Raises:
        ConfigError: a setting is out of range; while fitting: a glob matches no tensor, or the checkpoint to resume
            from was trained on other noise, or on none.
        NoisyTuneError: while fitting: as `noisytune.torch.perturb_`; the module is left as it was.

    Example:
        >>> callback = NoisyTuneCallback(noise_lambda=0.15, seed=1, exclude="head.*")
        >>> callback.config.seed, callback.manifest  # nothing has happened yet
        (1, None)

    Source: Wu et al. 2022, equation (1).
    """

    def __init__(self, config: NoisyTuneConfig | None = None, **settings: Unpack[NoiseSettings]) -> None:
        self._asked = Asked.of(config, settings)
        self._says_when = True
        self.manifest: Manifest | None = None
        """What was done to which tensor, once ``fit`` has started."""

    @property
    def config(self) -> NoisyTuneConfig:
        """What to add. Unless a seed was given, it is the last one of ``seed_everything``."""
        return self._asked.with_seed_of(_global_seed())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called by Lightning: add the noise, or see to it that ``configure_model`` ends with it."""
        if stage != "fit":
            if self._says_when and self.config.noise_lambda > 0 and receipt(pl_module) is None:
                _say(trainer, only_in_training(f"{stage.lower()}()"))  # an enum that prints otherwise
            self._says_when = False
            return
        self._says_when = False
        if type(pl_module).configure_model is LightningModule.configure_model:
            self._perturb_around_setup(trainer, pl_module)
            return
        build = pl_module.configure_model

        def build_and_perturb() -> None:
            build()
            self._perturb(trainer, pl_module)

        # For this instance only; the method comes back once it has been called.
        pl_module.__dict__["configure_model"] = build_and_perturb

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Called by Lightning: leave the module's own ``configure_model`` and ``setup`` behind."""
        for name in ("configure_model", "setup"):
            pl_module.__dict__.pop(name, None)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning: record the noise."""
        if found := receipt(pl_module):
            checkpoint[KEY] = dict(found)  # a plain one: torch loads checkpoints with weights_only

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Called by Lightning: refuse to go on from other noise.

        A module that is evaluated takes the record over with the weights.

        Raises:
            ConfigError: the checkpoint was trained on other noise, or on none.
        """
        ours = settings_in(receipt(pl_module))
        theirs = settings_in(checkpoint.get(KEY))
        if trainer.state.fn != "fit":
            restore_record(pl_module, checkpoint)
        elif theirs != ours:
            raise ConfigError(
                f"the checkpoint was trained on weights with {describe(theirs)}, this run starts from "
                f"{describe(ours)}: resume with the same settings, or start anew"
            )
        elif ours:
            _say(trainer, f"NoisyTune: resumed: weights that were trained from {describe(ours)} are restored over it")

    def _perturb_around_setup(self, trainer: Trainer, module: LightningModule) -> None:
        """Before the module's own ``setup``, which may copy its weights; after it where that makes the first ones."""
        if type(module).setup is LightningModule.setup:
            self._perturb(trainer, module)
            return
        made_before = {id(parameter) for parameter in module.parameters()}
        if made_before:
            self._perturb(trainer, module)
        prepare = module.setup

        def prepare_and_perturb(stage: str) -> None:
            prepare(stage)
            if not made_before:
                self._perturb(trainer, module)
            elif later := [name for name, p in module.named_parameters() if id(p) not in made_before]:
                _say(
                    trainer,
                    f"NoisyTune: {len(later)} tensors that setup() made got no noise ({later[0]} ...): make them in "
                    "__init__ or configure_model",
                )

        module.__dict__["setup"] = prepare_and_perturb

    def _perturb(self, trainer: Trainer, module: LightningModule) -> None:
        config = self.config
        found = find_noise(module, config)
        if found.config:
            _say(trainer, none_added(found.config) + found.remark)
            return
        callbacks: list[Callback] = getattr(trainer, "callbacks", [])
        refuse_averages([module, *callbacks], "put NoisyTuneCallback before it in callbacks=[...]")
        self.manifest = perturb_(module, config)
        _say(trainer, added(self.manifest, self._asked.origin(_global_seed(), "seed_everything"), found.remark))
        for notice in self.manifest.notices:
            _say(trainer, f"NoisyTune: {notice}")


def restore_record(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    """Tell a module which noise the weights of a Lightning checkpoint carry, so that none is added to them again.

    For ``LightningModule.on_load_checkpoint``, which ``load_from_checkpoint`` calls as well. It asks no callback.

    Args:
        module: takes the weights of the checkpoint.
        checkpoint: as Lightning loads it; may be of a training without noise.

    Example:
        >>> from torch import nn
        >>> module = nn.Linear(4, 2)
        >>> restore_record(module, {"noisytune": {"noise_lambda": 0.15, "seed": 7}})
        >>> receipt(module)["seed"]
        7
    """
    if receipt(module) is None and (found := settings_in(checkpoint.get(KEY))):
        mark(module, found)


def _global_seed() -> int | None:
    """What ``seed_everything`` leaves behind; None if nobody has called it."""
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    return int(seed) if seed.isdecimal() else None


def _say(trainer: Trainer, line: str) -> None:
    if trainer.is_global_zero:
        logger.log(VISIBLE, line)
