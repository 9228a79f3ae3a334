"""Questions with answers that are spans of a text, from files in SQuAD's layout."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune._text import encodable
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.tasks._columns import group_in
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._dev import drawn_off, sides
from noisytune.lab.tasks._json import Record, records_of
from noisytune.lab.tasks._tables import suffix, task_name

SPANS = "spans"
SUFFIXES = (".json", ".jsonl", ".ndjson")
COLUMNS = ("text_columns", "join_columns", "label_column", "missing_labels", "empty_texts")
"""Settings of tables, which say nothing about questions."""

Answer = tuple[int, str]
"""The character of the context where it begins, from 0; -1 where the context does not hold it. And its text."""


@dataclass(frozen=True)
class Questions:
    """What a source of questions holds."""

    split: Split
    """Questions and contexts, and of each the gold answers, as `Answer`."""
    found: int
    """All questions of the source."""
    ids: tuple[str, ...] = ()
    """What the source calls each question of ``split``; an empty text where it does not say."""
    without_answer: int = 0
    """Questions left out because no answer is given, as in test files without labels."""
    moved: int = 0
    """Answers that do not stand where the file says: the nearest occurrence was taken."""
    lost: tuple[str, ...] = ()
    """Questions whose context holds none of their answers."""
    kept: bool = False
    """Whether ``lost`` are among the examples all the same."""

    def notices(self, name: str) -> list[str]:
        """What the user should know, one line each.

        Args:
            name: of the source.
        """
        told = []
        if self.without_answer:
            told.append(f"{self.without_answer} of {self.found} questions have no answer and are left out")
        if self.lost:
            what = "they are scored all the same" if self.kept else "left out"
            told.append(
                f"{len(self.lost)} of {self.found} questions have their answer not in their context "
                f"(the first: {self.lost[0]}): {what}"
            )
        if self.moved:
            told.append(f"{self.moved} answers begin elsewhere than the file says; their nearest occurrence is taken")
        return [f"{name}: {one}" for one in told]


def holds_questions(path: Path, options: TaskOptions) -> bool:
    """Whether a file is one of questions: it is asked for, or JSON with SQuAD's names in it."""
    if options.asks_for(SPANS):
        return True
    if options.kind is not None or suffix(path) != ".json" or not path.is_file():
        return False
    text = decode(path)
    return '"paragraphs"' in text and '"qas"' in text


def load_questions(path: Path, options: TaskOptions) -> TaskData:
    """Read a file of questions, and a dev file where one is given.

    Args:
        path: as for `read_questions`.
        options: ``dev_file``, ``group_column`` and ``split_seed``.

    Raises:
        DataError: as `read_questions`; no question that can be trained on; too few contexts to split off dev.
        ConfigError: a setting of tables.
    """
    if given := options.given(COLUMNS):
        raise ConfigError(f"{' and '.join(given)} say nothing about questions: {path} is read by SQuAD's names")
    group = options.group_column
    dev = None if options.dev_file is None else read_questions(options.dev_file, train=False, group=group)
    return task_from_questions(task_name(path), read_questions(path, group=group), dev, options, where=str(path))


def task_from_questions(
    name: str, train: Questions, dev: Questions | None, options: TaskOptions, *, where: str
) -> TaskData:
    """The task of questions.

    Args:
        name: of the task.
        train: to learn from.
        dev: to score; None: those of a fifth of train's contexts.
        options: ``dev_file``, ``metric`` and ``split_seed``.
        where: file or name of train, for messages.

    Raises:
        DataError: no question with an answer, or too few contexts.
    """
    sources = {where: train} if dev is None else {where: train, str(options.dev_file or f"{where} (dev)"): dev}
    for source, questions in sources.items():
        if not len(questions.split):
            raise DataError(f"{source}: {_nothing(questions)}")
    named = [(encodable(Path(source).name), one) for source, one in sources.items()]
    notices = [line for source, one in named for line in one.notices(source)]
    facts: dict[str, Any] = {
        "rows": [{"source": source, "rows": one.found} for source, one in named],
        "left_out": [
            {"source": source, "reason": "no answer in the context", "rows": rows}
            for source, one in named
            if (rows := one.found - len(one.split))
        ],
    }
    if dev is None:
        ours, theirs = _split_off(train.split, options.split_seed, where)
        facts["split_off"] = len(theirs)
        what = "groups" if theirs.groups else "contexts"
        notices.append(
            f"no dev_file: {len(theirs)} of {len(train.split)} questions, those of a fifth of the {what}, were split "
            "off as dev"
        )
    else:
        ours, theirs = train.split, dev.split
        if repeated := len({context for _, context in theirs.texts} & {context for _, context in ours.texts}):
            facts["in_both"] = repeated
            notices.append(f"{repeated} contexts of dev are in train too: the scores flatter")
    metric = options.metric or KINDS[SPANS].metrics(())[0]
    return TaskData(name, SPANS, metric, (), ours, {"dev": theirs}, tuple(notices), facts=facts)


