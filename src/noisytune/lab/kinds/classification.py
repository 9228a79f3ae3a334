"""One class of several for each example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune.lab.kinds.columns import Floats, TokenSplit
from noisytune.lab.kinds.split import Target
from noisytune.lab.kinds.texts import TextKind
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor


class Classification(TextKind):
    """Targets are class ids, 0.0 .. C-1."""

    name = "classification"
    problem = "single_label_classification"

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """The classes."""
        return targets

    def counts(self, targets: Sequence[Target], classes: int) -> list[int]:
        """Examples of each class."""
        found = Counter(targets)
        return [found[float(i)] for i in range(classes)]

    def majority(self, targets: Sequence[Target]) -> float | None:
        """Share of the largest class."""
        return max(Counter(targets).values()) / len(targets)

    def labels(self, data: TokenSplit, units: Units | None) -> list[int]:
        """Class ids."""
        return [int(target) for target in data.targets]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Of the classes' probabilities, averaged over the examples."""
        from noisytune.methods._divergence import symmetric_divergence

        return symmetric_divergence(one, other, regression=False)

    def read(self, outputs: Floats, units: Units | None) -> tuple[Status, Floats]:
        """The class with the largest output; collapsed where it is always the same."""
        classes = outputs.argmax(axis=1)
        return ("collapsed" if len(np.unique(classes)) == 1 else "ok"), classes.astype(np.float64)
