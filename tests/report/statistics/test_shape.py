"""Ties and outliers, against counting by hand and simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.report.statistics.shape import distinct_pairs, has_outlier

tied = st.lists(st.integers(-3, 3).map(lambda i: i / 10), min_size=1, max_size=15)


@given(tied)
def test_distinct_pairs_of_every_prefix_by_counting(d: list[float]) -> None:
    expected = []
    for n in range(1, len(d) + 1):
        most = max(d[:n].count(value) for value in d[:n])
        expected.append(1 if most == n else n - most + min(most, 2))
    assert distinct_pairs(d).tolist() == expected
    assert distinct_pairs([d, d[::-1]])[0].tolist() == expected


def test_rounding_does_not_part_equal_differences() -> None:
    assert distinct_pairs([0.3, 0.1 + 0.2, 0.6 / 2])[-1] == 1
    assert distinct_pairs([]).size == 0


@pytest.mark.parametrize("n", [8, 20, 40])
def test_normal_differences_seldom_look_like_outliers(n: int) -> None:
    drawn = np.random.default_rng(n).normal(0.5, 0.8, (1000, n))
    assert np.mean([has_outlier(d) for d in drawn]) < 0.05


def test_a_collapse_among_ordinary_differences_is_found() -> None:
    drawn = np.random.default_rng(3).normal(2.2, 1.0, (500, 10))
    drawn[:, 4] = -20.0
    assert np.mean([has_outlier(d) for d in drawn]) > 0.95


def test_ties_and_few_pairs_are_never_called_outliers() -> None:
    assert not has_outlier([0.0] * 9 + [15.0])
    assert not has_outlier([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -20.0])
    assert not has_outlier([])
