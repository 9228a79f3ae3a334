"""A new folder that is there whole, or not at all: written beside its place, made durable, published by one rename."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from noisytune._files import sync_folder
from noisytune.errors import DataError

_SUFFIX = ".noisytune-tmp"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
"""What file systems answer that know no locks: Lustre, NFS, some in user space."""


def check_new(out: Path, source: Path) -> Path:
    """The place of the new folder, made absolute.

    Raises:
        DataError: it is the source, inside it, or holds something.
    """
    place, source = out.expanduser().resolve(), source.resolve()
    if place == source or place.is_relative_to(source):
        raise DataError(f"{out}: is the model's own directory, or inside it: choose another place")
    if os.path.ismount(place):
        raise DataError(f"{out}: is a mount point, which cannot be put in place whole: give a new folder inside it")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise DataError(f"{out}: holds something already: choose a new or empty directory")
    return place


def check_space(place: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Raises:
        DataError: says how much is needed and how much is there.
    """
    existing = next(folder for folder in place.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(f"{place}: needs {needed / 1e9:.2f} GB, but the disk has only {free / 1e9:.2f} GB free")


@contextmanager
def new_folder(place: Path) -> Iterator[tuple[Path, str | None]]:
    """A folder to write into, and a notice. It takes its place when the block ends well, and is deleted otherwise.

    It lies in a hidden sibling of the place, which is locked. So what a killed process left is told from what a living
    one is writing, and cleaned first. Where the file system knows no locks, nothing is cleaned, and the notice says so.

    Raises:
        DataError: another process is writing there, the disk is full, the folder cannot be written, or the system
            cannot hold a folder open, as Windows cannot.
    """
    if not hasattr(os, "O_DIRECTORY"):
        raise DataError(
            f"{place}: a checkpoint is written on Linux and macOS only, where its folder can be held; on this system "
            "load the model, call noisytune.torch.perturb_(model), and save it"
        )
    hidden = place.with_name(f".{place.name}{_SUFFIX}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock, notice = _locked(hidden, place)
        temporary = hidden / os.urandom(8).hex()
        try:
            if notice is None:
                _clean(hidden)
            temporary.mkdir()
            yield temporary, notice
            _make_durable(temporary)
            _publish(temporary, place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            with suppress(OSError):  # where there are no locks, another process may write in it
                hidden.rmdir()
            os.close(lock)
    except OSError as error:
        if isinstance(error, DataError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full; nothing was left there" if full else f"cannot be written ({_reason(error)})"
        raise DataError(f"{place}: {what}") from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def _locked(hidden: Path, place: Path) -> tuple[int, str | None]:
    """A handle that holds the folder's lock, or a notice. The lock goes with the process, even a killed one."""
    while True:
        _make(hidden)
        handle = os.open(hidden, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            notice = _lock(handle, place)
            with suppress(FileNotFoundError):  # deleted by its owner between the two calls
                if os.path.samestat(os.fstat(handle), hidden.lstat()):
                    return handle, notice
        except BlockingIOError as error:
            os.close(handle)
            raise DataError(f"{place}: another process is writing there: wait for it") from error
        except OSError as error:
            os.close(handle)
            with suppress(OSError):
                hidden.rmdir()
            raise DataError(f"{place.parent}: cannot be locked ({_reason(error)})") from error
        os.close(handle)


def _make(hidden: Path) -> None:
    """The folder is new, or was left by this user: a stranger's, or a link, could lead the writing elsewhere."""
    try:
        hidden.mkdir()
    except FileExistsError:
        with suppress(FileNotFoundError):
            found = hidden.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise DataError(f"{hidden}: is no folder of this user, but has the name of one: remove it") from None


def _lock(handle: int, place: Path) -> str | None:
    """A notice where there are no locks."""
    unknown = f"{place.parent}: its file system knows no locks: let no other process write {place.name} meanwhile"
    try:
        import fcntl
    except ImportError:
        return unknown
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return unknown
        raise
    return None


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
