"""The arithmetic of transformers' own examples for question answering and token classification, with a plain Trainer.

No code of ours on that side: AutoTokenizer, an AutoModel class and Trainer, and the scores of torchmetrics and seqeval.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
from torchmetrics.functional.text import squad
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from noisytune._pretrained import Model
from noisytune.lab.kinds import Split
from noisytune.lab.tasks import TaskData
from noisytune.lab.tasks.questions import questions_of
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

XTREME = Path(__file__).parents[4] / "shared" / "data" / "xtreme"
SEED = 3
REAL = pytest.param("real", marks=pytest.mark.slow)

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")

Rows = list[dict[str, Any]]


def read_real(file: str) -> str:
    if not (XTREME / file).exists():
        pytest.skip(f"the benchmark's file {file} is not here")
    return (XTREME / file).read_text(encoding="utf-8")


def trained(
    model: Any, train: Rows, collator: Any, settings: TrainingSettings, folder: Path
) -> tuple[Any, list[float]]:
    """A Trainer that is done, and its losses."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        save_strategy="no",
        seed=SEED,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        train_sampling_strategy="group_by_length",
        disable_tqdm=True,
        report_to="none",
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=train, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    arguments.train_sampling_strategy = "random"  # else the Trainer predicts in an order of its own
    return trainer, [line["loss"] for line in trainer.state.log_history if "loss" in line]


def ours(model: Model, task: TaskData, settings: TrainingSettings) -> TrialRecord:
    tokens = tokenise(model.path, task, settings.max_length)
    return run_trial(Trial.resolve(model, task, PLAIN, SEED, settings), model.path, tokens)


# Question answering


