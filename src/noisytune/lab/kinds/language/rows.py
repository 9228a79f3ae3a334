"""How an example becomes tokens, and which of them a model is to predict.

An example is texts and the role of each: a chat's turns (``system``, ``user``, ``assistant`` and whatever else the
model's template knows), or the parts of a plain text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from noisytune.errors import ConfigError, DataError

PROMPT, COMPLETION = "prompt", "completion"
TEXT, PASSAGE = "text", "passage"
"""A text to learn whole, its end included; and one that is only measured, without its end."""
CHOICE, RIGHT = "choice", "right"
"""After one prompt: a wrong completion, and the right one."""
PLAIN = (PROMPT, COMPLETION, TEXT, PASSAGE, CHOICE, RIGHT)
"""The roles that are no turns of a chat."""
ASSISTANT = "assistant"
GIVEN = "assistant, given"
"""A turn of the assistant that belongs to the prompt."""
ELSEWHERE = "elsewhere"
"""The split of a text that is not trained on."""
IGNORED = -100
"""The label of tokens that the loss passes over."""

_OTHER = "\ue000turn\ue000"
"""A text that no turn has."""
_DAY = "26 Jul 2024"
"""What Llama's templates write as today where they know no other."""


@dataclass(frozen=True)
class Row:
    """What a model reads at once."""

    ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    """The same where a token is to be predicted, else `IGNORED`; the first token never is."""
    cut: int = 0
    """Tokens that were left out."""


def rows_of(tokenizer: Any, texts: Sequence[str], roles: Sequence[str], max_length: int, where: str) -> list[Row]:
    """The rows of an example: one, or one a choice.

    Args:
        tokenizer: of transformers.
        texts: of the example.
        roles: one a text.
        max_length: tokens of a row. Of a longer one the beginning is left out, but no token of the last completion; of
            a text without a prompt the end.
        where: for messages.

    Raises:
        DataError: a completion without tokens or longer than ``max_length``, or a chat that the model cannot read.
        ConfigError: the model has no chat template.
    """
    if RIGHT in roles:
        choices = [texts[i] for i in range(1, len(texts))]
        return [_limited(_plain(tokenizer, texts[0], one, where), max_length, tokenizer, where) for one in choices]
    if roles[0] in (TEXT, PASSAGE):
        ids = tokenizer(texts[0] + _end(tokenizer, texts[0]) * (roles[0] == TEXT))["input_ids"]
        row, over = _row(ids, [True] * len(ids)), max(0, len(ids) - max_length)
        return [Row(row.ids[:max_length], row.labels[:max_length], over)]
    row = _plain(tokenizer, texts[0], texts[1], where) if roles[0] == PROMPT else _chat(tokenizer, texts, roles, where)
    return [_limited(row, max_length, tokenizer, where)]


def marks_of(tokenizer: Any) -> dict[str, int]:
    """The marks of a model, such as those that begin and end a turn, and their ids: some are in no list of names."""
    named = zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    added = {mark.content: i for i, mark in tokenizer.added_tokens_decoder.items() if mark.special}
    return {mark: i for mark, i in (dict(named) | added).items() if mark}


def last_completion(labels: npt.NDArray[np.int32]) -> int:
    """Where the last run of labelled tokens begins.

    >>> last_completion(np.array([-100, 5, -100, 7, 8]))
    3
    """
    labelled = labels != IGNORED
    begins = np.flatnonzero(labelled & ~np.concatenate([[False], labelled[:-1]]))
    return int(begins[-1])


def _plain(tokenizer: Any, prompt: str, completion: str, where: str) -> Row:
    """The completion begins where the tokens of both differ from those of the prompt: some merge over the seam.

    Before a completion without a prompt stands the mark that begins a text.
    """
    alone = tokenizer(prompt)["input_ids"]
    ids = tokenizer(prompt + completion + _end(tokenizer, completion))["input_ids"]
    if not alone:
        if tokenizer.bos_token_id is None:
            raise DataError(
                f"{where}: its prompt is empty, and the model has no mark that begins a text: nothing could predict "
                "the first token; give a prompt"
            )
        alone = [tokenizer.bos_token_id]
        ids = [*alone, *ids]
    same = next((i for i, (one, other) in enumerate(zip(alone, ids, strict=False)) if one != other), len(alone))
    return _row(ids, [i >= same for i in range(len(ids))])


def _end(tokenizer: Any, text: str) -> str:
    """The end token, where the text does not have it."""
    end = tokenizer.eos_token or ""
    return "" if text.endswith(end) else end


