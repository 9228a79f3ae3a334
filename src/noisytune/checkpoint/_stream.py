"""Bytes through the kernels: a checkpoint is read in pieces, by several threads, and memory does not grow with it.

Pieces are cut where the kernels cut a tensor in memory, so moments and noise come out as they do there.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from noisytune import kernels
from noisytune import moments as moments_module
from noisytune.checkpoint._safetensors import TensorInfo, Weights
from noisytune.checkpoint._targets import Place, Target
from noisytune.config import NoisyTuneConfig
from noisytune.moments import Moments

LARGEST_PIECE = kernels.CHUNK * 8
"""Bytes of the largest piece."""
LEAF = 1 << 20
"""Bytes that are hashed together; a piece is whole leaves, or the end of its tensor."""

Advance = Callable[[int], None]
"""Told, by any thread, how many more bytes are done."""
Sink = Callable[[int, int, memoryview], None]
"""Takes a run of bytes: number of the file, position, bytes."""

Array = npt.NDArray[Any]
T = TypeVar("T")


class Piece(NamedTuple):
    """A run of a tensor's elements."""

    place: Place
    start: int
    stop: int

    @property
    def begin(self) -> int:
        """Position in the file."""
        return self.place.tensor.begin + self.start * self.place.tensor.dtype.itemsize

    @property
    def bytes(self) -> int:
        """Length."""
        return (self.stop - self.start) * self.place.tensor.dtype.itemsize


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def places(files: Sequence[Weights]) -> list[Place]:
    """Every tensor, in the order of the bytes."""
    return [Place(i, tensor) for i, file in enumerate(files) for tensor in file.tensors]


def pieces(held: Iterable[Place]) -> Iterator[Piece]:
    """Runs of at most `kernels.CHUNK` elements."""
    for place in held:
        size = place.tensor.elements
        for start in range(0, size, kernels.CHUNK):
            yield Piece(place, start, min(start + kernels.CHUNK, size))


def in_threads(work: Callable[[T, memoryview], None], items: Iterable[T], threads: int) -> None:
    """Each thread has a buffer of two pieces' size, and takes the next item until none is left or one has failed."""
    remaining, lock, failed = iter(items), Lock(), False

    def take() -> None:
        nonlocal failed
        buffer = memoryview(bytearray(2 * LARGEST_PIECE))
        try:
            while not failed:
                with lock:
                    item = next(remaining, None)
                if item is None:
                    return
                work(item, buffer)
        except BaseException:
            failed = True
            raise

    if threads == 1:
        take()
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="noisytune") as pool:
        running = [pool.submit(take) for _ in range(threads)]
        try:
            for future in running:
                future.result()
        except BaseException:  # an interruption by the user reaches this thread only
            failed = True
            raise


def _sha256(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).digest()


def _crc32(content: bytes | memoryview) -> bytes:
    return zlib.crc32(content).to_bytes(4, "big")


class Digests:
    """A hash of each tensor, by leaves, so that pieces may come in any order."""

    def __init__(self, digest: Callable[[bytes | memoryview], bytes]) -> None:
        self._digest = digest
        self._leaves: dict[Place, dict[int, bytes]] = {}

    def update(self, piece: Piece, content: memoryview) -> None:
        """Take in a piece."""
        leaves = [self._digest(content[i : i + LEAF]) for i in range(0, len(content), LEAF)]
        self._leaves.setdefault(piece.place, {})[piece.start] = b"".join(leaves)

    def of(self, place: Place) -> bytes:
        """The hash over the hashes of each run of `LEAF` bytes."""
        leaves = self._leaves.get(place, {})
        return self._digest(b"".join(leaves[start] for start in sorted(leaves)))


def checksums(files: Sequence[Weights], threads: int, advance: Advance) -> dict[Place, bytes]:
    """What `perturb` returned for the same bytes."""
    found = Digests(_crc32)

    def work(piece: Piece, buffer: memoryview) -> None:
        content = buffer[: piece.bytes]
        files[piece.place.file].read(piece.begin, content)
        found.update(piece, content)
        advance(len(content))

    held = places(files)
    in_threads(work, pieces(held), threads)
    return {place: found.of(place) for place in held}


