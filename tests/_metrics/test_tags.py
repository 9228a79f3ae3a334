"""Chunks of tags against seqeval: its present version for entities, the rules of its version 0.0.12 for plain tags."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import end_of_chunk, get_entities, start_of_chunk

from noisytune._metrics import score, tags
from noisytune._metrics.tags import entities, runs, tag_items

ENTITIES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-A-B", "I-A-B"]
UNIVERSAL = ["ADJ", "ADP", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PRON", "PUNCT", "SCONJ", "SYM", "VERB", "X"]


def sentences_of(names: list[str]) -> st.SearchStrategy[list[list[tuple[str, str]]]]:
    return st.lists(st.lists(st.tuples(*[st.sampled_from(names)] * 2), min_size=1, max_size=9), min_size=1, max_size=6)


def old_entities(sequence: list[str]) -> list[tuple[str, int, int]]:
    """As ``get_entities`` of seqeval 0.0.12 reads a tag: its first letter is the mark, the part behind "-" the type."""
    found, begin, last, last_kind = [], 0, "O", ""
    for i, tag in enumerate([*sequence, "O"]):
        mark, kind = tag[0], tag.split("-")[-1]
        if end_of_chunk(last, mark, last_kind, kind):
            found.append((last_kind, begin, i - 1))
        if start_of_chunk(last, mark, last_kind, kind):
            begin = i
        last, last_kind = mark, kind
    return found


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(tags).failed == 0


@given(st.lists(st.sampled_from(ENTITIES), max_size=12))
def test_entities_are_seqevals(sequence: list[str]) -> None:
    assert entities(sequence) == get_entities(sequence)


@given(st.lists(st.sampled_from([*UNIVERSAL, "O", "_", "ESS", "BOX"]), max_size=12))
def test_runs_are_those_of_seqeval_0_0_12(sequence: list[str]) -> None:
    assert runs(sequence) == old_entities(sequence)


def table(sentences: list[list[tuple[str, str]]], names: list[str], side: int) -> np.ndarray:
    longest = max(map(len, sentences))
    return np.array([[names.index(w[side]) for w in one] + [-1.0] * (longest - len(one)) for one in sentences])


@settings(max_examples=60)
@given(sentences_of(ENTITIES))
def test_scores_of_entities_are_seqevals(sentences: list[list[tuple[str, str]]]) -> None:
    gold, said = ([[word[side] for word in one] for one in sentences] for side in (0, 1))
    found = score("tagging", tag_items(table(sentences, ENTITIES, 1), table(sentences, ENTITIES, 0), ENTITIES))
    assert found["token_accuracy"] == pytest.approx(seqeval.metrics.accuracy_score(gold, said))
    if any(map(entities, gold)) or any(map(entities, said)):
        expected = seqeval.metrics.f1_score(gold, said, zero_division=0)
        assert found["entity_f1"] == pytest.approx(expected)
    else:
        assert "entity_f1" not in found


@settings(max_examples=60)
@given(sentences_of(UNIVERSAL))
def test_scores_of_plain_tags(sentences: list[list[tuple[str, str]]]) -> None:
    found = score("tagging", tag_items(table(sentences, UNIVERSAL, 1), table(sentences, UNIVERSAL, 0), UNIVERSAL))
    chunks = [
        {(i, *chunk) for i, one in enumerate(sentences) for chunk in old_entities([word[side] for word in one])}
        for side in (0, 1)
    ]
    assert found["tag_f1"] == pytest.approx(2 * len(chunks[0] & chunks[1]) / (len(chunks[0]) + len(chunks[1])))
    assert "entity_f1" not in found, "tags do not mark entities"


def test_conjunctions_are_told_apart() -> None:
    names = ["CCONJ", "SCONJ"]
    found = score("tagging", tag_items(np.array([[0.0]]), np.array([[1.0]]), names))
    assert found["tag_f1"] == 0.0
