"""Files that are there whole, even after a crash, or not at all."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from noisytune.errors import DataError

TEMPORARY = ".noisytune-tmp-"
"""Start of the name of a file that is being written. What a killed process left may be deleted."""

_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""What file systems answer that cannot make the names in a folder durable."""


def publish(file: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, make it durable, and give it its name in one step.

    Args:
        file: where; its folder exists. A file or link that is there is replaced.
        content: all of it.

    Raises:
        OSError: no space, no permission. What was there before is still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     publish(Path(folder) / "a.txt", b"whole")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'whole'
    """
    temporary = file.with_name(f"{TEMPORARY}{os.urandom(16).hex()}")
    try:
        with os.fdopen(create(temporary), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(file.parent)


def create(file: Path) -> int:
    """A handle of a new file, for writing. Nothing that is there is opened, and no link is followed.

    Raises:
        FileExistsError: the name is taken, if only by a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.open(file, flags, 0o666)


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
    return content
