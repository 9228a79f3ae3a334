"""The new checkpoint's files: weights, index, configuration with receipt, card, manifest, and what is carried along."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import xxhash

from noisytune import __version__
from noisytune._files import create, publish
from noisytune._perturb.receipt import receipt_of, with_receipt
from noisytune._pretrained import CONFIG
from noisytune.checkpoint import _stream
from noisytune.checkpoint._job import Job
from noisytune.checkpoint._model_card import with_section
from noisytune.checkpoint._safetensors import Weights
from noisytune.checkpoint._source import CARD, Source
from noisytune.errors import DataError
from noisytune.manifest import FILE_NAME, Manifest

_SPARE = 1 << 20
"""Bytes for what is written beside the carried files."""
_SYNC_AFTER = 1 << 28
"""A file is synced each time that so many more bytes of it were written."""


def bytes_needed(source: Source) -> int:
    """Disk space that the new checkpoint takes."""
    extras = sum((source.folder / path).stat().st_size for path in source.contents.extras)
    tensors = sum(len(file.tensors) for file in source.files)
    return sum(file.size for file in source.files) + extras + len(source.index or b"") + 1000 * tensors + _SPARE


def write_checkpoint(job: Job, folder: Path, earlier: dict[str, Any] | None) -> Manifest:
    """Write everything into an empty folder and make its files durable.

    Args:
        job: not yet run.
        folder: empty.
        earlier: the receipt of the noise that the source carries.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
        NonFiniteError: as `noisytune.checkpoint.perturb_checkpoint`.
    """
    source = job.source
    with _weight_files(folder, source.files) as files:
        job.run(files.write)
    manifest = job.manifest()
    digests = _carry_all(source, folder)
    is_noisy = bool(manifest.perturbed)
    receipt = receipt_of(job.config, earlier) if is_noisy else earlier
    texts: dict[str, bytes] = {}
    if source.index is not None:
        texts[source.index_name] = source.index
    if source.config:
        texts[CONFIG] = config_text(source.config, receipt)
    card = _card(source)
    if is_noisy:
        card = with_section(card, source_name(source), job.digest, manifest)
    if card:
        texts[CARD] = card.encode(errors="surrogateescape")
    for name, content in texts.items():
        publish(folder / name, content)
        digests[name] = _stream.digest(content).hex()
    manifest.write(folder)
    record = _record(job, earlier) | {"files": dict(sorted(digests.items()))}
    publish(folder / FILE_NAME, _with_record((folder / FILE_NAME).read_bytes(), record))
    return manifest


def _card(source: Source) -> str:
    """The source's card; bytes that are no UTF-8 stay what they are."""
    card = source.folder / CARD
    return card.read_text(encoding="utf-8", errors="surrogateescape") if card.is_file() else ""


def config_text(config: dict[str, Any], receipt: dict[str, Any] | None) -> bytes:
    """config.json with a receipt."""
    return (json.dumps(with_receipt(config, receipt), indent=2) + "\n").encode()


def source_name(source: Source) -> str:
    """What to call the source: its folder, or the id of a snapshot in the Hub's cache."""
    folder = source.folder
    if folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--"):
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.name


def _record(job: Job, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """What noisytune.json says beyond the manifest: where the weights come from, and what was written."""
    return {
        "noisytune_version": __version__,
        "source": {"name": source_name(job.source), "digest": job.digest},
        "earlier": earlier,
        "hash": _stream.HASH,
        "headers": {file.name: _stream.digest(file.header).hex() for file in job.source.files},
        "tensors": {place.tensor.name: found.hex() for place, found in job.new_digests.items()},
    }


def _with_record(manifest: bytes, record: dict[str, Any]) -> bytes:
    return json.dumps(json.loads(manifest) | record, indent=1).encode()


def _carry_all(source: Source, folder: Path) -> dict[str, str]:
    """Copy what is beside the weights. Returns the files' hashes, by path with slashes."""
    contents = source.contents
    for path in contents.folders:
        (folder / path).mkdir(exist_ok=True)
    for path, target in contents.links:
        (folder / path).symlink_to(target)
    return {path.as_posix(): _carry(source.folder / path, folder / path) for path in contents.extras}


def _carry(source: Path, target: Path) -> str:
    """Copy a file. Returns its hash."""
    try:
        found = xxhash.xxh3_128()
        with source.open("rb") as stream, os.fdopen(create(target, like=source), "wb") as copy:
            while content := stream.read(1 << 20):
                found.update(content)
                copy.write(content)
            copy.flush()
            os.fsync(copy.fileno())
    except OSError as error:
        if error.filename in (source, str(source)):
            raise DataError(f"{source}: cannot be read ({error.strerror})") from error
        raise
    return found.hexdigest()


class _OpenFiles:
    """Files of known size, written in any order by several threads, and synced by a thread of its own meanwhile: when
    they are complete and, so that the disk is not idle before, now and then."""

    def __init__(self, handles: list[int], left: list[int], syncing: Executor) -> None:
        self._handles, self._left, self._lock = handles, left, Lock()
        self._unsynced = [0] * len(handles)
        self._syncing, self._syncs = syncing, list[Future[None]]()

    def write(self, file: int, position: int, content: memoryview) -> None:
        """Write a run of bytes."""
        handle = self._handles[file]
        done = 0
        while done < len(content):
            done += os.pwrite(handle, content[done:], position + done)
        with self._lock:
            self._left[file] -= len(content)
            self._unsynced[file] += len(content)
            if self._left[file] == 0 or self._unsynced[file] >= _SYNC_AFTER:
                self._unsynced[file] = 0
                self._syncs.append(self._syncing.submit(os.fsync, handle))

    def finish(self) -> None:
        """Wait until everything is durable.

        Raises:
            OSError: it cannot be.
        """
        for sync in self._syncs:
            sync.result()


@contextmanager
def _weight_files(folder: Path, files: tuple[Weights, ...]) -> Iterator[_OpenFiles]:
    """Files with their space reserved and their headers written. A full disk is met here, before the long part."""
    with ExitStack() as stack:
        handles = []
        for file in files:
            handle = create(folder / file.name, like=file.path)
            stack.callback(os.close, handle)
            handles.append(handle)
            _reserve(handle, file.size)
        syncing = ThreadPoolExecutor(1, thread_name_prefix="noisytune-sync")
        stack.callback(syncing.shutdown, cancel_futures=True)
        opened = _OpenFiles(handles, [file.size for file in files], syncing)
        for number, file in enumerate(files):
            opened.write(number, 0, memoryview(file.header))
        yield opened
        opened.finish()


def _reserve(handle: int, size: int) -> None:
    """Where the file system can: the others meet a full disk on the way."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENODEV, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
