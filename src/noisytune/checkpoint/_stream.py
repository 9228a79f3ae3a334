"""Bytes in pieces: a checkpoint is read by several threads, and memory does not grow with it.

The largest pieces are whole blocks of the moments, a power of two of them, so that they merge as they do in memory.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Condition
from typing import NamedTuple, TypeVar

import xxhash

from noisytune._noise import moments
from noisytune.checkpoint._safetensors import TensorInfo, Weights
from noisytune.checkpoint._targets import Place

LARGEST_PIECE = 16 * moments.BLOCK
"""Bytes of the largest piece: what was read is still in the core's cache when it is hashed, measured and written."""
HASH = "XXH3-128 of XXH3-128s of 1 MiB"
"""How a tensor is hashed: the name of the format in `noisytune.json`."""
_LEAF = 1 << 20
"""Bytes that are hashed together; a piece is whole leaves, or the end of its tensor."""

Advance = Callable[[int], None]
"""Told, by any thread, how many more bytes are done."""

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


def pieces(held: Iterable[Place], largest: int = LARGEST_PIECE) -> Iterator[Piece]:
    """Runs of at most ``largest`` bytes."""
    for place in held:
        size, longest = place.tensor.elements, largest // place.tensor.dtype.itemsize
        for start in range(0, size, longest):
            yield Piece(place, start, min(start + longest, size))


def useful_threads(threads: int, total: int) -> int:
    """No more than one for each `LARGEST_PIECE`: handing on tensors that are tiny costs more than reading them.

    >>> useful_threads(8, 3 * LARGEST_PIECE), useful_threads(8, 10)
    (3, 1)
    """
    return max(1, min(threads, total // LARGEST_PIECE))


def in_threads(work: Callable[[T, memoryview], Iterable[T] | None], items: Iterable[T], threads: int) -> None:
    """Each thread has a buffer of two pieces' size, and takes the next item until none is left or one has failed.

    Items that ``work`` returns come next, before those that wait.
    """
    waiting, following = iter(items), deque[T]()
    changed, busy, failed = Condition(), 0, False

    def next_item() -> T | None:
        """None when no thread will have anything more to do."""
        nonlocal busy
        with changed:
            while not failed:
                item = following.popleft() if following else next(waiting, None)
                if item is not None:
                    busy += 1
                    return item
                if not busy:
                    break
                changed.wait()
            return None

    def done(more: Iterable[T]) -> None:
        nonlocal busy
        with changed:
            following.extend(more)
            busy -= 1
            changed.notify_all()

    def fail() -> None:
        nonlocal failed
        with changed:
            failed = True
            changed.notify_all()

    def take() -> None:
        buffer = memoryview(mmap.mmap(-1, 2 * LARGEST_PIECE))  # starts at a page, as vectors like it
        try:
            while (item := next_item()) is not None:
                done(work(item, buffer) or ())
        except BaseException:
            fail()
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
            fail()
            raise


def digest(content: bytes | memoryview) -> bytes:
    """Says which bytes these are, as fast as they are read. Finds damage, not deceit: it is no cryptographic hash."""
    found = xxhash.xxh3_128()
    found.update(content)  # lets other threads run meanwhile, in every release
    return found.digest()


class Digests:
    """A hash of each tensor, by leaves, so that pieces may come in any order."""

    def __init__(self, held: Iterable[Place]) -> None:
        self._leaves: dict[Place, dict[int, bytes]] = {place: {} for place in held}

    def update(self, piece: Piece, content: memoryview) -> None:
        """Take in a piece."""
        leaves = [digest(content[i : i + _LEAF]) for i in range(0, len(content), _LEAF)]
        self._leaves[piece.place][piece.start] = b"".join(leaves)

    def of(self, place: Place) -> bytes:
        """The hash over the leaves' hashes."""
        leaves = self._leaves[place]
        return digest(b"".join(leaves[start] for start in sorted(leaves)))

    def all(self) -> dict[Place, bytes]:
        """The hash of each tensor."""
        return {place: self.of(place) for place in self._leaves}


def digests(files: Sequence[Weights], held: Sequence[Place], threads: int, advance: Advance) -> dict[Place, bytes]:
    """The hash of each tensor, or part of one."""
    found = Digests(held)

    def work(piece: Piece, buffer: memoryview) -> None:
        content = buffer[: piece.bytes]
        files[piece.place.file].read(piece.begin, content)
        found.update(piece, content)
        advance(len(content))

    in_threads(work, pieces(held), useful_threads(threads, sum(file.size for file in files)))
    return found.all()


def digest_of_all(of_each: dict[Place, bytes]) -> str:
    """One hash of all tensors, whatever files they lie in: 32 hexadecimal digits."""
    total = xxhash.xxh3_128()
    for place in sorted(of_each, key=lambda place: place.tensor.name):
        tensor: TensorInfo = place.tensor
        total.update(f"{tensor.name}\0{tensor.dtype.name}\0{tensor.shape}\0".encode() + of_each[place])
    return total.hexdigest()
