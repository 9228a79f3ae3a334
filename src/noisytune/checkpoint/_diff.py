"""How much the parameters of each role differ between two checkpoints: the paper's figure 5 for any pair."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from noisytune._machine import available_cores
from noisytune._perturb import names
from noisytune.checkpoint import _stream
from noisytune.checkpoint._job import Meter, Progress
from noisytune.checkpoint._source import Source, open_source
from noisytune.checkpoint._stream import Piece
from noisytune.checkpoint._targets import NOISY, Place, family_of, find_targets
from noisytune.config import NoisyTuneConfig
from noisytune.errors import DataError


@dataclass(frozen=True)
class Change:
    """The change of one tensor, or of all of one role."""

    name: str
    tensors: int
    elements: int
    changed: float
    """Sum of |B - A|."""
    size: float
    """Sum of |A|."""

    @property
    def relative(self) -> float:
        """Relative L1 change; infinite where A is all zeros and B is not."""
        return self.changed / self.size if self.size else (float("inf") if self.changed else 0.0)


@dataclass(frozen=True)
class Difference:
    """What `noisytune.checkpoint.diff_checkpoints` found."""

    tensors: tuple[Change, ...]
    """By canonical name, in the order of the first checkpoint."""
    only_first: tuple[str, ...]
    """Canonical names that the second checkpoint lacks, or has with another shape."""
    only_second: tuple[str, ...]

    def roles(self) -> list[Change]:
        """The roles of parameters, the most changed first."""
        groups: dict[str, list[Change]] = {}
        for change in self.tensors:
            groups.setdefault(names.role_of(change.name), []).append(change)
        return sorted((_sum(role, group) for role, group in groups.items()), key=lambda c: -c.relative)

    def total(self) -> Change:
        """All tensors together."""
        return _sum("all", self.tensors)


def _sum(name: str, changes: Iterable[Change]) -> Change:
    changes = list(changes)
    return Change(
        name,
        sum(c.tensors for c in changes),
        sum(c.elements for c in changes),
        sum(c.changed for c in changes),
        sum(c.size for c in changes),
    )


def diff(first: Path, second: Path, progress: Progress | None, threads: int | None) -> Difference:
    """See `noisytune.checkpoint.diff_checkpoints`."""
    with ExitStack() as stack:
        a, b = (stack.enter_context(open_source(folder)) for folder in (first, second))
        ours, theirs = _by_name(a), _by_name(b)
        common = [n for n in ours if n in theirs and ours[n].tensor.shape == theirs[n].tensor.shape]
        if not common:
            raise DataError(f"{first} and {second} have no tensor in common: are they of the same architecture?")
        meter = Meter(progress, sum(p.tensor.end - p.tensor.begin for p in map(ours.__getitem__, common)))
        changed = dict.fromkeys(common, 0.0)
        size = dict.fromkeys(common, 0.0)
        name_of = {ours[name]: name for name in common}
        parts: dict[tuple[str, int], tuple[float, float]] = {}

        def pieces(name: str) -> Iterable[Piece]:
            """So small that the other checkpoint's piece, of another dtype, finds room in the buffer too."""
            own, other = (place.tensor.dtype.itemsize for place in (ours[name], theirs[name]))
            return _stream.pieces([ours[name]], _stream.LARGEST_PIECE * own // max(own, other))

        def work(piece: Piece, buffer: memoryview) -> None:
            name = name_of[piece.place]
            other = Piece(theirs[name], piece.start, piece.stop)
            left, right = buffer[: piece.bytes], buffer[_stream.LARGEST_PIECE :][: other.bytes]
            a.files[piece.place.file].read(piece.begin, left)
            b.files[other.place.file].read(other.begin, right)
            parts[name, piece.start] = _sums(piece, left, other, right)
            meter.advance(piece.bytes)

        _stream.in_threads(work, chain.from_iterable(map(pieces, common)), threads or available_cores())
    for name, start in sorted(parts, key=lambda key: key[1]):
        changed[name] += parts[name, start][0]
        size[name] += parts[name, start][1]
    tensors = tuple(Change(n, 1, ours[n].tensor.elements, changed[n], size[n]) for n in common)
    matched = set(common)
    return Difference(tensors, tuple(n for n in ours if n not in matched), tuple(n for n in theirs if n not in matched))


def _by_name(source: Source) -> dict[str, Place]:
    """The floating tensors; of tied copies, whichever comes first under the source's name."""
    family, _ = family_of(source)
    targets = find_targets(source, family, NoisyTuneConfig())
    found: dict[str, Place] = {}
    for target in targets:
        if target.tensor.dtype in NOISY and not names.is_adapter(target.tensor.name):
            name = family.source(target.name, source.config)
            if name == target.name:
                found[name] = target.places[0]
            else:
                found.setdefault(name, target.places[0])
    return found


def _sums(piece: Piece, left: memoryview, other: Piece, right: memoryview) -> tuple[float, float]:
    a = np.frombuffer(left, piece.place.tensor.dtype).astype(np.float64)
    b = np.frombuffer(right, other.place.tensor.dtype).astype(np.float64)
    size = float(np.abs(a).sum())
    np.subtract(b, a, out=a)
    return float(np.abs(a, out=a).sum()), size
