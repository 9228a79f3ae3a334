"""Questions whose answers stand in a text: SQuAD's JSON, as XQuAD, MLQA and TyDiQA-GoldP have it too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from noisytune._languages import LANGUAGES, language_name
from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks.xtreme.parquet import columns_of
from noisytune.lab.tasks.xtreme.part import Part

Question = tuple[str, str, str, list[tuple[int, str]]]
"""Its id, itself, its context, and its answers: where they begin, and their texts."""


def read_questions(path: Path, labels: Sequence[str], code: str) -> Part:
    """The questions of a file in SQuAD's format, version 1.1.

    A question none of whose answers stands where it is said to is left out.

    Args:
        path: the file.
        labels: none.
        code: of the language.

    Raises:
        DataError: not JSON, or another format; names the question.
    """
    try:
        content = json.loads(decode(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}); download it again") from error
    return _part(list(_questions(path, content)), path)


def read_hub_questions(files: Sequence[Path], labels: Sequence[str], code: str) -> Part:
    """The same from Parquet files of the Hub; of TyDiQA, which has all languages in one, the questions of this one.

    Raises:
        DataError: a column is missing.
    """
    columns = _columns(tuple(files))
    ids = [str(one) for one in columns["id"]]
    mixed = ids[0].partition("-")[0].capitalize() in LANGUAGES.values()
    prefix = f"{language_name(code).lower()}-" if mixed else ""
    found: list[Question] = []
    for i, id in enumerate(ids):
        if id.startswith(prefix):
            answers = columns["answers"][i]
            pairs = zip(answers["answer_start"], answers["text"], strict=True)
            context, question = str(columns["context"][i]), str(columns["question"][i])
            found.append((id, question, context, [(int(start), str(text)) for start, text in pairs]))
    if not found:
        raise DataError(f"{files[0]}: no question whose id begins with {prefix!r}")
    return _part(found, files[0])


@lru_cache(maxsize=2)
def _columns(files: tuple[Path, ...]) -> dict[str, list[Any]]:
    """Kept, because a file may hold the questions of nine languages."""
    return columns_of(files, ("id", "context", "question", "answers"))


def _questions(path: Path, content: Any) -> Iterator[Question]:
    """Every question of a file."""
    where = "the file"
    try:
        for number, article in enumerate(content["data"], start=1):
            where = f"article {number}"
            for place, paragraph in enumerate(article["paragraphs"], start=1):
                where = f"article {number}, paragraph {place}"
                context = _text(paragraph["context"])
                for one in paragraph["qas"]:
                    where = f"article {number}, paragraph {place}, question {one.get('id')!r}"
                    answers = [(int(answer["answer_start"]), _text(answer["text"])) for answer in one["answers"]]
                    yield str(one["id"]), _text(one["question"]), context, answers
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: {where} is not in SQuAD's format ({error}); download it again") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was expected, not {value!r}"[:80])
    return value


def _part(questions: list[Question], path: Path) -> Part:
    if not questions:
        raise DataError(f"{path}: no question in it; download it again")
    if not any(text for *_, answers in questions for _, text in answers):
        return Part(None, len(questions))
    texts, targets, left_out = [], [], []
    for id, question, context, answers in questions:
        there = tuple((start, text) for start, text in answers if text and context.startswith(text, max(start, 0)))
        if there:
            texts.append((question, context))
            targets.append(there)
        else:
            left_out.append(id)
    if not texts:
        raise DataError(f"{path}: no answer stands in its context where it is said to; download the file again")
    seen = f"{path.name}: {len(left_out):,} questions have no answer in their context (the first: {{!r}}); left out"
    return Part(Split(tuple(texts), tuple(targets)), len(questions), (seen.format(left_out[0]),) if left_out else ())
