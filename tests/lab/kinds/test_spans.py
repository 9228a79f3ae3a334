"""How questions become rows, and what rows say becomes answers, with tokenizers of every kind."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForQuestionAnswering

from noisytune._metrics import score
from noisytune._pretrained import Model
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Split, TokenSplit
from noisytune.lab.kinds.spans import LONGEST_ANSWER, N_BEST, _best
from noisytune.lab.trials.evaluate import Evaluator
from noisytune.lab.trials.tokens import load_tokenizer
from noisytune.methods.rdrop import rdrop_loss
from tests.support.tiny_models import ARCHITECTURES, save_model

SPANS = KINDS["spans"]
CONTEXTS = [
    "The old house  of Maria stands in Paris, and nobody has ever seen it without its café 😀 on the left side.",
    "東京は日本の首都です。人口は約1400万人です。",
    "القاهرة هي عاصمة مصر وأكبر مدنها، وتقع على النيل.",
    "दिल्ली भारत की राजधानी है।",
    "Cafe\u0301 du Monde",
]
ANSWERS = ["Maria", "😀", "日本", "عاصمة مصر", "राजधानी", "e\u0301 du"]


def one_split(contexts: list[str], answers: list[str], question: str = "What is it?") -> Split:
    found = [(c, a) for c in contexts for a in answers if a in c]
    return Split(tuple((question, c) for c, _ in found), tuple(((c.index(a), a),) for c, a in found))


def perfect(data: TokenSplit) -> list[np.ndarray[Any, Any]]:
    """Outputs of a model that says what its labels say."""
    found = []
    for row, (first, last) in enumerate(SPANS.labels(data, None)):
        out = np.zeros((data.lengths[row], 2))
        out[first, 0] = out[last, 1] = 5.0
        found.append(out)
    return found


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = [*CONTEXTS, "What is it?"] * 5
    return save_model(request.param, tmp_path_factory.mktemp("models") / request.param, text)


@pytest.mark.parametrize("length", [20, 60])
def test_what_is_labelled_is_what_is_read(folder: Path, length: int) -> None:
    """Whatever the script, the emoji and the windows: labels lead back to the characters of the answer."""
    tokenizer, split = load_tokenizer(folder), one_split(CONTEXTS, ANSWERS)
    data = SPANS.encode(tokenizer, split, length, None, "here")
    assert len(data) == len(split)
    assert max(data.lengths) <= length
    gold = np.array([(at, at + len(text)) for ((at, text),) in split.targets])
    np.testing.assert_array_equal(SPANS.references(data), gold)
    # An answer may have more tokens than a small window.
    labelled = {int(o) for o, row in zip(data.owner, SPANS.labels(data, None), strict=True) if row[1] > row[0] >= 1}
    status, said = SPANS.judge(perfect(data), data, None)
    assert status == "ok"
    read = {i: texts[1][int(a) : int(b)] for i, (texts, (a, b)) in enumerate(zip(split.texts, said, strict=True))}
    for i in labelled:
        whole, ((_, text),) = read[i], split.targets[i]
        assert text in whole, "tokens may be larger than the answer"
        assert len(whole) <= len(text) + 12
    assert len(labelled) > len(split) / 2 or length == 20


def test_parts_cover_the_context_and_overlap(folder: Path) -> None:
    tokenizer, context = load_tokenizer(folder), CONTEXTS[0] * 3
    split = Split((("What is it?", context),), (((context.index("Maria"), "Maria"),),))
    data = SPANS.encode(tokenizer, split, 48, None, "here")
    assert data.rows > 1
    seen = np.zeros(len(context), dtype=int)
    parts = []
    for starts, ends in zip(data.notes["starts"], data.notes["ends"], strict=True):
        parts.append({(int(a), int(b)) for a, b in zip(starts, ends, strict=True) if a >= 0})
        for a, b in parts[-1]:
            seen[a:b] += 1
    assert all(count or context[i].isspace() for i, count in enumerate(seen))
    assert all(one & other for one, other in pairwise(parts))
    inside = SPANS.labels(data, None)
    marks = {tokenizer.cls_token_id, tokenizer.bos_token_id}
    for row, (first, last) in enumerate(inside):
        a, b = data.notes["starts"][row], data.notes["ends"][row]
        at = context.index("Maria")
        whole = a[a >= 0].min() <= at and b.max() >= at + 5
        assert (
            (a[first] <= at < b[first] and last >= first)
            if whole
            else int(data.inputs["input_ids"][row][first]) in marks
        )


def test_a_release_of_tokenizers_that_loses_parts_of_a_context_is_refused(
    minilm: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("noisytune.lab.kinds.spans.version", lambda name: "0.23.2")
    with pytest.raises(ConfigError, match=r"^here: tokenizers 0.23.2 loses parts of long contexts.*install 0.23.3"):
        SPANS.encode(load_tokenizer(minilm.path), one_split(CONTEXTS, ANSWERS), 48, None, "here")


def test_padding_moves_places_and_is_not_seen(folder: Path) -> None:
    tokenizer, split = load_tokenizer(folder), one_split(CONTEXTS, ANSWERS)
    data, collate = SPANS.encode(tokenizer, split, 60, None, "here"), SPANS.collate(tokenizer)
    labels = SPANS.labels(data, None)
    batch = collate([{**data.row(i), "labels": label} for i, label in enumerate(labels)])
    for row, (first, last) in enumerate(labels):
        ids, places = batch["input_ids"][row], (batch["start_positions"][row], batch["end_positions"][row])
        assert [int(ids[int(at)]) for at in places] == [int(data.inputs["input_ids"][row][t]) for t in (first, last)]
    assert "start_positions" not in collate([data.row(0)])
    network = AutoModelForQuestionAnswering.from_pretrained(folder, **SPANS.head(()))
    together, alone = (Evaluator(SPANS, (), None, collate, size).outputs(network, data) for size in (len(data), 1))
    for one, other, length in zip(together, alone, data.lengths, strict=True):
        assert one.shape == (length, 2)
        np.testing.assert_allclose(one, other, atol=1e-5)


def slow_best(logits: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]) -> float:
    """Every pair of tokens, those that are not among the best left out."""
    ranks = (-logits).argsort(axis=0, kind="stable").argsort(axis=0)
    found = [
        logits[a, 0] + logits[b, 1]
        for a in range(len(logits))
        for b in range(a, min(len(logits), a + LONGEST_ANSWER))
        if inside[a] and inside[b] and ranks[a, 0] < N_BEST and ranks[b, 1] < N_BEST
    ]
    return max(found, default=-np.inf)


@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_the_best_span_is_the_best_of_all_pairs(tokens: int, seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    logits, inside = rng.normal(size=(tokens, 2)), rng.random(tokens) < share
    found, first, last = _best(logits, inside)
    assert found == slow_best(logits, inside)
    if np.isfinite(found):
        assert inside[first]
        assert inside[last]
        assert 0 <= last - first < LONGEST_ANSWER


def test_an_example_is_answered_by_its_best_part(tiny: Model) -> None:
    words = [f"{word}" for word in ("one two three four five six seven eight nine ten " * 3).split()]
    context = " ".join(words)
    split = Split((("which?", context),) * 2, (((0, "one"),),) * 2)
    data = SPANS.encode(load_tokenizer(tiny.path), split, 16, None, "here")
    rows = [row for row in range(data.rows) if data.owner[row] == 0]
    assert len(rows) > 2
    outputs = [np.zeros((length, 2)) for length in data.lengths]
    place = int(np.flatnonzero(data.notes["starts"][rows[-1]] >= 0)[-1])
    outputs[rows[-1]][place] = 7.0
    status, said = SPANS.judge(outputs, data, None)
    assert status == "ok"
    assert context[int(said[0, 0]) : int(said[0, 1])] == "ten"
    assert int(said[0, 1]) == len(context)


def test_the_same_place_in_every_text_is_collapsed(tiny: Model) -> None:
    split = one_split(["the old house of maria", "paris is old and far away", "nobody"], ["old", "nobody"])
    data = SPANS.encode(load_tokenizer(tiny.path), split, 32, None, "here")
    outputs = []
    for starts in data.notes["starts"]:
        out = np.zeros((len(starts), 2))
        out[int(np.argmax(starts >= 0))] = 3.0
        outputs.append(out)
    status, said = SPANS.judge(outputs, data, None)
    assert status == "collapsed"
    assert said.tolist() == [[0, 3], [0, 5], [0, 6]]
    outputs[0] = np.roll(outputs[0], 1, axis=0)
    assert SPANS.judge(outputs, data, None)[0] == "ok"
    # All the best are outside of the context.
    far = SPANS.encode(load_tokenizer(tiny.path), one_split(["old"], ["old"], "why " * 30), 96, None, "here")
    out = np.zeros((far.lengths[0], 2))
    out[far.notes["starts"][0] >= 0] = -9.0
    status, said = SPANS.judge([out], far, None)
    assert (status, said.tolist()) == ("collapsed", [[0.0, 0.0]])
    assert score("spans", SPANS.items(said, far, ())) == {"answer_mean": 0, "answer_f1": 0, "exact_match": 0}


def test_answers_that_are_not_in_the_context_are_scored_and_not_learnt(tiny: Model) -> None:
    split = Split(
        (("where?", "in the old house"),) * 2, (((-1, "New House"), (3, "the old house")), ((-1, "nowhere"),))
    )
    data = SPANS.encode(load_tokenizer(tiny.path), split, 32, None, "here")
    np.testing.assert_array_equal(SPANS.references(data), [[3, 16], [-1, -1]])
    assert SPANS.labels(data, None)[1] == [0, 0]
    np.testing.assert_allclose(SPANS.items(np.array([[7.0, 16.0], [0, 2]]), data, ()), [[1, 1], [0, 0]])


def test_the_language_of_a_split_says_how_answers_are_read(tiny: Model) -> None:
    texts, targets = (("?", "das Haus, «Haus»"),), (((4, "Haus"),),)
    tokenizer, whole = load_tokenizer(tiny.path), np.array([[0.0, 8.0]])
    found = {
        language: SPANS.items(whole, SPANS.encode(tokenizer, Split(texts, targets, language), 32, None, "x"), ())
        for language in ("", "de", "en")
    }
    assert [items[0, 1] for items in found.values()] == [0, 1, 0]


def test_long_questions_are_cut_and_leave_room(folder: Path) -> None:
    tokenizer, context = load_tokenizer(folder), CONTEXTS[0]
    question = "What is it? 😀" * 40
    split = Split(((question, context), ("", context)), (((0, "The"),),) * 2)
    for length in (16, 30, 63):
        data = SPANS.encode(tokenizer, split, length, None, "here")
        told = f"1 dev questions are cut to {length // 3} tokens"
        assert SPANS.about_lengths(data, length, "dev").split("; ")[-1] == told
        for row, owner in enumerate(data.owner):
            inside = int((data.notes["starts"][row] >= 0).sum())
            asked = data.lengths[row] - inside - tokenizer.num_special_tokens_to_add(pair=True)
            assert asked <= length // 3
            assert asked > length // 3 - 8 or owner == 1
            assert inside > length // 3


def test_what_cannot_be_read_is_refused(tiny: Model) -> None:
    tokenizer, split = load_tokenizer(tiny.path), one_split(CONTEXTS[:1], ["Maria"])
    with pytest.raises(ConfigError, match="max_length 5: too few tokens for a question and a context"):
        SPANS.encode(tokenizer, split, 5, None, "here")
    with pytest.raises(DataError, match=r"here: answers need a tokenizer that knows where its tokens stand"):
        SPANS.encode(SimpleNamespace(is_fast=False), split, 64, None, "here")


def test_an_empty_context_is_answered_by_nothing(tiny: Model) -> None:
    split = Split((("where?", ""), ("where?", "in paris")), (((-1, "x"),), ((3, "paris"),)))
    data = SPANS.encode(load_tokenizer(tiny.path), split, 32, None, "here")
    _, said = SPANS.judge(perfect(data), data, None)
    assert said.tolist() == [[0, 0], [3, 8]]


def test_rdrop_in_any_loop_takes_such_a_model(tiny: Model) -> None:
    torch.manual_seed(0)
    network = AutoModelForQuestionAnswering.from_pretrained(tiny.path, **SPANS.head(())).train()
    tokenizer = load_tokenizer(tiny.path)
    data = SPANS.encode(tokenizer, one_split(CONTEXTS[:1], ["Maria"]), 64, None, "here")
    batch = SPANS.collate(tokenizer)([{**data.row(0), "labels": SPANS.labels(data, None)[0]}])
    kept = [rdrop_loss(batch, lambda inputs: network(**inputs), divergence=how) for how in (None, SPANS.divergence)]
    assert all(loss.isfinite() for loss in kept)
    plain = rdrop_loss(batch, lambda inputs: network(**inputs), alpha=0)
    assert float(kept[0].detach()) > 0
    assert float(plain.detach()) > 0
