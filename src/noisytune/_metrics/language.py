"""Measures of what a language model says. Items: one row an example, in the columns below; NaN where nothing was asked.

Exact match and F1 compare words as SQuAD's evaluator does: see `noisytune._metrics.answers`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from noisytune._metrics.metric import Floats, Items, Metric, mean_of

NLL, TOKENS, EXACT, F1, PATTERN, JSON, CHOICE = range(7)
"""Negative log-likelihood of the completion (nats, summed), its tokens, and of the generated answer: exact match, F1,
whether what a pattern finds is what it finds in the reference, whether both are the same JSON. Last whether the right
choice is the most likely one."""
COLUMNS = 7


def nll(items: Items) -> float:
    """Nats per completion token, over all tokens of all examples."""
    return float(items[:, NLL].sum() / items[:, TOKENS].sum())


def perplexity(items: Items) -> float:
    """Its exponential; infinite where that passes float64's range.

    >>> perplexity(np.array([[2 * math.log(3), 2.0]]))
    3.0000000000000004
    """
    with np.errstate(over="ignore"):
        return float(np.exp(nll(items)))


def right(items: Items) -> Floats:
    """1 for each example that is answered exactly, or whose right choice is the likeliest; NaN where none is asked."""
    return np.where(np.isnan(items[:, CHOICE]), items[:, EXACT], items[:, CHOICE])


def pattern_match(said: str, reference: str, pattern: str) -> float:
    """Whether what a pattern finds first is the same in both; NaN where the reference has none.

    Args:
        said: the answer.
        reference: what it should be.
        pattern: a regular expression; what its first group holds is compared, or all where it has none.

    >>> [pattern_match(said, "so #### 12", r"#### (-?\\d+)") for said in ("#### 12, I think", "12")]
    [1.0, 0.0]
    """
    wanted, found = _found(pattern, reference), _found(pattern, said)
    return math.nan if wanted is None else float(found == wanted)


def json_match(said: str, reference: str) -> float:
    """Whether both are the same JSON; NaN where the reference is no object and no list.

    >>> json_match('{"b": 1, "a": [2]}', '{"a": [2], "b": 1}'), json_match("so: {}", "{}")
    (1.0, 0.0)
    """
    wanted = _json(reference)
    return float(_same(_json(said), wanted)) if isinstance(wanted, dict | list) else math.nan


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match and (match[1] if match.re.groups else match[0])


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _same(one: Any, other: Any) -> bool:
    """As `==`, but true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _column(index: int) -> Callable[[Items], Floats]:
    return lambda items: items[:, index]


METRICS = {
    "nll": Metric("nats per completion token", nll, lower_is_better=True),
    "perplexity": Metric("perplexity", perplexity, lower_is_better=True),
    "exact_match": mean_of("exact match", _column(EXACT)),
    "answer_f1": mean_of("F1 of answers", _column(F1)),
    "pattern_match": mean_of("matches by pattern", _column(PATTERN)),
    "json_match": mean_of("matches as JSON", _column(JSON)),
    "choice_accuracy": mean_of("accuracy of choices", _column(CHOICE)),
}
GENERATED = ("exact_match", "answer_f1", "pattern_match", "json_match")
"""Those that need generated answers."""
