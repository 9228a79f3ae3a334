"""Measures of predicted classes. Items: prediction and reference, as class ids."""

from __future__ import annotations

import math

import numpy as np

from noisytune._metrics.metric import Floats, Items, Metric, mean_of


def right(items: Items) -> Floats:
    """1 for each example predicted exactly, else 0."""
    return np.equal(items[:, 0], items[:, 1]).astype(np.float64)


def per_class(items: Items, classes: int) -> Floats:
    """Of each class its number of examples, precision, recall and F1, shape (classes, 4).

    NaN where undefined: the precision of a class that is never predicted, the recall of one that never occurs.

    >>> per_class(np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), 2).round(2).tolist()
    [[1.0, 0.5, 1.0, 0.67], [2.0, 1.0, 0.5, 0.67]]
    """
    predicted, gold = (np.bincount(column.astype(np.int64), minlength=classes) for column in items.T)
    both = np.bincount(items[right(items) == 1, 0].astype(np.int64), minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.column_stack([gold, both / predicted, both / gold, 2 * both / (predicted + gold)])[:classes]


def macro_f1(items: Items) -> float:
    """F1 of each class, averaged over the classes that occur among predictions or references."""
    table = _confusion(items)
    return float((2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1))).mean())


def f1(items: Items) -> float:
    """F1 of class 1; NaN where it occurs neither among the predictions nor the references."""
    is_one = items == 1
    both = int(is_one.sum())
    return 2 * int(is_one.all(axis=1).sum()) / both if both else math.nan


def matthews(items: Items) -> float:
    """Matthews correlation for any number of classes; 0 where either side is constant (GLUE's convention)."""
    table = _confusion(items)
    gold, predicted, n = table.sum(axis=1), table.sum(axis=0), table.sum()
    scale = float(np.sqrt((n**2 - predicted @ predicted) * (n**2 - gold @ gold)))
    return float(np.trace(table) * n - predicted @ gold) / scale if scale > 0.0 else 0.0


METRICS = {
    "accuracy": mean_of("accuracy", right),
    "macro_f1": Metric("macro F1", macro_f1),
    "f1": Metric("F1", f1, binary=True),
    "matthews": Metric("Matthews correlation", matthews),
}


def _confusion(items: Items) -> Floats:
    """Counts, shape (references' classes, predictions' classes), over the classes that occur."""
    labels, codes = np.unique(items.T.ravel(), return_inverse=True)
    predicted, gold = np.split(codes, 2)
    return np.bincount(gold * labels.size + predicted, minlength=labels.size**2).reshape(labels.size, -1).astype(float)
