"""Parts of a split: in proportion, nested, every class present; digests."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.errors import DataError
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.tasks._data import limit, order_key

class_sizes = st.lists(st.integers(1, 40), min_size=2, max_size=5)


def split_of(sizes):
    targets = [float(c) for c, size in enumerate(sizes) for _ in range(size)]
    return Split(tuple((f"text {i}",) for i in range(len(targets))), tuple(targets))


def take(split, size, *, kind="classification", seed=0):
    labels = tuple("abcde")[: len(set(split.targets))]
    return limit(split, size, kind=kind, labels=labels, option="train_size", seed=seed)


@given(class_sizes, st.data())
def test_a_part_is_in_proportion_holds_every_class_and_keeps_the_order(sizes, data):
    split = split_of(sizes)
    size = data.draw(st.integers(len(sizes), len(split)))
    part, notices = take(split, size)
    counts = Counter(part.targets)
    assert len(part) == size
    assert not notices
    for c, available in enumerate(sizes):
        fair = size * available / len(split)
        assert 1 <= counts[float(c)] <= available
        assert abs(counts[float(c)] - fair) <= len(sizes)
    rows = list(zip(split.texts, split.targets, strict=True))
    places = [rows.index(row) for row in zip(part.texts, part.targets, strict=True)]
    assert places == sorted(set(places))


@given(st.integers(1, 20), st.integers(2, 4), st.data())
def test_a_balanced_task_gives_balanced_parts(each, classes, data):
    split = split_of([each] * classes)
    counts = Counter(take(split, data.draw(st.integers(classes, len(split))))[0].targets)
    assert max(counts.values()) - min(counts.values()) <= 1


@given(class_sizes, st.sampled_from(["classification", "regression"]), st.data())
def test_a_larger_part_holds_the_smaller_one(sizes, kind, data):
    split = split_of(sizes)
    small, large = sorted(data.draw(st.tuples(*[st.integers(len(sizes), len(split))] * 2)))
    texts = [set(take(split, size, kind=kind)[0].texts) for size in (small, large)]
    assert texts[0] <= texts[1]


def test_the_seed_decides_the_part():
    split = split_of([40, 40])
    assert take(split, 20)[0] == take(split, 20)[0]
    assert take(split, 20)[0] != take(split, 20, seed=1)[0]


def test_more_than_there_is_takes_all_and_says_so():
    split = split_of([3, 4])
    assert take(split, None) == (split, ())
    assert take(split, 7) == (split, ())
    part, (notice,) = take(split, 8)
    assert part == split
    assert notice == "train_size 8: only 7 examples are there, all are used"


@pytest.mark.parametrize(("size", "kind"), [(1, "classification"), (0, "regression"), (-3, "classification")])
def test_a_part_too_small_is_refused(size, kind):
    with pytest.raises(DataError, match=r"train_size -?\d is too small: give at least"):
        take(split_of([3, 4]), size, kind=kind)


def test_the_shuffle_never_changes():
    # Known answer of this project: other values would reshuffle everybody's splits.
    assert order_key(0, "a", "b").hex() == "c5bb53f8c08e90a6e03dbd496b6ca0f9"


TASK = TaskData("t", "classification", "accuracy", ("no", "yes"), split_of([2, 3]), {"dev": split_of([3, 1])}, ())


def test_the_digest_covers_what_is_learnt_and_not_what_is_shown():
    shown = replace(TASK, name="other", metric="macro_f1", notices=("n",))
    assert shown.digest == TASK.digest
    changes = [
        replace(TASK, labels=("yes", "no")),
        replace(TASK, train=split_of([3, 2])),
        replace(TASK, evaluate={"dev": split_of([2, 2])}),
        replace(TASK, train=Split((("text 0", ""), *TASK.train.texts[1:]), TASK.train.targets)),
        replace(TASK, kind="regression"),
    ]
    assert len({task.digest for task in [TASK, *changes]}) == len(changes) + 1


@pytest.mark.parametrize("value", [0.0, -2.5, 1e300])
def test_values_that_are_all_the_same_are_refused(value):
    one = split_of([3, 4])
    same = Split(one.texts, (value,) * len(one))
    with pytest.raises(DataError, match=r"t: every training value is .*nothing to learn"):
        replace(TASK, kind="regression", labels=(), train=same)
    assert replace(TASK, kind="regression", labels=(), evaluate={"dev": same}).dev == same
    assert replace(TASK, train=same).train == same


def test_majority_is_the_largest_share_in_dev():
    assert TASK.majority == 0.75
    assert replace(TASK, kind="regression").majority is None
