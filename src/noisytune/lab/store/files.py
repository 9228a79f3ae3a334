"""Files of a run folder: read within limits, written whole or not at all, and never through links."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from noisytune._files import publish
from noisytune.errors import RunFolderError
from noisytune.records import digest

MOST_BYTES = 2**32
"""Of any file that is read whole; a larger one is not noisytune's."""

NO_SPACE = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def file_name(*parts: str) -> str:
    """A name for a file made of names that may hold anything.

    >>> file_name("Table 2", "google/bert")
    'Table_2-google_bert'

    The name of a name is itself:

    >>> file_name("???", "..."), file_name(file_name("???", "..."))
    ('unnamed-unnamed', 'unnamed-unnamed')
    """
    return "-".join(re.sub(r"[^\w.-]+", "_", part).strip("._-") or "unnamed" for part in parts)


def run_folder(name: str, model: str, shared: Any) -> Path:
    """Where to keep a study that was given no place: the same for the same study, so that running again goes on.

    Args:
        name: the study's.
        model: the model's name; what stands before its last slash does not count.
        shared: plain JSON: whatever must be the same.

    >>> run_folder("glue/rte", "google/bert", []).as_posix()
    'runs/glue-rte-bert-4f53cd'
    """
    flat = name.replace("/", "-").replace(",", "+")
    return Path("runs") / f"{flat}-{model.rsplit('/')[-1]}-{digest(shared)[:6]}"


_KEY = re.compile("[0-9a-f]{16}")


def keys_in(folder: Path) -> frozenset[str]:
    """The keys after which files of JSON in a folder are named; none where there is no such folder."""
    with one_line(folder), suppress(FileNotFoundError):
        names = os.listdir(folder)
        return frozenset(name[:16] for name in names if name.endswith(".json") and _KEY.fullmatch(name[:-5]))
    return frozenset()


def content_digest(content: bytes) -> str:
    """SHA-256, first 16 hexadecimal digits.

    >>> content_digest(b"")
    'e3b0c44298fc1c14'
    """
    return hashlib.sha256(content).hexdigest()[:16]


def write_file(file: Path, content: bytes, *, first: bool = False) -> bool:
    """Write a file of a run folder, whole or not at all; its folder is made where it is missing.

    Args:
        file: where.
        content: all of it.
        first: replace nothing.

    Returns:
        whether it was written; not with ``first`` if the file is there.

    Raises:
        RunFolderError: no space, or no permission.
    """
    with one_line(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            publish(file, content, first=first)
        except FileExistsError:
            if not first:
                raise
            return False
    return True


def read_file(file: str | Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file.

    Args:
        file: a regular one: a pipe would keep its reader waiting for ever.
        most: bytes that it may have.

    Raises:
        RunFolderError: no permission, not a file, or too large.
    """
    with one_line(file):
        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise RunFolderError(f"{file}: not a regular file; remove it")
            if status.st_size > most:
                raise RunFolderError(f"{file}: {status.st_size:,} bytes, noisytune writes at most {most:,}; remove it")
            return stream.readall()


def refuse_links(*places: Path) -> None:
    """See that folders and files which noisytune changes in place are its own.

    Raises:
        RunFolderError: one is a link, so that what is written would lie elsewhere.
    """
    for place in places:
        if place.is_symlink():
            raise RunFolderError(
                f"{place} is a link to {os.readlink(place)}: noisytune changes nothing outside a run folder; remove it"
            )


@contextmanager
def one_line(place: str | Path) -> Iterator[None]:
    """Turn the system's errors into one line that says what to do."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            advice = "no space left: free some and run the same command again, finished trials are kept"
        elif error.errno in NO_PERMISSION:
            advice = "permission denied: change it, or choose another run folder"
        else:
            advice = f"{error.strerror or error}"
        raise RunFolderError(f"{place}: {advice}") from error
