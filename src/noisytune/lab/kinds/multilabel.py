"""Any number of labels for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune._metrics import Items
from noisytune._metrics.label_sets import label_set_items
from noisytune.lab.kinds.columns import Floats, TokenSplit
from noisytune.lab.kinds.split import Target
from noisytune.lab.kinds.texts import TextKind
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor


class MultiLabel(TextKind):
    """Targets are tuples of 0.0 and 1.0, one a label. Each label is said where its probability is above one half."""

    name = "multilabel"
    problem = "multi_label_classification"
    keeps_items = True

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """Each example's rarest label; -1 where it has none."""
        table = np.asarray(targets)
        counts = np.where(table > 0, table.sum(axis=0), np.inf)
        return [float(i) for i in np.where((table > 0).any(axis=1), counts.argmin(axis=1), -1)]

    def counts(self, targets: Sequence[Target], classes: int) -> list[int]:
        """Examples that have each label."""
        return [int(n) for n in np.asarray(targets).sum(axis=0)]

    def labels(self, data: TokenSplit, units: Units | None) -> list[list[float]]:
        """The tuples."""
        return [[float(one) for one in target] for target in self.references(data)]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Of each label's probability, added over the labels and averaged over the examples."""
        one, other = one.float(), other.float()
        return ((one.sigmoid() - other.sigmoid()) * (one - other)).sum(-1).mean()

    def read(self, outputs: Floats, units: Units | None) -> tuple[Status, Floats]:
        """1 where an output is above 0; collapsed where all examples get the same labels."""
        said = (outputs > 0).astype(np.float64)
        return ("collapsed" if (said == said[0]).all() else "ok"), said

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """Whole sets, and each label's counts."""
        return label_set_items(predictions, self.references(data))
