"""Classes or values: the rule, and names that do not depend on the file's type."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.errors import DataError
from noisytune.lab.tasks import TaskOptions
from noisytune.lab.tasks._labels import MAX_NUMBERED_CLASSES, label_texts, read_labels


def read(cells, **options):
    return read_labels(label_texts(cells), TaskOptions(**options), "f.csv: column 'label'")


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_words_become_ids_in_the_order_of_their_names(words):
    reading = read([*words, "a word"])
    present = {word.strip() for word in [*words, "a word"]}
    assert list(reading.names) == sorted(present)
    assert [reading.names[int(reading.target(word.strip()))] for word in words] == [word.strip() for word in words]


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_values_are_kept_exactly(values):
    for cells in (values, list(map(str, values))):
        reading = read(cells, metric="pearson")
        assert reading.kind == "regression"
        assert [reading.target(label) for label in label_texts(cells)] == values


numbers = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.integers(0, 999).map("{:03d}".format),
    st.decimals(-99, 99, places=2).map(str),
    st.integers(0, 99).map("+{}".format),
    st.integers(1, 9).map("{}e1".format),
)


@settings(max_examples=100)
@given(st.sets(numbers, min_size=2, max_size=30))
def test_labels_that_are_written_otherwise_are_other_classes(written):
    """Ids of any length, leading and trailing zeros, signs and exponents."""
    reading = read(sorted(written) * 3, kind="classification")
    assert len(reading.names) == len(written)
    assert [float(name) for name in reading.names] == sorted(float(name) for name in written)
    ids = {reading.target(label) for label in label_texts(written)}
    assert ids == set(map(float, range(len(written))))


@settings(max_examples=50)
@given(st.sets(st.integers(0, 2**64 - 1), min_size=2, max_size=20))
def test_whole_numbers_of_a_typed_file_keep_every_digit(ids):
    reading = read(sorted(ids) * 3)
    assert reading.names == tuple(map(str, sorted(ids)))


CASES = {
    "whole numbers": (["10", "9", "10", "9"], "classification", ("9", "10")),
    "whole floats": ([1.0, 0.0, 1.0, 0.0], "classification", ("0", "1")),
    "whole floats as frames write them": (["1.0", "0.0", None, "1.0", "0.0"], "classification", ("0", "1")),
    "negative": ([-1, 1, -1, 1], "classification", ("-1", "1")),
    "booleans": ([True, False], "classification", ("false", "true")),
    "fractions": (["3.5", "1", "1", "1"], "regression", ()),
    "steps of a half": ([str(i / 2) for i in range(11)] * 20, "regression", ()),
    "whole, but each once": ([1, 2, 3, 4], "regression", ()),
    "as many as there may be": ([*range(MAX_NUMBERED_CLASSES)] * 5, "classification", tuple(map(str, range(20)))),
    "ids from 0": ([*range(77)] * 5, "classification", tuple(map(str, range(77)))),
    "ids from 1, some rare": ([*range(1, 151)] * 9 + [7] * 99, "classification", tuple(map(str, range(1, 151)))),
    "codes, evenly": ([*range(10, 220, 10)] * 20, "classification", tuple(map(str, range(10, 220, 10)))),
    "codes with zeros": (
        [f"{i * i:04d}" for i in range(30)] * 2,
        "classification",
        tuple(f"{i * i:04d}" for i in range(30)),
    ),
    "numbers and a word": (["1", "2", "n", "1.0"], "classification", ("1", "1.0", "2", "n")),
    "numbers and missing ones": (["1", "0", "NA", None, "nan", "1", "0"], "classification", ("0", "1")),
    "words and NA": (["yes", "no", "NA"], "classification", ("NA", "no", "yes")),
    "values and marks": (["0.5", "0.7", "?", "-", "unknown"], "regression", ()),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case):
    cells, kind, names = CASES[case]
    reading = read(cells)
    assert (reading.kind, reading.names) == (kind, names)


UNCLEAR = {
    "years": [1950 + i for i in range(60) for _ in range(2 + i)],
    "ids that hardly repeat": [*range(100)] * 3,
    "ids beyond what may be": [i for i in range(900) for _ in range(3 + i % 7)],
    "sections": ["1.1", "1.2", "1.10"] * 30,
    "codes that hardly repeat": [f"{i:05d}" for i in range(50)],
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_what_may_be_either_is_asked_for(case):
    cells = UNCLEAR[case]
    with pytest.raises(DataError, match=r"f\.csv: .*kind=classification or kind=regression"):
        read(cells)
    assert len(read(cells, kind="classification").names) == len(set(cells))
    assert read(cells, kind="regression").names == ()


@pytest.mark.parametrize("cells", [["1", "0", "1", "0"], [1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0], ["1.0", "0.0"] * 2])
def test_the_same_classes_from_every_type_of_file(cells):
    reading = read(cells)
    assert [reading.target(label) for label in label_texts(cells)] == [1.0, 0.0, 1.0, 0.0]


def test_numbers_are_never_read_in_silence():
    assert "kind=regression" in read([0, 1, 0, 1]).notices[0]
    assert "kind=classification" in read([0.5, 1, 0, 1]).notices[0]


def test_a_setting_decides():
    assert read([0, 1, 0, 1], metric="pearson").kind == "regression"
    assert read([0, 1, 0, 1], kind="regression").kind == "regression"
    assert read(["0.5", "1", "2.5"], metric="accuracy").names == ("0.5", "1", "2.5")
    with pytest.raises(DataError, match=r"'good', which is no number \(1 of 2"):
        read(["1", "good"], metric="pearson")


@pytest.mark.parametrize("cell", [None, "", "  ", math.nan])
def test_missing_cells_have_no_target(cell):
    for reading in (read(["a", "b", cell]), read([0.5, 2, cell])):
        assert reading.target(None) is None
    with pytest.raises(DataError, match="has no labels"):
        read([cell])


MARKED = {
    "-1 beside ids": (["0", "1", "2"] * 9 + ["-1"] * 2, "-1"),
    "-1, and more of it than of the others": (["0", "1", "2"] * 9 + ["-1"] * 99, "-1"),
    "-1, rare beside 0 and 1": (["0", "1"] * 9 + ["-1"] * 2, "-1"),
    "-100": ([0, 1] * 9 + [-100] * 9, "-100"),
    "a dash": (["a", "b"] * 9 + ["-"], "-"),
    "a question mark among numbers": (["0", "1"] * 9 + ["?"], "?"),
    "NA among words": (["yes", "no"] * 9 + ["NA"], "NA"),
    "null among words": (["yes", "no"] * 9 + ["null"], "null"),
    "unlabeled": (["yes", "no"] * 9 + ["Unlabeled"], "Unlabeled"),
    "-1 beside words": (["yes", "no"] * 9 + ["-1"], "-1"),
}


@pytest.mark.parametrize("case", MARKED)
def test_a_label_that_often_means_none_is_told_and_dropped_or_kept(case):
    cells, mark = MARKED[case]
    reading = read(cells)
    assert mark in reading.names
    (told,) = [notice for notice in reading.notices if "no label" in notice]
    assert f"{list(map(str, cells)).count(mark)} of {len(cells)} rows have the label {mark!r}" in told
    assert "missing_labels=drop" in told
    dropped = read(cells, missing_labels="drop")
    assert dropped.names == tuple(name for name in reading.names if name != mark)
    assert dropped.target(mark) is None
    kept = read(cells, missing_labels="keep")
    assert kept.names == reading.names
    assert not [notice for notice in kept.notices if "no label" in notice]


@pytest.mark.parametrize(
    "cells",
    [
        ["-1", "0", "1"] * 9,
        ["-1", "1"] * 9,
        ["-2", "-1", "0", "1", "2"] * 9,
        ["yes", "unknown"] * 9,
        ["a", "b", "no"] * 9,
    ],
)
def test_labels_that_mean_something_are_not_told(cells):
    assert not [notice for notice in read(cells).notices if "no label" in notice]
    assert read(cells, missing_labels="drop").names == read(cells).names


def test_among_values_a_mark_is_none():
    cells = ["0.5", "0.75", "NA", "unknown", "-1"]
    reading = read(cells)
    assert [reading.target(cell) for cell in cells] == [0.5, 0.75, None, None, -1.0]
    assert read(cells, missing_labels="drop").target("-1") is None
    with pytest.raises(DataError, match="'NA', which is no number"):
        read(cells, missing_labels="keep", kind="regression")


def test_empty_cells_are_kept_as_a_class_where_asked_for():
    cells = ["a", None, "b", ""]
    reading = read(cells, missing_labels="keep")
    assert reading.names == ("(empty)", "a", "b")
    assert [reading.target(label) for label in label_texts(cells)] == [1.0, 0.0, 2.0, 0.0]


@pytest.mark.parametrize(
    ("alike", "difference"),
    [
        (["Good", "good"], "case"),
        (["very good", "very  good"], "spaces"),
        (["good", "go\u200bod"], "invisible characters"),
        (["caf\u00e9", "cafe\u0301"], "Unicode form"),
        (["\uff21", "A"], "Unicode form"),
        (["Go od", "g\u200bood"], "case, spaces, invisible"),
        (["1", "01"], "how a number is written"),
        (["stra\u00dfe", "STRASSE"], "case"),
    ],
)
def test_classes_that_look_alike_stay_apart_and_are_told(alike, difference):
    reading = read([*alike, "bad"] * 3)
    assert set(reading.names) == {*alike, "bad"}
    (told,) = [notice for notice in reading.notices if "stay different" in notice]
    assert f"differ in {difference}" in told
    assert told.count("3 rows") == 2
    assert told.isprintable()
