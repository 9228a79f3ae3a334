"""Answers against torchmetrics' SQuAD, a second writing of MLQA's rules, and cases worked by hand."""

from __future__ import annotations

import doctest
import string

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.text import squad

from noisytune._metrics import RIGHT, answers, score
from noisytune._metrics.answers import answer_items, answer_words

LANGUAGES = ("ar", "de", "en", "es", "hi", "vi", "zh")
PIECES = [
    *("the", "a", "An", "house", "THE", "der", "Einen", "unos", "la", "của", "những", "chiếc", "2010", "U.S.", "café"),
    *(
        "cafe\u0301",
        "الكتاب",
        "وال",
        "كتاب",
        "किताब",
        "कि",
        "में",
        "年",
        "北京",
        "東京",
        "龥",
        "龦",
        "の",
        "😀",
        "İ",
        "ß",
    ),
    *(" ", "  ", "\u3000", "\u00a0", "\u2028", "\x85", "\x1c", "\n", "'", "$", "+", "<", "-", "_", "«", "»", "。", "،"),
    *("İ", "ß", "।", "\u2013", "\u2019", "¿", "·", "\u0301", "\u200f", "\u200d"),
]
# Other characters than Latin ones only among the pieces: libraries know different versions of Unicode.
texts = st.lists(st.sampled_from(PIECES), max_size=7).map("".join) | st.text(
    st.characters(codec="latin-1"), max_size=12
)
golds = st.lists(texts, min_size=1, max_size=3)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(answers).failed == 0


@given(texts, golds)
def test_squad_is_torchmetrics(said: str, gold: list[str]) -> None:
    gold = [text for text in gold if answer_words(text)]  # without words it has the rule of SQuAD 2.0
    if not gold:
        return
    target = {"answers": {"answer_start": [0] * len(gold), "text": gold}, "id": "1"}
    found = squad([{"prediction_text": said, "id": "1"}], [target])
    expected = [float(found["f1"]) / 100, float(found["exact_match"]) / 100]
    np.testing.assert_allclose(answer_items([said], [gold])[0], expected, atol=1e-6)


ARTICLES = {
    "de": "ein eine einen einem eines einer der die das den dem des",
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "vi": "của là cái chiếc những",
}


def by_hand(text: str, language: str) -> list[str]:
    """MLQA's rules, written a second time by properties of Unicode."""
    marks = rf"[\p{{P}}{regex.escape(string.punctuation)}]"
    text = regex.sub(marks, "", text.lower())
    if language == "ar":
        text = " ".join(text.split("\u0627\u0644"))
    elif language in ARTICLES:
        # Combining marks are outside of words, as for Python's re.
        parts = regex.split(r"([\p{L}\p{N}_]+)", text)
        text = "".join(" " if part in ARTICLES[language].split() else part for part in parts)
    if language == "zh":
        text = regex.sub("([一-龥])", r" \1 ", text)
    return text.split()


@given(texts)
def test_mlqa_by_a_second_writing(text: str) -> None:
    for language in LANGUAGES:
        assert answer_words(text, language) == by_hand(text, language)


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("", "The U.S.\u2019s «Act»", ["us\u2019s", "«act»"]),
        ("en", "The U.S.\u2019s «Act»", ["uss", "act"]),
        ("", "die Straße", ["die", "straße"]),
        ("de", "Das Haus des Bäckers, dessen", ["haus", "bäckers", "dessen"]),
        ("de", "$5 + 3 < 9", ["5", "3", "9"]),
        ("es", "¿El niño? La-los", ["niño", "lalos"]),
        ("vi", "Những cuốn sách của tôi", ["cuốn", "sách", "tôi"]),
        ("vi", "cu\u0309a", ["cu\u0309a"]),  # decomposed, and another word
        ("hi", "ताज महल।", ["ताज", "महल"]),
        ("ar", "الكتاب", ["كتاب"]),
        ("ar", "والكتاب، خالد", ["و", "كتاب", "خ", "د"]),  # MLQA's own: "al" goes wherever it stands
        ("zh", "在 2010年NBA。", ["在", "2010", "年", "nba"]),
        ("zh", "ひらがな漢字", ["ひらがな", "漢", "字"]),
        ("zh", "龥龦", ["龥", "龦"]),
        ("", "在 2010年", ["在", "2010年"]),
    ],
)
def test_words_worked_by_hand(language: str, text: str, words: list[str]) -> None:
    assert answer_words(text, language) == words


@pytest.mark.parametrize(
    ("language", "said", "gold", "f1", "em"),
    [
        ("", "the old house", ["old house", "house"], 1, 1),
        ("", "a very old house", ["old house", "very house"], 4 / 5, 0),  # each the best of its own
        ("", "no no yes", ["no yes yes"], 2 / 3, 0),  # a word counts as often as both say it
        ("", "", ["house"], 0, 0),
        ("", "the", ["a"], 0, 1),  # no word on either side: equal, and nothing in common
        ("", "", ["..."], 0, 1),
        ("en", "", ["the"], 0, 1),
        ("zh", "北京大学", ["北京"], 2 / 3, 0),
        ("", "北京大学", ["北京"], 0, 0),
        ("ar", "كتاب", ["الكتاب"], 1, 1),
        ("", "كتاب", ["الكتاب"], 0, 0),
    ],
)
def test_items_worked_by_hand(language: str, said: str, gold: list[str], f1: float, em: float) -> None:
    np.testing.assert_allclose(answer_items([said], [gold], language), [[f1, em]])


@given(st.lists(st.tuples(texts, golds), min_size=1, max_size=5), st.sampled_from(["", *LANGUAGES]))
def test_properties(examples: list[tuple[str, list[str]]], language: str) -> None:
    said, gold = [one for one, _ in examples], [list(ones) for _, ones in examples]
    items = answer_items(said, gold, language)
    assert ((items >= 0) & (items <= 1)).all()
    for (f1, em), text, answers_ in zip(items, said, gold, strict=True):
        assert (f1, em) == pytest.approx(tuple(answer_items([text], [answers_[::-1]], language)[0]))
        assert em <= f1 or not answer_words(text, language), "what matches has all words in common"
    more = answer_items(said, [[*ones, text] for ones, text in zip(gold, said, strict=True)], language)
    assert (more[:, 1] == 1).all(), "an answer matches itself"
    assert (more >= items).all(), "another gold answer never hurts"
    found = score("spans", items)
    assert found["answer_mean"] == pytest.approx((found["answer_f1"] + found["exact_match"]) / 2)
    np.testing.assert_array_equal(RIGHT["spans"](items), items[:, 1])


def test_a_language_that_mlqa_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no evaluator for 'fr'; choose ar, de, en, es, hi, vi, zh"):
        answer_words("la maison", "fr")
