"""Scores that somebody else has given, example by example. Items: the score, as a fraction."""

from __future__ import annotations

from dataclasses import replace

from noisytune._metrics.metric import Floats, Items, Metric, mean_of


def given(items: Items) -> Floats:
    """Each example's score."""
    values: Floats = items[:, 0]
    return values


OUTCOMES: dict[str, Metric] = {"outcome": mean_of("share of right ones", given)}
"""Of examples that are right (1) or wrong (0)."""
SCORES: dict[str, Metric] = {
    "score": mean_of("mean score", given),
    "loss": replace(mean_of("mean loss", given), lower_is_better=True),
}
"""Of any others."""
