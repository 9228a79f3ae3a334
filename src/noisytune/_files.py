"""Files that are there whole, even after a crash, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from noisytune._processes import Process
from noisytune.errors import DataError

TEMPORARY = ".noisytune-tmp-"
"""Start of the name of a file that is being written. What a killed process left may be deleted: see `leftovers`."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""What file systems answer that cannot make the names in a folder durable."""
_NO_LINKS = (errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES)
"""What file systems answer that have no hard links."""
_DEEPEST = 100
"""Objects and lists of JSON that may lie in each other."""
_FORGOTTEN = 86_400.0
"""Seconds after which nobody is still writing a file."""


def publish(file: Path, content: bytes, *, first: bool = False) -> None:
    """Write a file under a temporary name in its folder, make it durable, and give it its name in one step.

    Args:
        file: where; its folder exists. A file or link that is there is replaced.
        content: all of it.
        first: replace nothing.

    Raises:
        FileExistsError: with ``first``, the name is taken.
        OSError: no space, no permission. What was there before is still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     publish(Path(folder) / "a.txt", b"whole")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'whole'
    """
    temporary = _temporary(file)
    try:
        with os.fdopen(create(temporary), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if first:
            _link(temporary, file)
        else:
            os.replace(temporary, file)
    finally:
        with suppress(OSError):
            temporary.unlink()
    sync_folder(file.parent)


def _link(temporary: Path, file: Path) -> None:
    """Give a file its name, unless the name is taken."""
    try:
        os.link(temporary, file)
    except OSError as error:
        if os.stat(temporary).st_nlink > 1:  # a server's answer was lost, and it was asked again
            return
        if error.errno not in _NO_LINKS:
            raise
        if file.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file)) from error
        os.replace(temporary, file)


def create_first(file: Path, content: bytes) -> int:
    """Make a small file for the time being, whole where the file system has hard links.

    Returns:
        its inode.

    Raises:
        FileExistsError: the name is taken.
    """
    temporary = _temporary(file)
    try:
        inode = _written(temporary, content)
        os.link(temporary, file)
    except OSError as error:
        if os.path.lexists(temporary) and os.stat(temporary).st_nlink > 1:
            return inode
        if error.errno not in _NO_LINKS:
            raise
        return _written(file, content)
    finally:
        with suppress(OSError):
            temporary.unlink()
    return inode


def _written(file: Path, content: bytes) -> int:
    """Make a file; its inode."""
    with os.fdopen(create(file), "wb") as stream:
        stream.write(content)
        return os.fstat(stream.fileno()).st_ino


def _temporary(file: Path) -> Path:
    """A name in the folder of a file that says who writes: see `leftovers`."""
    return file.with_name(f"{TEMPORARY}{_own(os.getpid())}.{os.urandom(8).hex()}")


@cache
def _own(pid: int) -> str:
    """This process, whose number is known, in few characters: where it is, its number and when it began."""
    this = Process.this()
    return f"{hashlib.sha256(this.place.encode()).hexdigest()[:8]}.{pid}.{this.began}"


def leftovers(folder: Path) -> list[Path]:
    """Files that nobody is writing any more: their process has ended, or they are a day old."""
    found, this = [], Process.this()
    here = _own(os.getpid()).split(".")[0]
    for file in folder.glob(f"{TEMPORARY}*"):
        place, *which = file.name.removeprefix(TEMPORARY).split(".")
        known = place == here and len(which) == 3 and which[0].isdecimal()
        with suppress(FileNotFoundError):
            ended = known and Process("", this.place, int(which[0]), which[1]).is_gone
            if ended or time.time() - file.lstat().st_mtime > _FORGOTTEN:
                found.append(file)
    return found


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 over names and contents, hexadecimal."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(os.fsencode(file.name) + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def create(file: Path, like: Path | None = None) -> int:
    """A handle of a new file, for writing. Nothing that is there is opened, and no link is followed.

    Args:
        file: the new one.
        like: a file whose permissions it gets, less those that the process gives nobody (umask): what its owner alone
            may read stays so.

    Raises:
        FileExistsError: the name is taken, if only by a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    permissions = 0o666 if like is None else like.stat().st_mode & 0o777 | stat.S_IWUSR
    return os.open(file, flags, permissions)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable, where the system can do that."""
    if os.name == "nt":  # opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(handle)


def is_lfs_pointer(file: Path) -> bool:
    """Whether a file is what a clone without git-lfs has in place of a large file: a few lines that name it."""
    with file.open("rb") as stream:
        return stream.read(43) == b"version https://git-lfs.github.com/spec/v1\n"


def refuse_depth(path: Path, content: Any) -> None:
    """Refuse JSON that is nested so deeply that whoever walks through it would run out of stack.

    Raises:
        DataError: it is.
    """
    level, depth = [content], 0
    while level:
        depth += 1
        if depth > _DEEPEST:
            raise DataError(f"{path}: is corrupt: more than {_DEEPEST} objects and lists lie in each other")
        inside = (each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list))
        level = [one for values in inside for one in values]


def parse_object(path: Path, text: bytes) -> dict[str, Any]:
    """A JSON object without duplicate keys.

    Args:
        path: for messages.
        text: UTF-8.

    Raises:
        DataError: it is something else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise DataError(f"{path}: {twice!r} is there twice: the file is damaged")
        return found

    try:
        content = json.loads(text.decode(), object_pairs_hook=unique)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is corrupt, not JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: is corrupt: a JSON object was expected, not {type(content).__name__}")
    refuse_depth(path, content)
    return content
