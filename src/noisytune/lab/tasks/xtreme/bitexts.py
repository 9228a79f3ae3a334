"""Sentences of two languages that translate each other: the files of Tatoeba and BUCC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from noisytune.errors import DataError
from noisytune.lab.kinds.bitext import Side, is_sorted, line_by_line, with_gold
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks.xtreme.parquet import columns_of
from noisytune.lab.tasks.xtreme.part import Part

HUB_TEXTS = ("source_sentence", "target_sentence")
"""The columns of Tatoeba on the Hub: the language, and English."""


def companions(foreign: Path) -> list[Path]:
    """The files that belong to the file of a language: English, and the gold pairs where they are there."""
    others = (foreign.with_suffix(ending) for ending in (".en", ".gold"))
    return [path for path in others if path.is_file()]


def read_bitext(path: Path, labels: Sequence[str], code: str, train: bool) -> Part:
    """The sentences of a language and of English, and which of them translate each other.

    Lines of Tatoeba (``de-en.de``, ``de-en.en``) translate each other; lines of BUCC (``de-en.dev.de``) begin with an
    id and a tab, and a gold file names pairs of ids.

    Args:
        path: the file of the language.
        labels: none.
        code: of the language.
        train: never.

    Raises:
        DataError: the other file is missing, or what the sides or the gold pairs lack; names the line.
    """
    english = path.with_suffix(".en")
    if not english.is_file():
        raise DataError(f"{english}: there is no such file; it holds the English side of {path.name}")
    if len(path.suffixes) == 1:
        sides = [Side(str(file), _lines(file)) for file in (path, english)]
        return _aligned(*sides)
    gold = path.with_suffix(".gold")
    mine, theirs = (with_ids(file) for file in (path, english))
    if not gold.is_file():
        return Part(None, len(mine.sentences))
    pairs = [_pair(gold, number, line) for number, line in enumerate(_lines(gold), start=1)]
    return Part(with_gold(mine, theirs, pairs, str(gold)), len(pairs))


def read_hub_bitext(files: Sequence[Path], labels: Sequence[str], code: str, train: bool) -> Part:
    """Tatoeba from Parquet files of the Hub.

    Raises:
        DataError: a column is missing, or a sentence is blank; names the row.
    """
    columns = columns_of(files, HUB_TEXTS)
    return _aligned(*(Side(f"{files[0]}, {name}", [str(cell).strip() for cell in columns[name]]) for name in HUB_TEXTS))


def _aligned(foreign: Side, english: Side) -> Part:
    if is_sorted(english):
        return Part(None, len(english.sentences))
    return Part(line_by_line(foreign, english), len(foreign.sentences))


def _lines(path: Path) -> list[str]:
    """The lines of a file without blanks at their ends; an empty last one is none."""
    lines = [line.strip() for line in re.split("\r\n|\n", decode(path))]
    return lines[:-1] if lines and not lines[-1] else lines


def with_ids(path: Path) -> Side:
    """The sentences of a file of BUCC and their ids.

    Raises:
        DataError: a line without a tab; names it.
    """
    ids, sentences = [], []
    for number, line in enumerate(_lines(path), start=1):
        one, tab, sentence = line.partition("\t")
        if not tab:
            raise DataError(f"{path}: line {number} has no tab; an id, a tab and a sentence are expected")
        ids.append(one)
        sentences.append(sentence.strip())
    return Side(str(path), sentences, ids)


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    foreign, tab, english = line.partition("\t")
    if not tab:
        raise DataError(f"{path}: line {number} has no tab; two ids with a tab between them are expected")
    return foreign.strip(), english.strip()
