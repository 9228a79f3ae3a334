"""What answers are worth, in NumPy alone: items of examples in, scores out. The lab and the report share it.

An item is a row of numbers about one example. Every metric of a kind of task is a reduction of its items, so that
examples are resampled and grouped by rows, whatever the kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from noisytune._metrics import answers, classes, given, label_sets, language, retrieval, tags, values
from noisytune._metrics.metric import Floats, Items, Metric

__all__ = [
    "METRICS",
    "OWN",
    "OWN_LOWER",
    "PER_CLASS",
    "RIGHT",
    "Floats",
    "Items",
    "Metric",
    "direction",
    "kinds_with",
    "score",
]

METRICS: dict[str, dict[str, Metric]] = {
    "classification": classes.METRICS,
    "multilabel": label_sets.METRICS,
    "regression": values.METRICS,
    "tagging": tags.METRICS,
    "spans": answers.METRICS,
    "retrieval": retrieval.METRICS,
    "outcomes": given.OUTCOMES,
    "scores": given.SCORES,
    "language": language.METRICS,
}
"""Kind of task -> key -> metric. The first of each kind is its default."""

RIGHT: dict[str, Callable[[Items], Floats]] = {
    "classification": classes.right,
    "multilabel": label_sets.whole_set,
    "tagging": tags.whole_sentence,
    "spans": answers.exact,
    "retrieval": retrieval.nothing_wrong,
    "outcomes": given.given,
    "language": language.right,
}
"""For the kinds whose examples are right or wrong as a whole: 1 or 0 for each, NaN where none was asked."""

PER_CLASS: dict[str, Callable[[Items, int], Floats]] = {"classification": classes.per_class}
"""For the kinds whose answers are classes: (items, number of classes) -> number, precision, recall and F1 of each."""


OWN, OWN_LOWER = "own", "own, lower is better"
"""Kinds of tasks in records that a training of the user's own scores, by numbers that nobody here can compute again."""


def kinds_with(metric: str) -> tuple[str, ...]:
    """The kinds of task that have a metric of this key.

    >>> kinds_with("pearson")
    ('regression',)
    """
    return tuple(kind for kind, metrics in METRICS.items() if metric in metrics)


def direction(kind: str, metric: str) -> int:
    """1 where a higher score is better, -1 where a lower one is; 1 of a metric that is not known, unless its kind says.

    >>> direction("classification", "accuracy"), direction("language", "nll")
    (1, -1)
    """
    known = METRICS.get(kind, {}).get(metric)
    return -1 if kind == OWN_LOWER or (known and known.lower_is_better) else 1


def score(kind: str, items: Items) -> dict[str, float]:
    """Every metric that applies.

    Args:
        kind: of the task.
        items: shape (examples, k), as the kind defines them.

    Returns:
        Key -> score. An undefined score (a correlation with constant predictions) is absent.

    Raises:
        ValueError: no examples.

    >>> score("classification", np.array([[0, 0], [1, 1], [0, 1], [0, 0]]))["accuracy"]
    0.75
    """
    if not len(items):
        raise ValueError("no items: at least one example is needed")
    binary = set(np.unique(items)) <= {0, 1}
    found = {key: metric.of(items) for key, metric in METRICS[kind].items() if binary or not metric.binary}
    return {key: value for key, value in found.items() if math.isfinite(value)}
