"""NoisyTune in Keras 3, on any backend: ``model.fit(..., callbacks=[NoisyTuneCallback(noise_lambda=0.15)])``."""

from __future__ import annotations

import logging
import math
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Unpack

import numpy as np

from noisytune._perturb import names, refusals
from noisytune._perturb import steps as perturbation
from noisytune._perturb.receipt import carries, none_added, receipt_of
from noisytune.arrays import perturb_arrays
from noisytune.config import TOKEN_EMBEDDINGS, NoiseSettings, NoisyTuneConfig
from noisytune.errors import AlreadyPerturbedError, MissingExtraError, UnsupportedTensorError
from noisytune.integrations._announce import CANNOT_TELL, TOO_SMALL, TRACED, VISIBLE, added, only_in_training
from noisytune.integrations._settings import Asked
from noisytune.integrations._trace import TENSORS, Array, Trace, look, sample_size
from noisytune.manifest import Manifest

try:
    import keras
except ImportError as error:
    raise MissingExtraError(
        "noisytune.integrations.keras needs Keras 3 and a backend: run  pip install 'noisytune[keras]'"
    ) from error

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Carried:
    """The noise of a layer, or a model, in this process."""

    config: NoisyTuneConfig
    model: weakref.ref[Any]
    """The one that was perturbed: it may be a part of others, and share its layers with them."""
    clean: dict[int, Array]
    """Place among the layer's own weights -> the first elements before it: weights that are these again carry none."""

    def is_gone(self, layer: Any) -> bool:
        """Whether the layer's weights are again what they were."""
        own = layer._trainable_variables
        return bool(self.clean) and all(
            place < len(own) and np.array_equal(_first(own[place], _FIRST), before)
            for place, before in self.clean.items()
        )


_FIRST = 64
"""So many of each weight."""
_NOT_SEEN = "; none of it is to be seen in them: if other weights were set since, make the model anew"
_perturbed: weakref.WeakKeyDictionary[Any, _Carried] = weakref.WeakKeyDictionary()


