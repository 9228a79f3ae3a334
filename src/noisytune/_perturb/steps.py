"""The steps that every framework's perturbation shares: choose, measure, scale, refuse, write.

A framework brings a `Target`, which knows how to read and write one tensor; this module knows the order of the steps
and what is refused. Every tensor is looked at before the first one is written.
"""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes

from noisytune._noise import kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.moments import Moments
from noisytune._perturb import names
from noisytune._perturb.families import BUFFERS
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, NonFiniteError, UnsupportedTensorError
from noisytune.manifest import Manifest, TensorEntry

DTYPES = {dtype.name: dtype for dtype in kernels.DTYPES}
"""Every dtype that takes noise, by the name that NumPy, torch and JAX all give it."""

LARGEST_NOISE = {"uniform": 0.5, "gaussian": math.sqrt(2 * 24 * math.log(2) / 12)}
"""Bound on the absolute value of the noise, before it is scaled."""

LARGE = 4 * kernels.CHUNK
"""Elements above which a tensor is worth more than one thread."""
SMALL = 100_000
"""Elements up to which a tensor is not worth waking another thread."""


@dataclass
class Target(ABC):
    """One tensor, once, however many names it has; what is known of it, and what was done to it."""

    name: str
    """Canonical name: what the noise is drawn for."""
    own_names: list[str]
    """Its names in the model, the owner's first."""
    padding_row: int | None = field(default=None, kw_only=True)
    """Row of the first dimension that gets no noise."""
    left_alone: str | None = field(default=None, kw_only=True)
    moments: Moments | None = field(default=None, kw_only=True)
    noise_std: float | None = field(default=None, kw_only=True)
    """The standard deviation that scales the noise: the tensor's own, or the pooled one."""
    realised: Moments | None = field(default=None, kw_only=True)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the full tensor."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """Such as "float32"."""

    @abstractmethod
    def measure(self, pool: Executor | None) -> Moments:
        """The moments of the weights. Called only for more than one element."""

    @abstractmethod
    def non_finite(self) -> int:
        """How many values are NaN or infinite. Called only where the moments are not finite."""

    @abstractmethod
    def largest(self) -> float:
        """The largest absolute value. Called only for dtypes that noise could overflow."""

    @abstractmethod
    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        """Add the noise to everything but `padding`. Returns the moments of what was added."""

    @property
    def size(self) -> int:
        """Number of elements of the full tensor."""
        return math.prod(self.shape)

    @property
    def padding(self) -> range:
        """Flat indices of the padding row; empty if there is none."""
        if self.padding_row is None:
            return range(0)
        width = self.size // self.shape[0]
        return range(self.padding_row * width, (self.padding_row + 1) * width)

    @property
    def where(self) -> str:
        """For error messages: which tensor."""
        return f"{self.own_names[0]} ({self.dtype}, shape {self.shape})"

    def entry(self, noise_lambda: float) -> TensorEntry:
        """The target's line in the manifest."""
        return TensorEntry(
            name=self.name,
            own_names=tuple(self.own_names),
            shape=self.shape,
            dtype=self.dtype,
            std=self.moments.std if self.moments and self.moments.n > 1 else None,
            scale=None if self.noise_std is None else noise_lambda * self.noise_std,
            realised_std=self.realised.std if self.realised else None,
            left_alone=self.left_alone,
        )


def settled(config: NoisyTuneConfig | None, settings: dict[str, Any]) -> NoisyTuneConfig:
    """The config that a caller means who may give one, or settings by name.

    Raises:
        ConfigError: both were given, or a setting is unknown or out of range.
    """
    if config is not None and settings:
        raise ConfigError(f"give a config or settings, not both: got a config and {', '.join(settings)}")
    return config or NoisyTuneConfig.from_dict(settings)


def tied(identities: Mapping[str, Hashable], base_prefix: str | None = None) -> list[tuple[str, list[str]]]:
    """The canonical name and the own names, the owner's first, of each group of names that mean the same weights.

    The owner is the first name inside the base model, else the first.

    >>> tied({"cls.decoder.weight": 0, "bert.embeddings.weight": 0}, "bert")
    [('embeddings.weight', ['bert.embeddings.weight', 'cls.decoder.weight'])]
    """
    groups: dict[Hashable, list[str]] = {}
    for name, identity in identities.items():
        groups.setdefault(identity, []).append(name)
    found = []
    for group in groups.values():
        canonical = {name: names.canonical(name, base_prefix) for name in group}
        owner = next((name for name in group if not canonical[name].startswith(names.HEAD)), group[0])
        found.append((canonical[owner], [owner, *(name for name in group if name != owner)]))
    return found


def is_buffer(name: str) -> bool:
    """Whether a floating tensor is no parameter, by its canonical name: running statistics, rotary frequencies.

    >>> is_buffer("bn.running_mean"), is_buffer("bn.weight")
    (True, False)
    """
    return names.match([name.removeprefix(names.HEAD)], BUFFERS)


def set_padding_rows(targets: Sequence[Target], rows: Mapping[str, int]) -> None:
    """Set each target's padding row by any of its names.

    Raises:
        ConfigError: no target has the name, or it has no such row.
    """
    by_name = {name: target for target in targets for name in (target.name, *target.own_names)}
    for name, row in rows.items():
        target = by_name.get(name)
        if target is None or not 0 <= row < (*target.shape, 0)[0]:
            problem = f"the shape is {target.shape}" if target else "there is no such tensor"
            raise ConfigError(f"padding_rows: row {row} of {name!r}: {problem}")
        target.padding_row = row


