"""What models answered, example by example: one safetensors file beside each trial's record, read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune.errors import DamagedRecordError
from noisytune.lab.store.files import content_digest, read_file
from noisytune.records import TRIAL_ADVICE, Outputs

Array = npt.NDArray[Any]


def pack(outputs: Outputs) -> bytes:
    """Outputs as the content of a file.

    Args:
        outputs: as in `noisytune.records.TrialRecord.outputs`.

    >>> unpack(pack({"dev/predictions": np.array([1.0, 0.0])}), "here")
    {'dev/predictions': array([1., 0.])}
    """
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in outputs.items()})


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
    sizes: dict[str, set[int]] = {}
    for name, array in arrays.items():
        sizes.setdefault(name.rpartition("/")[0], set()).add(len(array) if array.ndim else -1)
    for split, found in sizes.items():
        if len(found) > 1 or -1 in found:
            raise DamagedRecordError(
                f"{where}: arrays of {split!r} with {sorted(found)} examples do not belong together; {TRIAL_ADVICE}"
            )
    return arrays


class StoredOutputs(Mapping[str, Array]):
    """The outputs of a finished trial: read and checked at the first look, then kept as long as the record."""

    def __init__(self, file: Path, digest: str) -> None:
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
        if not self.file.is_file():
            raise DamagedRecordError(f"{self.file}: missing, so its record cannot be believed; {TRIAL_ADVICE}")
        content = read_file(self.file)
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
