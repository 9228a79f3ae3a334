"""A new folder that is there whole, or not at all: written beside its place, made durable, published by one rename."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noisytune._files import sync_folder
from noisytune.errors import DataError

_SUFFIX = ".noisytune-tmp"


def check_new(out: Path, source: Path) -> Path:
    """The place of the new folder, made absolute.

    Raises:
        DataError: it is the source, inside it, or holds something.
    """
    place, source = out.expanduser().resolve(), source.resolve()
    if place == source or place.is_relative_to(source):
        raise DataError(f"{out}: is the model's own directory, or inside it: choose another place")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise DataError(f"{out}: holds something already: choose a new or empty directory")
    return place


def check_space(place: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DataError: says how much is needed and how much is there.
    """
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(f"{place}: needs {needed / 1e9:.2f} GB, but the disk has only {free / 1e9:.2f} GB free")


@contextmanager
def new_folder(place: Path) -> Iterator[Path]:
    """A temporary sibling to write into; it takes its place when the block ends well, and is deleted when it does not.

    What a killed process left is cleaned first. A lock tells it from what a living process is writing.

    Raises:
        DataError: another process is writing there, the disk is full, or the folder cannot be written.
    """
    temporary = place.with_name(f".{place.name}{_SUFFIX}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = _locked(temporary, place)
        try:
            _clean(temporary)
            yield temporary
            _make_durable(temporary)
            _publish(temporary, place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        finally:
            os.close(lock)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full; nothing was left there" if full else f"cannot be written ({error.strerror or error})"
        raise DataError(f"{place}: {what}") from error


def _locked(temporary: Path, place: Path) -> int:
    """A handle that holds the lock of the temporary folder. The lock goes with the process, even a killed one."""
    while True:
        temporary.mkdir(exist_ok=True)
        handle = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise DataError(f"{place}: another process is writing there: wait for it") from error
        with suppress(FileNotFoundError):  # published or deleted by its owner between the two calls
            if os.path.samestat(os.fstat(handle), temporary.lstat()):
                return handle
        os.close(handle)


def _clean(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _make_durable(folder: Path) -> None:
    """Files are synced by those who write them; here, the names."""
    for root, _, _ in os.walk(folder):
        sync_folder(Path(root))


def _publish(temporary: Path, place: Path) -> None:
    try:
        os.rename(temporary, place)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise DataError(f"{place}: holds something that was not there before: choose another directory") from error
        raise
    sync_folder(place.parent)
