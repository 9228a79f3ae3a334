"""Tables as plain text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune._table import broken, lines


@given(st.text("abc._/", min_size=1), st.integers(1, 30))
def test_names_are_broken_between_words_only_and_nothing_is_lost(name, width):
    found = broken(name, width)
    assert "".join(found) == name
    assert all(line[-1] in "._/" for line in found[:-1])
    assert all(len(line) <= width or re.fullmatch(r".[^._/]*[._/]*", line) for line in found)


def test_hostile_names_are_text():
    (_, line) = lines(["name", "n"], [["[bold]\x1b[31m[/x]", "1"]], 80)
    assert line == "[bold]\\x1b[31m[/x]  1"


def test_remarks_are_broken_between_words():
    found = list(lines(["tensor", "noise"], [["encoder.weight", "left: not floating point: int64"]], 40))
    assert [line.split() for line in found[1:]] == [
        ["encoder.weight", "left:", "not"],
        ["floating", "point:"],
        ["int64"],
    ]


ROWS = (
    ("embeddings.word_embeddings.weight", "1", "30522x384", "float32", "0.0556", "0.00241"),
    ("encoder.layer.*.attention.self.query.bias", "6", "384", "float32", "0.109..0.34", "0.00452..0.0141"),
    ("pooler.dense.bias", "1", "384", "float32", "0", "left: constant"),
    ("head:classifier.weight", "1", "3x384", "float32", "-", "left: freshly initialised"),
)


@pytest.mark.parametrize("width", [60, 61, 64, 70, 79, 80, 81, 100, 120, 200])
def test_nothing_is_broken_within_a_word_and_nothing_is_too_wide(width):
    heading, *found = lines(("tensor", "n", "shape", "dtype", "std", "noise std"), ROWS, width)
    assert max(map(len, (heading, *found))) <= width
    words = {word for row in ROWS for cell in row for word in re.findall(r"[^._:\s]+", cell)}
    assert words <= set(re.findall(r"[^._:\s]+", "\n".join(found)))
    ends = {line.index("float32") + len("float32") for line in found if "float32" in line}
    assert ends == {heading.index("dtype") + len("dtype")}


def test_a_name_stands_whole_above_its_row_where_its_column_is_narrow():
    found = list(lines(("tensor", "n", "shape", "dtype", "std", "noise std"), ROWS, 60))
    assert {row[0] for row in ROWS if len(row[0]) > 4} <= set(found)
