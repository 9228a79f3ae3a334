"""One perturbation of one checkpoint: measured first, then handed on as bytes, to a folder or to a comparison."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock

from noisytune.checkpoint import _stream
from noisytune.checkpoint._source import Source
from noisytune.checkpoint._stream import Sink
from noisytune.checkpoint._targets import Place, family_of, find_targets, join_copies, set_scales
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.manifest import Manifest

Progress = Callable[[int, int], None]
"""Called now and then, by any thread but one at a time, with the bytes done and the bytes in total."""


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


class Job:
    """Measures on creation; every tensor is checked before `perturb` gives the first byte.

    Args:
        source: an open checkpoint.
        config: the settings.
        threads: None takes one for each core.
        progress: told about all passes over the bytes together.
        passes: how many there will be.

    Raises:
        ConfigError, UnsupportedTensorError, NonFiniteError: as `noisytune.checkpoint.perturb_checkpoint`.
    """

    def __init__(
        self, source: Source, config: NoisyTuneConfig, threads: int | None, progress: Progress | None, passes: int
    ) -> None:
        if threads is not None and threads < 1:
            raise ConfigError(f"threads must be a whole number >= 1, got {threads!r}")
        self.source, self.config = source, config
        self._threads = threads or _stream.usable_cores()
        self._meter = Meter(progress, passes * sum(file.size - len(file.header) for file in source.files))
        family, self._notices = family_of(source)
        found = find_targets(source, family, config)
        digests = _stream.measure(source.files, found, self._threads, self._meter.advance)
        self.digest = _stream.source_digest(digests)
        """Of the source's tensors."""
        self._targets = join_copies(found, digests, source, family, config)
        set_scales(self._targets, config)
        if source.left_out:
            self._notices.append(f"left out, they may hold the clean weights: {', '.join(source.left_out)}")

    def perturb(self, sink: Sink) -> dict[Place, bytes]:
        """Hand every byte of every tensor to the sink. Returns the new tensors' checksums."""
        return _stream.perturb(self.source.files, self._targets, self.config, self._threads, sink, self._meter.advance)

    def manifest(self) -> Manifest:
        """What was done, or would be."""
        entries = tuple(target.entry(self.config.noise_lambda) for target in self._targets)
        return Manifest(self.config, entries, tuple(self._notices))
