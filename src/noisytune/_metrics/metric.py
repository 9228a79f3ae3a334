"""What a metric is: a reduction of items."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Items = npt.NDArray[np.float64]
"""What there is to know about each example, shape (examples, k). What the columns mean is the kind's."""


@dataclass(frozen=True)
class Metric:
    """One measure; higher is better, unless it says otherwise."""

    label: str
    """For people."""
    of: Callable[[Items], float]
    """Items of at least one example -> score, as a fraction or a correlation; NaN where it is undefined."""
    binary: bool = False
    """It applies to two classes only; the positive one has id 1."""
    each: Callable[[Items], Floats] | None = None
    """Where the score is the mean over the examples of one number an example: these numbers."""
    parts: tuple[str, ...] = ()
    """Where it is the mean of other metrics of its kind, which are shown beside it: their keys."""
    lower_is_better: bool = False


def mean_of(label: str, each: Callable[[Items], Floats], parts: tuple[str, ...] = ()) -> Metric:
    """The metric that is the mean over the examples of one number an example.

    >>> mean_of("accuracy", lambda items: items[:, 0]).of(np.array([[1.0], [0.0]]))
    0.5
    """
    return Metric(label, lambda items: float(each(items).mean()), each=each, parts=parts)


def f1_of(found: float, wrong: float, missed: float) -> float:
    """F1 from counts; NaN where there is nothing to count.

    >>> f1_of(2, 1, 1)
    0.6666666666666666
    """
    total = 2 * found + wrong + missed
    return float(2 * found / total) if total else math.nan
