"""Files that a job needs on another machine: found there under the same path, or sent once, and checked by content."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from noisytune._files import digest_of, publish
from noisytune.errors import DataError


@dataclass(frozen=True)
class Trunk:
    """Files of one folder, and what they hold."""

    folder: Path
    """Where they lie at home."""
    names: tuple[str, ...]
    digest: str
    content: Any = None
    """By which their bytes can be fetched; None: they are where they are at home."""


def packed(files: Iterable[Path]) -> tuple[Trunk, Callable[[], dict[str, bytes]]]:
    """What is told of files of one folder, and a function that reads them."""
    files = sorted(files)
    trunk = Trunk(files[0].parent, tuple(file.name for file in files), digest_of(files))
    return trunk, lambda: {file.name: file.read_bytes() for file in files}


def unpacked(trunk: Trunk, fetch: Callable[[Any], Mapping[str, bytes]], root: Path | None = None) -> Path:
    """The folder in which the files are on this machine.

    Args:
        trunk: what they hold.
        fetch: gives their bytes by name.
        root: where files are kept that were sent; None: a folder of the user's among the temporary ones.

    Raises:
        DataError: they are not here, and were not sent; or others arrived.
    """
    root = root or Path(tempfile.gettempdir()) / f"noisytune-{os.getuid()}"
    for folder in (trunk.folder, root / trunk.digest):
        if _is_there(folder, trunk.names, trunk.digest):
            return folder
    if trunk.content is None:
        raise DataError(f"{trunk.folder} is not on this machine, or holds other files than on the one that asks")
    _own(root)
    content = fetch(trunk.content)
    place = root / trunk.digest
    place.mkdir(exist_ok=True)
    for name in trunk.names:
        publish(place / Path(name).name, content[name])
    if not _is_there(place, trunk.names, trunk.digest):
        raise DataError(f"{place}: other bytes arrived than were sent")
    return place


def _own(root: Path) -> None:
    """Make a folder that nobody else can write to."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = root.lstat()
    if root.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise DataError(f"{root}: is somebody else's, or others may write to it: remove it")


def _is_there(folder: Path, names: tuple[str, ...], digest: str) -> bool:
    files = [folder / name for name in names]
    try:
        return _known(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)) == digest
    except OSError:
        return False


@lru_cache(maxsize=64)
def _known(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Read once in a process, as long as they do not change."""
    return digest_of([file for file, _, _ in files])
