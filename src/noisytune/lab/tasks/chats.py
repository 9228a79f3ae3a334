"""Rows of a table as examples for a language model: chats, prompts with their completions, choices, or plain texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import Split
from noisytune.lab.kinds.language import CHOICE, COMPLETION, GIVEN, PROMPT, RIGHT, TEXT
from noisytune.lab.tasks._columns import find_column, folded, read_groups
from noisytune.lab.tasks._data import TaskOptions
from noisytune.lab.tasks._tables import Table

LANGUAGE = "language"
ASSISTANT = "assistant"
SPEAKERS = {"human": "user", "gpt": ASSISTANT, "model": ASSISTANT, "bot": ASSISTANT, "chatgpt": ASSISTANT}
"""What roles are called besides their usual names -> their usual names."""
COLUMNS = ("prompt_column", "completion_column", "choices_column")
"""Settings that only language models have."""

Example = tuple[tuple[str, ...], tuple[str, ...]]
"""Texts, and the role of each."""


@dataclass(frozen=True)
class Layout:
    """How a table says its examples."""

    name: str
    """For people."""
    columns: tuple[str, ...]
    """Those that are read, as the table has them."""
    read: Callable[[str, Sequence[Any]], Example]
    """Where a row stands, and its cells -> the example."""


@dataclass
class Examples:
    """What a table holds."""

    split: Split
    unanswered: int = 0
    """Chats whose last turns nobody answers: these are left out."""
    layout: Layout | None = field(default=None, compare=False)


def layout_of(table: Table, options: TaskOptions) -> Layout | None:
    """How a table says examples for a language model; None where it does not.

    Args:
        table: with its columns.
        options: ``prompt_column``, ``completion_column``, ``choices_column``, ``text_columns`` and ``kind``.

    Raises:
        DataError: no such column.
        ConfigError: one of two columns that belong together, or columns of another kind.
    """
    given = options.given(COLUMNS)
    asked = bool(given) or options.asks_for(LANGUAGE)
    others = options.given(("label_column", "join_columns"))
    if asked and others:
        raise ConfigError(f"{others[0]} says nothing about completions: {table.path} is read for a language model")
    if not asked and (options.kind or others or options.text_columns):
        return None
    spelt = {folded(name): name for name in table.columns}
    if not given and not options.text_columns:
        for name, of_chat in (("messages", "messages"), ("conversations", "sharegpt's conversations")):
            if name in spelt and any(isinstance(cell, list) for cell in table.columns[spelt[name]]):
                return Layout(of_chat, (spelt[name],), _chat)
    prompts = ("prompt", "instruction", *(("question", "input") if asked else ()))
    completions = ("completion", "response", "output", *(("answer",) if asked else ()))
    prompt = find_column(table, options.prompt_column) if options.prompt_column else _first(spelt, prompts)
    choices = find_column(table, options.choices_column) if options.choices_column else _first(spelt, ("choices",))
    if choices and (asked or prompt):
        prompt, right = prompt or _first(spelt, ("question",)), options.completion_column
        answer = find_column(table, right) if right else _first(spelt, ("answer", "label", "completion", "answerkey"))
        return Layout(
            "choices", (_needed(table, prompt, "prompt"), choices, _needed(table, answer, "answer")), _choices
        )
    completion = find_column(table, options.completion_column) if options.completion_column else None
    completion = completion or _first({key: name for key, name in spelt.items() if name != prompt}, completions)
    if given or (prompt and completion and not options.text_columns):
        prompt, completion = _needed(table, prompt, "prompt"), _needed(table, completion, "completion")
        more = _first(spelt, ("input", "context")) if folded(prompt) == "instruction" else None
        if more and not given and more != completion:
            return Layout("alpaca's instructions", (prompt, more, completion), _instruction)
        if folded(prompt) == "instruction" and not given:
            return Layout("alpaca's instructions", (prompt, completion), _instruction)
        return Layout("prompts and completions", (prompt, completion), _completion)
    if not asked:
        return None
    text = options.text_columns[0] if options.text_columns else spelt.get("text", "text")
    return Layout("plain texts", (find_column(table, text),), _text)


def examples_of(table: Table, layout: Layout, options: TaskOptions) -> Examples:
    """The examples of a table.

    Args:
        table: what there is.
        layout: of the training table; another one needs the same columns.
        options: ``group_column``.

    Raises:
        DataError: a row that is no example; says which and why.
    """
    columns = [table.columns[find_column(table, name)] for name in layout.columns]
    examples = [
        layout.read(f"{table.path}: row {number}", cells)
        for number, cells in enumerate(zip(*columns, strict=True), start=1)
    ]
    trimmed = [_answered(*example) for example in examples]
    groups = read_groups(table, options.group_column)
    texts, roles = (tuple(one[i] for one in trimmed) for i in (0, 1))
    cut = sum(len(one[0]) < len(other[0]) for one, other in zip(trimmed, examples, strict=True))
    return Examples(Split(texts, roles, groups=groups), cut, layout)


def learnt(split: Split) -> Split:
    """The examples as they are trained on: of choices the right one alone.

    >>> learnt(Split((("2 + 2 =", " 3", " 4"),), (("prompt", "choice", "right"),))).texts
    (('2 + 2 =', ' 4'),)
    """
    pairs = [
        ((texts[0], texts[roles.index(RIGHT)]), (PROMPT, COMPLETION)) if RIGHT in roles else (texts, roles)
        for texts, roles in zip(split.texts, split.targets, strict=True)
    ]
    return Split(tuple(one for one, _ in pairs), tuple(other for _, other in pairs), groups=split.groups)


def _first(spelt: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((spelt[name] for name in names if name in spelt), None)


def _needed(table: Table, column: str | None, what: str) -> str:
    if column is None:
        setting = "prompt_column" if what == "prompt" else "completion_column"
        raise DataError(f"{table.path}: which column holds the {what}? Give {setting}; the columns are {table.names}")
    return column


def _answered(texts: tuple[str, ...], roles: tuple[str, ...]) -> Example:
    """The example up to the last turn of the assistant."""
    last = len(roles) - roles[::-1].index(ASSISTANT) if ASSISTANT in roles else len(roles)
    return texts[:last], roles[:last]


def _chat(where: str, cells: Sequence[Any]) -> Example:
    """The turns of a chat, whatever its keys are called."""
    turns = list(_turns(where, cells[0]))
    if ASSISTANT not in [role for role, _ in turns]:
        raise DataError(f"{where}: no turn of the assistant in it, so there is nothing to learn; remove the row")
    return tuple(text for _, text in turns), tuple(role for role, _ in turns)


def _turns(where: str, cell: Any) -> Iterator[tuple[str, str]]:
    """Role and text of each turn."""
    if not isinstance(cell, list) or not cell or not all(isinstance(turn, Mapping) for turn in cell):
        raise DataError(f"{where}: a chat is a list of turns such as {{'role': 'user', 'content': '...'}}")
    for number, turn in enumerate(cell, start=1):
        role, text = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if isinstance(text, list):  # parts, as models that see have them
            parts = [part.get("text") if isinstance(part, Mapping) else None for part in text]
            text = None if None in parts else "".join(map(str, parts))
        if not isinstance(role, str) or not isinstance(text, str):
            raise DataError(f"{where}, turn {number}: needs 'role' and 'content' ('from' and 'value'), both text")
        role = SPEAKERS.get(role, role)
        if role == ASSISTANT and not text.strip():
            raise DataError(f"{where}, turn {number}: the assistant says nothing; remove the turn")
        yield role, text


def _completion(where: str, cells: Sequence[Any]) -> Example:
    """A prompt and a completion: two texts, or turns that follow each other."""
    prompt, completion = cells
    if isinstance(prompt, list):
        answer = completion if isinstance(completion, list) else [{"role": ASSISTANT, "content": completion}]
        shown = [(GIVEN if role == ASSISTANT else role, text) for role, text in _turns(where, prompt)]
        texts, roles = _chat(where, [answer])
        return (*(text for _, text in shown), *texts), (*(role for role, _ in shown), *roles)
    return (_string(where, prompt, "prompt"), _filled(where, completion)), (PROMPT, COMPLETION)


def _instruction(where: str, cells: Sequence[Any]) -> Example:
    """Alpaca's: the instruction, with its input below it, is what the user says."""
    *asked, answer = cells
    parts = [_string(where, one, "instruction") for one in asked if one not in (None, "")]
    return ("\n\n".join(parts), _filled(where, answer)), ("user", ASSISTANT)


