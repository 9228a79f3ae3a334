"""A task for a causal language model, from a table of chats, prompts and completions, choices or texts."""

from __future__ import annotations

import math
import re
from typing import Any

from noisytune._metrics.language import GENERATED, json_match, pattern_match
from noisytune._text import encodable
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import Split
from noisytune.lab.kinds.language import ELSEWHERE, PASSAGE, RIGHT, TEXT
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._dev import drawn_off, sides
from noisytune.lab.tasks._tables import Table, read_table
from noisytune.lab.tasks._untrained import PARAGRAPHS
from noisytune.lab.tasks.chats import COLUMNS, LANGUAGE, Examples, Layout, examples_of, layout_of, learnt

MAX_LENGTH = 1024
"""Tokens of an example where nothing else is asked for: chats are longer than sentences."""
ANSWERS = ("max_new_tokens", "answer_pattern")
"""Settings of generated answers."""
LANGUAGE_MODELS = (*COLUMNS, *ANSWERS, "also")
"""Settings that say nothing about tasks of other kinds."""


def task_from_examples(name: str, train: Table, dev: Table | None, layout: Layout, options: TaskOptions) -> TaskData:
    """The task of a table that says examples for a language model.

    Args:
        name: of the task.
        train: to learn from.
        dev: to score; None: a fifth of train's texts or groups.
        layout: of train: `noisytune.lab.tasks.chats.layout_of`.
        options: ``also``, ``group_column``, ``metric``, ``max_new_tokens``, ``answer_pattern``, ``split_seed``.

    Raises:
        DataError: a row that is no example, too few to split, or a completion that the metric finds nothing in.
        ConfigError: a metric or a setting that the examples do not go with.
    """
    tables = [train] if dev is None else [train, dev]
    read = [examples_of(table, layout, options) for table in tables]
    notices = [f"{encodable(train.path.name)}: read as {layout.name} ({', '.join(map(repr, layout.columns))})"]
    notices += [line for table, one in zip(tables, read, strict=True) for line in _told(table, one)]
    facts: dict[str, Any] = {
        "rows": [{"source": table.path.name, "rows": len(one.split)} for table, one in zip(tables, read, strict=True)]
    }
    if dev is None:
        ours, theirs = _split_off(read[0].split, options.split_seed, str(train.path))
        facts["split_off"] = len(theirs)
        what = "groups" if theirs.groups else "texts"
        notices.append(f"no dev_file: {len(theirs)} of {len(read[0].split)} rows, a fifth of the {what}, are dev")
    else:
        ours, theirs = (one.split for one in read)
        if repeated := sum(texts in set(ours.texts) for texts in theirs.texts):
            facts["in_both"] = repeated
            notices.append(f"{repeated} of {len(theirs)} dev rows are in train too: the scores flatter")
    default = "choice_accuracy" if RIGHT in theirs.targets[0] else "nll"
    reading = _reading(options, theirs)
    elsewhere = _elsewhere(options)
    notices.append(f"forgetting: scored besides on {options.also or 'a text of this package'} ({ELSEWHERE})")
    task = TaskData(
        name,
        LANGUAGE,
        options.metric or default,
        (),
        learnt(ours),
        {"dev": theirs, ELSEWHERE: elsewhere},
        tuple(notices),
        reading=reading,
        training={"max_length": MAX_LENGTH},
        facts=facts,
    )
    _refuse_what_cannot_match(options, theirs)
    return task


def _refuse_what_cannot_match(options: TaskOptions, dev: Split) -> None:
    """A metric that compares a part of the answer needs that part in every reference, or has no mean."""
    for i, texts in enumerate(dev.texts, start=1):
        wanted = texts[-1]
        if options.metric == "pattern_match" and math.isnan(pattern_match("", wanted, str(options.answer_pattern))):
            lacks = f"answer_pattern {options.answer_pattern!r} finds nothing"
        elif options.metric == "json_match" and math.isnan(json_match("", wanted)):
            lacks = "metric json_match finds no JSON object or list"
        else:
            continue
        raise DataError(f"dev example {i}: {lacks} in its completion {wanted[:60]!r}: mend it or leave it out")


