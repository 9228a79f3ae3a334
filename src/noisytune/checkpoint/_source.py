"""A checkpoint's folder: which files hold the weights, which are carried along, and which cannot be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune._files import refuse_depth
from noisytune._perturb.receipt import receipt_in
from noisytune._pretrained import (
    CONFIG,
    PICKLE,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    refuse_adapter,
    refuse_lfs_pointer,
    regular_file,
    weight_map,
    weights_entry,
)
from noisytune.checkpoint import _safetensors
from noisytune.checkpoint._contents import Contents, check_link, look_through, refuse_pointers
from noisytune.checkpoint._quantised import refuse_quantised
from noisytune.checkpoint._safetensors import Weights
from noisytune.errors import DataError
from noisytune.manifest import FILE_NAME, Manifest

CARD = "README.md"


@dataclass(frozen=True)
class Source:
    """An open checkpoint."""

    folder: Path
    config: dict[str, Any]
    """Of config.json; empty where there is none."""
    files: tuple[Weights, ...]
    index: bytes | None
    """The new checkpoint's index of shards."""
    index_name: str
    contents: Contents
    """What is beside the weights."""
    notices: tuple[str, ...]
    """What is not in the new checkpoint as it is here, one line each."""

    @property
    def earlier(self) -> dict[str, Any] | None:
        """The settings of the noise that the weights carry already."""
        if receipt := receipt_in(self.config):
            return receipt
        manifest = Manifest.read(self.folder) if (self.folder / FILE_NAME).is_file() else None
        return manifest.config.to_dict() if manifest and manifest.perturbed else None


@contextmanager
def open_source(folder: Path) -> Iterator[Source]:
    """Open a checkpoint and check everything about it that can be checked without reading the weights.

    Raises:
        DataError: no such folder, no weights, a corrupt or missing file, an index that does not fit its files, a path
        or link that leads out of the folder.
        UnsupportedTensorError: quantised weights.
        MissingExtraError: the weights are a pickle, and torch is not installed.
    """
    if not hasattr(os, "preadv"):
        raise DataError("files of weights need Linux or macOS: on this system use noisytune.torch.perturb_ instead")
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such directory")
    folder = folder.resolve()
    refuse_adapter(folder)
    config = _config(folder)
    with ExitStack() as stack:
        names, index_file, tensors = _weights(folder)
        paths = [_weight_file(folder, name) for name in names]
        files: Sequence[Weights]
        if any(name.endswith(".bin") for name in names):
            from noisytune.checkpoint._pickled import load

            files, index = load(paths)
        else:
            files = [stack.enter_context(_safetensors.open_file(path)) for path in paths]
            index = index_file.read_bytes() if index_file else None
            _check_index(folder, files, tensors)
        _refuse_duplicates(folder, files)
        refuse_quantised(folder, config, [tensor for file in files for tensor in file.tensors])
        is_kept = index_file and index_file.name.endswith(".safetensors.index.json")
        index_name = index_file.name if index_file and is_kept else SAFETENSORS_INDEX
        used = {*names, index_file.name if index_file else "", CONFIG, FILE_NAME, CARD}
        contents = look_through(folder, used)
        notices = _notices(contents, refuse_pointers(folder, contents.extras))
        yield Source(folder, config, tuple(files), index, index_name, contents, notices)


def _notices(contents: Contents, unfetched: list[str]) -> tuple[str, ...]:
    lists = {
        "left out, they may hold the clean weights": contents.left_out,
        "left out, hidden folders and what is no file": contents.no_files,
        "carried along as pointers of git-lfs, not the files themselves": unfetched,
    }
    return tuple(f"{what}: {', '.join(names)}" for what, names in lists.items() if names)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not os.path.lexists(path):
        return {}
    refuse_lfs_pointer(regular_file(path))
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is corrupt, not JSON ({error})") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: is corrupt: a JSON object was expected, not {type(config).__name__}")
    refuse_depth(path, config)
    return config


def _weights(folder: Path) -> tuple[list[str], Path | None, dict[str, str] | None]:
    """File names and, where there are shards, their index and tensor -> file."""
    entry = weights_entry(folder)
    if entry is None:
        inside = next((f"; {path.parent} has some" for path in sorted(folder.glob(f"*/{SAFETENSORS}"))), "")
        raise DataError(
            f"{folder}: no {SAFETENSORS}, no {SAFETENSORS_INDEX} and no {PICKLE}: not a model's directory{inside}"
        )
    check_link(folder, entry)
    if entry.suffix != ".json":
        return [entry.name], None, None
    tensors = weight_map(entry)
    return sorted(set(tensors.values())), entry, tensors


def _weight_file(folder: Path, name: str) -> Path:
    check_link(folder, folder / name)
    path = regular_file(folder / name)
    refuse_lfs_pointer(path)
    return path


def _check_index(folder: Path, files: Sequence[Weights], weight_map: dict[str, str] | None) -> None:
    if weight_map is None:
        return
    index = folder / SAFETENSORS_INDEX
    held = {tensor.name: file.name for file in files for tensor in file.tensors}
    for tensor, name in weight_map.items():
        if held.get(tensor) != name:
            raise DataError(f"{index}: tensor {tensor!r} is not in {name}, which the index names")
    for tensor, name in held.items():
        if tensor not in weight_map:
            raise DataError(f"{folder / name}: tensor {tensor!r} is not in the index: the files do not belong together")


def _refuse_duplicates(folder: Path, files: Sequence[Weights]) -> None:
    seen: dict[str, str] = {}
    for file in files:
        for tensor in file.tensors:
            other = seen.setdefault(tensor.name, file.name)
            if other != file.name:
                raise DataError(f"{folder / file.name}: tensor {tensor.name!r} is in {other} too: which one is meant?")
    if not seen:
        raise DataError(f"{folder}: holds no tensors")
