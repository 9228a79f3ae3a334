"""The search and the mining against full matrices, written in another way."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.lab.kinds.mining import mine
from noisytune.lab.kinds.neighbours import Nearest, neighbours, unit


def whole_numbers(n: int, width: int, seed: int) -> np.ndarray:
    """Vectors whose products are exact in float32, and often equal."""
    return np.random.default_rng(seed).integers(-2, 3, (n, width)).astype(np.float32)


def sentences(n: int, m: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sides, the first of which resemble each other."""
    rng = np.random.default_rng(seed)
    one, other = rng.normal(0.5, 1, (n, 16)), rng.normal(0.5, 1, (m, 16))
    shared = min(n, m) // 2
    other[:shared] = one[:shared] + rng.normal(0, 0.4, (shared, 16))
    return unit(one), unit(other)


def by_sorting(products: np.ndarray, k: int) -> np.ndarray:
    """Places of the k largest of each row; of equal ones the first."""
    return np.array([sorted(range(len(row)), key=lambda place: (-row[place], place))[:k] for row in products.tolist()])


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 5), st.integers(5, 17), st.integers(0, 99))
def test_blocks_find_what_sorting_everything_finds(n, m, k, block, seed):
    one, other = whole_numbers(n, 3, seed), whole_numbers(m, 3, seed + 1)
    there, back = neighbours(one, other, k, block)
    products = one.astype(float) @ other.T.astype(float)
    np.testing.assert_array_equal(there.places, by_sorting(products, min(k, m)))
    np.testing.assert_array_equal(back.places, by_sorting(products.T, min(k, n)))
    np.testing.assert_array_equal(there.similarities, np.take_along_axis(products, there.places, 1))
    np.testing.assert_array_equal(back.similarities, np.take_along_axis(products.T, back.places, 1))


def test_all_vectors_the_same():
    same = np.ones((30, 4), np.float32)
    there, back = neighbours(same, same, 2, 8)
    assert (there.places == [0, 1]).all()
    assert (back.places == [0, 1]).all()


def by_full_matrices(one: np.ndarray, other: np.ndarray) -> dict[int, tuple[int, float]]:
    """Partner and margin of each paired sentence: all margins in a matrix, its largest entry taken again and again."""
    similarity = one.astype(float) @ other.T.astype(float)
    near = np.sort(similarity, axis=1)[:, -4:].mean(axis=1), np.sort(similarity, axis=0)[-4:].mean(axis=0)
    ratio = similarity / ((near[0][:, None] + near[1][None]) / 2)
    rows, columns = np.argsort(-similarity, axis=1)[:, :4], np.argsort(-similarity, axis=0)[:4]
    named = np.full_like(ratio, -np.inf)
    for i, row in enumerate(rows):
        best = max(row, key=lambda j: ratio[i, j])
        named[i, best] = ratio[i, best]
    for j, column in enumerate(columns.T):
        best = max(column, key=lambda i: ratio[i, j])
        named[best, j] = ratio[best, j]
    found = {}
    while np.isfinite(named).any():
        i, j = np.unravel_index(named.argmax(), named.shape)
        found[int(i)] = int(j), float(named[i, j])
        named[i], named[:, j] = -np.inf, -np.inf
    return found


@pytest.mark.parametrize(("n", "m", "seed"), [(60, 40, 0), (40, 60, 1), (3, 50, 2), (50, 2, 3), (1, 1, 6)])
def test_mining_is_what_full_matrices_give(n, m, seed):
    one, other = sentences(n, m, seed)
    partners, scores = mine(*neighbours(one, other, 4, 16))
    expected = by_full_matrices(one, other)
    assert {i: int(j) for i, j in enumerate(partners) if j >= 0} == {i: j for i, (j, _) in expected.items()}
    for i, (_, margin) in expected.items():
        assert scores[i] == pytest.approx(margin, rel=1e-5)
    assert np.isnan(scores[partners < 0]).all()


def test_mining_does_not_know_lengths_or_order():
    one, other = sentences(50, 70, 5)
    rng = np.random.default_rng(0)
    lengths, order, other_order = rng.uniform(0.1, 9, (50, 1)), rng.permutation(50), rng.permutation(70)
    partners, scores = mine(*neighbours(one, other, 4))
    scaled, scaled_scores = mine(*neighbours(unit(one * lengths), other, 4))
    np.testing.assert_array_equal(partners, scaled)
    np.testing.assert_allclose(scores, scaled_scores, rtol=1e-5)
    moved, _ = mine(*neighbours(one[order], other[other_order], 4))
    back = [int(other_order[j]) if j >= 0 else -1 for j in moved]
    np.testing.assert_array_equal(partners[order], back)


def test_margins_and_greedy_matching_by_hand():
    """Similarities .9 .8 / .7 .5; means .85 .6 and .8 .65; margins 12/11 16/15 / 1 4/5.

    Both of the first side name the first one of the other, which is given to the better; the second one of the other
    side names the first as well, and so stays alone.
    """
    there = Nearest(np.array([[0.9, 0.8], [0.7, 0.5]], np.float32), np.array([[0, 1], [0, 1]]))
    back = Nearest(np.array([[0.9, 0.7], [0.8, 0.5]], np.float32), np.array([[0, 1], [0, 1]]))
    partners, scores = mine(there, back)
    assert partners.tolist() == [0, -1]
    assert scores == pytest.approx([12 / 11, np.nan], nan_ok=True)


def test_a_vector_of_zeros_is_nobodys_partner():
    one, other = unit(np.zeros((2, 4))), unit(np.eye(4))
    partners, scores = mine(*neighbours(one, other, 4))
    assert partners.tolist() == [-1, -1]
    assert np.isnan(scores).all()
