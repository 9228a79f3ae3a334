"""Retrieval with a tiny model on real text, against vectors and a search written in another way."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from noisytune._metrics import score
from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.kinds import KINDS, Split, TokenSplit, retrieval
from noisytune.lab.kinds.bitext import Side, line_by_line, with_gold
from noisytune.lab.kinds.retrieval import Retrieval
from noisytune.lab.kinds.vectors import room
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.evaluate import Evaluation, Evaluator
from noisytune.lab.trials.fine_tune import run_trials
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, load_tokenizer, tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

pytestmark = pytest.mark.usefixtures("one_thread")

NOTHING = Split((), ())


@pytest.fixture(scope="module")
def sentences(topics: TaskData) -> list[str]:
    return sorted({text for (text,) in (*topics.train.texts, *topics.dev.texts) if len(text.split()) > 3})


def foreign(text: str) -> str:
    """Every other word, the last one first."""
    return " ".join(text.split()[::-2])


@pytest.fixture(scope="module")
def aligned(sentences: list[str]) -> Split:
    english = sentences[40:10:-1]
    return line_by_line(Side("f", [foreign(text) for text in english]), Side("e", english))


@pytest.fixture(scope="module")
def distracted(sentences: list[str]) -> Split:
    """Fifteen pairs, ten and fifteen sentences beside them, and some lines twice."""
    english, mine = sentences[:30], [foreign(text) for text in [*sentences[:15], *sentences[40:50]]]
    english, mine = [*english, english[3], english[20]], [*mine, mine[5]]
    ids = [[f"{side}{i}" for i in range(len(lines))] for side, lines in (("f", mine), ("e", english))]
    gold = [(f"f{i}", f"e{i}") for i in range(15)]
    return with_gold(Side("f", mine, ids[0]), Side("e", english, ids[1]), gold, "gold")


@pytest.fixture(scope="module")
def model(tiny: Model) -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(tiny.path, num_labels=3)


tokenizer_of = cache(load_tokenizer)


def encoded(tiny: Model, split: Split) -> TokenSplit:
    return KINDS["retrieval"].encode(tokenizer_of(tiny.path), split, 24, None, "here")


def evaluated(tiny: Model, model: Any, layer: object, **splits: Split) -> dict[str, Evaluation]:
    kind = Retrieval().read_by({"layer": layer})
    evaluator = Evaluator(kind, (), None, kind.collate(tokenizer_of(tiny.path)), 16)
    return evaluator(model, {name.replace("_", "-"): encoded(tiny, split) for name, split in splits.items()})


def pooled(tiny: Model, model: Any, texts: list[str], layer: int) -> np.ndarray:
    """Sentence by sentence, so without padding."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.path)
    rows = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=24)
        with torch.no_grad():
            states = model.bert(**inputs, output_hidden_states=True).hidden_states[layer]
        rows.append(states[0].double().mean(axis=0).numpy())
    return np.array([row / np.sqrt((row**2).sum()) for row in rows])


def sides(split: Split) -> tuple[list[str], list[str]]:
    texts = [
        [text for (text,), target in zip(split.texts, split.targets, strict=True) if target[0] == side]
        for side in (0, 1)
    ]
    return texts[0], texts[1]


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_accuracy_from_all_similarities(tiny: Model, model: Any, aligned: Split, layer: int) -> None:
    mine, english = sides(aligned)
    similarity = pooled(tiny, model, mine, layer) @ pooled(tiny, model, english, layer).T
    found = evaluated(tiny, model, layer, de=aligned)["de"]
    hits = similarity.argmax(axis=0) == np.arange(len(mine))
    assert 0.3 < hits.mean() < 1
    np.testing.assert_array_equal(found.outputs["items"][:, 0], hits)
    assert found.scores["retrieval_accuracy"] == pytest.approx(hits.mean())
    assert set(found.scores) == {"retrieval_accuracy", "bitext_f1"}
    assert found.chosen == {"layer": layer, "layer_by": "asked"}


def test_mining_from_all_similarities(tiny: Model, model: Any, distracted: Split) -> None:
    """Of the texts that occur once: pairs by falling margin, F1 after each, over all gold."""
    (mine, english), gold = sides(distracted), {(i, i) for i in range(15)}
    once = [list(dict.fromkeys(side)) for side in (mine, english)]
    vectors = [pooled(tiny, model, side, 1) for side in once]
    similarity = vectors[0] @ vectors[1].T
    near = [np.sort(table, axis=1)[:, -4:].mean(axis=1) for table in (similarity, similarity.T)]
    margin = 2 * similarity / (near[0][:, None] + near[1])
    nearest = [np.argsort(-table, axis=1)[:, :4] for table in (similarity, similarity.T)]
    named = {(i, max(row, key=lambda j: margin[i, j])) for i, row in enumerate(nearest[0])}
    named |= {(max(row, key=lambda i: margin[i, j]), j) for j, row in enumerate(nearest[1])}
    used: set[tuple[int, int]] = set()
    pairs = []
    for i, j in sorted(named, key=lambda pair: -margin[pair]):
        if not used & {(0, i), (1, j)}:
            used |= {(0, i), (1, j)}
            if mine.count(once[0][i]) == english.count(once[1][j]) == 1:
                pairs.append((mine.index(once[0][i]), english.index(once[1][j])))
    f1 = [2 * len(set(pairs[:n]) & gold) / (n + len(gold)) for n in range(1, len(pairs) + 1)]
    found = evaluated(tiny, model, "official", zh=distracted)["zh"]
    assert 0.3 < max(f1) < 1
    assert found.scores["mining_f1"] == pytest.approx(max(f1))
    assert set(found.scores) == {"mining_f1", "bitext_f1"}
    assert found.chosen["layer"] == 1, "the official one of two"
    said = found.outputs["predictions"][:, 2] == 1
    assert {(i, int(found.outputs["predictions"][i, 1])) for i in np.flatnonzero(said)} == set(
        pairs[: int(np.argmax(f1)) + 1]
    )


