"""The safetensors format: a header that says where each tensor lies, checked before anything is believed.

A file is 8 bytes (the length of the header, little endian), the header (JSON) and the tensors, without holes. Source:
https://huggingface.co/docs/safetensors. The safetensors library maps whole files into memory and writes whole
dictionaries; this room reads and writes runs of bytes, so that memory does not grow with the checkpoint.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
import numpy.typing as npt

from noisytune._files import parse_object
from noisytune._perturb.names import expert, is_stack
from noisytune._perturb.refusals import quantised
from noisytune.errors import DataError, UnsupportedTensorError

LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""

FLOATING: dict[str, npt.DTypeLike] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz,
    "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
}
"""The format's dtypes that take noise."""

_OTHERS: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "U16": np.uint16,
    "I16": np.int16,
    "U32": np.uint32,
    "I32": np.int32,
    "U64": np.uint64,
    "I64": np.int64,
    "C64": np.complex64,
}
_PACKED = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0")
DTYPES = {code: np.dtype(dtype) for code, dtype in (FLOATING | _OTHERS).items()}
_NOISY = frozenset(DTYPES[code] for code in FLOATING)
CODES = {dtype.name: code for code, dtype in DTYPES.items()}
"""The format's name of a dtype, by NumPy's and torch's."""


@cache  # NumPy works it out each time, which is slow for twenty thousand tensors
def dtype_name(dtype: np.dtype[Any]) -> str:
    """Such as "float32"."""
    return dtype.name


@dataclass(frozen=True, eq=False)
class TensorInfo:
    """One tensor of a file, as the header describes it. Equal to itself only, so that it is quickly found."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    begin: int
    """Position in the file of its first byte."""
    end: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return (self.end - self.begin) // self.dtype.itemsize

    @cached_property
    def matrices(self) -> tuple[TensorInfo, ...]:
        """Each expert's share, where it is a stack of them; else the tensor itself."""
        if self.dtype not in _NOISY or not is_stack(self.name, self.shape):
            return (self,)
        return self.parts(self.shape[0], self.shape[1:])

    def parts(self, count: int, shape: tuple[int, ...]) -> tuple[TensorInfo, ...]:
        """Equal parts, in the order of the bytes."""
        size = (self.end - self.begin) // max(count, 1)
        return tuple(
            TensorInfo(expert(self.name, i), self.dtype, shape, begin, begin + size)
            for i, begin in enumerate(range(self.begin, self.begin + size * count, size or 1))
        )