def perturb_(
    model: Any, config: NoisyTuneConfig | None = None, *, again: bool = False, **settings: Unpack[NoiseSettings]
) -> Manifest:
    """Add noise to a built Keras model's trainable weights, in place: equation (1) of the paper.

    Keras numbers the layers of a process (``dense``, ``dense_1`` ...), so its paths differ between two builds of one
    model. Here a weight is named by the place of its layer: ``2.0.kernel`` is the kernel of the first part of the
    third layer. The same architecture gets the same noise, in every process and on every backend.

    Args:
        model: built: it knows its weights. Frozen layers take noise as well; moving statistics do not.
        config: the settings; or give them by name instead.
        again: add noise to a model that carries some, or has a part that does.
        **settings: fields of `NoisyTuneConfig`. Globs match the names above, and Keras' own paths
            (``exclude="*embedding*"``). The role ``@token_embeddings`` is found in ``token_embedding``, as KerasHub's
            backbones have it; the others by the names of layer and weight. ``scope`` has no effect: exclude a new head.

    Returns:
        what was done to which weight.

    Raises:
        AlreadyPerturbedError: this process added noise to the model before, or to a layer of it in another model (a
            backbone). Weights that were set back to what they were before it carry none.
        UnsupportedTensorError: the model is not built, or a layer is quantised.
        ConfigError: a setting is out of range, or a glob or a role matches nothing.
        NonFiniteError: a weight is NaN or infinite.

    Example:
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
        >>> [entry.name for entry in perturb_(model, noise_lambda=0.15, seed=1, exclude="*.bias").perturbed]
        ['1.kernel', '2.kernel']

    Source: Wu et al. 2022, equation (1).
    """
    config = perturbation.settled(config, settings)
    if not getattr(model, "built", False):
        raise UnsupportedTensorError(f"{model.name} is not built: give its Input, or call it once, before the noise")
    if (before := _carried(model)) and not again:
        raise AlreadyPerturbedError(f"{carries(receipt_of(before.config))}: make the model anew, or pass again=True")
    variables = dict(_variables(model, ""))
    roles = _roles(model, variables)
    either = [name for own, variable in variables.items() for name in (own, variable.path)]
    held = {role for each in roles.values() for role in each}
    names.check_globs(either, config.include, config.exclude, held, "no part of the model has a token_embedding")

    def matched(globs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(own for own, v in variables.items() if names.match((own, v.path), globs, roles.get(own, ())))

    # Names are taken as they are: a glob that is a name matches it and nothing else.
    selected = config.replace(include=matched(config.include), exclude=matched(config.exclude))
    arrays = {own: np.array(keras.ops.convert_to_numpy(variable.value)) for own, variable in variables.items()}
    noisy, manifest = perturb_arrays(arrays, selected)
    first = {id(variables[e.name]): arrays[e.name].reshape(-1)[:_FIRST].copy() for e in manifest.perturbed}
    for layer in model._flatten_layers():
        own = enumerate(layer._trainable_variables)
        if clean := {place: first[id(variable)] for place, variable in own if id(variable) in first}:
            _perturbed[layer] = _Carried(config, weakref.ref(model), clean)
    for entry in manifest.perturbed:
        variables[entry.name].assign(noisy[entry.name])
    excluded = {own: [role for role in each if role in config.exclude] for own, each in roles.items()}
    reasons = {own: refusals.excluded_by(each[0]) for own, each in excluded.items() if each}
    entries = (
        replace(entry, left_alone=reasons[entry.name]) if entry.name in reasons else entry for entry in manifest.entries
    )
    return Manifest(config, tuple(entries), manifest.notices)


def _carried(model: Any) -> _Carried | None:
    """The noise that this process added to a layer of a model and that its weights may still carry."""
    found = ((layer, _perturbed.get(layer)) for layer in model._flatten_layers())
    return next((carried for layer, carried in found if carried and not carried.is_gone(layer)), None)


class NoisyTuneCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Adds the noise once, when ``fit`` starts on a model that has not trained yet.

    A model that has trained (its optimizer has taken steps, also those of a restored backup), and one that carries
    noise already, get none. Keras' files hold no record of the noise; in weights that came from them it is looked for.

    Args:
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`, as for `perturb_`. Without a seed, that of
            ``keras.utils.set_random_seed`` counts.

    Raises:
        ConfigError: a setting is out of range. While fitting: as `perturb_`.

    Example:
        >>> NoisyTuneCallback(noise_lambda=0.1, seed=1).config.noise_lambda
        0.1

    Source: Wu et al. 2022, equation (1).
    """

    def __init__(self, config: NoisyTuneConfig | None = None, **settings: Unpack[NoiseSettings]) -> None:
        super().__init__()
        self._asked = Asked.of(config, settings)
        self._says_when = True
        self.manifest: Manifest | None = None
        """What was done to which weight, once ``fit`` has started."""

    @property
    def config(self) -> NoisyTuneConfig:
        """What to add. Unless a seed was given, it is the last one of ``keras.utils.set_random_seed``."""
        return self._asked.with_seed_of(_global_seed())

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras before the first batch: add the noise."""
        self._says_when = False  # fit evaluates on the way
        config = self.config
        if (already := _carried(self.model)) is not None:
            noised = already.model()  # a backbone, perhaps: the noise is that of its names
            seen = _look(noised, already.config) if noised is not None else Trace(already.config, True)
            doubt = "" if seen.config else _NOT_SEEN if seen.is_certain else CANNOT_TELL
            logger.log(VISIBLE, none_added(already.config) + doubt)
        elif (steps := int(self.model.optimizer.iterations)) > 0:
            logger.log(VISIBLE, f"NoisyTune: the model has trained for {steps} steps: no noise was added")
        elif (trace := _look(self.model, config)).config:
            _perturbed[self.model] = _Carried(trace.config, weakref.ref(self.model), {})
            logger.log(VISIBLE, none_added(trace.config) + TRACED)
        else:
            self.manifest = perturb_(self.model, config)
            origin = self._asked.origin(_global_seed(), "keras.utils.set_random_seed")
            logger.log(VISIBLE, added(self.manifest, origin, "" if trace.is_certain else TOO_SMALL))

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras: adds nothing."""
        self._say_when("evaluate()")

    def on_predict_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Called by Keras: adds nothing."""
        self._say_when("predict()")

    def _say_when(self, what: str) -> None:
        if self._says_when and self.config.noise_lambda > 0 and _carried(self.model) is None:
            self._says_when = False
            logger.log(VISIBLE, only_in_training(what))


def _roles(model: Any, variables: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Name by place -> roles: those that the names of layer and weight tell, as in ``layer_normalization/gamma``; and
    KerasHub's backbones hold the layer that looks tokens up as ``token_embedding``."""
    layers = [getattr(part, "token_embedding", None) for part in model._flatten_layers()]
    tables = {id(layer._embeddings) for layer in layers if isinstance(layer, keras.layers.Embedding)}
    found: dict[str, tuple[str, ...]] = {}
    for own, variable in variables.items():
        name = ".".join(variable.path.split("/")[-2:])
        if name.endswith(".beta"):  # of a norm
            name = name.removesuffix("beta") + "bias"
        told = names.roles_by_name(name, len(variable.shape))
        found[own] = (TOKEN_EMBEDDINGS, *told) if id(variable) in tables else told
    return found


def _global_seed() -> int | None:
    """What ``keras.utils.set_random_seed`` leaves behind; None if nobody called it, or in releases that forget."""
    try:
        from keras.src.utils.rng_utils import get_random_seed
    except ImportError:
        return None
    seed: int | None = get_random_seed()
    return seed


def _look(model: Any, config: NoisyTuneConfig) -> Trace:
    """Noise that the weights carry though this process knows nothing of it: they came from a file, or another model."""
    variables = dict(_variables(model, ""))
    roles = _roles(model, variables)

    def matched(name: str, globs: tuple[str, ...]) -> bool:
        return names.match((name, variables[name].path), globs, roles.get(name, ()))

    chosen = [
        (name, variable)
        for name, variable in variables.items()
        if (not config.include or matched(name, config.include))
        and not matched(name, config.exclude)
        and not names.is_adapter(name)
    ]
    largest = sorted(chosen, key=lambda pair: -math.prod(pair[1].shape))[:TENSORS]
    return look(((name, _first(variable, sample_size(config))) for name, variable in largest), config)


def _first(variable: Any, count: int) -> Array:
    first: Array = keras.ops.convert_to_numpy(variable.value).reshape(-1)[:count]
    return first


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
