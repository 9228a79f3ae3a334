"""Which tensors a checkpoint's files hold, under which canonical names, and which of them take noise.

The counterpart, for files, of what `noisytune.torch` finds out about a module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from noisytune._perturb import fixed, names
from noisytune._perturb.families import Family, guess, known, prefix_of
from noisytune._perturb.steps import check_names, why_left_alone, why_no_parameter
from noisytune._perturb.target import Target
from noisytune.checkpoint._code import family_in_code
from noisytune.checkpoint._safetensors import FLOATING, TensorInfo, dtype_name
from noisytune.checkpoint._source import Source
from noisytune.config import NoisyTuneConfig

NOISY = frozenset(np.dtype(dtype) for dtype in FLOATING.values())
"""Dtypes that take noise."""


class Place(NamedTuple):
    """Where a tensor lies."""

    file: int
    tensor: TensorInfo


@dataclass
class FileTarget(Target):
    """A tensor of the model, once, however many copies the files hold."""

    places: list[Place]

    @classmethod
    def of(cls, source: Source, place: Place, name: str) -> FileTarget:
        """The target that one tensor of a file is."""
        tensor = place.tensor
        path = f"{source.folder}{os.sep}{source.files[place.file].name}"
        return cls(name, [tensor.name], tensor.shape, dtype_name(tensor.dtype), [place], file=path, is_new=False)

    @property
    def tensor(self) -> TensorInfo:
        """As its owner's header describes it."""
        return self.places[0].tensor

    def join(self, copy: FileTarget) -> None:
        """Take in another tensor of the same bytes."""
        self.places += copy.places
        self.own_names += copy.own_names


def family_of(source: Source) -> tuple[Family, list[str]]:
    """What is known about the model type, and what the user should know where it is guessed.

    The table is asked first, then the code of the model's class, then a rule.
    """
    own_names = [names.without_wrappers(tensor.name) for file in source.files for tensor in file.tensors]
    model_type = str(source.config.get("model_type", ""))
    family = known(model_type) or family_in_code(source.folder, source.config, len(own_names))
    if family is not None:
        inside = [found for inner in _inner_types(source.config) if (found := known(inner))]
        return replace(family, inner_buffers=tuple(name for found in inside for name in found.buffers)), []
    family = guess(model_type, own_names)
    prefix = f"the base model is taken to be under {family.prefixes[0]!r}" if family.prefixes else "no prefix was found"
    return family, [
        f"{_why_unknown(source)}: {prefix}, no row counts as padding, buffers are told by usual names only; noise "
        "added in memory may differ",
    ]


def _inner_types(config: Mapping[str, Any]) -> list[str]:
    """The types of the models inside one, at any depth."""
    inside = [value for value in config.values() if isinstance(value, dict)]
    return [
        *(str(each["model_type"]) for each in inside if "model_type" in each),
        *(inner for each in inside for inner in _inner_types(each)),
    ]


def _why_unknown(source: Source) -> str:
    if model_type := str(source.config.get("model_type", "")):
        return f"the model type {model_type!r} is not one that noisytune knows"
    return "config.json names no model_type" if source.config else "no config.json"


def is_known(source: Source) -> bool:
    """Whether the table has the model type."""
    return known(str(source.config.get("model_type", ""))) is not None


def find_targets(source: Source, family: Family, config: NoisyTuneConfig) -> list[FileTarget]:
    """Every tensor of the files, copies apart; settled by `join_copies` when their contents are known.

    Raises:
        ConfigError: a glob matches no tensor.
        UnsupportedTensorError: two tensors have one canonical name.
    """
    bare = [names.without_wrappers(tensor.name) for file in source.files for tensor in file.tensors]
    prefix = prefix_of(bare, family.prefixes)
    targets = [
        FileTarget.of(source, Place(number, matrix), name)
        for number, file in enumerate(source.files)
        for tensor in file.tensors
        for name, matrix in _matrices(tensor, family, prefix)
    ]
    for target in targets:
        target.roles = family.roles(family.source(target.name, source.config), source.config)
    fixed.mark(targets, [source.config])
    check_names(targets, config, _no_role(source))
    return targets


def _matrices(tensor: TensorInfo, family: Family, prefix: str) -> Iterator[tuple[str, TensorInfo]]:
    """A tensor under its canonical name; or each expert's share of a stack, or each tensor of usual files in it."""
    name = family.canonical(tensor.name, prefix)
    parts = family.parts_of(name, tensor.shape) if tensor.dtype in NOISY else []
    if parts:
        yield from zip((part for part, _ in parts), tensor.parts(len(parts), parts[0][1]), strict=True)
    else:
        yield from ((name + matrix.name.removeprefix(tensor.name), matrix) for matrix in tensor.matrices)


def held_otherwise(targets: Sequence[FileTarget], family: Family) -> list[str]:
    """What the user should know of tensors that usual files hold otherwise, so that noise by themselves is another."""
    found = [target.own_names[0] for target in targets if target.tensor.dtype in NOISY and family.is_apart(target.name)]
    if not found:
        return []
    return [
        f"{len(found)} tensors ({found[0]} ...) are as memory holds them; usual files hold them as parts of others "
        "or in another order, and noise goes by those: it differs from noise added in memory. save_pretrained writes "
        "usual files unless save_original_format is False"
    ]


def _no_role(source: Source) -> str:
    """Why none of a checkpoint's tensors has a role."""
    if is_known(source):
        return f"a model of type {source.config['model_type']!r} has no token embeddings, or they are not in its files"
    return f"{_why_unknown(source)}, so nothing says which tensors are the token embeddings"


def group_copies(targets: Sequence[FileTarget], source: Source, family: Family) -> list[list[FileTarget]]:
    """Each tensor with what may be its copies, itself first where the files hold it."""
    groups: dict[str, list[FileTarget]] = {}

    def order(target: FileTarget) -> tuple[bool, bool]:
        return family.source(target.name, source.config) != target.name, "lm_head" in target.name

    for target in sorted(targets, key=order):
        groups.setdefault(family.source(target.name, source.config), []).append(target)
    return list(groups.values())


def join_copies(
    group: Sequence[FileTarget],
    digest_of: Callable[[Place], bytes],
    source: Source,
    family: Family,
    config: NoisyTuneConfig,
) -> list[FileTarget]:
    """Settle a group of `group_copies`: true copies become one target, and each learns whether it is left alone.

    A copy is joined where its bytes are the first's; where they differ, transformers unties the two on loading. A copy
    whose source the files do not hold has the source's name; a head, which may be untied, is asked last.
    """
    owner, *copies = group
    owner.name = family.source(owner.name, source.config)
    found = [owner]
    for copy in copies:
        if digest_of(copy.places[0]) == digest_of(owner.places[0]):
            owner.join(copy)
        else:
            found.append(copy)
    for target in found:
        shape = target.shape
        target.roles = family.roles(target.name, source.config)
        target.padding_row = family.padding_row(target.name, shape[0], source.config) if len(shape) == 2 else None
        target.left_alone = why_no_parameter(target, is_buffer=family.is_buffer)
        target.left_alone = why_left_alone(target, config)
    return found
