"""The steps that every perturbation shares: settle, choose, measure, scale, write.

A host brings targets, which know how to read and write one tensor each; this module knows the order of the steps.
Every tensor is looked at before the first one is written.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

from noisytune._machine import thread_pool
from noisytune._noise import kernels
from noisytune._noise import moments as moments_module
from noisytune._perturb import doubtful, names, refusals
from noisytune._perturb.families import BUFFERS, MASKS
from noisytune._perturb.target import MemoryTarget, Target
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.manifest import Manifest

LARGEST_NOISE = {"uniform": 0.5, "gaussian": math.sqrt(2 * 24 * math.log(2) / 12)}
"""Bound on the absolute value of the noise, before it is scaled."""

LARGE = 4 * kernels.CHUNK
"""Elements above which a tensor is worth more than one thread."""
SMALL = 100_000
"""Elements up to which a tensor is not worth waking another thread."""


# --- settle ---


def settled(config: NoisyTuneConfig | None, settings: Mapping[str, Any]) -> NoisyTuneConfig:
    """The config of a caller who may give one, or settings by name instead.

    >>> settled(None, {"seed": 3}).seed, settled(NoisyTuneConfig(seed=4), {}).seed
    (3, 4)

    Raises:
        ConfigError: both were given, or a setting is unknown or out of range.
    """
    if config is not None and settings:
        raise ConfigError(f"give a config or settings, not both: got a config and {', '.join(settings)}")
    return config or NoisyTuneConfig.from_dict(settings)


# --- choose ---


def choose(targets: Sequence[Target], config: NoisyTuneConfig, no_role: str = names.NAMES_ALONE) -> None:
    """Leave alone what the settings and the names say; a target that is left alone already stays so.

    Args:
        targets: all of the model.
        config: the settings.
        no_role: as for `check_names`.

    Raises:
        ConfigError: a glob or a role matches no tensor.
        UnsupportedTensorError: two tensors have the same canonical name.
    """
    check_names(targets, config, no_role)
    for target in targets:
        target.left_alone = why_left_alone(target, config)


def check_names(targets: Sequence[Target], config: NoisyTuneConfig, no_role: str = names.NAMES_ALONE) -> None:
    """Refuse names that cannot be told apart, and globs and roles that match no tensor.

    Args:
        targets: all of the model.
        config: the settings.
        no_role: why no target has a role, if none has.

    Raises:
        ConfigError: a glob or a role matches no tensor.
        UnsupportedTensorError: two tensors have the same canonical name.
    """
    refusals.refuse_collisions(targets)
    usual = [t for t in targets if t.left_alone != refusals.ADAPTER and not names.is_adapter(t.own_names[0])]
    every_name = (name for t in usual for name in t.spellings)
    roles = {role for t in usual for role in _roles(t, config)}
    names.check_globs(every_name, config.include, config.exclude, roles, no_role)


def why_left_alone(target: Target, config: NoisyTuneConfig) -> str | None:
    """Why a target gets no noise, whatever its values are; None if nothing speaks against it.

    An adapter is one whatever else it is. What its host knows of a tensor counts more than what the settings say.
    """
    every_name = target.spellings
    if any(map(names.is_adapter, every_name)):
        return refusals.ADAPTER
    if target.left_alone is not None:
        return target.left_alone
    if target.is_fixed and config.scope != "all":
        return refusals.FIXED
    roles = _roles(target, config)
    if config.include and not names.match(every_name, config.include, roles):
        return refusals.NOT_INCLUDED
    if names.match(every_name, config.exclude):
        return refusals.EXCLUDED
    return next((refusals.excluded_by(role) for role in roles if role in config.exclude), None)


def _roles(target: Target, config: NoisyTuneConfig) -> tuple[str, ...]:
    """What its host knows, and what its name tells; none where the settings ask for no role."""
    if not any(word.startswith("@") for word in (*config.include, *config.exclude)):
        return ()
    return (*target.roles, *names.roles_by_name(target.name, len(target.shape)))


def why_no_parameter(
    target: Target, codes: Collection[str] = (), is_buffer: Callable[[str], bool] = lambda name: False
) -> str | None:
    """Why a tensor of a file, a mapping or a state dict is no parameter, by its dtype and name; None if it is one.

    Args:
        target: with its canonical name.
        codes: dtypes that are no floating ones and may yet hold weights, quantised.
        is_buffer: what is known of the model type, by canonical name.
    """
    if target.dtype not in codes and not target.dtype.startswith(("float", "bfloat", "longdouble")):
        return refusals.not_floating(target.dtype)
    is_usual = is_usual_buffer(target.name, len(target.shape))
    return refusals.BUFFER if is_usual or is_buffer(target.name) else None


def is_usual_buffer(name: str, axes: int) -> bool:
    """Whether a floating tensor is no parameter, by its canonical name: running statistics, rotary frequencies, masks.

    >>> is_usual_buffer("bn.running_mean", 1), is_usual_buffer("bn.weight", 1)
    (True, False)
    >>> is_usual_buffer("h.0.attn.bias", 4), is_usual_buffer("h.0.attn.bias", 1)
    (True, False)
    """
    return names.match([name.removeprefix(names.HEAD)], BUFFERS if axes < 4 else BUFFERS + MASKS)


# --- measure ---


def measure(targets: Sequence[MemoryTarget], pool: Executor | None = None) -> None:
    """Look at the values of each chosen target, and of each that is new: a bad initialisation is named. Reads only."""

    def measure_one(target: MemoryTarget, pool: Executor | None) -> None:
        target.facts = target.measure(pool)

    def has_to_be_known(target: Target) -> bool:
        return target.size >= 1 if _is_new(target) else target.size > 1 and target.left_alone is None

    _share_out([target for target in targets if has_to_be_known(target)], measure_one, pool)


def _is_new(target: Target) -> bool:
    """Whether a target is new and was not left alone for another reason: a new head, unless ``exclude`` names it."""
    return target.left_alone in (None, refusals.NEW, refusals.OUTSIDE) and bool(target.is_new)


# --- scale ---


def set_scales(targets: Sequence[Target], config: NoisyTuneConfig) -> None:
    """The scale of each tensor's noise: its own standard deviation, or the one of all perturbed tensors together.

    Raises:
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.
    """
    for target in targets:
        if target.left_alone is None or _is_new(target):
            refusals.refuse_non_finite(target)
        if target.left_alone is not None and target.is_new:
            target.facts = None  # the manifest tells of what was looked at for its scale
        if target.left_alone is None:
            target.left_alone = _nothing_to_scale(target) or (refusals.NO_NOISE if config.noise_lambda == 0 else None)
    chosen = [(t, t.facts.moments) for t in targets if t.left_alone is None and t.facts]
    pooled = moments_module.merge([moments for _, moments in sorted(chosen, key=lambda pair: pair[0].name)])
    for target, moments in chosen:
        target.noise_std = pooled.std if config.scale == "global" else moments.std
        refusals.refuse_overflow(target, config.noise_lambda * target.noise_std * LARGEST_NOISE[config.distribution])


def _nothing_to_scale(target: Target) -> str | None:
    if target.size <= 1:
        return refusals.ONE_ELEMENT if target.size else refusals.EMPTY
    return refusals.CONSTANT if target.facts and target.facts.moments.is_constant else None


# --- write ---


def write(targets: Sequence[MemoryTarget], config: NoisyTuneConfig, pool: Executor | None = None) -> None:
    """Add the noise to every target that has a scale."""

    def write_one(target: MemoryTarget, pool: Executor | None) -> None:
        target.realised = target.write(target.noise_std or 0.0, config, pool)

    _share_out([t for t in targets if t.left_alone is None and t.noise_std is not None], write_one, pool)


def account(targets: Sequence[Target], config: NoisyTuneConfig, notices: Sequence[str] = ()) -> Manifest:
    """What was done to which tensor."""
    return Manifest(config, tuple(target.entry(config.noise_lambda) for target in targets), tuple(notices))


def perturb_targets(
    targets: Sequence[MemoryTarget], config: NoisyTuneConfig, *, threads: int | None = None
) -> Manifest:
    """The steps after `choose`, for a host that has nothing to do between them.

    Args:
        targets: chosen, and those that the host cannot perturb refused.
        config: the settings.
        threads: for the kernels on the CPU; None uses as many as this process may run on.
    """
    with thread_pool(threads) as pool:
        measure(targets, pool)
        set_scales(targets, config)
        write(targets, config, pool)
    return account(targets, config, doubtful.stacked(targets))


def _share_out(
    targets: Sequence[MemoryTarget], work: Callable[[MemoryTarget, Executor | None], None], pool: Executor | None
) -> None:
    """Large tensors one after the other, each shared by all threads; middling ones a thread each; small ones here."""
    if pool is None:
        for target in targets:
            work(target, None)
        return

    def is_shared(target: MemoryTarget) -> bool:
        return target.size > SMALL and target.gains_by_threads

    shared = list(filter(is_shared, targets))
    for target in shared:
        if target.size > LARGE:
            work(target, pool)
    middling = pool.map(lambda target: work(target, None), [t for t in shared if t.size <= LARGE])
    for target in targets:
        if not is_shared(target):
            work(target, None)
    deque(middling, maxlen=0)
