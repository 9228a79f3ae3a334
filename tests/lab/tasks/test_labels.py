"""Classes or values: the rule, and names that do not depend on the file's type."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.errors import DataError
from noisytune.lab.tasks._labels import MAX_NUMBERED_CLASSES, read_labels


def read(cells, metric=None):
    return read_labels(cells, metric, "f.csv: column 'label'")


@settings(max_examples=50)
@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1))
def test_words_become_ids_in_the_order_of_their_names(words):
    reading = read([*words, "a word"])
    assert list(reading.names) == sorted({word.strip() for word in [*words, "a word"]})
    assert [reading.names[int(reading.target(word))] for word in words] == [word.strip() for word in words]


@settings(max_examples=50)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_values_are_kept_exactly(values):
    reading = read(values, "pearson")
    assert reading.kind == "regression"
    assert [reading.target(value) for value in values] == values
    assert [reading.target(str(value)) for value in values] == values


CASES = {
    "whole numbers": (["10", "9", "10", "9"], "classification", ("9", "10")),
    "whole floats": ([1.0, 0.0, 1.0, 0.0], "classification", ("0", "1")),
    "negative": ([-1, 1, -1, 1], "classification", ("-1", "1")),
    "booleans": ([True, False], "classification", ("false", "true")),
    "fractions": (["3.5", "1", "1", "1"], "regression", ()),
    "whole, but each once": ([1, 2, 3, 4], "regression", ()),
    "whole, but too many": ([*range(MAX_NUMBERED_CLASSES + 1)] * 5, "regression", ()),
    "as many as there may be": ([*range(MAX_NUMBERED_CLASSES)] * 5, "classification", tuple(map(str, range(20)))),
    "numbers and a word": (["1", "2", "n", "1.0"], "classification", ("1", "1.0", "2", "n")),
    "numbers and missing ones": (["1", "0", "NA", None, "nan", "1", "0"], "classification", ("0", "1")),
    "words and NA": (["yes", "no", "NA"], "classification", ("NA", "no", "yes")),
}


@pytest.mark.parametrize("case", CASES)
def test_the_rule(case):
    cells, kind, names = CASES[case]
    reading = read(cells)
    assert (reading.kind, reading.names) == (kind, names)


@pytest.mark.parametrize("cells", [["1", "0", "1", "0"], [1, 0, 1, 0], [1.0, 0.0, 1.0, 0.0]])
def test_the_same_classes_from_every_type_of_file(cells):
    reading = read(cells)
    assert [reading.target(cell) for cell in cells] == [1.0, 0.0, 1.0, 0.0]


def test_numbers_are_never_read_in_silence():
    assert "--metric pearson" in read([0, 1, 0, 1]).notices[0]
    assert "--metric accuracy" in read([0.5, 1, 0, 1]).notices[0]


def test_a_metric_decides():
    assert read([0, 1, 0, 1], "pearson").kind == "regression"
    assert read(["0.5", "1", "2.5"], "accuracy").names == ("0.5", "1", "2.5")
    with pytest.raises(DataError, match="'good', which is no number"):
        read(["1", "good"], "pearson")


@pytest.mark.parametrize("cell", [None, "", "  ", math.nan])
def test_missing_cells_have_no_target(cell):
    for reading in (read(["a", "b", cell]), read([0.5, 2, cell])):
        assert reading.target(cell) is None
    with pytest.raises(DataError, match="has no labels"):
        read([cell])
