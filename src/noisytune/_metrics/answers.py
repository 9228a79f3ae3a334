"""Measures of answers that are spans of a text. Items: F1 and exact match, each with the gold answer that fits best.

Answers are compared by their words, as SQuAD's evaluator 1.1 reads them: in small letters, without ASCII's punctuation,
without English articles. MLQA's evaluator has rules for each of its seven languages; they are taken as they are.

Source: Rajpurkar et al. 2016, SQuAD's ``evaluate-v1.1.py``; Lewis et al. 2020, MLQA's ``mlqa_evaluation_v1.py``.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import numpy as np

from noisytune._metrics.metric import Floats, Items, mean_of

ARTICLES = {
    "": r"\b(a|an|the)\b",
    "ar": "ال",  # MLQA takes it out of the middle of words too
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "hi": None,
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "zh": None,
}
"""MLQA's language -> what counts for nothing; under ``""`` of SQuAD's evaluator, in whatever language."""
WORDS = {"zh": re.compile(r"[\u4e00-\u9fa5]|[^\s\u4e00-\u9fa5]+")}
"""MLQA's language -> its words, where white space alone does not tell them: each of these characters is one."""


def answer_words(text: str, language: str = "") -> list[str]:
    """The words by which an answer is compared.

    Args:
        text: the answer.
        language: one of MLQA's, for its evaluator; empty for SQuAD's.

    Raises:
        ValueError: MLQA has no such language.

    >>> answer_words("The  Café, a U.S. «brand»"), answer_words("«Die» Straße", "de"), answer_words("在2010年。", "zh")
    (['café', 'us', '«brand»'], ['straße'], ['在', '2010', '年'])
    """
    if language not in ARTICLES:
        raise ValueError(f"MLQA has no evaluator for {language!r}; choose {', '.join(filter(None, ARTICLES))}")
    kept = "".join(character for character in text.lower() if not _is_punctuation(character, language))
    if articles := ARTICLES[language]:
        kept = re.sub(articles, " ", kept)
    return WORDS[language].findall(kept) if language in WORDS else kept.split()


_SIGNS = re.compile(r"[-+*/=%$#@^<>&|~\\_[\]{}]|(?<=\d)(?:[.:;]|,(?!\d{3}(?!\d)))(?=\d)")
"""What stands for something in a number, a formula or the name of a language, though SQuAD's evaluator drops it."""


def same_answer(said: str, gold: str) -> bool:
    """Whether a generated answer is the wanted one: by SQuAD's evaluator, but 15 is not 1.5, nor C what C++ is.

    Case, articles, white space and the marks of sentences count for nothing.

    >>> same_answer("The  answer is 1.5.", "answer is 1.5"), same_answer("15", "1.5"), same_answer("C", "C++")
    (True, False, False)
    >>> same_answer("1,000", "1000"), same_answer("", "A"), same_answer("a", "A")
    (True, False, True)
    >>> same_answer("1030", "10:30"), same_answer("x1", "x[1]"), same_answer("at noon: yes", "At noon, yes.")
    (False, False, True)
    """
    words = answer_words(gold)
    if answer_words(said) != words or _SIGNS.findall(said) != _SIGNS.findall(gold):
        return False
    return bool(words) or said.strip().casefold() == gold.strip().casefold()


def answer_items(predictions: Sequence[str], gold: Sequence[Sequence[str]], language: str = "") -> Items:
    """The items of predicted answers, shape (examples, 2).

    As in both evaluators, two answers without a word match exactly, and their F1 is 0.

    Args:
        predictions: one an example; empty for none.
        gold: one answer or more an example.
        language: as for `answer_words`.

    >>> answer_items(["in the old house", "here"], [["an old house", "house"], ["there"]]).tolist()
    [[0.8, 0.0], [0.0, 0.0]]
    """
    rows = []
    for prediction, answers in zip(predictions, gold, strict=True):
        said = answer_words(prediction, language)
        right = [answer_words(answer, language) for answer in answers]
        rows.append((max(_f1(said, words) for words in right), float(said in right)))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def f1(items: Items) -> Floats:
    """F1 of each answer's words."""
    return items[:, 0]


def exact(items: Items) -> Floats:
    """1 for each answer with the words of a gold one in their order, else 0."""
    return items[:, 1]


def mean(items: Items) -> Floats:
    """The mean of the two, which is XTREME's score."""
    return np.asarray(items.mean(axis=1))


METRICS = {
    "answer_mean": mean_of("(F1 + EM) / 2", mean, ("answer_f1", "exact_match")),
    "answer_f1": mean_of("F1 of answers", f1),
    "exact_match": mean_of("exact match", exact),
}


def _is_punctuation(character: str, language: str) -> bool:
    """ASCII's, and in MLQA's evaluator Unicode's as well."""
    return character in string.punctuation or (language != "" and unicodedata.category(character).startswith("P"))


def _f1(said: list[str], right: list[str]) -> float:
    same = (Counter(said) & Counter(right)).total()
    return 2 * same / (len(said) + len(right)) if same else 0.0
