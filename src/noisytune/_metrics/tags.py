"""Measures of tagged sentences: chunks as conlleval and seqeval count them, and single tags.

Items of a sentence: entities found, wrongly said and missed; the same of runs of plain tags; tags that are right, and
tags. All scores are made of sums of columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from noisytune._metrics.metric import Floats, Items, Metric, f1_of

Chunk = tuple[str, int, int]
"""Type, place of the first word, place of the last one."""


def are_entities(tags: Sequence[str]) -> bool:
    """Whether tags mark entities by their beginnings and insides: ``B-PER``, ``I-PER``, ``O``.

    >>> are_entities(["O", "B-PER", "I-PER"]), are_entities(["NOUN", "O"])
    (True, False)
    """
    marked = [tag for tag in tags if tag != "O"]
    return bool(marked) and all(len(tag) > 2 and tag[0] in "BIES" and tag[1] == "-" for tag in marked)


def entities(tags: Sequence[str]) -> list[Chunk]:
    """The entities of a sentence.

    An inside without a beginning, or of another type than what stands before it, begins an entity.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "I-ORG"])
    [('PER', 0, 1), ('LOC', 3, 3), ('ORG', 4, 4)]

    Source: Tjong Kim Sang and De Meulder 2003, ``conlleval``; seqeval's default mode.
    """
    return list(_chunks([(tag[0], tag[2:]) for tag in tags]))


def runs(tags: Sequence[str]) -> list[Chunk]:
    """Runs of plain tags, as seqeval 0.0.12 sees them, with which part-of-speech tagging is scored in XTREME.

    The first letter of a tag is read as its mark, and the whole tag is its type: ``SCONJ`` never goes on, as ``S-``
    does not, and is not ``CCONJ``.

    >>> runs(["NOUN", "NOUN", "SCONJ", "SCONJ"])
    [('NOUN', 0, 1), ('SCONJ', 2, 2), ('SCONJ', 3, 3)]
    """
    return list(_chunks([(tag[0], tag.rsplit("-", 1)[-1]) for tag in tags]))


def tag_items(predictions: Floats, references: Floats, names: Sequence[str]) -> Items:
    """The items of tagged sentences. The first three columns are NaN where tags do not mark entities.

    Args:
        predictions: shape (sentences, longest), ids of tags.
        references: the same shape; -1 behind a sentence's end.
        names: of the tags, in id order.

    >>> tag_items(np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]), ["O", "B-PER"]).tolist()
    [[1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 2.0]]
    """
    marked, rows = are_entities(names), []
    for row, other in zip(predictions, references, strict=True):
        words = int((other >= 0).sum())
        said, gold = ([names[int(i)] for i in ids[:words]] for ids in (row, other))
        counts = _compared(entities(said), entities(gold)) if marked else [math.nan] * 3
        right = sum(a == b for a, b in zip(said, gold, strict=True))
        rows.append([*counts, *_compared(runs(said), runs(gold)), right, words])
    return np.array(rows, dtype=np.float64).reshape(-1, 8)


def whole_sentence(items: Items) -> Floats:
    """1 for each sentence of which every tag is right, else 0."""
    return np.equal(items[:, 6], items[:, 7]).astype(np.float64)


def entity_f1(items: Items) -> float:
    """F1 of entities: type and both ends must be right. NaN where there is none, or tags do not mark entities."""
    return f1_of(*items[:, :3].sum(axis=0))


def tag_f1(items: Items) -> float:
    """F1 of `runs` of plain tags; NaN where there is none."""
    return f1_of(*items[:, 3:6].sum(axis=0))


def token_accuracy(items: Items) -> float:
    """Share of words whose tag is right."""
    right, words = items[:, 6:].sum(axis=0)
    return float(right / words) if words else math.nan


METRICS = {
    "entity_f1": Metric("entity F1", entity_f1),
    "tag_f1": Metric("tag F1", tag_f1),
    "token_accuracy": Metric("token accuracy", token_accuracy),
}


def _compared(said: list[Chunk], gold: list[Chunk]) -> list[float]:
    """Found, wrongly said, missed."""
    found = len(set(said) & set(gold))
    return [found, len(set(said)) - found, len(set(gold)) - found]


def _chunks(marks: Sequence[tuple[str, str]]) -> Iterator[Chunk]:
    """Chunks of (mark, type), by the rules of conlleval.pl."""
    begin, before = 0, ("O", "")
    for place, now in enumerate([*marks, ("O", "")]):
        (mark, kind), (last, last_kind) = now, before
        other = kind != last_kind
        if last in "ES" or (last in "BI" and mark in "BSO") or (last not in "O." and other):
            yield last_kind, begin, place - 1
        if mark in "BS" or (last in "ESO" and mark in "EI") or (mark not in "O." and other):
            begin = place
        before = now