def test_order_and_length_of_lines_do_not_matter(tiny: Model, model: Any, distracted: Split) -> None:
    order = np.random.default_rng(0).permutation(len(distracted))
    data = encoded(tiny, distracted)
    kind = Retrieval(layer=1, depth=2)
    vectors = np.random.default_rng(1).normal(1, 1, (len(data), 1, 8)).astype(np.float32)
    for same in np.unique(data.notes["lines"].values.reshape(-1, 2)[:, 1]):
        rows = np.flatnonzero(data.notes["lines"].values.reshape(-1, 2)[:, 1] == same)
        vectors[rows] = (
            vectors[rows] * 0 + vectors[rows[0]] + 0.1 * np.array([t[0] for t in data.targets])[rows, None, None]
        )
    one, other, scaled = (
        kind.settle({"x": kind.judge(rows, part, None)[1]}, {"x": part})["x"][0]
        for rows, part in ((vectors, data), (vectors[order], data.take(list(order))), (3 * vectors, data))
    )
    scores = score("retrieval", kind.items(one, data, ()))
    assert scores == score("retrieval", kind.items(other, data.take(list(order)), ()))
    assert scores == score("retrieval", kind.items(scaled, data, ()))


def test_layers_are_chosen_as_asked(
    tiny: Model, model: Any, aligned: Split, distracted: Split, sentences: list[str]
) -> None:
    half = aligned.texts[:12], aligned.texts[30:42]
    other = line_by_line(*(Side("x", [text for (text,) in texts]) for texts in half))
    splits = {"de": aligned, "fr": other, "zh": distracted, "dev_zh": distracted}
    single = {layer: evaluated(tiny, model, layer, **splits) for layer in range(3)}
    best = {name: max(range(3), key=lambda i: _worth(single[i][name])) for name in ("de", "fr", "zh")}
    oracle = evaluated(tiny, model, "oracle", **splits)
    assert {name: oracle[name].chosen["layer"] for name in best} == best
    assert {one.chosen["layer_by"] for one in oracle.values()} == {"oracle"}
    assert all(oracle[name].scores == single[layer][name].scores for name, layer in best.items())
    dev = evaluated(tiny, model, "dev", **splits)
    assert dev["zh"].chosen["layer_by"] == dev["dev-zh"].chosen["layer_by"] == "dev"
    assert dev["zh"].chosen["layer"] == dev["dev-zh"].chosen["layer"] == best["zh"]
    assert dev["zh"].chosen["threshold_dev"] == dev["zh"].chosen["threshold"]
    assert dev["zh"].scores["mining_f1_dev"] == dev["zh"].scores["mining_f1"]
    assert "mining_f1_dev" not in dev["dev-zh"].scores
    assert dev["de"].chosen["layer_by"] == "others"
    means = [np.mean([_worth(single[i][name]) for name in ("fr", "zh")]) for i in range(3)]
    assert dev["de"].chosen["layer"] == int(np.argmax(means))
    alone = evaluated(tiny, model, "dev", de=aligned)["de"]
    assert alone.chosen == {"layer": 1, "layer_by": "official"}, "nothing to choose by"


def _worth(found: Evaluation) -> float:
    return found.scores.get("retrieval_accuracy", found.scores.get("mining_f1", 0.0))


def test_a_text_on_several_lines_is_one_entry(tiny: Model) -> None:
    """The first line stands for it: who asks for the second is sent to the first; and it is never mined."""
    kind, basis = Retrieval(layer=0, depth=2), np.eye(4, dtype=np.float32)[:, None]
    twins = encoded(tiny, line_by_line(Side("f", ["a", "b", "b"]), Side("e", ["x", "y", "z"])))
    _, found = kind.judge(basis[[0, 1, 1, 0, 1, 1]], twins, None)
    assert found[:, 0, 0].tolist() == [0, 1, 1], "the third line is not found"
    assert found[:, 0, 3].tolist() == [0, 1, 1]
    ids = ["1", "2", "3"]
    lines = Side("f", ["a", "b", "b"], ids), Side("e", ["x", "y", "w"], ids)
    mined = encoded(tiny, with_gold(*lines, [("1", "1"), ("3", "2")], "gold"))
    _, found = kind.judge(basis[[0, 1, 1, 0, 1, 2]] + 0.1, mined, None)
    assert found[:, 0, 1].tolist() == [0, -1, -1]


