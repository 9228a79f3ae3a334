"""Everything in a checkpoint's folder beside its own weights: what is carried along, and what is left out and named."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from noisytune._files import TEMPORARY, is_lfs_pointer
from noisytune._pretrained import OTHER_FOLDERS, OTHER_FORMATS, refuse_lfs_pointer
from noisytune.errors import DataError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_NO_WEIGHTS = ("training_args.bin", "spk_dict.pt", "colbert_linear.pt", "sparse_linear.pt")
"""Pickles that do not hold the weights again: settings, Qwen2.5-Omni's voices, BGE-M3's heads."""
_HIDDEN = (".git", ".cache")
"""Hidden folders that nobody misses: those of version control and of downloads."""


@dataclass(frozen=True)
class Contents:
    """Paths are relative to the folder."""

    extras: tuple[Path, ...]
    """Files to carry along."""
    folders: tuple[Path, ...]
    """Every folder that is not hidden, the outer ones first."""
    links: tuple[tuple[Path, str], ...]
    """Links to folders inside, and where they lead to from where they are."""
    left_out: tuple[str, ...]
    """Files that hold the same weights in another format, or none that are needed."""
    no_files: tuple[str, ...]
    """What cannot be carried along: pipes, sockets, devices, hidden folders."""


def look_through(folder: Path, used: set[str]) -> Contents:
    """Sort everything in a folder.

    Args:
        folder: resolved.
        used: names, at the top, of the model's own files.

    Raises:
        DataError: a link that leads out of the folder or nowhere, or a folder that cannot be read.
    """
    found = sorted(_entries(folder))
    modules = _module_folders(folder)
    extras: list[Path] = []
    folders: list[Path] = []
    links: list[tuple[Path, str]] = []
    left_out: list[str] = []
    no_files: list[str] = []
    for path in found:
        whole = folder / path
        if str(path) in used or path.name.startswith(TEMPORARY):
            continue
        if whole.is_dir() and not whole.is_symlink():
            folders.append(path)
        elif whole.is_dir():
            target = whole.resolve().relative_to(folder)
            if any(part.startswith(".") for part in target.parts):
                no_files.append(str(path))
            else:
                links.append((path, os.path.relpath(folder / target, whole.parent)))
        elif not whole.is_file():
            no_files.append(str(path))
        elif _holds_weights(path, modules):
            left_out.append(str(path))
        else:
            extras.append(path)
    hidden = [path for path in folders if path.name.startswith(".")]
    no_files += [str(path) for path in hidden if path.name not in _HIDDEN]
    kept = tuple(path for path in folders if path not in hidden)
    return Contents(tuple(extras), kept, tuple(links), tuple(left_out), tuple(sorted(no_files)))


def check_link(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of the folder, or nowhere.

    Raises:
        DataError: says where it leads to.
    """
    if not path.is_symlink():
        return
    try:
        target = path.resolve()
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: is a link that leads to itself: remove it") from error
    roots = [folder]
    if folder.parent.name == "snapshots":  # the Hub's cache: snapshots/REVISION/FILE -> ../../blobs/HASH
        roots.append(folder.parent.parent / "blobs")
    if not any(target.is_relative_to(root) for root in roots):
        raise DataError(f"{path}: is a link out of the directory, to {target}: replace it by the file")
    if not target.exists():
        raise DataError(f"{path}: is a link to {target}, which does not exist")


def _entries(folder: Path) -> Iterator[Path]:
    """Everything inside, relative. Hidden folders and links to folders are not entered."""

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error

    for root, folders, files in os.walk(folder, onerror=fail):
        here = Path(root)
        for name in [*files, *folders]:
            check_link(folder, here / name)
            yield (here / name).relative_to(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]


def _module_folders(folder: Path) -> set[str]:
    """The first parts of the folders that sentence-transformers keeps further layers in."""
    try:
        modules = json.loads((folder / "modules.json").read_bytes())
        return {Path(module["path"]).parts[0] for module in modules if module["path"]}
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        RecursionError,
    ):  # none, or not sentence-transformers'
        return set()


def _holds_weights(path: Path, modules: set[str]) -> bool:
    """Whether a file holds the model's weights again. Those of other layers, in folders of their own, do not."""
    if path.name in _NO_WEIGHTS or (len(path.parts) > 1 and path.parts[0] in modules):
        return False
    if path.suffix in OTHER_FORMATS or ".ckpt." in path.name:
        return True
    if len(path.parts) > 1:
        return path.parts[0] in OTHER_FOLDERS and path.suffix in (*_PICKLES, ".safetensors")
    return path.suffix in (*_PICKLES, ".safetensors") or ".index." in path.name


def refuse_pointers(folder: Path, extras: tuple[Path, ...]) -> list[str]:
    """Refuse a tokenizer or configuration that git-lfs has not fetched. Returns the other files that it has not."""
    unfetched = []
    for path in extras:
        if (folder / path).stat().st_size < 1024:
            if path.suffix in (".json", ".txt", ".model", ".jinja", ".py"):
                refuse_lfs_pointer(folder / path)
            elif is_lfs_pointer(folder / path):
                unfetched.append(str(path))
    return unfetched