def made_questions(size: int, seed: int) -> Rows:
    """Where? The town is the answer. Many contexts are longer than a row."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(size):
        town, words = str(rng.choice(["paris", "london", "berlin"])), list(rng.choice(["the", "old", "house"], 20))
        context = " ".join([*words[: rng.integers(1, 19)], town, *words[: rng.integers(1, 9)]])
        answers = [{"text": town, "answer_start": context.index(town)}]
        rows.append({"id": str(number), "question": "where is it?", "context": context, "answers": answers})
    return rows


def real_questions(file: str, size: int) -> Rows:
    paragraphs = [one for article in json.loads(read_real(file))["data"] for one in article["paragraphs"]]
    rows = [{**asked, "context": one["context"]} for one in paragraphs for asked in one["qas"]]
    return [{**row, "id": str(i)} for i, row in enumerate(row for row in rows if len(row["context"]) < 700)][:size]


def windows(tokenizer: Any, rows: Rows, length: int) -> tuple[list[dict[str, Any]], list[tuple[int, Any]]]:
    """Features for training, and of each its row and the places of its tokens in the context, None outside it."""
    encoded = tokenizer(
        [row["question"].lstrip() for row in rows],
        [row["context"] for row in rows],
        truncation="only_second",
        max_length=length,
        stride=length // 3,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    features, places = [], []
    for i, row in enumerate(encoded["overflow_to_sample_mapping"]):
        feature = {name: encoded[name][i] for name in tokenizer.model_input_names}
        offsets = [
            place if sequence == 1 else None
            for place, sequence in zip(encoded["offset_mapping"][i], encoded.sequence_ids(i), strict=True)
        ]
        answer = rows[row]["answers"][0]
        start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
        inside = [t for t, place in enumerate(offsets) if place]
        first = last = feature["input_ids"].index(tokenizer.cls_token_id)
        if offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= end:
            first = max(t for t in inside if offsets[t][0] <= start)
            last = min(t for t in inside if offsets[t][1] >= end)
        features.append({**feature, "start_positions": first, "end_positions": last})
        places.append((row, offsets))
    return features, places


def best_answers(logits: Any, places: list[tuple[int, Any]], rows: Rows) -> list[str]:
    """Of the 20 best starts and ends of each window, the pair with the largest sum and at most 30 tokens."""
    found: dict[int, list[tuple[float, str]]] = {i: [] for i in range(len(rows))}
    for starts, ends, (row, offsets) in zip(*logits, places, strict=True):
        for start in np.argsort(starts)[:-21:-1].tolist():
            for end in np.argsort(ends)[:-21:-1].tolist():
                known = start < len(offsets) and end < len(offsets) and offsets[start] and offsets[end]
                if known and start <= end < start + 30:
                    text = rows[row]["context"][offsets[start][0] : offsets[end][1]]
                    found[row].append((starts[start] + ends[end], text))
    return [max(answers, key=lambda one: one[0])[1] if answers else "" for answers in found.values()]


@pytest.mark.parametrize("source", ["made", REAL])
def test_question_answering(source: str, tiny: Model, minilm: Model, tmp_path: Path) -> None:
    if source == "made":
        model, train, dev = tiny, made_questions(160, 0), made_questions(60, 1)
        settings = TrainingSettings(epochs=8, batch_size=16, learning_rate=5e-3, max_length=24)
    else:
        model = minilm
        train, dev = real_questions("squad/train-v1.1.json", 100), real_questions("xquad/xquad.en.json", 50)
        settings = TrainingSettings(epochs=1, batch_size=8, learning_rate=3e-4, max_length=128)
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    (features, _), (dev_features, places) = (windows(tokenizer, rows, settings.max_length) for rows in (train, dev))
    assert len(places) > len(dev), "some contexts are read in parts"
    set_seed(SEED)
    network = AutoModelForQuestionAnswering.from_pretrained(model.path)
    trainer, losses = trained(network, features, DataCollatorWithPadding(tokenizer), settings, tmp_path)
    theirs = best_answers(trainer.predict(dev_features).predictions, places, dev)
    answers = [{"id": row["id"], "prediction_text": text} for row, text in zip(dev, theirs, strict=True)]
    gold = [
        {"id": row["id"], "answers": {key: [one[key] for one in row["answers"]] for key in ("text", "answer_start")}}
        for row in dev
    ]
    expected = {key: float(value) / 100 for key, value in squad(answers, gold).items()}

    splits = [questions_of(source, rows).split for rows in (train, dev)]
    record = ours(model, TaskData("qa", "spans", "answer_mean", (), splits[0], {"dev": splits[1]}, ()), settings)
    assert record.loss_curve == losses
    said = record.outputs["dev/predictions"].astype(int)
    assert [row["context"][a:b] for row, (a, b) in zip(dev, said, strict=True)] == theirs
    assert record.scores["answer_f1"] == pytest.approx(expected["f1"])
    assert record.scores["exact_match"] == pytest.approx(expected["exact_match"])
    assert source == "real" or record.scores["exact_match"] > 0.5, "something is learnt"


# Token classification


def made_sentences(size: int, seed: int) -> list[list[tuple[str, str]]]:
    rng, found = np.random.default_rng(seed), []
    kinds = {"maria": "B-PER", "paris": "B-LOC", "london": "B-LOC", "antidisestablishmentarianism": "O", "old": "O"}
    for _ in range(size):
        found.append([(str(word), kinds[str(word)]) for word in rng.choice(list(kinds), rng.integers(3, 8))])
    return found


def real_sentences(file: str, size: int) -> list[list[tuple[str, str]]]:
    blocks = read_real(file).strip().split("\n\n")
    found = [[tuple(line.split("\t")[:2]) for line in block.split("\n")] for block in blocks]
    return [sentence for sentence in found if len(sentence) < 20][:size]


@pytest.mark.parametrize("source", ["made", REAL])
def test_token_classification(source: str, tiny: Model, minilm: Model, tmp_path: Path) -> None:
    if source == "made":
        model, train, dev = tiny, made_sentences(120, 0), made_sentences(60, 1)
        settings = TrainingSettings(epochs=4, batch_size=16, learning_rate=5e-3, max_length=64)
    else:
        model, train, dev = minilm, real_sentences("panx/train-en.tsv", 300), real_sentences("panx/dev-en.tsv", 100)
        settings = TrainingSettings(epochs=2, batch_size=8, learning_rate=3e-4, max_length=128)
    names = sorted({tag for sentence in train for _, tag in sentence}, key=lambda tag: (tag != "O", tag))
    tokenizer = AutoTokenizer.from_pretrained(model.path)

    def features(sentences: list[list[tuple[str, str]]]) -> Rows:
        encoded = tokenizer([[word for word, _ in one] for one in sentences], is_split_into_words=True, truncation=True)
        rows = []
        for i, sentence in enumerate(sentences):
            words = encoded.word_ids(i)
            first = [word is not None and word != before for before, word in zip([None, *words], words, strict=False)]
            labels = [names.index(sentence[w][1]) if new else -100 for w, new in zip(words, first, strict=True)]
            rows.append({name: encoded[name][i] for name in tokenizer.model_input_names} | {"labels": labels})
        return rows

    set_seed(SEED)
    network = AutoModelForTokenClassification.from_pretrained(model.path, num_labels=len(names))
    trainer, losses = trained(
        network, features(train), DataCollatorForTokenClassification(tokenizer), settings, tmp_path
    )
    found = trainer.predict(features(dev))
    theirs = [
        [names[tag] for tag, label in zip(row, labels, strict=True) if label != -100]
        for row, labels in zip(found.predictions.argmax(-1), found.label_ids, strict=True)
    ]
    expected = seqeval.metrics.f1_score([[tag for _, tag in one] for one in dev], theirs)

    splits = [
        Split(
            tuple(tuple(word for word, _ in one) for one in part),
            tuple(tuple(float(names.index(tag)) for _, tag in one) for one in part),
        )
        for part in (train, dev)
    ]
    record = ours(
        model, TaskData("ner", "tagging", "entity_f1", tuple(names), splits[0], {"dev": splits[1]}, ()), settings
    )
    assert record.loss_curve == losses
    said = record.outputs["dev/predictions"].astype(int)
    assert [[names[i] for i in row[: len(one)]] for row, one in zip(said, dev, strict=True)] == theirs
    assert record.scores["entity_f1"] == pytest.approx(expected)
    assert source == "real" or expected > 0.5, "something is learnt"