def _told(table: Table, examples: Examples) -> list[str]:
    lines = list(table.notices)
    if examples.unanswered:
        lines.append(f"{examples.unanswered} chats end with turns that nobody answers: these turns are left out")
    return [f"{encodable(table.path.name)}: {line}" for line in lines]


def _reading(options: TaskOptions, dev: Split) -> dict[str, Any]:
    """How answers are generated, where the metric or a setting asks for it.

    Raises:
        ConfigError: of choices, or of texts without a prompt; or a metric that lacks what it needs.
    """
    has_choices, is_text = RIGHT in dev.targets[0], TEXT in dev.targets[0]
    asked = options.given(ANSWERS)
    if options.metric in GENERATED or asked:
        by = asked[0] if asked else f"metric {options.metric}"
        if has_choices or is_text:
            what = "choices are compared by their likelihood" if has_choices else "plain texts have no prompt"
            raise ConfigError(f"{by} needs answers that are generated, and {what}: leave it out")
        if options.metric == "pattern_match" and not options.answer_pattern:
            raise ConfigError("metric pattern_match compares what a pattern finds: give answer_pattern")
        pattern = {"answer_pattern": options.answer_pattern} if options.answer_pattern else {}
        return {"max_new_tokens": options.max_new_tokens or 0, **pattern}
    if options.metric == "choice_accuracy" and not has_choices:
        raise ConfigError("metric choice_accuracy needs choices to compare: give choices_column")
    return {}


def _elsewhere(options: TaskOptions) -> Split:
    """The text that is not trained on: paragraphs of a text file, rows of a table, or the package's own."""
    if options.also is None:
        return _passages(PARAGRAPHS)
    if options.also.suffix.lower() in (".txt", ".md", ""):
        try:
            text = decode(options.also)
        except OSError as error:
            raise DataError(f"{options.also}: {error.strerror or 'cannot be read'}; give a text or a table") from error
        lines = text.replace("\r\n", "\n").replace("\r", "\n")
        paragraphs = [part.strip() for part in re.split(r"\n[ \t]*\n", lines) if part.strip()]
        if not paragraphs:
            raise DataError(f"{options.also}: no text in it")
        return _passages(paragraphs)
    table = read_table(options.also)
    layout = layout_of(table, TaskOptions(kind=LANGUAGE))
    if layout is None:
        raise DataError(f"{options.also}: no text, no chat and no completion in it; the columns are {table.names}")
    return learnt(examples_of(table, layout, TaskOptions()).split)


def _passages(paragraphs: list[str] | tuple[str, ...]) -> Split:
    return Split(tuple((text,) for text in paragraphs), ((PASSAGE,),) * len(paragraphs))


def _split_off(data: Split, seed: int, where: str) -> tuple[Split, Split]:
    """Train and dev; a group stays on one side, and so do rows with the same texts."""
    of_rows = data.groups or tuple("\0".join(texts) for texts in data.texts)
    if not (held := drawn_off(of_rows, seed)):
        seen = f"{len(set(of_rows))} different {'groups' if data.groups else 'texts'}"
        raise DataError(f"{where}: {seen} are too few to split off a dev set; give dev_file")
    train, dev = map(data.take, sides(of_rows, held))
    return train, dev


def from_table(name: str, train: Table, dev: Table | None, options: TaskOptions) -> TaskData | None:
    """The task of a table, where it says examples for a language model; else None.

    Raises:
        DataError: as `task_from_examples`.
        ConfigError: likewise, or settings of language models for a table without such columns.
    """
    layout = layout_of(train, options)
    if layout is not None:
        return task_from_examples(name, train, dev, layout, options)
    if given := options.given(LANGUAGE_MODELS):
        raise ConfigError(
            f"{given[0]} is for language models: give prompt_column and completion_column, or kind=language"
        )
    return None
