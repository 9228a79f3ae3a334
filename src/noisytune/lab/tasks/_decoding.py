"""The text of a file of examples: unpacked, decoded, or refused with the true cause."""

from __future__ import annotations

import bz2
import gzip
import lzma
import stat
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from noisytune.errors import DataError

LIMIT = 2**32
"""Bytes that a compressed file may unpack to."""

PACKED: dict[str, tuple[bytes, Callable[[BytesIO], Any]]] = {
    ".gz": (b"\x1f\x8b", lambda file: gzip.GzipFile(fileobj=file)),
    ".bz2": (b"BZh", bz2.BZ2File),
    ".xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
}
"""Suffix -> first bytes, and what unpacks."""

STRANGERS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer, not the data; run  git lfs pull  in its folder",
    b"PK\x03\x04": "a ZIP archive (as Excel workbooks are); unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook; save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"%PDF": "a PDF; CSV, TSV, JSON Lines or Parquet is needed",
    b"SQLite format 3": "a SQLite database; export the table as CSV",
    b"ARROW1": "an Arrow file; save it as Parquet",
    b"<!DOCTYPE": "a web page, not data: the download did not give the file itself; download it again",
    b"<html": "a web page, not data: the download did not give the file itself; download it again",
}
"""First bytes -> what the file is."""

MARKS = {
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
"""Byte order marks, the longer before those that they begin with."""


def read_bytes(path: Path) -> bytes:
    """What a file holds, unpacked if it is compressed, whatever its name says.

    Raises:
        DataError: it is a folder, a pipe, empty, another kind of file, damaged, or unpacks to too much.
        OSError: it cannot be read.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise DataError(f"{path}: Is a directory; give a file in it")
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: a pipe or a device, which cannot be read twice; write it to a file first")
    data = path.read_bytes()
    for start, unpack in PACKED.values():
        if data.startswith(start):
            try:
                data = bytes(unpack(BytesIO(data)).read(LIMIT + 1))
            except (OSError, EOFError, lzma.LZMAError, zlib.error) as e:
                raise DataError(f"{path}: its compressed data are damaged ({e}); write or download it again") from e
            if len(data) > LIMIT:
                raise DataError(f"{path}: unpacks to more than {LIMIT >> 30} GiB; unpack it and take a part")
    if not data:
        raise DataError(f"{path}: an empty file (0 bytes), so no rows; write or download it again")
    for start, what in STRANGERS.items():
        if data[:40].lstrip().lower().startswith(start.lower()):
            raise DataError(f"{path}: {what}")
    return data


def decode(path: Path) -> str:
    """The file's text, without a byte order mark: UTF-8, or UTF-16 or UTF-32 where its bytes show it.

    Raises:
        DataError: another encoding, or binary data.
        OSError: it cannot be read.
    """
    data = read_bytes(path)
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), None) or _without_mark(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as e:
        byte = f"byte 0x{data[e.start]:02x} at position {e.start}"
        called = encoding.upper().removesuffix("-SIG")
        raise DataError(f"{path}: not {called} ({byte}); save it as UTF-8") from e
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}: line {line} holds a NUL character: binary data, or a damaged file; write it again")
    return text.removeprefix("\ufeff")


def _without_mark(data: bytes) -> str:
    """UTF-16 without a byte order mark has a zero in every other byte of a line's end and of Latin letters."""
    if len(data) % 2 or b"\0" not in data:
        return "utf-8"
    even, odd = data[::2].count(0), data[1::2].count(0)
    for encoding, zeros, others in (("utf-16-le", odd, even), ("utf-16-be", even, odd)):
        if zeros and not others:
            return encoding
    return "utf-8"
