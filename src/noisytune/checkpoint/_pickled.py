"""PyTorch's own checkpoint files, read without running any code that they hold. The one room here that needs torch."""

from __future__ import annotations

import json
import pickle
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune.checkpoint._safetensors import CODES, TensorInfo, make_header, parse_header
from noisytune.errors import DataError, UnsupportedTensorError, require


@dataclass(frozen=True)
class PickledFile:
    """The tensors of one file, laid out as the safetensors file that will take its place."""

    name: str
    header: bytes
    tensors: tuple[TensorInfo, ...]
    size: int
    values: dict[str, Any]
    """Name -> array of bytes."""

    def read(self, begin: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``begin`` on, all of one tensor."""
        tensor = self.tensors[bisect_right([t.begin for t in self.tensors], begin) - 1]
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

    try:
        state = _torch_load(path)
    except pickle.UnpicklingError as error:
        raise DataError(f"{path}: holds more than tensors, and loading it could run code: refused") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as a PyTorch file ({str(error).splitlines()[0][:120]})") from error
    if not isinstance(state, dict):
        raise DataError(f"{path}: holds no tensors by name, but {type(state).__name__}")
    values, described = {}, []
    for key, tensor in state.items():
        if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
            raise DataError(f"{path}: {key!r} is no tensor by name, but {type(tensor).__name__}")
        dtype = str(tensor.dtype).removeprefix("torch.")
        if tensor.layout != torch.strided or tensor.is_quantized or dtype not in CODES:
            raise UnsupportedTensorError(f"{path}: tensor {key!r} ({dtype}, {tensor.layout}) cannot be written out")
        flat = tensor.detach().contiguous().reshape(-1)
        values[key] = memoryview(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        described.append((key, dtype, tuple(tensor.shape), len(values[key])))
    header = make_header(described)
    size = len(header) + sum(count for *_, count in described)
    return PickledFile(name, header, parse_header(path, header, size), size, values)


def _torch_load(path: Path) -> Any:
    """Mapped into memory where the file's format allows it; those of before torch 1.6 do not."""
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
        return torch.load(path, map_location="cpu", weights_only=True)