class Weights(Protocol):
    """A file of tensors: its name and header in the new checkpoint, and a way to read runs of bytes."""

    @property
    def name(self) -> str:
        """File name in the new checkpoint."""
        ...

    @property
    def path(self) -> Path:
        """The file that it comes from."""
        ...

    @property
    def header(self) -> bytes:
        """Everything before the first tensor."""
        ...

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """In the order of their bytes."""
        ...

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        ...

    def read(self, begin: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``begin`` on."""
        ...


@dataclass(frozen=True)
class SafetensorsFile:
    """An open, checked safetensors file."""

    name: str
    path: Path
    header: bytes
    tensors: tuple[TensorInfo, ...]
    size: int
    handle: int

    def read(self, begin: int, out: memoryview) -> None:
        """Fill ``out`` with the bytes from ``begin`` on.

        Raises:
            DataError: the file became shorter since it was opened.
        """
        done = 0
        while done < len(out):
            try:
                count = os.preadv(self.handle, [out[done:]], begin + done)
            except OSError as error:
                raise DataError(f"{self.path}: cannot be read at byte {begin + done} ({error.strerror})") from error
            if count == 0:
                raise DataError(f"{self.path}: ends at byte {begin + done}: it was cut while it was read; try again")
            done += count


@contextmanager
def open_file(path: Path) -> Iterator[SafetensorsFile]:
    """Open a safetensors file and check its header.

    Raises:
        DataError: unreadable, truncated or corrupt.
        UnsupportedTensorError: a tensor is packed into fewer than 8 bits.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        size = os.fstat(handle).st_size
        header = _header(path, handle, size)
        yield SafetensorsFile(path.name, path, header, parse_header(path, header, size), size, handle)
    finally:
        os.close(handle)


def _header(path: Path, handle: int, size: int) -> bytes:
    start = os.pread(handle, 8, 0) if size >= 8 else b""
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise DataError(
            f"{path}: is truncated, or no safetensors file: {size} bytes cannot hold a header of {length} bytes; "
            "download it again"
        )
    if length > LONGEST_HEADER:
        raise DataError(f"{path}: corrupt header: its length {length} is beyond the format's {LONGEST_HEADER} bytes")
    return start + os.pread(handle, length, 8)


def parse_header(path: Path, header: bytes, size: int) -> tuple[TensorInfo, ...]:
    """The tensors that a header describes, in the order of their bytes.

    Args:
        path: for messages.
        header: everything before the first tensor, the 8 bytes of its length included.
        size: bytes of the whole file.

    Raises:
        DataError: not JSON, duplicate names, or offsets that are out of range, overlap, leave holes, or do not fit
        dtype and shape.
        UnsupportedTensorError: a tensor is packed into fewer than 8 bits.
    """
    content = parse_object(path, header[8:])
    for name in content:
        if not name.isascii() and name.encode(errors="replace").decode() != name:
            raise DataError(f"{path}: corrupt header: the name {name!r} is no Unicode text")
    metadata = content.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"{path}: corrupt header: __metadata__ must map strings to strings")
    tensors = [_tensor(path, name, entry, len(header), size) for name, entry in content.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    position = len(header)
    for tensor in tensors:
        if tensor.begin != position:
            problem = "overlaps another" if tensor.begin < position else "comes after a hole"
            raise DataError(f"{path}: corrupt header: tensor {tensor.name!r} at byte {tensor.begin} {problem}")
        position = tensor.end
    if position != size:
        raise DataError(f"{path}: has {size} bytes, but its tensors end at byte {position}: the file is damaged")
    return tuple(tensors)


def _tensor(path: Path, name: str, entry: Any, data_begin: int, size: int) -> TensorInfo:
    where = f"{path}: corrupt header: tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise DataError(f"{where} must have dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if code in _PACKED:
        raise UnsupportedTensorError(f"{path}: tensor {name!r} {quantised(code)}")
    if not isinstance(code, str) or code not in DTYPES:
        raise DataError(f"{where} has the unknown dtype {code!r}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise DataError(f"{where} has the shape {str(shape)[:80]} and the offsets {str(offsets)[:80]}")
    begin, end = offsets
    if not begin <= end <= size - data_begin:
        raise DataError(
            f"{where} has offsets {begin}..{end} outside of the file's {size - data_begin} bytes of tensors"
        )
    if _product(shape, size) * DTYPES[code].itemsize != end - begin:
        raise DataError(f"{where} has {end - begin} bytes, which do not fit {code} of shape {str(shape)[:80]}")
    return TensorInfo(name, DTYPES[code], tuple(shape), data_begin + begin, data_begin + end)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _product(shape: list[int], limit: int) -> int:
    """Stops beyond the limit: a corrupt shape could hold a million factors."""
    product = 0 if 0 in shape else 1
    for length in shape:
        product *= length
        if product > limit:
            break
    return product


def make_header(tensors: Sequence[tuple[str, str, tuple[int, ...], int]]) -> bytes:
    """The header of a new file.

    Args:
        tensors: name, dtype (such as "float32"), shape and number of bytes, in the order of their bytes.

    >>> parse_header(Path("new"), make_header([("a", "float32", (2, 1), 8)]), 104)[0].begin
    96
    """
    content: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, dtype, shape, count in tensors:
        content[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [position, position + count]}
        position += count
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the tensors, for those who map the file into memory
    return len(text).to_bytes(8, "little") + text
