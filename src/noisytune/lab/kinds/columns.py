"""Examples as a model reads them: named columns of numbers, as many for each row as it has tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, one after the other.

    >>> rows = Ragged.of([[1, 2], [], [3]], np.int32)
    >>> len(rows), rows[0].tolist(), rows.take([2, 0]).values.tolist()
    (3, [1, 2], [3, 1, 2])
    """

    values: Array
    """Of all rows."""
    starts: npt.NDArray[np.int64]
    """Where each row starts, and the end, shape (rows + 1,)."""

    @classmethod
    def of(cls, rows: Sequence[Sequence[float] | Array], dtype: Any) -> Self:
        """From the rows."""
        parts = [np.asarray(row, dtype=dtype) for row in rows]
        starts = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.concatenate(parts) if parts else np.empty(0, dtype), starts)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Of each row."""
        return np.diff(self.starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> Array:
        found: Array = self.values[self.starts[index] : self.starts[index + 1]]
        return found

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Iterable[int]) -> Ragged:
        """The rows at ``indices``, in that order."""
        return Ragged.of([self[int(i)] for i in indices], self.values.dtype)


@dataclass(frozen=True)
class TokenSplit:
    """The examples of one split. A model reads rows: one an example, or several where the kind splits long ones."""

    inputs: Mapping[str, Ragged]
    """What a model reads, by the name that it has there: ``input_ids``, ``token_type_ids``."""
    targets: Floats | Ragged
    """What is to be predicted, one an example."""
    notes: Mapping[str, Ragged] = field(default_factory=dict)
    """What the kind must know of each row to read what the model says of it."""
    owner: npt.NDArray[np.int64] | None = None
    """The example of each row, ascending. None: each example is one row."""
    originals: Ragged | None = None
    """What the kind needs of each example's own text to judge answers: JSON in UTF-8 bytes, one an example."""
    groups: npt.NDArray[np.int64] | None = None
    """What each example belongs to, as a number from 0; None: each stands for itself."""

    def __len__(self) -> int:
        """Examples."""
        return len(self.targets)

    @property
    def rows(self) -> int:
        """How many a model reads."""
        return len(self.inputs["input_ids"])

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [int(n) for n in self.inputs["input_ids"].lengths]

    def row(self, index: int) -> dict[str, list[int]]:
        """A row as a collator takes it."""
        return {name: column[index].tolist() for name, column in self.inputs.items()}

    def take(self, indices: Sequence[int]) -> TokenSplit:
        """The examples at ``indices``, in that order."""
        examples = np.asarray(indices, dtype=np.int64)
        rows, owner = examples, None
        if self.owner is not None:
            found = [np.flatnonzero(self.owner == i) for i in examples]
            rows = np.concatenate(found) if found else examples
            owner = np.repeat(np.arange(len(examples)), [len(part) for part in found])
        return TokenSplit(
            inputs={name: column.take(rows) for name, column in self.inputs.items()},
            targets=self.targets.take(examples) if isinstance(self.targets, Ragged) else self.targets[examples],
            notes={name: column.take(rows) for name, column in self.notes.items()},
            owner=owner,
            originals=self.originals.take(examples) if self.originals else None,
            groups=None if self.groups is None else self.groups[examples],
        )

    def first(self, size: int) -> TokenSplit:
        """The first examples."""
        return self.take(range(min(size, len(self))))


@dataclass(frozen=True)
class Labelled:
    """The rows with what the loss wants of each, as a data set for training."""

    data: TokenSplit
    labels: Sequence[Any]
    """One a row."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.data.row(index), "labels": self.labels[index]}
