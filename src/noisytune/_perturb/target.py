"""One tensor of a model, in memory or on disk: what is known of it, and what was done to it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from noisytune._noise.facts import Facts
from noisytune._noise.moments import Moments
from noisytune._perturb import names
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.manifest import TensorEntry


@dataclass
class Target:
    """One tensor, once, however many names it has. Where its values are is for its host's class to know."""

    name: str
    """Canonical name: what the noise is drawn for."""
    own_names: list[str]
    """Its names in the model or the files, the owner's first."""
    shape: tuple[int, ...]
    """Of the full tensor."""
    dtype: str
    """Such as "float32"."""
    file: str | None = field(default=None, kw_only=True)
    """Which file holds it, for error messages."""
    roles: tuple[str, ...] = field(default=(), kw_only=True)
    """Those of `noisytune.config.ROLES` that it has, as far as its host knows."""
    padding_row: int | None = field(default=None, kw_only=True)
    """Row of the first dimension that gets no noise."""
    is_new: bool | None = field(default=None, kw_only=True)
    """Whether no checkpoint held it, as a new head's weights; None where nobody can tell."""
    is_fixed: bool = field(default=False, kw_only=True)
    """Whether the model's code keeps it from training, as a table of sines."""
    left_alone: str | None = field(default=None, kw_only=True)
    """Why it gets no noise; None if it does."""
    facts: Facts | None = field(default=None, kw_only=True)
    """Of the values before the noise; None where nobody looked."""
    noise_std: float | None = field(default=None, kw_only=True)
    """The standard deviation that scales the noise: the tensor's own, or the pooled one."""
    realised: Moments | None = field(default=None, kw_only=True)
    """Of what was really added."""

    @property
    def spellings(self) -> tuple[str, ...]:
        """All names that ``include`` and ``exclude`` know it by: the canonical one too, and that of its whole stack."""
        own = (self.name, *self.own_names)
        return (*own, *map(names.without_index, own)) if any(name.endswith("]") for name in own) else own

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
    def runs(self) -> Iterator[slice]:
        """Runs of flat indices that get noise: everything but the padding row."""
        for run in (slice(0, self.padding.start), slice(self.padding.stop, self.size)):
            if run.start < run.stop:
                yield run

    @property
    def where(self) -> str:
        """For error messages: which tensor."""
        place = f"{self.file}: " if self.file else ""
        return f"{place}{self.own_names[0]} ({self.dtype}, shape {self.shape})"

    def entry(self, noise_lambda: float) -> TensorEntry:
        """The target's line in the manifest."""
        moments = self.facts.moments if self.facts else None
        return TensorEntry(
            name=self.name,
            own_names=tuple(self.own_names),
            shape=self.shape,
            dtype=self.dtype,
            std=moments.std if moments and moments.n > 1 else None,
            scale=None if self.noise_std is None else noise_lambda * self.noise_std,
            realised_std=self.realised.std if self.realised else None,
            left_alone=self.left_alone,
        )


@dataclass
class MemoryTarget(Target, ABC):
    """A tensor that is read and written as a whole, or as the part that this process holds."""

    @property
    def gains_by_threads(self) -> bool:
        """Whether threads of this process do its work; not so where they would only wait for another device."""
        return True

    @abstractmethod
    def measure(self, pool: Executor | None) -> Facts:
        """The facts of the weights. Called only for tensors with elements."""

    @abstractmethod
    def write(self, std: float, config: NoisyTuneConfig, pool: Executor | None) -> Moments:
        """Add the noise to all `runs`. Returns the moments of what was added."""


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
