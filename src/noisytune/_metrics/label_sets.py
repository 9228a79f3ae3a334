"""Measures of predicted sets of labels. Items: whether the whole set is right, then for each label in turn 1 where it
was found, 1 where it was wrongly said, 1 where it was missed: all counts that a score needs are sums of columns."""

from __future__ import annotations

import math

import numpy as np

from noisytune._metrics.metric import Floats, Items, Metric, f1_of, mean_of


def label_set_items(predictions: Floats, references: Floats) -> Items:
    """The items of predicted sets.

    Args:
        predictions: shape (examples, labels), 1 where a label is said.
        references: the same shape, 1 where it should be.

    >>> label_set_items(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])).tolist()
    [[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    """
    said, gold = predictions > 0, references > 0
    whole = (said == gold).all(axis=1)
    return np.column_stack([whole, said & gold, said & ~gold, ~said & gold]).astype(np.float64)


def whole_set(items: Items) -> Floats:
    """1 for each example whose set is right, else 0."""
    return items[:, 0]


def micro_f1(items: Items) -> float:
    """F1 of all labels together; NaN where none is said and none should be."""
    return f1_of(*(float(part.sum()) for part in _counts(items)))


def macro_f1(items: Items) -> float:
    """F1 of each label, averaged over those that occur among predictions or references; NaN where none does."""
    each = [f1_of(*map(float, label)) for label in zip(*_counts(items), strict=True)]
    defined = [value for value in each if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


METRICS = {
    "micro_f1": Metric("micro F1", micro_f1),
    "macro_f1": Metric("macro F1", macro_f1),
    "subset_accuracy": mean_of("subset accuracy", whole_set),
}


def _counts(items: Items) -> list[Floats]:
    """Found, wrongly said, missed: of each label."""
    return np.split(items[:, 1:].sum(axis=0), 3)
