"""McNemar and the bootstrap against SciPy, scikit-learn and what they are meant to estimate."""

import doctest
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.records import Built

from noisytune._metrics import METRICS, Metric
from noisytune.report.evidence import items


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(items).failed == 0


@pytest.mark.parametrize(
    ("roles", "split"),
    [
        ({}, "test"),
        ({"select": "ar"}, "ar"),
        ({"select": "gone"}, "test"),
        ({"primary": ["ar"]}, "ar"),
    ],
)
def test_single_examples_are_of_the_split_that_the_score_rests_on(
    build: Callable[..., Built], roles: dict[str, Any], split: str
) -> None:
    record = build()[1][0]
    arrays = {"ar": np.array([1.0, 2.0]), "test": np.array([3.0, 4.0, 5.0])}
    record = replace(
        record,
        settings=record.settings | {"task": record.settings["task"] | roles},
        evaluations={name: {"status": "ok", "scores": {}} for name in ("test", "ar")},
        outputs={f"{name}/{what}": arrays[name] for name in arrays for what in ("predictions", "references")},
    )
    assert record.split == split
    assert record.references == record.predictions == arrays[split].tolist()
    assert items.items_of(record).tolist() == np.column_stack([arrays[split]] * 2).tolist()
    kept = replace(record, outputs={f"{name}/items": array[:, None] for name, array in arrays.items()})
    assert items.items_of(kept).tolist() == arrays[split][:, None].tolist()


def test_a_score_of_several_splits_has_no_single_examples(build: Callable[..., Built]) -> None:
    """English alone would stand for all languages, also where it chooses the epoch."""
    record = build()[1][0]
    outputs = {f"{name}/{what}": np.ones(3) for name in ("en", "ar") for what in ("predictions", "references")}
    for roles in ({"select": "en"}, {}):
        task = record.settings["task"] | roles | {"primary": ["en", "ar"]}
        both = replace(record, settings=record.settings | {"task": task}, outputs=outputs)
        assert items.items_of(both).shape == (0, 2)


def test_mcnemar_by_hand() -> None:
    before, after = np.ones(20), np.ones(20)
    before[:9], after[7:10] = 0, 0  # 7 gained, 2 wrong in both, 1 lost
    found = items.mcnemar(before, after)
    assert (found.gained, found.lost) == (7, 1)
    assert found.p == pytest.approx(2 * (1 + 8) / 2**8)


def test_equal_runs_change_nothing() -> None:
    found = items.mcnemar([1, 0, 1], [1, 0, 1])
    assert (found.gained, found.lost, found.p) == (0, 0, 1.0)


ACCURACY, MACRO_F1 = (METRICS["classification"][key] for key in ("accuracy", "macro_f1"))


@pytest.fixture(scope="module")
def runs() -> tuple[np.ndarray, np.ndarray]:
    """Items of 4 seeds on 60 examples: baseline, arm."""
    rng = np.random.default_rng(3)
    gold = np.tile(rng.integers(0, 3, 60).astype(float), (4, 1))
    wrong_before, wrong_after = rng.random((4, 60)) < 0.4, rng.random((4, 60)) < 0.3
    before, after = (np.where(wrong, (gold + 1) % 3, gold) for wrong in (wrong_before, wrong_after))
    return np.stack([before, gold], axis=2), np.stack([after, gold], axis=2)


def test_bootstrap_by_counting_is_the_bootstrap_by_recomputing(runs: tuple[np.ndarray, ...]) -> None:
    quick = items.hierarchical_bootstrap(*runs, ACCURACY, seed=5, resamples=300)
    slow = items.hierarchical_bootstrap(*runs, replace(ACCURACY, each=None), seed=5, resamples=300)
    assert (quick.mean, quick.interval.low, quick.interval.high) == pytest.approx(
        (slow.mean, slow.interval.low, slow.interval.high)
    )


@pytest.mark.parametrize("metric", [ACCURACY, MACRO_F1])
def test_bootstrap_is_seeded_and_mirrors(runs: tuple[np.ndarray, ...], metric: Metric) -> None:
    before, after = runs
    one, again = (items.hierarchical_bootstrap(before, after, metric, seed=1, resamples=200) for _ in range(2))
    other = items.hierarchical_bootstrap(after, before, metric, seed=1, resamples=200)
    assert one == again
    assert (one.interval.low, one.interval.high) == pytest.approx((-other.interval.high, -other.interval.low))
    assert one.interval.low <= one.mean <= one.interval.high
    whole = [metric.of(a) - metric.of(b) for b, a in zip(before, after, strict=True)]
    assert one.mean == pytest.approx(100 * np.mean(whole))