def measure(files: Sequence[Weights], targets: Sequence[Target], threads: int, advance: Advance) -> dict[Place, bytes]:
    """Read everything once: the moments of the floating tensors, and each tensor's SHA-256, by leaves."""
    by_place = {target.places[0]: target for target in targets}
    parts: dict[Place, dict[int, Moments]] = {place: {} for place in by_place}
    digests = Digests(_sha256)

    def work(piece: Piece, buffer: memoryview) -> None:
        content = buffer[: piece.bytes]
        files[piece.place.file].read(piece.begin, content)
        digests.update(piece, content)
        tensor = piece.place.tensor
        if piece.place in by_place and tensor.dtype in kernels.DTYPES and tensor.elements > 1:
            values = np.frombuffer(content, tensor.dtype)
            parts[piece.place][piece.start] = kernels.moments(values)
            if tensor.dtype.itemsize == 1 or tensor.dtype == np.float16:
                target = by_place[piece.place]
                target.largest = max(target.largest, _largest(values))
        advance(len(content))

    held = places(files)
    in_threads(work, pieces(held), threads)
    for place, found in parts.items():
        if found:
            by_place[place].moments = moments_module.merge([found[start] for start in sorted(found)])
    return {place: digests.of(place) for place in held}


def _largest(values: Array) -> float:
    """Largest absolute value. Without the sign, words are ordered as the numbers they stand for."""
    word: Any = np.uint8 if values.itemsize == 1 else np.uint16
    without_sign = values.view(word) & word(0x7F if values.itemsize == 1 else 0x7FFF)
    return float(without_sign.max(keepdims=True).view(values.dtype)[0])


def perturb(
    files: Sequence[Weights],
    targets: Sequence[Target],
    config: NoisyTuneConfig,
    threads: int,
    sink: Sink,
    advance: Advance,
) -> dict[Place, bytes]:
    """Read everything again, add the noise, hand all bytes to the sink. Returns each new tensor's CRC-32, by leaves.

    A checksum is enough to find damage, and takes less than half of a digest's time.
    """
    by_place = {place: target for target in targets for place in target.places}
    parts: dict[Place, dict[tuple[int, int], Moments]] = {place: {} for place in by_place}
    checks = Digests(_crc32)

    def work(piece: Piece, buffer: memoryview) -> None:
        content = buffer[: piece.bytes]
        files[piece.place.file].read(piece.begin, content)
        target = by_place[piece.place]
        if target.noise_std is not None:
            parts[piece.place].update(_add_noise(target, config, piece, content))
        checks.update(piece, content)
        sink(piece.place.file, piece.begin, content)
        advance(len(content))

    held = places(files)
    in_threads(work, pieces(held), threads)
    for target in targets:
        runs = groupby(sorted(parts[target.places[0]].items()), key=lambda item: item[0][0])
        merged = [moments_module.merge([part for _, part in run]) for _, run in runs]
        target.realised = moments_module.merge(merged) if merged else None
    return {place: checks.of(place) for place in held}


def _add_noise(
    target: Target, config: NoisyTuneConfig, piece: Piece, content: memoryview
) -> Iterator[tuple[tuple[int, int], Moments]]:
    """In place; the moments of what was added, by run and start."""
    values = np.frombuffer(content, target.tensor.dtype)
    settings = (target.noise_std or 0.0, config.noise_lambda, config.distribution, config.seed, target.name)
    for run in target.runs:
        start, stop = max(run.start, piece.start), min(run.stop, piece.stop)
        if start < stop:
            part = values[start - piece.start : stop - piece.start]
            yield (run.start, start), kernels.add_noise_(part, *settings, start=start)


def source_digest(digests: dict[Place, bytes]) -> str:
    """One digest for all tensors, whatever files they lie in: 64 hexadecimal digits."""
    total = hashlib.sha256()
    for place in sorted(digests, key=lambda place: place.tensor.name):
        tensor: TensorInfo = place.tensor
        total.update(f"{tensor.name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode() + digests[place])
    return total.hexdigest()
