"""Sentences of two languages and which of them translate each other, as examples of the kind `retrieval`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noisytune.errors import DataError
from noisytune.lab.kinds.split import Split

FOREIGN, ENGLISH = 0.0, 1.0
"""The first number of a target: the sentence's side. A foreign sentence's other numbers are the lines of its
translations among the English sentences, counted from 0."""
_ENOUGH_TO_TELL = 20
"""So many lines do not stand in alphabetical order by chance."""


@dataclass(frozen=True)
class Side:
    """The sentences of one language, as they stand in a file."""

    file: str
    """For messages."""
    sentences: Sequence[str]
    """One a line, in order, without blanks at their ends."""
    ids: Sequence[str] = ()
    """What the gold file calls them; empty where it does not."""


def with_gold(foreign: Side, english: Side, gold: Sequence[tuple[str, str]], file: str) -> Split:
    """Two sides whose translations a gold file names, among sentences without any (BUCC).

    Args:
        foreign: with ids.
        english: with ids.
        gold: (foreign id, English id), one a line of the gold file.
        file: the gold file, for messages.

    Returns:
        All foreign sentences, then all English ones.

    Raises:
        DataError: a side without sentences, a blank sentence, an id that occurs twice or that no sentence has, no gold.

    >>> german = Side("de", ["Ja.", "Nein."], ["de-1", "de-2"])
    >>> english = Side("en", ["No.", "Yes.", "Why?"], ["en-1", "en-2", "en-3"])
    >>> with_gold(german, english, [("de-1", "en-2")], "gold").targets
    ((0.0, 1.0), (0.0,), (1.0,), (1.0,), (1.0,))
    """
    lines = [_lines(side) for side in (foreign, english)]
    if not gold:
        raise DataError(f"{file}: no gold pairs, so nothing can be scored")
    translations: list[list[float]] = [[] for _ in foreign.sentences]
    for number, pair in enumerate(gold, start=1):
        for one, known, side in zip(pair, lines, (foreign, english), strict=True):
            if one not in known:
                raise DataError(f"{file}, line {number}: the gold pair names {one!r}, which {side.file} has not")
        mine, theirs = (known[one] for one, known in zip(pair, lines, strict=True))
        if theirs not in translations[mine]:
            translations[mine].append(float(theirs))
    return _split(foreign, english, translations)


def line_by_line(foreign: Side, english: Side) -> Split:
    """Two sides whose lines translate each other (Tatoeba).

    Args:
        foreign: its ids are not looked at.
        english: as many sentences.

    Returns:
        All foreign sentences, then all English ones.

    Raises:
        DataError: a side without sentences, a blank sentence, sides of different length, or English sentences in
            alphabetical order: XTREME's own release sorts them, which hides what belongs together.
    """
    for side in (foreign, english):
        _check(side)
    if len(foreign.sentences) != len(english.sentences):
        raise DataError(
            f"{foreign.file} has {len(foreign.sentences)} lines and {english.file} {len(english.sentences)}: "
            "their lines must translate each other"
        )
    if is_sorted(english):
        raise DataError(
            f"{english.file}: its lines are in alphabetical order, as in XTREME's release, which hides the pairs so; "
            "give the files whose lines translate each other (LASER's tatoeba.*-eng.*)"
        )
    return _split(foreign, english, [[float(line)] for line in range(len(foreign.sentences))])


def is_sorted(side: Side) -> bool:
    """Whether the sentences stand in alphabetical order, and are too many for that to be chance.

    >>> is_sorted(Side("en", [f"Line {i}." for i in range(10, 50)]))
    True
    """
    return len(side.sentences) >= _ENOUGH_TO_TELL and list(side.sentences) == sorted(side.sentences)


def _split(foreign: Side, english: Side, translations: Sequence[Sequence[float]]) -> Split:
    texts = tuple((sentence,) for side in (foreign, english) for sentence in side.sentences)
    return Split(texts, (*((FOREIGN, *lines) for lines in translations), *((ENGLISH,),) * len(english.sentences)))


def _check(side: Side) -> None:
    """Refuse a side that is empty or has a blank line."""
    if not side.sentences:
        raise DataError(f"{side.file}: no sentences")
    blank = next((n for n, sentence in enumerate(side.sentences, start=1) if not sentence.strip()), None)
    if blank:
        raise DataError(f"{side.file}, line {blank}: the sentence is blank; remove it and its pair")


def _lines(side: Side) -> dict[str, int]:
    """The line of each id, from 0."""
    _check(side)
    found: dict[str, int] = {}
    for line, one in enumerate(side.ids):
        if one in found:
            raise DataError(f"{side.file}, line {line + 1}: the id {one!r} stands in line {found[one] + 1} already")
        found[one] = line
    return found