def read_questions(path: Path, *, train: bool = True, group: str | None = None) -> Questions:
    """The questions of a file.

    Args:
        path: JSON in SQuAD's layout (``data``, ``paragraphs``, ``qas``), or an object a question such as
            ``{"question": "...", "context": "...", "answers": {"text": ["..."], "answer_start": [3]}}``.
        train: as for `questions_of`.
        group: likewise.

    Raises:
        DataError: the file cannot be read, or something is missing in it; names the place.
    """
    if suffix(path) not in SUFFIXES:
        raise DataError(f"{path}: questions are read from JSON ({', '.join(SUFFIXES)}) in SQuAD's layout")
    try:
        text = decode(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read'}; give a file of questions") from error
    return questions_of(str(path), records_of(path, text), train=train, group=group)


def questions_of(
    where: str, records: Iterable[Mapping[str, Any]], *, train: bool = True, group: str | None = None
) -> Questions:
    """The questions of records.

    Args:
        where: file or name, for messages.
        records: articles of SQuAD's layout, or one a question.
        train: whether to learn from them: then a question whose answer is not in its context is left out. Else it
            stays, as evaluators compare texts and not places.
        group: the key that says what a question belongs to: ``context``, an article's ``title``, or one of its own.

    Raises:
        DataError: something is missing in a record.
    """
    texts: list[tuple[str, str]] = []
    targets: list[tuple[Answer, ...]] = []
    ids: list[str] = []
    groups: list[str] = []
    lost: list[str] = []
    found = without = moved = 0
    for here, name, record in _each(where, records):
        found += 1
        context = _text(here, record, "context")
        given = [(start, text) for start, text in _answers(here, record) if text.strip()]
        placed = [(place(context, start, text), text) for start, text in given]
        inside = [answer for answer in placed if answer[0] >= 0]
        moved += sum(at not in (-1, start) for (start, _), (at, _) in zip(given, placed, strict=True))
        if not placed:
            without += 1
        elif not inside:
            lost.append(f"{placed[0][1][:40]!r} of question {name}")
        if answers := inside if train else placed:
            texts.append((_text(here, record, "question"), context))
            targets.append(tuple(answers))
            ids.append(str(record.get("id", "")))
            groups += [group_in(record, group, here, found)] if group else []
    split = Split(tuple(texts), tuple(targets), groups=tuple(groups))
    return Questions(split, found, tuple(ids), without, moved, tuple(lost), not train)


def place(context: str, start: int, text: str) -> int:
    """The character where an answer begins: as it is said, else its nearest occurrence; -1 where there is none.

    >>> place("a cat and a dog", 10, "a"), place("a cat and a dog", 12, "a dog"), place("a cat", 0, "dog")
    (10, 10, -1)
    """
    if start >= 0 and context.startswith(text, start):
        return start
    starts = (match.start() for match in re.finditer(f"(?={re.escape(text)})", context))
    return min(starts, key=lambda at: abs(at - start), default=-1)


def _each(where: str, records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str, Record]]:
    """Of each question where it stands, what it is called, and its record, with its context."""
    for number, record in enumerate(records, start=1):
        if isinstance(articles := record.get("data"), list):
            yield from _each(where, articles)
        elif "paragraphs" in record:
            title = {"title": record["title"]} if "title" in record else {}
            for i, paragraph in enumerate(_objects(f"{where}: article {number}", record, "paragraphs"), start=1):
                here = f"{where}: article {number}, paragraph {i}"
                for j, question in enumerate(_objects(here, paragraph, "qas"), start=1):
                    name = repr(question["id"]) if "id" in question else f"{j} of article {number}, paragraph {i}"
                    yield f"{here}, question {j}", name, {**title, **question, "context": paragraph.get("context")}
        elif "question" in record:
            yield f"{where}: question {number}", repr(record["id"]) if "id" in record else f"{number}", dict(record)
        else:
            keys = ", ".join(map(str, record))
            raise DataError(f"{where}: item {number} has neither 'paragraphs' nor 'question', but {keys or 'nothing'}")


def _objects(where: str, record: Mapping[str, Any], name: str) -> list[Record]:
    found = record.get(name)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise DataError(f"{where}: {name!r} is no list of objects; SQuAD's layout is data, paragraphs, qas")
    return found


def _text(where: str, record: Mapping[str, Any], name: str) -> str:
    found = record.get(name)
    if not isinstance(found, str):
        seen = "missing" if found is None else f"a {type(found).__name__}"
        raise DataError(f"{where}: its {name!r} is {seen}; a text is needed")
    return found


def _answers(where: str, record: Mapping[str, Any]) -> list[Answer]:
    """A list of objects, as SQuAD has it, or an object of two lists, as data sets have it."""
    given = record.get("answers") or []
    if isinstance(given, Mapping):
        texts, starts = given.get("text"), given.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise DataError(f"{where}: its answers need 'text' and 'answer_start', lists of one length")
        given = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(given, list) or not all(isinstance(one, Mapping) for one in given):
        raise DataError(f"{where}: its 'answers' are no list of objects with 'text' and 'answer_start'")
    return [(_start(where, one), _text(f"{where}, answer", one, "text")) for one in given]


def _start(where: str, answer: Mapping[str, Any]) -> int:
    start = answer.get("answer_start")
    if isinstance(start, bool) or not isinstance(start, int | float) or not float(start).is_integer():
        raise DataError(f"{where}: the answer_start {start!r} is no whole number; give the answer's first character")
    return int(start)


def _nothing(questions: Questions) -> str:
    """Why a source gives no example."""
    if questions.lost:
        first = questions.lost[0]
        return f"no question has its answer in its context (the first: {first}); check that they belong together"
    if questions.found:
        return f"none of its {questions.found} questions has an answer: a test file without labels; give one with them"
    return "no question in it; SQuAD's layout is data, paragraphs, qas"


def _split_off(questions: Split, seed: int, where: str) -> tuple[Split, Split]:
    """Train and dev; the questions of a group, or else those of a context, stay on one side."""
    units = questions.groups or tuple(context for _, context in questions.texts)
    if not (held := drawn_off(units, seed)):
        seen = f"{len(set(units))} {'groups' if questions.groups else 'contexts'}"
        raise DataError(f"{where}: {seen} are too few to split off a dev set; give dev_file")
    train, dev = map(questions.take, sides(units, held))
    return train, dev
