"""What every kind of task must do, on a tiny model and text that a real tokenizer reads.

Retrieval, which trains nothing, is in `test_retrieval`; completions, which other models learn, in `test_language`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import seqeval.metrics
import torch
from sklearn import metrics
from torchmetrics.functional.text import squad

from noisytune._metrics import METRICS, RIGHT, score
from noisytune._metrics.answers import answer_items
from noisytune._pretrained import Model
from noisytune.lab.kinds import KINDS, Split
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, hold_out, limit
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import check_arms, run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, load_tokenizer, tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord
from tests.support.tiny_models import ARCHITECTURES, save_model

pytestmark = pytest.mark.usefixtures("one_thread")

SIGNALS = ("river", "music", "doctor")
FILLERS = (
    "the",
    "a",
    "old",
    "new",
    "house",
    "green",
    "walks",
    "over",
    "under",
    "slowly",
    "antidisestablishmentarianism",
)
NAMES, PLACES = ("maria", "peter", "anna"), ("paris", "london", "berlin")
ENTITIES = ("O", "B-LOC", "B-PER", "I-PER")
TRAINING = TrainingSettings(epochs=12, batch_size=16, learning_rate=5e-3, max_length=16, warmup=0.1)


def sentences(n: int, seed: int, *words: str) -> list[list[str]]:
    rng = np.random.default_rng(seed)
    return [[str(w) for w in rng.choice([*FILLERS, *words], rng.integers(4, 9))] for _ in range(n)]


def tagged(words: list[str]) -> tuple[float, ...]:
    """Names after names are inside a person."""
    tags: list[float] = []
    for word in words:
        inside = bool(tags) and tags[-1] in (2.0, 3.0)
        tags.append(1.0 if word in PLACES else (3.0 if inside else 2.0) if word in NAMES else 0.0)
    return tuple(tags)


def asked(words: list[str]) -> tuple[tuple[str, str], tuple[tuple[int, str], ...]]:
    """Where? The place is the answer, between other words; now and then another answer counts too."""
    before, place, after = words[: len(words) // 2], PLACES[len(words) % 3], words[len(words) // 2 :]
    context = " ".join([*before, place, *after])
    answers = ((context.index(place), place), (0, before[0]))
    return ("where is it?", context), answers[: 1 + len(words) % 2]


def split(kind: str, n: int, seed: int) -> Split:
    if kind == "spans":
        return Split(*zip(*map(asked, sentences(n, seed)), strict=True))
    if kind == "tagging":
        drawn = sentences(n, seed, *NAMES, *PLACES)
        return Split(tuple(map(tuple, drawn)), tuple(map(tagged, drawn)))
    drawn = sentences(n, seed, *SIGNALS)
    texts = tuple((" ".join(words),) for words in drawn)
    target: dict[str, Callable[[list[str]], object]] = {
        "classification": lambda words: float("river" in words),
        "regression": lambda words: 40.0 + 10.0 * sum(word in SIGNALS for word in words),
        "multilabel": lambda words: tuple(float(signal in words) for signal in SIGNALS),
    }
    return Split(texts, tuple(map(target[kind], drawn)))


LABELS = {"classification": ("no", "yes"), "regression": (), "multilabel": SIGNALS, "tagging": ENTITIES, "spans": ()}


@pytest.fixture(scope="module", params=LABELS)
def task(request: pytest.FixtureRequest) -> TaskData:
    kind: str = request.param
    labels = LABELS[kind]
    evaluate = {"dev": split(kind, 60, 1), "other": split(kind, 20, 2)}
    return TaskData(kind, kind, KINDS[kind].metrics(labels)[0], labels, split(kind, 160, 0), evaluate, ())


@pytest.fixture(scope="module")
def tokens(task: TaskData, tiny: Model) -> Tokens:
    return tokenise(tiny.path, task, TRAINING.max_length)


@pytest.fixture(scope="module")
def record(task: TaskData, tokens: Tokens, tiny: Model) -> TrialRecord:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found = run_trial(Trial.resolve(tiny, task, PLAIN, 0, TRAINING), tiny.path, tokens)
    torch.set_num_threads(before)
    return found


def trivial(task: TaskData) -> float:
    """The best score of saying the same of every example; of entities and correlations none is above 0.

    Of answers: that of the whole context.
    """
    dev = task.dev.targets
    if task.kind == "classification":
        return max(dev.count(0.0), dev.count(1.0)) / len(dev)
    if task.kind == "multilabel":
        gold = np.array(dev)
        said = np.ones_like(gold)
        return float(metrics.f1_score(gold, said, average="micro"))
    if task.kind == "spans":
        whole = answer_items([context for _, context in task.dev.texts], [[a for _, a in ones] for ones in dev])
        return score("spans", whole)["answer_mean"]
    return 0.0


def test_something_is_learnt(task: TaskData, record: TrialRecord) -> None:
    assert record.status == "ok"
    assert record.scores[task.metric] > trivial(task) + 0.15
    assert list(record.evaluations) == ["dev", "other"]


def test_scores_are_reductions_of_what_is_kept(task: TaskData, tokens: Tokens, record: TrialRecord) -> None:
    kind = KINDS[task.kind]
    for name, told in record.evaluations.items():
        items = kind.items(record.outputs[f"{name}/predictions"], tokens.evaluate[name], task.labels)
        assert len(items) == len(task.evaluate[name])
        assert told["scores"] == score(task.kind, items)
        if kind.keeps_items:
            np.testing.assert_array_equal(record.outputs[f"{name}/items"], items)
    assert set(record.scores) <= set(METRICS[task.kind])
    assert TrialRecord.from_json(record.to_json(), "here") == record


def test_examples_are_rows(task: TaskData, tokens: Tokens, record: TrialRecord) -> None:
    """A score of some examples is the score of their rows: what bootstrap and groups rest on."""
    kind, chosen = KINDS[task.kind], np.array([3, 3, 7, 20, 41, 5])
    predictions, references = (record.outputs[f"dev/{what}"] for what in ("predictions", "references"))
    dev = tokens.evaluate["dev"]
    of_rows = score(task.kind, kind.items(predictions, dev, task.labels)[chosen])
    assert of_rows == score(task.kind, kind.items(predictions[chosen], dev.take(list(chosen)), task.labels))
    if task.kind == "spans":
        assert set(RIGHT[task.kind](kind.items(kind.references(dev), dev, ()))) == {1.0}, "a gold answer is right"
    elif task.kind in RIGHT:
        right = RIGHT[task.kind](kind.items(predictions, dev, task.labels))
        same = (predictions == references).reshape(len(predictions), -1).all(axis=1)
        np.testing.assert_array_equal(right, same)


def test_scores_by_other_libraries(task: TaskData, record: TrialRecord) -> None:
    said, gold = record.outputs["dev/predictions"], record.outputs["dev/references"]
    if task.kind == "tagging":
        of = [
            [[task.labels[int(i)] for i in row[: len(tags)]] for row, tags in zip(ids, task.dev.targets, strict=True)]
            for ids in (gold, said)
        ]
        assert record.scores["entity_f1"] == pytest.approx(seqeval.metrics.f1_score(*of))
    elif task.kind == "regression":
        assert record.scores["pearson"] == pytest.approx(np.corrcoef(said, gold)[0, 1])
    elif task.kind == "spans":
        texts = [context[int(a) : int(b)] for (_, context), (a, b) in zip(task.dev.texts, said, strict=True)]
        answers = [{"id": f"{i}", "prediction_text": text} for i, text in enumerate(texts)]
        gold_texts = [[text for _, text in one] for one in task.dev.targets]
        given = [{"id": f"{i}", "answers": {"text": one, "answer_start": [0]}} for i, one in enumerate(gold_texts)]
        assert {k: float(v) / 100 for k, v in squad(answers, given).items()} == pytest.approx(
            {"f1": record.scores["answer_f1"], "exact_match": record.scores["exact_match"]}
        )
    else:
        assert record.scores["macro_f1"] == pytest.approx(metrics.f1_score(gold, said, average="macro"))
    if task.kind not in ("tagging", "spans"):
        np.testing.assert_array_equal(gold, np.array(task.dev.targets))


def test_parts_are_drawn_and_held_out(task: TaskData) -> None:
    part, _ = limit(task.train, 40, kind=task.kind, labels=task.labels, option="train_size", seed=0)
    assert len(part) == 40
    assert set(part.texts) <= set(task.train.texts)
    kept, held = hold_out(task.of_kind.spread(task.train.targets))
    assert sorted([*kept, *held]) == list(range(len(task.train)))


def test_tokens_survive_the_file_and_can_be_taken(task: TaskData, tokens: Tokens, tmp_path: Path) -> None:
    tokens.write(tmp_path / "tokens")
    back, kind = Tokens.read(tmp_path / "tokens"), KINDS[task.kind]
    for one, other in ((tokens.train, back.train), (tokens.evaluate["other"], back.evaluate["other"])):
        assert [one.row(i) for i in range(one.rows)] == [other.row(i) for i in range(other.rows)]
        assert kind.labels(one, None) == kind.labels(other, None)
        np.testing.assert_array_equal(kind.references(one), kind.references(other))
    few = tokens.train.take([5, 2])
    assert len(few) == 2
    alone = tokenise_alone(task, [5, 2], tokens)
    assert [few.row(i) for i in range(few.rows)] == [alone.row(i) for i in range(alone.rows)]
    assert kind.labels(few, None) == kind.labels(alone, None)


def tokenise_alone(task: TaskData, indices: list[int], tokens: Tokens) -> object:
    from noisytune._pretrained import default_model

    tokenizer = load_tokenizer(default_model())
    return task.of_kind.encode(tokenizer, task.train.take(indices), TRAINING.max_length, None, "here")


def test_divergences(task: TaskData, tokens: Tokens, tiny: Model) -> None:
    kind, data = KINDS[task.kind], tokens.train.first(4)
    collate = kind.collate(load_tokenizer(tiny.path))
    units = kind.units(tokens.train.targets)
    rows = [{**data.row(i), "labels": label} for i, label in enumerate(kind.labels(data, units))]
    inputs = collate(rows)
    outputs, longest = max(1, len(task.labels)), inputs["input_ids"].shape[1]
    shape = {"tagging": (len(rows), longest, outputs), "spans": (len(rows), 2, longest)}.get(
        task.kind, (len(rows), outputs)
    )
    torch.manual_seed(0)
    one, other = torch.randn(shape, requires_grad=True), torch.randn(shape, requires_grad=True)
    assert float(kind.divergence(one, one, inputs).detach()) == pytest.approx(0.0, abs=1e-6)
    apart = kind.divergence(one, other, inputs)
    assert float(apart.detach()) > 0
    assert float(apart.detach()) == pytest.approx(float(kind.divergence(other, one, inputs).detach()))
    apart.backward()
    assert one.grad is not None
    assert one.grad.abs().sum() > 0
    if task.kind == "tagging":
        assert not one.grad[inputs["labels"] == -100].any(), "padding is not compared"
    if task.kind == "spans":
        assert not one.grad[(inputs["attention_mask"] == 0)[:, None].expand(shape)].any(), "padding is not compared"


@pytest.mark.parametrize("arm", ["rdrop", "r3f", "noisytune+mixout"])
def test_methods_work_on_every_kind(task: TaskData, tokens: Tokens, tiny: Model, arm: str) -> None:
    chosen, short = Arm.parse(arm), replace(TRAINING, max_steps=2)
    trial = Trial.resolve(tiny, task, chosen, 0, short)
    check_arms(trial, tiny.path, [chosen.methods])
    found = run_trial(trial, tiny.path, tokens)
    assert found.status != "diverged"
    assert len(found.loss_curve) == 2


def test_a_diverged_model_says_so(task: TaskData, tokens: Tokens) -> None:
    kind, data = KINDS[task.kind], tokens.evaluate["other"]
    width = 2 if task.kind == "spans" else max(1, len(task.labels))
    lengths = data.lengths if task.kind in ("tagging", "spans") else [None] * data.rows
    outputs = [np.zeros(width if n is None else (n, width)) for n in lengths]
    status, said = kind.judge(outputs, data, kind.units(tokens.train.targets))
    assert (status, len(said)) == ("collapsed", len(data))
    outputs[-1].flat[0] = math.nan
    status, said = kind.judge(outputs, data, None)
    assert (status, len(said)) == ("diverged", 0)


def test_checks_and_cost_look_at_each_kind(tiny: Model, tiny_study: Study, tmp_path: Path) -> None:
    from noisytune.lab.engines import InlineEngine
    from noisytune.lab.store import Store
    from noisytune.lab.studies.cost import cost_of

    tasks = tuple(
        TaskData(kind, kind, KINDS[kind].metrics(labels)[0], labels, split(kind, 48, 0), {"dev": split(kind, 9, 1)}, ())
        for kind, labels in LABELS.items()
    )
    study = replace(tiny_study, model=tiny, tasks=tasks, training=replace(TRAINING, epochs=1))
    found = cost_of(study, Store(tmp_path / "none"), InlineEngine(), 1)
    assert [task.task for task in found.tasks] == list(LABELS)
    assert all(task.tokens > 0 and task.seconds > 0 for task in found.tasks)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_words_are_tokens_as_they_are_inside_a_text(architecture: str, tmp_path: Path) -> None:
    words = ("the", "old", "house", "walks", "under", "maria")
    tokenizer = load_tokenizer(save_model(architecture, tmp_path / "m", [" ".join(words)] * 5))
    one = Split((words,), ((0.0,) * len(words),))
    data = KINDS["tagging"].encode(tokenizer, one, 64, None, "here")
    text = tokenizer(f" {' '.join(words)}")["input_ids"]
    assert data.row(0)["input_ids"] == text
    assert sorted(int(w) for w in data.notes["words"][0] if w >= 0) == list(range(len(words)))


def test_a_long_sentence_is_split_between_words_and_joined(tiny: Model) -> None:
    words = ("antidisestablishmentarianism", "paris", "the", "maria", "peter", "anna", "london") * 3
    kind, tokenizer = KINDS["tagging"], load_tokenizer(tiny.path)
    data = kind.encode(tokenizer, Split((words, ("the", "paris")), (tagged(list(words)), (0.0, 1.0))), 12, None, "here")
    assert len(data) == 2
    assert data.rows > 3
    assert max(data.lengths) <= 12
    joined = [int(w) for row in range(data.rows) for w in data.notes["words"][row] if w >= 0 and data.owner[row] == 0]
    assert joined == list(range(len(words))), "each word once, in order"
    labels = [label for row in kind.labels(data, None) for label in row if label != -100]
    assert labels == [*tagged(list(words)), 0.0, 1.0]
    perfect = []
    for row in range(data.rows):
        out = np.zeros((data.lengths[row], len(ENTITIES)))
        for place, word in enumerate(data.notes["words"][row]):
            if word >= 0:
                out[place, int(data.targets[int(data.owner[row])][word])] = 1.0
        perfect.append(out)
    status, said = kind.judge(perfect, data, None)
    assert status == "ok"
    np.testing.assert_array_equal(said, kind.references(data))
    assert score("tagging", kind.items(said, data, ENTITIES))["entity_f1"] == 1.0
