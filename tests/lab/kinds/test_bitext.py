"""Two sides of sentences: what they become, and what is refused."""

from __future__ import annotations

import pytest

from noisytune.errors import DataError
from noisytune.lab.kinds.bitext import Side, line_by_line, with_gold

GERMAN = Side("x.de", ("Ja.", "Nein.", "Wer?"), ("de-1", "de-2", "de-3"))
ENGLISH = Side("x.en", ("No.", "Yes."), ("en-1", "en-2"))


def test_lines_translate_each_other():
    split = line_by_line(Side("de", ("Ja.", "Nein.")), Side("en", ("Yes.", "No.")))
    assert split.texts == (("Ja.",), ("Nein.",), ("Yes.",), ("No.",))
    assert split.targets == ((0.0, 0.0), (0.0, 1.0), (1.0,), (1.0,))


def test_gold_among_others():
    split = with_gold(GERMAN, ENGLISH, [("de-2", "en-1"), ("de-2", "en-2"), ("de-2", "en-1")], "gold")
    assert split.targets == ((0.0,), (0.0, 0.0, 1.0), (0.0,), (1.0,), (1.0,))


@pytest.mark.parametrize(
    ("foreign", "english", "gold", "message"),
    [
        (GERMAN, ENGLISH, [("de-1", "en-2"), ("de-9", "en-1")], "gold, line 2: the gold pair names 'de-9', which x.de"),
        (GERMAN, ENGLISH, [("de-1", "en-9")], "gold, line 1: the gold pair names 'en-9', which x.en"),
        (GERMAN, ENGLISH, [], "gold: no gold pairs"),
        (GERMAN, Side("x.en", ()), [("de-1", "en-1")], "x.en: no sentences"),
        (GERMAN, Side("x.en", ("No.", " \t"), ("a", "b")), [("de-1", "a")], "x.en, line 2: the sentence is blank"),
        (
            GERMAN,
            Side("x.en", ("No.", "Yes."), ("a", "a")),
            [("de-1", "a")],
            "x.en, line 2: the id 'a' stands in line 1",
        ),
    ],
)
def test_bad_gold_is_refused(foreign, english, gold, message):
    with pytest.raises(DataError, match=message) as refused:
        with_gold(foreign, english, gold, "gold")
    assert "\n" not in str(refused.value)


def test_bad_lines_are_refused():
    with pytest.raises(DataError, match=r"x.de has 3 lines and x.en 2"):
        line_by_line(GERMAN, ENGLISH)
    with pytest.raises(DataError, match=r"x.de: no sentences"):
        line_by_line(Side("x.de", ()), ENGLISH)
    with pytest.raises(DataError, match=r"x.en, line 2: the sentence is blank"):
        line_by_line(Side("x.de", ("a", "b")), Side("x.en", ("a", "")))


def test_english_in_alphabetical_order_hides_the_pairs():
    many = tuple(f"Sentence {i:03}." for i in range(40))
    with pytest.raises(DataError, match=r"x.en: its lines are in alphabetical order, as in XTREME's release"):
        line_by_line(Side("x.de", many), Side("x.en", many))
    assert len(line_by_line(Side("x.de", many[::-1]), Side("x.en", many[::-1]))) == 80
