"""Whether the files beside the weights are, byte for byte, those that were written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from noisytune._pretrained import CONFIG, regular_file
from noisytune.checkpoint._source import CARD, Source
from noisytune.errors import DataError
from noisytune.manifest import FILE_NAME


def file_digest(path: Path) -> str:
    """The hash of a file, read in pieces."""
    found = xxhash.xxh3_128()
    with path.open("rb") as stream:
        while content := stream.read(1 << 20):
            found.update(content)
    return found.hexdigest()


def check_files(written: Source, record: Mapping[str, Any]) -> tuple[list[str], tuple[str, ...]]:
    """Problems, one line each, and files that are there but were not written by noisytune.

    Args:
        written: the perturbed checkpoint.
        record: what its manifest says beyond the tensors.

    Raises:
        DataError: the manifest has no hashes of files: it is an older version's.
    """
    hashes = record.get("files")
    if not isinstance(hashes, dict):
        raise DataError(
            f"{written.folder / FILE_NAME}: holds hashes of the weights only, as earlier versions wrote it: "
            "verify the weights alone, or perturb again"
        )
    here = {path.as_posix() for path in written.contents.extras} | set(written.contents.left_out)
    here |= {name for name in (CONFIG, CARD, written.index_name) if (written.folder / name).is_file()}
    problems = [
        f"{written.folder / name}: {what}"
        for name, digest in hashes.items()
        if (what := _problem(written, name, here, digest))
    ]
    return problems, tuple(sorted(here - hashes.keys()))


def _problem(written: Source, name: str, here: set[str], digest: str) -> str | None:
    if name not in here:
        return "is missing"
    return None if file_digest(regular_file(written.folder / name)) == digest else "is not what was written"
