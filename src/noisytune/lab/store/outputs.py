"""What models answered, example by example: one safetensors file beside each trial's record, read when asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from noisytune._metrics import METRICS
from noisytune.errors import DamagedRecordError, RunFolderError
from noisytune.lab.store.files import content_digest, read_file
from noisytune.records import TRIAL_ADVICE, Outputs, TrialRecord

Array = npt.NDArray[Any]
_ROUNDING = 1e-6
"""Scores that differ by less are the same: other machines and libraries round otherwise."""
_WHOLE = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32)
"""What whole numbers are stored in, the smallest first."""
_FRACTIONS = (np.float16, np.float32)
"""What other numbers are stored in where they lose nothing: whole ones with NaN among them, above all."""
_FLOATS = "float64"
"""The metadata that says which arrays were float64: their names, one a line."""


def pack(outputs: Outputs) -> bytes:
    """Outputs as the content of a file; class ids and other numbers in float64 take as few bytes as they need.

    Args:
        outputs: as in `noisytune.records.TrialRecord.outputs`.

    >>> unpack(pack({"dev/predictions": np.array([1.0, 0.0])}), "here")
    {'dev/predictions': array([1., 0.])}
    """
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in outputs.items()}
    small = {name: found for name, array in arrays.items() if (found := _as_small(array)) is not None}
    return save(arrays | small, {_FLOATS: "\n".join(sorted(small))} if small else None)


def _as_small(array: Array) -> Array | None:
    """The same numbers in a smaller type; None where none holds them all, or the array is not float64."""
    if array.dtype != np.float64 or not array.size:
        return None
    # By their bytes: -0.0 equals 0.0, and is another number; NaN is itself.
    content, small = array.tobytes(), array
    for kind in (*_whole_types(array), *_FRACTIONS):
        with np.errstate(over="ignore"):
            small = array.astype(kind)
        if small.astype(np.float64).tobytes() == content:
            return small
    return None


def _whole_types(array: Array) -> Sequence[type[np.integer[Any]]]:
    """The smallest type of whole numbers that reaches as far as the array does; none where a number is not finite."""
    if not np.isfinite(array).all():
        return []
    low, high = array.min(), array.max()
    return [kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max][:1]


def unpack(content: bytes, where: str) -> dict[str, Array]:
    """The inverse of `pack`.

    Args:
        content: of the file.
        where: its path, for the error message.

    Raises:
        DamagedRecordError: `pack` did not write it, or its splits have examples without a reference.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(content)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DamagedRecordError(f"{where}: not a file of outputs ({error}); {TRIAL_ADVICE}") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    floats = header.get("__metadata__", {}).get(_FLOATS, "").split("\n")
    arrays = {name: array.astype(np.float64) if name in floats else array for name, array in arrays.items()}
    sizes: dict[str, set[int]] = {}
    for name, array in arrays.items():
        sizes.setdefault(name.rpartition("/")[0], set()).add(len(array) if array.ndim else -1)
    for split, found in sizes.items():
        if len(found) > 1 or -1 in found:
            raise DamagedRecordError(
                f"{where}: arrays of {split!r} with {sorted(found)} examples do not belong together; {TRIAL_ADVICE}"
            )
    return arrays


def check_scores(record: TrialRecord, outputs: Outputs, where: str, metrics: Collection[str] = ()) -> None:
    """Compute the scores of a record again from its outputs.

    Args:
        record: of any kind of task; one that nobody knows is left alone.
        outputs: the record's.
        metrics: to compute; none: all.
        where: the record's file, for the error message.

    Raises:
        DamagedRecordError: a score is another one, or cannot be computed.
    """
    task = record.settings["task"]
    known = METRICS.get(task.get("kind", ""), {})
    for split, found in record.evaluations.items():
        asked = [key for key in found["scores"] if key in known and (not metrics or key in metrics)]
        # Damaged items may fail in any way that arrays can.
        try:
            items = _items(outputs, split)
            again = {} if items is None or not len(items) else {key: known[key].of(items) for key in asked}
        except Exception as error:
            raise DamagedRecordError(
                f"{where}: what is kept of {split} gives no score ({error}); {TRIAL_ADVICE}"
            ) from error
        for key, now in again.items():
            value = found["scores"][key]
            # Of a score that is undefined, earlier versions kept 0.
            if abs(now - value) > _ROUNDING * max(1.0, abs(value)):
                _differs(where, f"{key} of {split}", value, now)
    splits = task.get("primary") or [task.get("select") or next(iter(record.evaluations), "")]
    primary = [record.evaluations[split]["scores"] for split in splits if split in record.evaluations]
    for key, value in record.scores.items():
        parts = [scores[key] for scores in primary if key in scores]
        if parts and abs(sum(parts) / len(parts) - value) > _ROUNDING * max(1.0, abs(value)):
            _differs(where, key, value, sum(parts) / len(parts))


def _items(outputs: Outputs, split: str) -> Array | None:
    """What the metrics reduce: kept as such, or predictions beside references; None where there is neither."""
    if f"{split}/items" in outputs:
        return outputs[f"{split}/items"]
    pair = [outputs[name] for name in (f"{split}/predictions", f"{split}/references") if name in outputs]
    return np.column_stack(pair) if len(pair) == 2 and len(pair[0]) == len(pair[1]) else None


def _differs(where: str, what: str, recorded: float, found: float) -> NoReturn:
    raise DamagedRecordError(
        f"{where}: changed since it was written ({what} is {recorded:.6g}, its predictions give {found:.6g}); "
        f"{TRIAL_ADVICE}"
    )


class StoredOutputs(Mapping[str, Array]):
    """The outputs of a finished trial: read and checked at the first look, then kept as long as the record."""

    def __init__(self, file: str | Path, digest: str) -> None:
        """Read nothing yet.

        Args:
            file: that holds them.
            digest: `noisytune.lab.store.files.content_digest` of what it must hold.
        """
        self.file = file
        self.digest = digest

    def read(self) -> dict[str, Array]:
        """All arrays, not kept.

        Raises:
            DamagedRecordError: the file is gone, or holds something else.
        """
        try:
            content = read_file(self.file)
        except RunFolderError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
            raise DamagedRecordError(
                f"{self.file}: missing, so its record cannot be believed; {TRIAL_ADVICE}"
            ) from error
        if content_digest(content) != self.digest:
            raise DamagedRecordError(f"{self.file}: not what was written with the record beside it; {TRIAL_ADVICE}")
        return unpack(content, str(self.file))

    @cached_property
    def _arrays(self) -> dict[str, Array]:
        return self.read()

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
