"""What is said and what should be said of a language, as the files that XTREME's ``evaluate.py`` reads.

Source: XTREME's ``evaluate.py`` and the layout of its ``mock_test_data``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from noisytune.errors import DataError
from noisytune.lab.tasks.questions import read_questions
from noisytune.lab.tasks.xtreme.bitexts import with_ids

FOLDERS = {"bucc": "bucc2018"}
"""Of the tasks that have another name there."""


def place(name: str, code: str) -> Path:
    """Where a language's file lies in a folder of predictions.

    >>> place("bucc", "de").as_posix(), place("mlqa", "de").as_posix()
    ('bucc2018/test-de.tsv', 'mlqa/test-de.json')
    """
    ending = "json" if name in ("xquad", "mlqa", "tydiqa") else "tsv"
    return Path(FOLDERS.get(name, name)) / f"test-{code}.{ending}"


def texts_of(kind: str, said: Any, gold: Any, labels: Sequence[str], file: Path) -> tuple[str, str]:
    """The contents of two files: predictions and labels.

    Args:
        kind: of the task.
        said: its predictions.
        gold: its references, as many.
        labels: class names in id order.
        file: the language's file in the official download.

    Raises:
        DataError: the file has another number of examples.
    """
    if kind == "classification":
        return _lines([labels[int(i)] for i in said]), _lines([labels[int(i)] for i in gold])
    if kind == "tagging":
        return tuple(_tags(table, gold, labels) for table in (said, gold))  # type: ignore[return-value]
    if kind == "spans":
        return _answers(said, file), file.read_text(encoding="utf-8-sig")
    return _pairs(said, gold, file) if file.with_suffix(".gold").is_file() else _places(said, gold)


def _lines(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _tags(table: Any, gold: Any, labels: Sequence[str]) -> str:
    """A tag a line, and an empty line after each sentence."""
    sentences = ([labels[int(i)] for i in row[other >= 0]] for row, other in zip(table, gold, strict=True))
    return "".join(_lines([*tags, ""]) for tags in sentences)


def _answers(said: Any, file: Path) -> str:
    """The text that answers each question, by its id."""
    questions = read_questions(file, train=False)
    _same(len(questions.ids), said, file)
    contexts = (context for _, context in questions.split.texts)
    found = {one: text[int(a) : int(b)] for one, text, (a, b) in zip(questions.ids, contexts, said, strict=True)}
    return json.dumps(found, ensure_ascii=False)


def _pairs(said: Any, gold: Any, file: Path) -> tuple[str, str]:
    """The ids of the sentences that are paired."""
    foreign, english = (with_ids(path).ids for path in (file, file.with_suffix(".en")))
    _same(len(foreign), said, file)
    rows = [int(row) for row in np.flatnonzero(said[:, 2] == 1)]
    wanted = [(row, int(line)) for row, lines in enumerate(gold) for line in lines if line >= 0]
    named = ([(row, int(said[row, 1])) for row in rows], wanted)
    predictions, labels = (_lines([f"{foreign[i]}\t{english[j]}" for i, j in pairs]) for pairs in named)
    return predictions, labels


def _places(said: Any, gold: Any) -> tuple[str, str]:
    """Of each English line the line of its nearest neighbour, and the line of its translation."""
    order = np.argsort(gold[:, 0])
    return _lines([str(int(line)) for line in said[order, 0]]), _lines([str(line) for line in order])


def _same(examples: int, said: Any, file: Path) -> None:
    if examples != len(said):
        raise DataError(f"{file}: {examples} examples, but the run has {len(said)}: give the run's own download")