def choose(targets: Sequence[Target], config: NoisyTuneConfig) -> None:
    """Leave alone what the settings and the names say; a target that is left alone already stays so.

    Raises:
        ConfigError: a glob matches no tensor.
        UnsupportedTensorError: two tensors have the same canonical name.
    """
    owners: dict[str, Target] = {}
    for target in targets:
        if owners.setdefault(target.name, target) is not target:
            raise UnsupportedTensorError(
                f"{owners[target.name].own_names[0]} and {target.own_names[0]} have the same canonical name "
                f"{target.name!r}: rename one, or perturb the two parts one by one"
            )
    every_name = (name for target in targets for name in (target.name, *target.own_names))
    names.check_globs(every_name, config.include, config.exclude)
    for target in targets:
        target.left_alone = why_left_alone((target.name, *target.own_names), config) or target.left_alone


def why_left_alone(every_name: Sequence[str], config: NoisyTuneConfig) -> str | None:
    """What a tensor's names say about why it gets no noise; None if nothing."""
    if any(map(names.is_adapter, every_name)):
        return "adapter"
    if config.include and not names.match(every_name, config.include):
        return "not included"
    if names.match(every_name, config.exclude):
        return "excluded"
    return None


def measure(targets: Sequence[Target], pool: Executor | None = None) -> None:
    """Set each chosen target's moments. Reads only."""

    def measure_one(target: Target, pool: Executor | None) -> None:
        target.moments = target.measure(pool)

    _share_out([t for t in targets if t.left_alone is None and t.size > 1], measure_one, pool)


def set_scales(targets: Sequence[Target], config: NoisyTuneConfig) -> None:
    """The scale of each tensor's noise: its own standard deviation, or the one of all perturbed tensors together.

    Raises:
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.
    """
    for target in targets:
        if target.left_alone is None:
            target.left_alone = _nothing_to_scale(target) or ("lambda is 0" if config.noise_lambda == 0 else None)
    chosen = [(t, t.moments) for t in targets if t.left_alone is None and t.moments]
    pooled = moments_module.merge([moments for _, moments in sorted(chosen, key=lambda pair: pair[0].name)])
    for target, moments in chosen:
        target.noise_std = pooled.std if config.scale == "global" else moments.std
        _refuse_overflow(target, config.noise_lambda * target.noise_std * LARGEST_NOISE[config.distribution])


def _nothing_to_scale(target: Target) -> str | None:
    if target.moments is None:
        return "empty" if target.size == 0 else "one element"
    if not target.moments.is_finite:
        if wrong := target.non_finite():
            raise NonFiniteError(
                f"{target.where} has {wrong} values that are NaN or infinite: the checkpoint is damaged"
            )
        raise NonFiniteError(f"{target.where} has values so large that their standard deviation overflows; exclude it")
    return "constant" if target.moments.is_constant else None


def _refuse_overflow(target: Target, largest_noise: float) -> None:
    limit = float(ml_dtypes.finfo(DTYPES[target.dtype]).max)  # type: ignore[no-untyped-call]
    if limit < 1e5 and (largest := target.largest()) + largest_noise > limit:
        raise NonFiniteError(
            f"{target.where} has values up to {largest:g}: noise of up to {largest_noise:g} could pass the dtype's "
            f"largest value {limit:g}; load the model in float32 or bfloat16, or exclude the tensor"
        )


def write(targets: Sequence[Target], config: NoisyTuneConfig, pool: Executor | None = None) -> None:
    """Add the noise to every target that has a scale."""

    def write_one(target: Target, pool: Executor | None) -> None:
        target.realised = target.write(target.noise_std or 0.0, config, pool)

    _share_out([t for t in targets if t.left_alone is None and t.noise_std is not None], write_one, pool)


def _share_out(
    targets: Sequence[Target], work: Callable[[Target, Executor | None], None], pool: Executor | None
) -> None:
    """Large tensors one after the other, each shared by all threads; middling ones a thread each; small ones here."""
    if pool is None:
        for target in targets:
            work(target, None)
        return
    for target in targets:
        if target.size > LARGE:
            work(target, pool)
    middling = pool.map(lambda target: work(target, None), [t for t in targets if SMALL < t.size <= LARGE])
    for target in targets:
        if target.size <= SMALL:
            work(target, None)
    deque(middling, maxlen=0)


def account(targets: Sequence[Target], config: NoisyTuneConfig, notices: Sequence[str] = ()) -> Manifest:
    """What was done to which tensor."""
    return Manifest(config, tuple(target.entry(config.noise_lambda) for target in targets), tuple(notices))


def perturb_targets(targets: Sequence[Target], config: NoisyTuneConfig, *, threads: int | None = None) -> Manifest:
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
    return account(targets, config)


@contextmanager
def thread_pool(threads: int | None = None) -> Iterator[Executor | None]:
    """Threads for the kernels; None for one. Their number changes nothing in the result."""
    if threads is None:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads == 1:
        yield None
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="noisytune") as pool:
        yield pool
