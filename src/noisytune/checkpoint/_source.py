"""A checkpoint's folder: which files hold the weights, which are carried along, and which cannot be trusted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune.checkpoint import _safetensors
from noisytune.checkpoint._safetensors import Weights
from noisytune.errors import DataError, UnsupportedTensorError
from noisytune.manifest import FILE_NAME, Manifest

SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
CONFIG, CARD = "config.json", "README.md"

_OTHER_WEIGHTS = (".bin", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".gguf", ".pt", ".pth", ".ckpt", ".tflite")
_NO_WEIGHTS = ("training_args.bin",)


@dataclass(frozen=True)
class Source:
    """An open checkpoint."""

    folder: Path
    config: dict[str, Any]
    """Of config.json; empty where there is none."""
    files: tuple[Weights, ...]
    index: bytes | None
    """The new checkpoint's index of shards."""
    extras: tuple[Path, ...]
    """Files to carry along, relative to the folder."""
    left_out: tuple[str, ...]
    """Files that hold the same weights in another format, or none that are needed."""

    @property
    def earlier(self) -> dict[str, Any] | None:
        """The settings of the noise that the weights carry already."""
        receipt = self.config.get("noisytune")
        if isinstance(receipt, dict):
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
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such directory")
    folder = folder.resolve()
    if (folder / "adapter_config.json").exists() and not (folder / CONFIG).exists():
        raise DataError(f"{folder}: is an adapter, not a model: give the directory of its base model")
    inside = sorted(_files(folder))
    config = _config(folder)
    with ExitStack() as stack:
        names, weight_map = _weight_files(folder)
        paths = [_checked_file(folder, name) for name in names]
        files: Sequence[Weights]
        if any(name.endswith(".bin") for name in names):
            from noisytune.checkpoint._pickled import load

            files, index = load(paths)
        else:
            files = [stack.enter_context(_safetensors.open_file(path)) for path in paths]
            index = (folder / SAFETENSORS_INDEX).read_bytes() if weight_map is not None else None
            _check_index(folder, files, weight_map)
        _refuse_duplicates(folder, files)
        used = {*names, SAFETENSORS_INDEX, PICKLE_INDEX, CONFIG, FILE_NAME, CARD}
        left_out = [path for path in inside if str(path) not in used and _holds_weights(path)]
        extras = [path for path in inside if str(path) not in used and path not in left_out]
        yield Source(folder, config, tuple(files), index, tuple(extras), tuple(map(str, left_out)))


def _files(folder: Path) -> Iterator[Path]:
    """Every file inside, relative; hidden folders are those of version control and download caches."""
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*files, *(name for name in folders if Path(root, name).is_symlink())]:
            path = Path(root, name)
            _check_link(folder, path)
            if path.is_file() and not name.startswith(".noisytune-tmp-"):
                yield path.relative_to(folder)


def _check_link(folder: Path, path: Path) -> None:
    if not path.is_symlink():
        return
    target = path.resolve()
    roots = [folder]
    if folder.parent.name == "snapshots":  # the Hub's cache: snapshots/REVISION/FILE -> ../../blobs/HASH
        roots.append(folder.parent.parent / "blobs")
    if not any(target.is_relative_to(root) for root in roots):
        raise DataError(f"{path}: is a link out of the directory, to {target}: replace it by the file")
    if not target.exists():
        raise DataError(f"{path}: is a link to {target}, which does not exist")


def _checked_file(folder: Path, name: str) -> Path:
    path = folder / name
    _check_link(folder, path)
    if not path.is_file():
        raise DataError(f"{path}: is missing: the index names it; download the checkpoint again")
    return path


def _holds_weights(path: Path) -> bool:
    if path.name in _NO_WEIGHTS:
        return False
    at_top = path.parent == Path()
    return path.suffix in _OTHER_WEIGHTS or (at_top and (path.suffix == ".safetensors" or ".index." in path.name))


def _config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is corrupt, not JSON ({error})") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: is corrupt: a JSON object was expected, not {type(config).__name__}")
    if config.get("quantization_config"):
        method = config["quantization_config"]
        kind = method.get("quant_method", "unknown method") if isinstance(method, dict) else "unknown method"
        raise UnsupportedTensorError(f"{path}: the model is quantised ({kind}): perturb it before quantising")
    return config


def _weight_files(folder: Path) -> tuple[list[str], dict[str, str] | None]:
    """File names and, where there is an index, tensor -> file. Looks in the order of ``from_pretrained``."""
    for single, index in ((SAFETENSORS, SAFETENSORS_INDEX), (PICKLE, PICKLE_INDEX)):
        if (folder / single).exists() or (folder / single).is_symlink():
            return [single], None
        if (folder / index).exists():
            weight_map = _weight_map(folder / index, single.rpartition(".")[2])
            return sorted(set(weight_map.values())), weight_map
    raise DataError(f"{folder}: no {SAFETENSORS}, no {SAFETENSORS_INDEX} and no {PICKLE}: not a model's directory")


def _weight_map(path: Path, suffix: str) -> dict[str, str]:
    weight_map = _safetensors.parse_object(path, path.read_bytes()).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DataError(f"{path}: is corrupt: it has no weight_map")
    for tensor, name in weight_map.items():
        if (
            not isinstance(name, str)
            or not name.endswith("." + suffix)
            or name != os.path.basename(name)
            or "\0" in name
        ):
            raise DataError(
                f"{path}: tensor {tensor!r} is said to be in {name!r}: a file of this directory was expected"
            )
        if "\\" in name:
            raise DataError(
                f"{path}: tensor {tensor!r} is said to be in {name!r}: a file of this directory was expected"
            )
    return weight_map


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
