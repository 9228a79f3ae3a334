"""PyTorch's own checkpoint files, read without running any code that they hold. The one room here that needs torch."""

from __future__ import annotations

import json
import pickle
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from noisytune.checkpoint._safetensors import CODES, TensorInfo, make_header, parse_header
from noisytune.errors import DataError, UnsupportedTensorError, require

_MOST = 100
"""Tensors of a file may share their values, as tied ones and layers that serve several times do: so often."""
_LITTLE = 1 << 20
"""Bytes that a tensor may have by repeating one value."""


@dataclass(frozen=True)
class PickledFile:
    """The tensors of one file, laid out as the safetensors file that will take its place."""

    name: str
    path: Path
    header: bytes
    tensors: tuple[TensorInfo, ...]
    size: int
    values: dict[str, Any]
    """Name -> array of bytes."""

    @cached_property
    def _begins(self) -> list[int]:
        return [tensor.begin for tensor in self.tensors]

    def read(self, begin: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``begin`` on, all of one tensor."""
        tensor = self.tensors[bisect_right(self._begins, begin) - 1]
        offset = begin - tensor.begin
        out[:] = self.values[tensor.name][offset : offset + len(out)]


def load(paths: Sequence[Path]) -> tuple[list[PickledFile], bytes | None]:
    """Read files that ``torch.save`` wrote, and make the index of the safetensors files that replace them.

    Raises:
        DataError: a file is damaged, or holds anything but tensors by name.
        UnsupportedTensorError: a tensor is quantised, sparse or of a dtype that safetensors does not have.
        MissingExtraError: torch is not installed.
    """
    require("torch", extra="torch", needed_for=f"reading {paths[0].name}")
    count = len(paths)
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors" for i in range(count)]
    files = [_load(path, name) for path, name in zip(paths, names, strict=True)]
    if count == 1:
        return files, None
    weight_map = {tensor.name: file.name for file in files for tensor in file.tensors}
    total = sum(tensor.end - tensor.begin for file in files for tensor in file.tensors)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return files, (json.dumps(index, indent=2) + "\n").encode()


def _load(path: Path, name: str) -> PickledFile:
    import torch

    state = _unpickled(path)
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds no tensors by name, but {type(state).__name__}")
    values, described, total = {}, [], 0
    most = _MOST * path.stat().st_size + _LITTLE
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise DataError(f"{path}: {key!r} is no tensor by name, but {type(tensor).__name__}")
        if tensor.is_meta:
            raise DataError(f"{path}: tensor {key!r} has a shape, but no values (device meta): save the model loaded")
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_quantized or dtype not in CODES:
            raise UnsupportedTensorError(f"{path}: tensor {key!r} ({dtype}, {tensor.layout}) cannot be written out")
        total += tensor.nbytes
        if tensor.nbytes > max(tensor.untyped_storage().nbytes(), _LITTLE):
            raise DataError(f"{path}: tensor {key!r}, shape {tuple(tensor.shape)}, has more values than the file holds")
        if total > most:
            raise DataError(f"{path}: its tensors have the same values more than {_MOST} times: it is damaged")
        flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        values[key] = memoryview(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        described.append((key, dtype, tuple(tensor.shape), len(values[key])))
    header = make_header(described)
    size = len(header) + sum(count for *_, count in described)
    return PickledFile(name, path, header, parse_header(path, header, size), size, values)


def _unpickled(path: Path) -> Any:
    with path.open("rb") as stream:
        start = stream.read(40)
    if not start.startswith((b"PK", b"\x80")):
        what = f"begins with {start!r}" if start else "is empty"
        raise DataError(f"{path}: is no PyTorch file: it {what}; download it again")
    try:
        return _torch_load(path)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: holds more than tensors, and loading it could run code: refused") from error
    except Exception as error:  # damaged pickles fail in any way
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise DataError(f"{path}: cannot be read as a PyTorch file ({reason})") from error


def _torch_load(path: Path) -> Any:
    """Mapped into memory where the file's format allows it; those of before torch 1.6 do not."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)
