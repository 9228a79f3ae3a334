"""One perturbation of one checkpoint: measured and, tensor by tensor, handed on as bytes to a folder or a comparison.

A tensor is handed on as soon as its own scale is known, while others wait to be measured: its bytes are then still in
the system's cache, and the disk starts early.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import chain, groupby
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune._machine import available_cores
from noisytune._noise import facts as facts_of_values
from noisytune._noise import kernels
from noisytune._noise import moments as moments_module
from noisytune._noise.facts import Facts
from noisytune._noise.moments import Moments
from noisytune._perturb import doubtful
from noisytune._perturb.steps import account, set_scales
from noisytune.checkpoint import _stream
from noisytune.checkpoint._source import Source
from noisytune.checkpoint._stream import Digests, Piece
from noisytune.checkpoint._targets import (
    NOISY,
    FileTarget,
    Place,
    family_of,
    find_targets,
    group_copies,
    held_otherwise,
    is_known,
    join_copies,
)
from noisytune.checkpoint._ties import find_ties, recorded_ties
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.manifest import Manifest, TensorEntry

Progress = Callable[[int, int], None]
"""Called now and then, by any thread but one at a time, with the bytes done and the bytes in total."""
Sink = Callable[[int, int, memoryview], None]
"""Takes a run of bytes, from any thread: number of the file, position, bytes."""


class Meter:
    """Adds up what the threads have done, and tells."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done, self._lock = progress, total, 0, Lock()

    def advance(self, count: int) -> None:
        """Take in ``count`` more bytes."""
        if self._progress:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)


class _Batch:
    """Tensors that get their scales together, when the last of them has been measured.

    Args:
        groups: each a target and what may be its copies.
    """

    def __init__(self, groups: list[list[FileTarget]]) -> None:
        self.groups = groups
        places = [place for group in groups for target in group for place in target.places]
        self.pieces = list(_stream.pieces(sorted(places, key=lambda place: (place.file, place.tensor.begin))))
        self.unmeasured = len(self.pieces)
        self.targets: list[FileTarget] = []
        """With their scales; empty before."""


