"""Whether a perturbed checkpoint is, bit for bit, what its manifest says."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from threading import local
from typing import Any

from noisytune import field
from noisytune._machine import available_cores
from noisytune._perturb import names
from noisytune._perturb.receipt import KEY, receipt_of
from noisytune.checkpoint import _stream
from noisytune.checkpoint._carried import check_files
from noisytune.checkpoint._four_bits import QUANTISED
from noisytune.checkpoint._job import Job, Meter, Progress
from noisytune.checkpoint._safetensors import Weights
from noisytune.checkpoint._source import Source, open_source
from noisytune.checkpoint._targets import Place
from noisytune.errors import DataError
from noisytune.manifest import FILE_NAME, Manifest, TensorEntry


@dataclass(frozen=True)
class Verification:
    """Whether a perturbed checkpoint is what its manifest says."""

    problems: tuple[str, ...]
    """One line each, naming file and tensor; empty if all is well."""
    tensors: int
    against: str | None
    """The clean checkpoint that the noise was computed again from; None where only recorded hashes were compared."""
    files: int | None = None
    """Files beside the weights that were compared; None where they were not looked at."""
    others: tuple[str, ...] = ()
    """Files that are there, but were not written by noisytune. Known only where files were compared."""

    @property
    def ok(self) -> bool:
        """No problem was found."""
        return not self.problems


def verify(
    out: Path, against: Path | None, every_file: bool, progress: Progress | None, threads: int | None
) -> Verification:
    """See `noisytune.checkpoint.verify_checkpoint`."""
    if not (out / FILE_NAME).is_file():
        raise DataError(f"{out}: has no {FILE_NAME}: nothing says which noise it carries")
    manifest = Manifest.read(out)
    record = _record(out / FILE_NAME)
    if codes := record.get(QUANTISED):
        raise DataError(
            f"{out}: its weights were quantised ({codes}) after the noise: verify a copy without --quantize"
        )
    if manifest.field_version != field.VERSION:
        raise DataError(f"{out}: its noise is of version {manifest.field_version}, this library makes {field.VERSION}")
    with ExitStack() as stack:
        written = stack.enter_context(open_source(out))
        problems = _receipt_problems(written, manifest, record)
        tensors = sum(len(file.tensors) for file in written.files)
        if against is None:
            problems += _hash_problems(written, record, threads or available_cores(), progress)
        else:
            source = stack.enter_context(open_source(against))
            problems += _shape_problems(written, source)
            if not problems:
                problems += _noise_problems(written, source, manifest, record, threads, progress)
        files, others = None, tuple[str, ...]()
        if every_file:
            more, others = check_files(written, record)
            problems += more
            files = len(record["files"])
    return Verification(tuple(problems), tensors, None if against is None else str(against), files, others)


def _record(path: Path) -> dict[str, Any]:
    record = json.loads(path.read_bytes())
    wanted = {"source": dict, "headers": dict, "tensors": dict}
    has_parts = all(isinstance(record.get(key), kind) for key, kind in wanted.items())
    if not has_parts or not isinstance(record.get("earlier"), dict | None):
        raise DataError(f"{path}: says nothing about a checkpoint's files: was it written by noisytune perturb?")
    if record.get("hash") != _stream.HASH:
        raise DataError(
            f"{path}: its hashes are {record.get('hash', 'of a kind that it does not name')}, this version makes "
            f"{_stream.HASH}: verify with noisytune {record.get('noisytune_version')}, which wrote it, or perturb again"
        )
    return record  # type: ignore[no-any-return]


def _receipt_problems(written: Source, manifest: Manifest, record: dict[str, Any]) -> list[str]:
    expected = receipt_of(manifest.config, record.get("earlier")) if manifest.perturbed else record.get("earlier")
    if written.config and written.config.get(KEY) != json.loads(json.dumps(expected)):
        return [f"{written.folder / 'config.json'}: its receipt differs from {FILE_NAME}"]
    return []


def _hash_problems(written: Source, record: dict[str, Any], threads: int, progress: Progress | None) -> list[str]:
    problems = []
    for file in written.files:
        if record["headers"].get(file.name) != _stream.digest(file.header).hex():
            problems.append(f"{written.folder / file.name}: the header is not the one that was written")
    meter = Meter(progress, sum(file.size - len(file.header) for file in written.files))
    digests = _stream.digests(written.files, _places(written, record), threads, meter.advance)
    for place, digest in digests.items():
        if record["tensors"].get(place.tensor.name) != digest.hex():
            name = written.files[place.file].name
            problems.append(f"{written.folder / name}: {place.tensor.name} is not what was written")
    for name in record["tensors"].keys() - {place.tensor.name for place in digests}:
        problems.append(f"{written.folder}: {name} is missing")
    return problems


def _places(written: Source, record: dict[str, Any]) -> list[Place]:
    """Every tensor, or each of the parts that hashes were recorded of, whatever is known of the model type today."""
    counts = Counter(names.without_index(name) for name in record["tensors"])
    return [
        Place(number, matrix)
        for number, file in enumerate(written.files)
        for tensor in file.tensors
        for count in (0 if tensor.name in record["tensors"] else counts[tensor.name],)
        for matrix in (tensor.parts(count, ()) if count else tensor.matrices)
    ]


def _shape_problems(written: Source, source: Source) -> list[str]:
    if [file.name for file in written.files] != [file.name for file in source.files]:
        return [f"{written.folder}: has other files of weights than {source.folder}"]
    if written.index != source.index:
        return [f"{written.folder / written.index_name}: differs from {source.folder}'s"]
    return [
        f"{written.folder / ours.name}: its header (names, dtypes, offsets, metadata ...) differs from the source's"
        for ours, theirs in zip(written.files, source.files, strict=True)
        if ours.header != theirs.header
    ]


def _noise_problems(
    written: Source,
    source: Source,
    manifest: Manifest,
    record: dict[str, Any],
    threads: int | None,
    progress: Progress | None,
) -> list[str]:
    job = Job(source, manifest.config, threads, progress, manifest.entries)
    comparison = _Comparison(written.files)
    job.run(comparison.compare)
    if job.digest != record["source"].get("digest"):
        return [f"{source.folder}: is not the checkpoint that {written.folder} was made from: the digests differ"]
    problems = [
        f"{written.folder / written.files[file].name}: {name}, element {element}: not the source plus the stated noise"
        for (file, name), element in sorted(comparison.differences.items())
    ]
    ours_and_theirs = (job.manifest().entries, manifest.entries)
    pairs = zip_longest(*(sorted(entries, key=lambda entry: entry.name) for entries in ours_and_theirs))
    if not problems and not all(ours and theirs and _agree(ours, theirs) for ours, theirs in pairs):
        problems.append(f"{written.folder / FILE_NAME}: what it says about the tensors differs from what was computed")
    return problems


def _agree(ours: TensorEntry, theirs: TensorEntry) -> bool:
    """Sums come out a little differently on processors with other vector widths; all else is exact."""

    def rest(entry: TensorEntry) -> TensorEntry:
        return replace(entry, std=None, scale=None, realised_std=None)

    def near(a: float | None, b: float | None, tolerance: float) -> bool:
        if a is None or b is None:
            return a is b
        return math.isclose(a, b, rel_tol=tolerance) or (math.isnan(a) and math.isnan(b))

    return (
        rest(ours) == rest(theirs)
        and near(ours.std, theirs.std, 1e-12)
        and near(ours.scale, theirs.scale, 1e-12)
        and near(ours.realised_std, theirs.realised_std, 1e-4)
    )


class _Comparison:
    """A sink that compares what it is given with files that are there."""

    def __init__(self, files: Sequence[Weights]) -> None:
        self._files = files
        self._buffers = local()
        self.differences: dict[tuple[int, str], int] = {}
        """First element that differs, by file and tensor."""

    def compare(self, file: int, position: int, expected: memoryview) -> None:
        """Compare a run of bytes."""
        if not hasattr(self._buffers, "bytes"):
            self._buffers.bytes = memoryview(bytearray(_stream.LARGEST_PIECE))
        found = self._buffers.bytes[: len(expected)]
        self._files[file].read(position, found)
        if found != expected:
            self._note(file, position, found, expected)

    def _note(self, file: int, position: int, found: memoryview, expected: memoryview) -> None:
        tensor = next(t for t in self._files[file].tensors if t.begin <= position < t.end)
        first = next(i for i in range(len(found)) if found[i] != expected[i])
        element = (position + first - tensor.begin) // tensor.dtype.itemsize
        key = (file, tensor.name)
        self.differences[key] = min(element, self.differences.get(key, element))
