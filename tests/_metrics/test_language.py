"""What generated answers are worth, and which way scores go."""

from __future__ import annotations

import math

import numpy as np
import pytest

from noisytune._metrics import METRICS, RIGHT, direction, score
from noisytune._metrics.language import CHOICE, COLUMNS, EXACT, NLL, TOKENS, json_match, pattern_match


def items(**columns: list[float]) -> np.ndarray:
    places = {"nll": NLL, "tokens": TOKENS, "exact": EXACT, "choice": CHOICE}
    table = np.full((len(columns["nll"]), COLUMNS), math.nan)
    for name, values in columns.items():
        table[:, places[name]] = values
    return table


def test_tokens_count_alike_whatever_example_they_are_of() -> None:
    found = score("language", items(nll=[1.0, 9.0], tokens=[1, 4]))
    assert found == {"nll": 2.0, "perplexity": pytest.approx(math.e**2)}


def test_what_was_not_asked_is_undefined() -> None:
    table = items(nll=[1.0, 1.0], tokens=[1, 1], exact=[1, 0])
    assert score("language", table)["exact_match"] == 0.5
    assert RIGHT["language"](table).tolist() == [1.0, 0.0]
    assert RIGHT["language"](items(nll=[1.0], tokens=[1], choice=[1])).tolist() == [1.0]
    assert np.isnan(RIGHT["language"](items(nll=[1.0], tokens=[1]))).all()


def test_a_perplexity_beyond_all_numbers_is_undefined() -> None:
    assert set(score("language", items(nll=[1e6], tokens=[1]))) == {"nll"}


def test_less_is_better_of_likelihoods_alone() -> None:
    assert {key for key, metric in METRICS["language"].items() if metric.lower_is_better} == {"nll", "perplexity"}
    assert direction("language", "exact_match") == direction("a user's", "own") == 1


def test_patterns_and_json() -> None:
    assert pattern_match("so #### 12.", "#### 12", r"#### (\d+)") == 1.0
    assert pattern_match("so ### 12.", "#### 12", r"#### (\d+)") == 0.0
    assert pattern_match("yes or no", "yes", "yes|no") == 1.0
    assert math.isnan(pattern_match("12", "twelve", r"\d+"))
    assert json_match('{"b": [1, 2.0], "a": null}', '{"a": null, "b": [1, 2]}') == 1.0
    assert json_match("{", "{}") == json_match("[1]", "{}") == 0.0
    assert math.isnan(json_match("x", "x"))
    assert json_match('{"paid": true}', '{"paid": 1}') == json_match("[[0]]", "[[false]]") == 0.0
    assert json_match('{"a": 1}', '{"b": 1}') == json_match("[1]", "[1, 2]") == 0.0
    assert json_match("[true, {}]", "[true, {}]") == 1.0
