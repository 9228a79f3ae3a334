"""Tables as plain text."""

import re

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
