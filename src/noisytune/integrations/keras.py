"""NoisyTune in Keras 3, on any backend: ``model.fit(..., callbacks=[NoisyTuneCallback(noise_lambda=0.15)])``."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np

from noisytune._perturb import names, refusals
from noisytune._perturb import steps as perturbation
from noisytune._perturb.receipt import none_added
from noisytune.arrays import perturb_arrays
from noisytune.config import NoisyTuneConfig
from noisytune.errors import MissingExtraError, UnsupportedTensorError
from noisytune.manifest import Manifest

try:
    import keras
except ImportError as error:
    raise MissingExtraError(
        "noisytune.integrations.keras needs Keras 3 and a backend: run  pip install 'noisytune[keras]'"
    ) from error

logger = logging.getLogger(__name__)

_perturbed: weakref.WeakKeyDictionary[Any, NoisyTuneConfig] = weakref.WeakKeyDictionary()


def perturb_(model: Any, config: NoisyTuneConfig | None = None, **settings: Any) -> Manifest:
    """Add noise to a built Keras model's trainable weights, in place: equation (1) of the paper.

    Keras numbers the layers of a process (``dense``, ``dense_1`` ...), so its paths differ between two builds of one
    model. Here a weight is named by the place of its layer: ``2.0.kernel`` is the kernel of the first part of the
    third layer. The same architecture gets the same noise, in every process and on every backend.

    Args:
        model: built: it knows its weights. Frozen layers take noise as well; moving statistics do not.
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`. Globs match the names above, and Keras' own paths
            (``exclude="*embedding*"``). ``scope`` has no effect: exclude a new head.

    Returns:
        what was done to which weight.

    Raises:
        UnsupportedTensorError: the model is not built, or a layer is quantised.
        ConfigError: a setting is out of range, or a glob matches nothing.
        NonFiniteError: a weight is NaN or infinite.

    Source: Wu et al. 2022, equation (1).
    """
    config = perturbation.settled(config, settings)
    if not getattr(model, "built", False):
        raise UnsupportedTensorError(f"{model.name} is not built: give its Input, or call it once, before the noise")
    variables = dict(_variables(model, ""))
    either = [name for own, variable in variables.items() for name in (own, variable.path)]
    names.check_globs(either, config.include, config.exclude)

    def matched(globs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(own for own, variable in variables.items() if names.match((own, variable.path), globs))

    # Names are taken as they are: a glob that is a name matches it and nothing else.
    selected = config.replace(include=matched(config.include), exclude=matched(config.exclude))
    arrays = {own: np.array(keras.ops.convert_to_numpy(variable.value)) for own, variable in variables.items()}
    noisy, manifest = perturb_arrays(arrays, selected)
    for entry in manifest.perturbed:
        variables[entry.name].assign(noisy[entry.name])
    return Manifest(config, manifest.entries, manifest.notices)


class NoisyTuneCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds the noise once, when ``fit`` starts on a model that has not trained yet.

    A model that has trained (its optimizer has taken steps, also those of a restored backup), and one that carries
    noise already, gets none.

    Args:
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`, as for `perturb_`.

    Raises:
        ConfigError: a setting is out of range. While fitting: as `perturb_`.

    Source: Wu et al. 2022, equation (1).
    """

    def __init__(self, config: NoisyTuneConfig | None = None, **settings: Any) -> None:
        super().__init__()
        self.config = perturbation.settled(config, settings)
        self.manifest: Manifest | None = None
        """What was done to which weight, once ``fit`` has started."""

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Before the first batch."""
        if (already := _perturbed.get(self.model)) is not None:
            logger.info(none_added(already))
        elif (steps := int(self.model.optimizer.iterations)) > 0:
            logger.warning("NoisyTune: the model has trained for %d steps: no noise was added", steps)
        else:
            self.manifest = perturb_(self.model, self.config)
            _perturbed[self.model] = self.config
            logger.info(self.manifest.headline())


def _variables(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Name by place -> variable: each once, those that were made to be trained."""
    seen: set[int] = set()

    def walk(layer: Any, path: str) -> Iterator[tuple[str, Any]]:
        if getattr(layer, "quantization_mode", None):
            raise UnsupportedTensorError(f"{layer.path or layer.name} {refusals.quantised(layer.quantization_mode)}")
        for place, variable in enumerate(layer._trainable_variables):
            if id(variable) not in seen:
                seen.add(id(variable))
                twice = [v.name for v in layer._trainable_variables].count(variable.name) > 1
                yield f"{path}{variable.name}{f'_{place}' if twice else ''}", variable
        for place, part in enumerate(layer._flatten_layers(include_self=False, recursive=False)):
            if id(part) not in seen:
                seen.add(id(part))
                yield from walk(part, f"{path}{place}.")

    yield from walk(layer, path)