def test_an_undefined_score_of_a_resample_counts_as_zero() -> None:
    values = np.array([[[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]]] * 2)
    found = items.hierarchical_bootstrap(values, values, METRICS["regression"]["pearson"], seed=0, resamples=50)
    assert (found.mean, found.interval.low, found.interval.high) == (0.0, 0.0, 0.0)


def test_bootstrap_knows_that_all_seeds_saw_the_same_examples() -> None:
    """Where every seed gives the same predictions, only the choice of examples varies, as with one seed."""
    rng = np.random.default_rng(0)
    before, after = np.zeros((2, 200, 2))
    before[:, 0], after[:, 0] = rng.random((2, 200)) < 0.4
    many = items.hierarchical_bootstrap(np.tile(before, (8, 1, 1)), np.tile(after, (8, 1, 1)), ACCURACY, seed=0)
    gain = before[:, 0] - after[:, 0]
    expected = 1.96 * 100 * gain.std() / np.sqrt(200)
    assert (many.interval.high - many.interval.low) / 2 == pytest.approx(expected, rel=0.1)


def test_examples_that_hang_together_are_redrawn_together(runs: tuple[np.ndarray, ...]) -> None:
    alone = items.hierarchical_bootstrap(*runs, ACCURACY, seed=5, resamples=300)
    copies = tuple(np.repeat(side, 9, axis=1) for side in runs)
    groups = np.repeat(np.arange(60), 9)
    for metric in (ACCURACY, replace(ACCURACY, each=None)):
        told = items.hierarchical_bootstrap(*copies, metric, seed=5, resamples=300, groups=groups)
        assert told.mean == pytest.approx(alone.mean)
        assert told.interval.high - told.interval.low == pytest.approx(
            alone.interval.high - alone.interval.low, rel=0.15
        )
    untold = items.hierarchical_bootstrap(*copies, ACCURACY, seed=5, resamples=300)
    assert untold.interval.high - untold.interval.low < 0.8 * (alone.interval.high - alone.interval.low)


def test_a_bootstrap_of_groups_has_the_clustered_standard_error() -> None:
    """Liang and Zeger's sandwich, from sums over groups, where seeds add nothing: groups of unequal sizes."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(150), rng.integers(1, 8, 150))
    lucky = rng.random(150) < 0.5
    before = np.zeros((len(groups), 2))
    after = before.copy()
    before[:, 0] = rng.random(len(groups)) < 0.4
    after[:, 0] = np.where(rng.random(len(groups)) < 0.7, lucky[groups], before[:, 0])
    gain = (after[:, 0] == 0).astype(float) - (before[:, 0] == 0)
    sums = np.bincount(groups, weights=gain - gain.mean())
    clustered, alone = 100 * np.sqrt((sums**2).sum()) / len(gain), 100 * gain.std() / np.sqrt(len(gain))
    assert clustered > 1.3 * alone
    for told, expected in ((groups, clustered), (None, alone)):
        found = items.hierarchical_bootstrap(
            *(np.tile(side, (3, 1, 1)) for side in (before, after)), ACCURACY, seed=0, groups=told, resamples=4000
        )
        assert (found.interval.high - found.interval.low) / (2 * 1.96) == pytest.approx(expected, rel=0.06)


@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)),
        min_size=1,
        max_size=40,
    )
)
def test_mcnemar_by_group_is_every_flip_of_whole_groups(rows: list[tuple[bool, bool, int]]) -> None:
    before, after, groups = (np.array(column) for column in zip(*rows, strict=True))
    net = np.bincount(groups, weights=after.astype(float) - before)
    flips = np.array(list(product((-1, 1), repeat=len(net)))) @ net
    found = items.mcnemar(before, after, groups)
    assert found.p == pytest.approx(np.mean(np.abs(flips) >= abs(net.sum())))
    alone = items.mcnemar(before, after)
    assert alone == items.mcnemar(before, after, np.arange(len(rows)))
    changed = alone.gained + alone.lost
    assert alone.p == pytest.approx(stats.binomtest(alone.gained, changed).pvalue if changed else 1.0)


def test_copies_of_an_example_are_no_more_evidence_than_one() -> None:
    rng = np.random.default_rng(2)
    before, after = rng.random((2, 40)) < ((0.4,), (0.6,))
    alone = items.mcnemar(before, after)
    copies = items.mcnemar(np.repeat(before, 500), np.repeat(after, 500), np.repeat(np.arange(40), 500))
    assert copies.p == pytest.approx(alone.p)
    assert copies.gained == 500 * alone.gained
    assert items.mcnemar(np.repeat(before, 500), np.repeat(after, 500)).p < 1e-3 * alone.p
