"""What was done to which tensor: the account that every perturbation returns."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from noisytune import _table, field
from noisytune._files import publish
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError

FILE_NAME = "noisytune.json"
"""The manifest's name beside a checkpoint or an adapter."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of the model. Tied tensors have one entry together.

    >>> TensorEntry("encoder.weight", ("bert.encoder.weight",), (4, 2), "float32").elements
    8
    """

    name: str
    """Canonical name: what the noise was drawn for."""
    own_names: tuple[str, ...]
    """The names in the model as it was given; several where weights are tied."""
    shape: tuple[int, ...]
    dtype: str
    """Such as "float32"."""
    std: float | None = None
    """Sample standard deviation before the noise; None where nobody looked."""
    scale: float | None = None
    """lambda times the standard deviation that was used: the width of the uniform noise."""
    realised_std: float | None = None
    """Standard deviation of what was really added, after rounding to the dtype. Expected: scale / sqrt(12)."""
    left_alone: str | None = None
    """Why the tensor got no noise; None if it did."""

    @property
    def elements(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


@dataclass(frozen=True)
class Manifest:
    """The settings and, for each tensor, what was done. Prints as a table that groups the layers.

    Example:
        >>> entry = TensorEntry("encoder.weight", ("encoder.weight",), (4, 2), "float32", 0.5, 0.075, 0.0216)
        >>> manifest = Manifest(NoisyTuneConfig(), (entry,))
        >>> [one.name for one in manifest.perturbed], manifest.summary()["perturbed_elements"]
        (['encoder.weight'], 8)
        >>> print(manifest.table(width=80))
        NoisyTune: 1 of 1 tensors (8 of 8 elements) perturbed, lambda 0.15, uniform,
          matrix scale, seed 0
        tensor          n  shape    dtype  std  noise std
        encoder.weight  1    4x2  float32  0.5     0.0216
    """

    config: NoisyTuneConfig
    entries: tuple[TensorEntry, ...]
    notices: tuple[str, ...] = ()
    """What the user should know, one line each."""
    field_version: int = field.VERSION

    @property
    def perturbed(self) -> tuple[TensorEntry, ...]:
        """The tensors that got noise."""
        return tuple(entry for entry in self.entries if entry.left_alone is None)

    def summary(self) -> dict[str, Any]:
        """A few JSON values: settings, counts of tensors and elements, reasons for leaving tensors alone.

        >>> sorted(Manifest(NoisyTuneConfig(), ()).summary())
        ['config', 'elements', 'field_version', 'left_alone', 'notices', 'perturbed', 'perturbed_elements']
        """
        return {
            "config": self.config.to_dict(),
            "field_version": self.field_version,
            "perturbed": len(self.perturbed),
            "perturbed_elements": sum(entry.elements for entry in self.perturbed),
            "elements": sum(entry.elements for entry in self.entries),
            "left_alone": dict(Counter(entry.left_alone for entry in self.entries if entry.left_alone)),
            "notices": list(self.notices),
        }

    def write(self, folder: str | Path) -> Path:
        """Write `FILE_NAME` into a folder, whole or not at all. Returns its path.

        Args:
            folder: that exists.

        Raises:
            OSError: the folder is missing or cannot be written.

        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> Manifest(NoisyTuneConfig(seed=7), ()).write(folder).name, Manifest.read(folder).config.seed
        ('noisytune.json', 7)
        """
        path = Path(folder) / FILE_NAME
        content = json.dumps({**asdict(self), "config": self.config.to_dict()}, indent=1)
        publish(path, content.encode())
        return path

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Read what `write` wrote.

        Args:
            folder: that holds `FILE_NAME`.

        Raises:
            NoisyTuneError: the file is missing or not a manifest.
        """
        path = Path(folder) / FILE_NAME
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            entries = tuple(
                TensorEntry(**{**entry, "own_names": tuple(entry["own_names"]), "shape": tuple(entry["shape"])})
                for entry in raw["entries"]
            )
            for entry in entries:
                if not all(isinstance(name, str) for name in (entry.name, *entry.own_names)):
                    raise TypeError(f"a tensor's name must be text, got {(entry.name, *entry.own_names)}")
            config = NoisyTuneConfig.from_dict(raw["config"])
            return cls(config, entries, tuple(raw["notices"]), raw["field_version"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise NoisyTuneError(f"{path}: not a manifest of noisytune ({error})") from error

    def table(self, every_tensor: bool = False, width: int | None = None) -> str:
        """The manifest as text.

        Args:
            every_tensor: one row a tensor, instead of one row for all layers' tensors of the same kind.
            width: columns; None takes the terminal's, or 100 where there is none.
        """
        groups: dict[tuple[Any, ...], list[TensorEntry]] = {}
        for entry in self.entries:
            pattern = entry.name if every_tensor else re.sub(r"\d+", "*", entry.name)
            groups.setdefault((pattern, entry.shape, entry.dtype, entry.left_alone), []).append(entry)
        rows = []
        for (pattern, shape, dtype, left_alone), group in groups.items():
            outcome = f"left: {left_alone}" if left_alone else _range(entry.realised_std for entry in group)
            size = "x".join(map(str, shape)) or "-"
            rows.append([pattern, str(len(group)), size, dtype, _range(entry.std for entry in group), outcome])
        header = ["tensor", "n", "shape", "dtype", "std", "noise std"]
        width = width or _table.terminal_width()
        notices = [line for notice in self.notices for line in _table.paragraph(f"Note: {notice}", width)]
        headline = _table.paragraph(self.headline(), width)
        return "\n".join([*headline, *_table.lines(header, rows, width), *notices])

    def headline(self) -> str:
        """One line: how much got which noise.

        >>> Manifest(NoisyTuneConfig(), ()).headline()[:52]
        'NoisyTune: 0 of 0 tensors (0 of 0 elements) perturbe'
        """
        config, summary = self.config, self.summary()
        return (
            f"NoisyTune: {summary['perturbed']} of {len(self.entries)} tensors "
            f"({summary['perturbed_elements']:,} of {summary['elements']:,} elements) perturbed, "
            f"lambda {config.noise_lambda:g}, {config.distribution}, {config.scale} scale, seed {config.seed}"
        )

    def __str__(self) -> str:
        return self.table()

    def with_notices(self, *notices: str) -> Manifest:
        """A copy with more notices.

        Args:
            *notices: what the user should know, one line each.

        >>> Manifest(NoisyTuneConfig(), ()).with_notices("no locks here").notices
        ('no locks here',)
        """
        return replace(self, notices=self.notices + notices)


def _range(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    low, high = f"{min(known):.3g}", f"{max(known):.3g}"
    return low if low == high else f"{low}..{high}"
