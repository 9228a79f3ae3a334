"""One process at a time: lock files that are let go by whoever dies, and nothing else is ever written to."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

from noisytune.errors import RunFolderError
from noisytune.lab.store.files import one_line

_SIGNATURE = b"process "
"""Start of what a lock file holds."""
_CANNOT_LOCK = (errno.ENOSYS, errno.ENOLCK, errno.EBADF, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@dataclass(frozen=True)
class Hold:
    """What came of trying to hold a lock file."""

    ours: bool
    """Whether nobody else holds it."""
    holder: str = ""
    """Who does, as far as is known."""
    notice: str = ""
    """What the user should know: that nothing can be locked here."""


@contextmanager
def hold(file: Path) -> Iterator[Hold]:
    """Hold a lock file while the block runs, if nobody else does.

    Args:
        file: made where it is missing; its folder exists.

    Raises:
        RunFolderError: the file is a link, somebody else's file, or may not be opened.
    """
    with _open(file) as stream:
        found = _lock(stream, file)
        if found.ours:
            with one_line(file):
                stream.truncate(0)
                stream.seek(0)
                stream.write(_SIGNATURE + f"{os.getpid()} on {socket.gethostname()}".encode())
        yield found


def _open(file: Path) -> FileIO:
    """Open a lock file, which must be a file of our own: a planted link would have us write to any file of the user."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if file.is_symlink():
        raise RunFolderError(f"{file} is a link, and noisytune writes to none: remove it")
    with one_line(file):
        descriptor = os.open(file, flags, 0o644)
    stream = FileIO(descriptor, "r+")
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1 and stream.read(len(_SIGNATURE)) in (b"", _SIGNATURE):
        return stream
    stream.close()
    raise RunFolderError(f"{file} is not a lock that noisytune made: remove it, or choose another run folder")


def _lock(stream: FileIO, file: Path) -> Hold:
    try:
        import fcntl
    except ImportError:
        return Hold(True, notice=f"{file.parent}: this system cannot lock files; trials are claimed one by one instead")
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.seek(0)
        return Hold(False, stream.read(200).decode(errors="replace") or "another process")
    except OSError as error:
        if error.errno not in _CANNOT_LOCK:
            raise RunFolderError(f"{file}: cannot be locked ({error.strerror or error})") from error
        return Hold(
            True,
            notice=f"{file.parent}: its file system cannot lock files ({error.strerror}); trials are claimed "
            "one by one instead",
        )
    return Hold(True)
