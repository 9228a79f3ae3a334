"""Which equal tensors of a file are one tensor of the model, where no table knows the model type.

Older files hold both copies of a tied embedding. With noise of their own they would come apart, and the model loads
untied. The model's class knows which are tied; where transformers cannot be asked, equal tensors count as one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from noisytune._perturb import names
from noisytune.checkpoint._code import model_in_code
from noisytune.checkpoint._source import Source
from noisytune.checkpoint._targets import NOISY, FileTarget
from noisytune.manifest import TensorEntry

_SAMPLE = 4096
"""Bytes that are compared to see which tensors may be equal."""


def find_ties(source: Source, targets: Sequence[FileTarget]) -> tuple[dict[str, str], set[str]]:
    """Canonical name of a copy -> that of its owner, and the owners that nobody but their bytes vouches for.

    The owner is the first in the model's order that is inside the base model; so it is in memory.
    """
    alike = _alike(source, targets)
    if not alike:
        return {}, set()
    tied = _tied_in_the_class(source.folder, source.config, len(targets))
    ties: dict[str, str] = {}
    guessed: set[str] = set()
    for group in alike:
        own_names = [names.without_wrappers(target.own_names[0]) for target in group]
        is_known = tied is not None and all(name in tied for name in own_names)
        identity = tied if tied is not None and is_known else dict.fromkeys(own_names, (0, 0))
        ordered = sorted(zip(own_names, group, strict=True), key=lambda pair: identity[pair[0]])
        for _, same in groupby(ordered, key=lambda pair: identity[pair[0]][0]):
            members = [target.name for _, target in same]
            owner = next((name for name in members if not name.startswith(names.HEAD)), members[0])
            ties |= {name: owner for name in members if name != owner}
            if not is_known and len(members) > 1:
                guessed.add(owner)
    return ties, guessed


def recorded_ties(targets: Iterable[FileTarget], entries: Iterable[TensorEntry]) -> dict[str, str]:
    """The same from what a manifest says: own names of one entry are one tensor, under the entry's name."""
    meant = {own_name: entry.name for entry in entries for own_name in entry.own_names}
    found = {target.name: meant.get(target.own_names[0], target.name) for target in targets}
    return {name: owner for name, owner in found.items() if name != owner}


def _alike(source: Source, targets: Sequence[FileTarget]) -> list[list[FileTarget]]:
    """Groups of tensors of one shape and dtype whose samples are equal. Biases and norms of one value tell nothing."""
    by_form: dict[Any, list[FileTarget]] = {}
    for target in targets:
        if target.tensor.dtype in NOISY and target.tensor.elements > 1:
            by_form.setdefault((target.shape, target.dtype), []).append(target)
    groups: dict[Any, list[FileTarget]] = {}
    for form, members in by_form.items():
        for target in members if len(members) > 1 else ():
            sample = _sample(source, target)
            size = target.tensor.dtype.itemsize
            if len(target.shape) > 1 or sample != sample[:size] * (len(sample) // size):
                groups.setdefault((form, sample), []).append(target)
    return [group for group in groups.values() if len(group) > 1]


def _sample(source: Source, target: FileTarget) -> bytes:
    """From the middle: embeddings begin with rows for padding, and end with unused ones."""
    place = target.places[0]
    tensor = place.tensor
    length = min(_SAMPLE, tensor.end - tensor.begin)
    middle = (tensor.end - tensor.begin - length) // 2 // tensor.dtype.itemsize * tensor.dtype.itemsize
    buffer = bytearray(length)
    source.files[place.file].read(tensor.begin + middle, memoryview(buffer))
    return bytes(buffer)


def _tied_in_the_class(folder: Path, config: Mapping[str, Any], tensors: int) -> dict[str, tuple[int, int]] | None:
    """Own name -> number of the parameter that it stands for, and place among its names. None where nobody can say."""
    model = model_in_code(folder, config, tensors)
    if model is None:
        return None
    numbers: dict[int, int] = {}
    held = enumerate(model.named_parameters(remove_duplicate=False))
    return {name: (numbers.setdefault(id(value), len(numbers)), place) for place, (name, value) in held}
