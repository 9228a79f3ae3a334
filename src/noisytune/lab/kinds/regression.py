"""A number for each example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune.errors import DataError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.split import Target
from noisytune.lab.kinds.texts import TextKind
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor


class Regression(TextKind):
    """Targets are values. A model learns them standardised; predictions are in the user's units."""

    name = "regression"
    problem = "regression"
    has_classes = False

    def check(self, where: str, targets: Sequence[Target]) -> None:
        """Not all the same."""
        if targets and min(targets) == max(targets):
            raise DataError(
                f"{where}: every training value is {targets[0]:g}, there is nothing to learn; "
                "give more training rows or another label_column"
            )

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """None: a part is drawn without regard to the values."""
        return (0.0,) * len(targets)

    def spread(self, targets: Any) -> Sequence[float] | Floats:
        """The values."""
        return np.asarray(targets, dtype=np.float64)

    def values(self, targets: Sequence[Target]) -> dict[str, float]:
        """The smallest, the largest, their mean, and how many there are."""
        values = np.asarray(targets)
        largest = float(np.abs(values).max()) or 1.0
        mean = float((values / largest).mean()) * largest  # the sum of finite values may pass float64's range
        return {
            "smallest": float(values.min()),
            "largest": float(values.max()),
            "mean": mean,
            "different": len(set(targets)),
        }

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """One output."""
        return super().head(["value"])

    def units(self, targets: Floats | Ragged) -> Units | None:
        """Mean 0 and standard deviation 1."""
        return Units.of(np.asarray(targets))

    def labels(self, data: TokenSplit, units: Units | None) -> list[float]:
        """Standardised values."""
        targets = np.asarray(data.targets)
        return units.standardised(targets) if units else [float(target) for target in targets]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Twice the squared difference, averaged over the examples."""
        from noisytune.methods._divergence import symmetric_divergence

        return symmetric_divergence(one, other, regression=True)

    def read(self, outputs: Floats, units: Units | None) -> tuple[Status, Floats]:
        """The outputs in the user's units; diverged where they pass float64's range."""
        values = outputs[:, 0]
        # Values that differ by no more than float32's rounding tell nothing apart.
        same = np.ptp(values) <= 1e-6 * max(1.0, float(np.abs(values).max()))
        predictions = units.restored(values) if units else values
        if not np.isfinite(predictions).all():
            return "diverged", np.empty(0)
        return ("collapsed" if same else "ok"), predictions