def test_statuses(tiny: Model, aligned: Split) -> None:
    kind, data = Retrieval(layer=0, depth=2), encoded(tiny, aligned)
    same = np.ones((len(data), 1, 4), np.float32)
    status, found = kind.judge(same, data, None)
    assert (status, len(found)) == ("collapsed", 30)
    same[7, 0, 0] = np.nan
    status, found = kind.judge(same, data, None)
    assert (status, len(found)) == ("diverged", 0)
    few = data.first(3)
    status, found = kind.judge(same[:3], few, None)
    assert (found[:, 0, 1] == -1).all(), "no English side, nothing found"
    assert kind.settle({"x": found}, {"x": few})["x"][0].shape == (3, 5)


def test_vectors_lie_in_memory_or_on_disk() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    for limit in (0, 10**6):
        kept = room(*values.shape, in_memory=limit)
        for row in (4, 0, 2, 1, 3):
            kept[row] = values[row]
        np.testing.assert_array_equal(kept, values)
        assert kept[:, 1].flags.c_contiguous


@pytest.mark.parametrize("layer", ["best", "-1", 1.5, True])
def test_strange_layers_are_refused(layer: object) -> None:
    with pytest.raises(ConfigError, match="choose official, dev, oracle or a whole number"):
        Retrieval().read_by({"layer": layer})
    with pytest.raises(ConfigError, match="no setting depth"):
        Retrieval().read_by({"depth": 3})


def task_of(topics: TaskData, layer: object, **splits: Split) -> TaskData:
    """Retrieval with the model that is trained on topics."""
    asked = {"layer": layer}
    return TaskData(
        "xx", "retrieval", "mining_f1", (), NOTHING, splits, (), trained_on=topics, reading=asked, primary=tuple(splits)
    )


def test_a_layer_that_the_model_has_not_is_refused_before_training(
    tiny: Model, topics: TaskData, aligned: Split
) -> None:
    with pytest.raises(ConfigError, match="layer 3: the model has 2 layers; choose 0 to 2"):
        tokenise(tiny.path, task_of(topics, 3, de=aligned), 24)
    with pytest.raises(ConfigError, match="retrieval trains nothing; give the task"):
        TaskData("xx", "retrieval", "mining_f1", (), aligned, {"de": aligned}, ())


def test_a_trained_model_is_scored_and_told(
    tiny: Model, topics: TaskData, aligned: Split, distracted: Split, tmp_path: Path
) -> None:
    task, training = task_of(topics, "oracle", de=aligned, zh=distracted), TrainingSettings(max_steps=2, max_length=24)
    tokens, source = tokenise(tiny.path, task, 24), tokenise(tiny.path, topics, 24)
    tokens.write(tmp_path / "tokens")
    back = Tokens.read(tmp_path / "tokens").evaluate
    for name, data in tokens.evaluate.items():
        np.testing.assert_array_equal(back[name].notes["lines"].values, data.notes["lines"].values)
    trial = Trial.resolve(tiny, task, PLAIN, 0, training)
    first = Trial.resolve(tiny, topics, PLAIN, 0, training)
    (record,) = run_trials(first, tiny.path, source, [(trial, back)])
    assert trial.settings["task"]["reading"] == {"layer": "oracle"}
    assert record.evaluations["zh"]["chosen"]["layer_by"] == "oracle"
    assert TrialRecord.from_json(record.to_json(), "here") == replace(record, outputs={})
    kind = KINDS["retrieval"]
    for name, data in tokens.evaluate.items():
        items = kind.items(record.outputs[f"{name}/predictions"], data, ())
        np.testing.assert_array_equal(items, record.outputs[f"{name}/items"])
        assert record.evaluations[name]["scores"] == score("retrieval", items)
        assert len(items) == len(record.outputs[f"{name}/references"])


def test_the_dev_threshold_is_that_of_the_chosen_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer finds nothing; the second both translations, from 1.25 on."""
    nan, gold = math.nan, np.array([[0.0], [1.0], [-1.0]])
    monkeypatch.setattr(retrieval, "references_of", lambda _: gold)
    monkeypatch.setattr(retrieval, "lines_of", lambda _: np.arange(3.0))
    poor = [[nan, 2, 9.0, 2], [nan, 3, 8.0, 3], [nan, 4, 7.0, 4]]
    good = [[nan, 0, 2.0, 0], [nan, 1, 1.5, 1], [nan, 4, 1.0, 4]]
    table, splits = np.stack([poor, good], axis=1).astype(float), {"de": None, "dev-de": None}
    said = Retrieval(layer="dev", depth=1).settle(dict.fromkeys(splits, table), splits)
    assert said["de"][1]["layer"] == 1
    assert said["de"][1]["threshold_dev"] == said["dev-de"][1]["threshold"] == 1.25
