"""Questions whose answers stand in a text: the files of SQuAD, XQuAD, MLQA and TyDiQA-GoldP."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from noisytune._languages import LANGUAGES, language_name
from noisytune.errors import DataError
from noisytune.lab.tasks.questions import Questions, questions_of, read_questions
from noisytune.lab.tasks.xtreme.parquet import columns_of
from noisytune.lab.tasks.xtreme.part import Part

COLUMNS = ("id", "question", "context", "answers")
"""On the Hub."""


def read_squad(path: Path, labels: Sequence[str], code: str, train: bool) -> Part:
    """The questions of a file in SQuAD's layout.

    Args:
        path: the file.
        labels: none.
        code: of the language.
        train: whether questions whose answer is not in their context are left out.

    Raises:
        DataError: as `noisytune.lab.tasks.questions.read_questions`.
    """
    return _part(read_questions(path, train=train), path)


def read_hub_squad(files: Sequence[Path], labels: Sequence[str], code: str, train: bool) -> Part:
    """The same from Parquet files of the Hub; of TyDiQA, which has all languages in one, the questions of this one.

    Raises:
        DataError: a column is missing, or no question is of this language.
    """
    columns = _columns(tuple(files))
    ids = [str(one) for one in columns["id"]]
    several = ids[0].partition("-")[0].capitalize() in LANGUAGES.values()
    prefix = f"{language_name(code).lower()}-" if several else ""
    rows = [i for i, one in enumerate(ids) if one.startswith(prefix)]
    if not rows:
        raise DataError(f"{files[0]}: no question whose id begins with {prefix!r}")
    records = ({name: columns[name][i] for name in COLUMNS} for i in rows)
    return _part(questions_of(str(files[0]), records, train=train), files[0])


@lru_cache(maxsize=2)
def _columns(files: tuple[Path, ...]) -> dict[str, list[Any]]:
    """Kept, because a file may hold the questions of nine languages."""
    return columns_of(files, COLUMNS)


def _part(questions: Questions, path: Path) -> Part:
    if questions.found and questions.found == questions.without_answer:
        return Part(None, questions.found)
    if not len(questions.split):
        raise DataError(f"{path}: no question with an answer in its context; download the file again")
    return Part(questions.split, questions.found, tuple(questions.notices(path.name)))