def _chat(tokenizer: Any, texts: Sequence[str], roles: Sequence[str], where: str) -> Row:
    """What the template makes of a chat; every turn of the assistant is labelled, with the marks that end it."""
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{where}: the model has no chat template, so it cannot read chats: give a model that has one (-Instruct), "
            "or rows of prompt and completion"
        )
    if not tokenizer.is_fast:
        raise DataError(f"{where}: chats need a tokenizer that knows where its tokens stand; it has no tokenizer.json")
    marks = list(marks_of(tokenizer))
    if found := [mark for mark in marks for text in texts if mark in text]:
        raise DataError(f"{where}: a turn holds the model's own mark {found[0]!r} as text; remove it")
    turns = [
        {"role": ASSISTANT if role == GIVEN else role, "content": text} for role, text in zip(roles, texts, strict=True)
    ]
    whole = _rendered(tokenizer, turns, False, where)
    spans = []
    for i, role in enumerate(roles):
        if role == ASSISTANT:
            # Before the first turn a template may write a system prompt of its own.
            before = _rendered(tokenizer, turns[:i], True, where) if i else None
            after = _rendered(tokenizer, turns[: i + 1], False, where)
            place = _place(tokenizer, turns, i, whole, marks, where)
            if before is not None and whole.startswith(after) and after.startswith(before):
                start = place[0] if place else len(before)
                # What a template writes before a turn, such as an empty thought, is no part of it.
                spans.append((start if whole[len(before) : start].strip() else len(before), len(after)))
            elif place:
                spans.append(place)
            else:
                raise DataError(
                    f"{where}: the model's chat template has no place for a turn of the assistant, or for "
                    "what it thought; leave it out"
                )
    encoded = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    labelled = [any(a < end and b > start for start, end in spans) for a, b in encoded["offset_mapping"]]
    return _row(encoded["input_ids"], labelled)


def _rendered(tokenizer: Any, turns: list[dict[str, str]], prompt: bool, where: str) -> str:
    """The text of some turns; with ``prompt`` up to where the assistant begins.

    Raises:
        DataError: the template refuses them.
    """
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(
            turns,
            tokenize=False,
            add_generation_prompt=prompt,
            # Tokens must not depend on the day: Llama's templates write it.
            date_string=_DAY,
        )
    except (TemplateError, ValueError) as error:
        raise DataError(f"{where}: the model's chat template refuses it: {str(error).splitlines()[0]}") from error
    return text


def _place(
    tokenizer: Any, turns: list[dict[str, str]], i: int, whole: str, marks: list[str], where: str
) -> tuple[int, int] | None:
    """Where a turn's text stands in the whole, the mark that ends it included: where another text in its place would.

    None where the template leaves the turn out or a part of it, or writes the others otherwise then.
    """
    other = _rendered(tokenizer, [*turns[:i], turns[i] | {"content": _OTHER}, *turns[i + 1 :]], False, where)
    before, found, rest = other.partition(_OTHER)
    start, end = len(before), len(whole) - len(rest)
    text = turns[i]["content"].strip()
    if not (found and text and whole.startswith(before) and whole.endswith(rest) and text in whole[start:end]):
        return None
    return start, end + max((len(mark) for mark in marks if whole.startswith(mark, end)), default=0)


def _row(ids: Sequence[int], labelled: Sequence[bool]) -> Row:
    tokens = np.array(ids, dtype=np.int32)
    labels = np.where(np.array(labelled, dtype=bool), tokens, np.int32(IGNORED)).astype(np.int32)
    labels[:1] = IGNORED  # nothing stands before it that could predict it
    return Row(tokens, labels)


def _limited(row: Row, max_length: int, tokenizer: Any, where: str) -> Row:
    """The row without what is too much at its beginning; the mark that begins a text stays."""
    if not (row.labels != IGNORED).any():
        raise DataError(f"{where}: the completion has no token that could be predicted; remove the example")
    over = len(row.ids) - max_length
    if over <= 0:
        return row
    kept = int(row.ids[0] == tokenizer.bos_token_id)
    answer = len(row.ids) - last_completion(row.labels)
    if answer > max_length - max(kept, 1):
        raise DataError(
            f"{where}: the completion has {answer} tokens, too many for max_length {max_length}; "
            f"give max_length={answer + max(kept, 1)} or more, or remove the example"
        )
    keep = np.r_[0:kept, kept + over : len(row.ids)]
    labels = row.labels[keep]
    labels[:1] = IGNORED
    return Row(row.ids[keep], labels, over)
