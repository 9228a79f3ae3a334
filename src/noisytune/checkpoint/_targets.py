"""Which tensors a checkpoint's files hold, under which canonical names, and which of them take noise.

The counterpart, for files, of what `noisytune.torch` finds out about a module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from noisytune._noise import moments as moments_module
from noisytune._noise.moments import Moments
from noisytune._perturb import names
from noisytune._perturb.families import BUFFERS, FAMILIES, Family, guess
from noisytune._perturb.steps import LARGEST_NOISE
from noisytune.checkpoint._safetensors import FLOATING, TensorInfo
from noisytune.checkpoint._source import Source
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NonFiniteError, UnsupportedTensorError
from noisytune.manifest import TensorEntry

NOISY = frozenset(np.dtype(dtype) for dtype in FLOATING.values())
"""Dtypes that take noise."""


class Place(NamedTuple):
    """Where a tensor lies."""

    file: int
    tensor: TensorInfo


@dataclass
class Target:
    """A tensor of the model, once, however many copies the files hold."""

    name: str
    places: list[Place]
    where: str
    """For error messages: file, tensor, dtype and shape."""
    padding_row: int | None = None
    left_alone: str | None = None
    moments: Moments | None = None
    largest: float = 0.0
    """Largest absolute value, of float16 and float8 only: their noise could overflow."""
    noise_std: float | None = None
    """The standard deviation that scales the noise: the tensor's own, or the pooled one."""
    realised: Moments | None = None

    @property
    def tensor(self) -> TensorInfo:
        """As its owner's header describes it."""
        return self.places[0].tensor

    @property
    def runs(self) -> Iterator[slice]:
        """Runs of flat indices that get noise: everything but the padding row."""
        size = self.tensor.elements
        if self.padding_row is None:
            yield slice(0, size)
            return
        width = size // self.tensor.shape[0]
        for run in (slice(0, self.padding_row * width), slice((self.padding_row + 1) * width, size)):
            if run.start < run.stop:
                yield run

    def entry(self, noise_lambda: float) -> TensorEntry:
        """The target's line in the manifest."""
        return TensorEntry(
            name=self.name,
            own_names=tuple(place.tensor.name for place in self.places),
            shape=self.tensor.shape,
            dtype=self.tensor.dtype.name,
            std=self.moments.std if self.moments and self.moments.n > 1 else None,
            scale=None if self.noise_std is None else noise_lambda * self.noise_std,
            realised_std=self.realised.std if self.realised else None,
            left_alone=self.left_alone,
        )


def family_of(source: Source) -> tuple[Family, list[str]]:
    """What is known about the model type, and what the user should know where it is guessed."""
    model_type = str(source.config.get("model_type", ""))
    own_names = [names.without_wrappers(tensor.name) for file in source.files for tensor in file.tensors]
    notices = []
    if any(re.search(r"\.experts\.\d+\.", name) for name in own_names):
        notices.append("transformers joins the experts' tensors when it loads them: noise added in memory would differ")
    if model_type in FAMILIES:
        return FAMILIES[model_type], notices
    family = guess(model_type, own_names)
    what = f"the model type {model_type!r} is not one that noisytune knows" if model_type else "no config.json"
    prefix = f"the base model is taken to be under {family.prefixes[0]!r}" if family.prefixes else "no prefix was found"
    return family, [
        *notices,
        f"{what}: {prefix}, no row counts as padding, equal tensors get separate noise; "
        "noise added in memory may differ",
    ]


def find_targets(source: Source, family: Family, config: NoisyTuneConfig) -> list[Target]:
    """Every tensor of the files, copies apart; settled by `join_copies` when their contents are known."""
    held = [Place(i, tensor) for i, file in enumerate(source.files) for tensor in file.tensors]
    bare = [names.without_wrappers(place.tensor.name) for place in held]
    prefix = next((p for p in family.prefixes if any(name.startswith(p + ".") for name in bare)), None)
    targets = [_target(source, place, names.canonical(place.tensor.name, prefix)) for place in held]
    usual = [target for target in targets if not names.is_adapter(target.tensor.name)]
    names.check_globs((n for t in usual for n in (t.name, t.tensor.name)), config.include, config.exclude)
    return targets


