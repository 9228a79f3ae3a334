"""Values to predict in the user's units, and in those that a model learns in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Units:
    """The model's units: mean 0 and standard deviation 1 on train, where a new head can learn.

    Everything is divided by the largest size first, so that no finite value overflows on the way.

    >>> units = Units.of(np.array([0.0, 40_000.0]))
    >>> units.standardised(np.array([0.0, 40_000.0])), units.restored(np.array([0.0])).tolist()
    ([-1.0, 1.0], [20000.0])
    """

    largest: float
    """Size of the largest train value, > 0."""
    mean: float
    """Of the train values, divided by ``largest``."""
    sd: float
    """Of the train values, divided by ``largest``; 1 where they are all the same."""

    @classmethod
    def of(cls, train: Floats) -> Self:
        """The units that fit these values, shape (examples,)."""
        largest = float(np.abs(train).max()) or 1.0
        scaled = train / largest
        return cls(largest, float(scaled.mean()), float(scaled.std()) or 1.0)

    def standardised(self, values: Floats) -> list[float]:
        """From the user's units to the model's."""
        return [float(value) for value in (values / self.largest - self.mean) / self.sd]

    def restored(self, values: Floats) -> Floats:
        """From the model's units to the user's; infinite where they pass float64's range."""
        with np.errstate(over="ignore"):
            return np.asarray((values * self.sd + self.mean) * self.largest)