class Job:
    """Call `run` once; the rest says what it did.

    Args:
        source: an open checkpoint.
        config: the settings.
        threads: None takes one for each core.
        progress: told about both passes over the bytes together.
        recorded: what a manifest says about the tensors: which are copies is taken from there.

    Raises:
        ConfigError, UnsupportedTensorError: as `noisytune.checkpoint.perturb_checkpoint`.
    """

    def __init__(
        self,
        source: Source,
        config: NoisyTuneConfig,
        threads: int | None,
        progress: Progress | None,
        recorded: Sequence[TensorEntry] | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be a whole number >= 1, got {threads!r}")
        self.source, self.config = source, config
        self._threads, self._progress = threads or available_cores(), progress
        self._family, self._notices = family_of(source)
        self._notices += source.notices
        targets = find_targets(source, self._family, config)
        self._notices += held_otherwise(targets, self._family)
        self._guessed: set[str] = set()
        if recorded is not None:
            tokens, ties = self._family.all_tokens(source.config), recorded_ties(targets, recorded)
            self._family = replace(self._family, tokens=tokens, ties=ties, always=tuple(ties))
        elif not is_known(source):
            ties, self._guessed = find_ties(source, targets)
            self._family = replace(self._family, ties=ties, always=tuple(ties))
        groups = group_copies(targets, source, self._family)
        self._batches = [_Batch(groups)] if config.scale == "global" else [_Batch([group]) for group in groups]
        self._batch_of = {piece.place: batch for batch in self._batches for piece in batch.pieces}
        self._target_of: dict[Place, FileTarget] = {}
        """Of the tensors whose scale is known."""
        held = [place for target in targets for place in target.places]
        self._old, self._new = Digests(held), Digests(held)
        self._measured: dict[Place, dict[int, Facts]] = {place: {} for place in held}
        self._added: dict[Place, dict[tuple[int, int], Moments]] = {place: {} for place in held}
        self._lock = Lock()

    def run(self, sink: Sink | None = None) -> None:
        """Measure every tensor and, where there is a sink, hand it on with its noise.

        Args:
            sink: given every byte of every new tensor, once.

        Raises:
            NonFiniteError: as `noisytune.checkpoint.perturb_checkpoint`; the sink has been given other tensors by then.
        """
        total = sum(file.size - len(file.header) for file in self.source.files)
        meter = Meter(self._progress, 2 * total if sink else total)

        def work(piece: Piece, buffer: memoryview) -> Iterable[Piece]:
            content = buffer[: piece.bytes]
            self.source.files[piece.place.file].read(piece.begin, content)
            following: Iterable[Piece] = ()
            if target := self._target_of.get(piece.place):
                self._perturb(target, piece, content)
                if sink:
                    sink(piece.place.file, piece.begin, content)
            elif (batch := self._measure(piece, content)) and sink:
                following = batch.pieces
            meter.advance(len(content))
            return following

        for batch in self._batches:
            if not batch.pieces:
                self._settle(batch)
        pieces = chain.from_iterable(batch.pieces for batch in self._batches)
        _stream.in_threads(work, pieces, _stream.useful_threads(self._threads, total))
        for target in self._targets:
            target.realised = self._realised(target)

    def _measure(self, piece: Piece, content: memoryview) -> _Batch | None:
        """Returns the piece's batch, settled, if this was the last piece of it."""
        self._old.update(piece, content)
        tensor = piece.place.tensor
        if tensor.dtype in NOISY and tensor.elements > 1:
            self._measured[piece.place][piece.start] = facts_of_values.of(np.frombuffer(content, tensor.dtype))
        batch = self._batch_of[piece.place]
        with self._lock:
            batch.unmeasured -= 1
            if batch.unmeasured:
                return None
        self._settle(batch)
        return batch

    def _settle(self, batch: _Batch) -> None:
        for target in chain.from_iterable(batch.groups):
            if parts := self._measured.pop(target.places[0]):
                target.facts = facts_of_values.merge([parts[start] for start in sorted(parts)])
        for group in batch.groups:
            batch.targets += join_copies(group, self._old.of, self.source, self._family, self.config)
        set_scales(batch.targets, self.config)
        self._target_of.update((place, target) for target in batch.targets for place in target.places)

    def _perturb(self, target: FileTarget, piece: Piece, content: memoryview) -> None:
        """Add the noise in place."""
        if target.noise_std is not None:
            values = np.frombuffer(content, target.tensor.dtype)
            config = self.config
            settings = (target.noise_std, config.noise_lambda, config.distribution, config.seed, target.name)
            for run in target.runs:
                start, stop = max(run.start, piece.start), min(run.stop, piece.stop)
                if start < stop:
                    part = values[start - piece.start : stop - piece.start]
                    added = kernels.add_noise_(part, *settings, start=start)
                    self._added[piece.place][run.start, start] = added
        self._new.update(piece, content)

    def _realised(self, target: FileTarget) -> Moments | None:
        """The moments of what was added: merged by runs, in the order of the elements."""
        parts = self._added[target.places[0]]
        runs = groupby(sorted(parts), key=lambda key: key[0])
        merged = [moments_module.merge([parts[key] for key in run]) for _, run in runs]
        return moments_module.merge(merged) if merged else None

    @property
    def _targets(self) -> list[FileTarget]:
        return [target for batch in self._batches for target in batch.targets]

    @property
    def digest(self) -> str:
        """Of the source's tensors, whatever files they lie in: 32 hexadecimal digits."""
        return _stream.digest_of_all(self._old.all())

    @property
    def new_digests(self) -> dict[Place, bytes]:
        """Of the new tensors; what `noisytune.checkpoint._stream.digests` finds in their files."""
        return self._new.all()

    def manifest(self) -> Manifest:
        """What was done, or would be."""
        guessed = [t.own_names for t in self._targets if t.name in self._guessed and len(t.own_names) > 1]
        one = [
            f"{' and '.join(own_names)} are equal: taken for one tensor, as tied weights are" for own_names in guessed
        ]
        told = doubtful.notices(self._targets, self._first_rows)
        return account(self._targets, self.config, [*self._notices, *one, *told])

    def _first_rows(self, target: FileTarget) -> npt.NDArray[Any]:
        """The first two rows of a matrix."""
        tensor = target.tensor
        content = memoryview(bytearray(2 * tensor.shape[1] * tensor.dtype.itemsize))
        self.source.files[target.places[0].file].read(tensor.begin, content)
        return np.frombuffer(content, tensor.dtype).astype(np.float32).reshape(2, -1)
