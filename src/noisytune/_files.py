"""Files that are there whole, even after a crash, or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TEMPORARY = ".noisytune-tmp-"
"""Start of the name of a file that is being written. What a killed process left may be deleted."""


def publish(file: Path, content: bytes) -> None:
    """Write a file under a temporary name in its folder, make it durable, and give it its name in one step.

    Args:
        file: where; its folder exists. A file that is there is replaced.
        content: all of it.

    Raises:
        OSError: no space, no permission. What was there before is still there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     publish(Path(folder) / "a.txt", b"whole")
    ...     (Path(folder) / "a.txt").read_bytes()
    b'whole'
    """
    temporary = file.with_name(f"{TEMPORARY}{file.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
