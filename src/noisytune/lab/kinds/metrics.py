"""What a prediction is worth: scikit-learn's and SciPy's measures under one roof. Higher is better in each."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["classification", "regression"]
Numbers = Sequence[float]


@dataclass(frozen=True)
class Metric:
    """One measure."""

    label: str
    """For people."""
    kind: Kind
    function: Callable[[Numbers, Numbers], float]
    """(references, predictions) -> score, as a fraction or a correlation; NaN where it is undefined."""
    binary: bool = False
    """It applies to two classes only; the positive one has id 1."""


def accuracy(references: Numbers, predictions: Numbers) -> float:
    """Share of predictions that are right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(references, predictions))


def macro_f1(references: Numbers, predictions: Numbers) -> float:
    """F1 of each class, averaged over the classes that occur."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="macro", zero_division=0))


def f1(references: Numbers, predictions: Numbers) -> float:
    """F1 of class 1; NaN where it occurs neither in the references nor in the predictions."""
    from sklearn.metrics import f1_score

    return float(f1_score(references, predictions, average="binary", pos_label=1, zero_division=math.nan))


def matthews(references: Numbers, predictions: Numbers) -> float:
    """Matthews correlation; 0 where every prediction is the same (scikit-learn's and GLUE's convention)."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(references, predictions))


def pearson(references: Numbers, predictions: Numbers) -> float:
    """Pearson correlation; NaN where either side is constant or not finite, or with fewer than two examples."""
    from scipy.stats import pearsonr

    return float(pearsonr(references, predictions).statistic) if _correlates(references, predictions) else math.nan


def spearman(references: Numbers, predictions: Numbers) -> float:
    """Spearman rank correlation; NaN as for `pearson`."""
    from scipy.stats import spearmanr

    return float(spearmanr(references, predictions).statistic) if _correlates(references, predictions) else math.nan


def r2(references: Numbers, predictions: Numbers) -> float:
    """Share of the references' variance that is explained; below 0 for predictions worse than the mean."""
    from sklearn.metrics import r2_score

    finite = all(map(math.isfinite, predictions))
    return float(r2_score(references, predictions)) if finite and len(set(references)) > 1 else math.nan


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", "classification", accuracy),
    "macro_f1": Metric("macro F1", "classification", macro_f1),
    "f1": Metric("F1", "classification", f1, binary=True),
    "matthews": Metric("Matthews correlation", "classification", matthews),
    "pearson": Metric("Pearson correlation", "regression", pearson),
    "spearman": Metric("Spearman correlation", "regression", spearman),
    "r2": Metric("R²", "regression", r2),
}
"""Key -> metric. The first of each kind is its default."""


def score(kind: Kind, references: Numbers, predictions: Numbers) -> dict[str, float]:
    """Every metric that applies.

    Args:
        kind: of the task.
        references: class ids or values, at least one.
        predictions: as many.

    Returns:
        Key of `METRICS` -> score. An undefined score (a correlation with constant predictions) is absent.

    Raises:
        ValueError: no examples, or different numbers of references and predictions.

    >>> score("classification", [0, 1, 1, 0], [0, 1, 0, 0])["accuracy"]
    0.75
    """
    if not references or len(references) != len(predictions):
        raise ValueError(f"{len(references)} references and {len(predictions)} predictions: need as many, at least one")
    binary = {*references, *predictions} <= {0, 1}
    scores: dict[str, float] = {}
    # A score is present or absent; the libraries' warnings about collapsed predictions say the same again.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for key, metric in METRICS.items():
            if metric.kind == kind and (binary or not metric.binary):
                value = metric.function(references, predictions)
                if math.isfinite(value):
                    scores[key] = value
    return scores


def _correlates(references: Numbers, predictions: Numbers) -> bool:
    """Whether a correlation is defined."""
    finite = all(map(math.isfinite, (*references, *predictions)))
    return finite and len(set(references)) > 1 and len(set(predictions)) > 1