def _choices(where: str, cells: Sequence[Any]) -> Example:
    """A prompt, and what may follow it; the answer is a place from 0, a letter, or the text itself."""
    prompt, choices, answer = cells
    letters: list[Any] = []
    if isinstance(choices, Mapping):  # {"text": [...], "label": ["A", ...]}
        letters, choices = list(choices.get("label") or ()), choices.get("text")
    if not isinstance(choices, list) or len(choices) < 2:
        raise DataError(f"{where}: choices are a list of two texts or more, such as ['yes', 'no']")
    texts = [_filled(where, one) for one in choices]
    letters = letters or [chr(ord("A") + i) for i in range(len(texts))]
    named = {letter: i for i, letter in enumerate(letters)} | {text: i for i, text in enumerate(texts)}
    place = int(answer) if _is_place(answer) and answer not in named else named.get(answer, -1)
    if not 0 <= place < len(texts):
        raise DataError(
            f"{where}: its answer {answer!r} is none of the {len(texts)} choices, no letter, no place of one"
        )
    start = _string(where, prompt, "prompt")
    seam = "" if start[-1:].isspace() else " "
    roles = (PROMPT, *(RIGHT if i == place else CHOICE for i in range(len(texts))))
    return (start, *(seam + text for text in texts)), roles


def _is_place(answer: Any) -> bool:
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool) and float(answer).is_integer()
    return is_number or (isinstance(answer, str) and answer.isdecimal())


def _text(where: str, cells: Sequence[Any]) -> Example:
    """A text to learn whole."""
    return (_filled(where, cells[0], "text"),), (TEXT,)


def _string(where: str, cell: Any, what: str) -> str:
    if not isinstance(cell, str | int | float):
        seen = "missing" if cell is None else f"a {type(cell).__name__}"
        raise DataError(f"{where}: its {what} is {seen}; a text is needed")
    return str(cell)


def _filled(where: str, cell: Any, what: str = "completion") -> str:
    text = _string(where, cell, what)
    if not text.strip():
        raise DataError(f"{where}: its {what} is empty, so there is nothing to learn; remove the row")
    return text