def _target(source: Source, place: Place, name: str) -> Target:
    tensor = place.tensor
    path = source.folder / source.files[place.file].name
    return Target(name, [place], f"{path}: {tensor.name} ({tensor.dtype.name}, shape {tensor.shape})")


def group_copies(targets: Sequence[Target], source: Source, family: Family) -> list[list[Target]]:
    """Each tensor with what may be its copies, itself first where the files hold it.

    Raises:
        UnsupportedTensorError: two tensors have one canonical name.
    """
    by_name: dict[str, Target] = {}
    for target in targets:
        other = by_name.setdefault(target.name, target)
        if other is not target:
            raise UnsupportedTensorError(
                f"{other.where} and {target.tensor.name} have the same canonical name {target.name!r}: rename one"
            )
    groups: dict[str, list[Target]] = {}
    for target in sorted(targets, key=lambda t: family.source(t.name, source.config) != t.name):
        groups.setdefault(family.source(target.name, source.config), []).append(target)
    return list(groups.values())


def join_copies(
    group: Sequence[Target],
    digest_of: Callable[[Place], bytes],
    source: Source,
    family: Family,
    config: NoisyTuneConfig,
) -> list[Target]:
    """A group of `group_copies`, with the copies joined to the first, and with the reasons for leaving tensors alone.

    A copy is joined where its bytes are the first's; where they differ, transformers unties the two on loading. A copy
    whose source the files do not hold has the source's name.
    """
    owner, *copies = group
    owner.name = family.source(owner.name, source.config)
    found = [owner]
    for copy in copies:
        if digest_of(copy.places[0]) == digest_of(owner.places[0]):
            owner.places += copy.places
        else:
            found.append(copy)
    for target in found:
        shape = target.tensor.shape
        target.padding_row = family.padding_row(target.name, shape[0], source.config) if len(shape) == 2 else None
        target.left_alone = _why_left_alone(target, config)
    return found


def _why_left_alone(target: Target, config: NoisyTuneConfig) -> str | None:
    own_names = [place.tensor.name for place in target.places]
    if names.is_adapter(own_names[0]):
        return "adapter"
    if target.tensor.dtype not in NOISY:
        return f"not floating point: {target.tensor.dtype.name}"
    if any(fnmatchcase(target.name.removeprefix(names.HEAD), glob) for glob in BUFFERS):
        return "buffer"
    if config.include and not names.match((target.name, *own_names), config.include):
        return "not included"
    if names.match((target.name, *own_names), config.exclude):
        return "excluded"
    if target.tensor.elements <= 1:
        return "one element" if target.tensor.elements else "empty"
    return None


def set_scales(targets: Sequence[Target], config: NoisyTuneConfig) -> None:
    """The scale of each tensor's noise: its own standard deviation, or the one of all perturbed tensors together.

    Raises:
        NonFiniteError: NaN or infinity in a tensor that takes noise, or noise that could overflow its dtype.
    """
    for target in targets:
        if target.left_alone is None and target.moments is not None:
            if not target.moments.is_finite:
                raise NonFiniteError(f"{target.where} has values that are NaN or infinite: the checkpoint is damaged")
            if target.moments.is_constant:
                target.left_alone = "constant"
            elif config.noise_lambda == 0:
                target.left_alone = "lambda is 0"
    chosen = [target for target in targets if target.left_alone is None]
    ordered = sorted(chosen, key=lambda target: target.name)
    everything = moments_module.merge([target.moments for target in ordered if target.moments])
    for target in chosen:
        own = target.moments.std if target.moments else 0.0
        target.noise_std = everything.std if config.scale == "global" else own
        _refuse_overflow(target, config.noise_lambda * target.noise_std * LARGEST_NOISE[config.distribution])


def _refuse_overflow(target: Target, largest_noise: float) -> None:
    limit = float(ml_dtypes.finfo(target.tensor.dtype).max)  # type: ignore[no-untyped-call]
    if limit < 1e5 and target.largest + largest_noise > limit:
        raise NonFiniteError(
            f"{target.where} has values up to {target.largest:g}: noise of up to {largest_noise:g} could pass the "
            f"dtype's largest value {limit:g}; convert the checkpoint to float32 or bfloat16, or exclude the tensor"
        )


def receipt_of(config: NoisyTuneConfig, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """What ``config.noisytune`` says, the same as on a perturbed module."""
    return config.to_dict() | ({"earlier": earlier} if earlier else {})
