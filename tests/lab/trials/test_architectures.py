"""All five architectures on all nine GLUE tasks, and the Trainer's own loop as a reference."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    set_seed,
)

from noisytune._pretrained import Model
from noisytune.lab.kinds import KINDS
from noisytune.lab.tasks import TaskOptions, load_task, load_tasks
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.evaluate import Evaluator
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import load_tokenizer, tokenise
from noisytune.lab.trials.trial import Trial
from tests.support.glue_files import PAIRS, write_glue
from tests.support.tiny_models import ARCHITECTURES, save_model

SHARED = Path(__file__).parents[4] / "shared"
QUICK = ("bert", "xlnet")
"""With token types and absolute positions; with neither."""
TWO_STEPS = TrainingSettings(max_steps=2, max_length=32, batch_size=4)

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


def run_every_task(model: Model, data: Path, options: dict[str, int]) -> None:
    for task in load_tasks("glue", TaskOptions(data_dir=data, **options)):
        tokens = tokenise(model.path, task, TWO_STEPS.max_length)
        arm = Arm.parse("noisytune") if task.name in ("glue/rte", "glue/stsb") else PLAIN
        record = run_trial(Trial.resolve(model, task, arm, 0, TWO_STEPS), model.path, tokens)
        assert len(record.loss_curve) == 2, task.name
        assert record.status != "diverged", task.name
        assert len(record.predictions) == len(task.dev)
        assert list(record.evaluations) == list(task.evaluate)
        if arm != PLAIN:
            assert record.applied["noisytune"]["perturbed"] > 10


@pytest.mark.parametrize("kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in ARCHITECTURES])
def test_every_architecture_runs_every_task_for_two_steps(kind: str, tmp_path: Path) -> None:
    data = write_glue(tmp_path / "glue")
    model = Model.find(str(save_model(kind, tmp_path / kind, (text for pair in PAIRS for text in pair))))
    run_every_task(model, data, {})
    tokens = tokenise(model.path, load_task("glue/rte", TaskOptions(data_dir=data)), 32)
    kind_of_task, dev = KINDS["classification"], tokens.evaluate["dev"]
    collate = kind_of_task.collate(load_tokenizer(model.path))
    network = AutoModelForSequenceClassification.from_pretrained(model.path, num_labels=2)
    evaluators = [Evaluator(kind_of_task, ("a", "b"), None, collate, size) for size in (4, 1)]
    together, alone = (evaluator.outputs(network, dev) for evaluator in evaluators)
    np.testing.assert_allclose(together, alone, atol=1e-5, err_msg="padding, on whichever side, is not seen")
    if kind in ("bert", "electra", "xlnet"):
        assert {0, 1} <= set(dev.inputs["token_type_ids"].values.tolist())
    else:
        assert "token_type_ids" not in dev.inputs


@pytest.mark.parametrize(("arm", "steps"), [("plain", 0), ("child_tuning", 1)])
def test_a_decoder_without_a_padding_token_classifies(
    arm: str, steps: int, language_models: dict[str, Model], tmp_path: Path
) -> None:
    """Before a Trainer has told it which one: to be scored untrained, and to be looked at by Child-Tuning."""
    folder = Path(shutil.copytree(language_models["gpt2"].path, tmp_path / "gpt2"))
    for file in ("config.json", "tokenizer_config.json"):
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | {"pad_token": None, "pad_token_id": None}))
    model, settings = Model.find(str(folder)), replace(TWO_STEPS, max_steps=steps)
    task = load_task("glue/rte", TaskOptions(data_dir=write_glue(tmp_path / "glue")))
    tokens = tokenise(model.path, task, settings.max_length)
    record = run_trial(Trial.resolve(model, task, Arm.parse(arm), 0, settings), model.path, tokens)
    assert len(record.loss_curve) == steps
    assert len(record.predictions) == len(task.dev)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_real_models_run_every_task_for_two_steps(kind: str, tmp_path: Path) -> None:
    script, data = SHARED / "models" / "make_models.py", SHARED / "data" / "glue"
    if not script.exists() or not data.exists():
        pytest.skip("the models' script or the benchmark's files are not here")
    done = subprocess.run([sys.executable, script, tmp_path / "models", kind], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the model cannot be made: {done.stderr.strip().splitlines()[-1]}")
    model = Model.find(str(tmp_path / "models" / kind))
    run_every_task(model, data, {"train_size": 40, "dev_size": 20})


@pytest.mark.slow
def test_the_trainers_own_loop_gives_the_same(minilm: Model, tmp_path: Path) -> None:
    """No code of ours: csv, AutoTokenizer, AutoModelForSequenceClassification and Trainer."""
    data = SHARED / "data" / "glue"
    if not data.exists():
        pytest.skip("the benchmark's files are not here")
    splits, seed, length = {}, 3, 64
    tokenizer = AutoTokenizer.from_pretrained(minilm.path)
    for name, size in (("train", 48), ("dev", 60)):
        with (data / "RTE" / f"{name}.tsv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:size]
        splits[name] = [
            tokenizer(row["sentence1"], row["sentence2"], truncation=True, max_length=length)
            | {"labels": ["entailment", "not_entailment"].index(row["label"])}
            for row in rows
        ]
    set_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(minilm.path, num_labels=2)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        save_strategy="no",
        seed=seed,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=3e-4,
        warmup_steps=0.1,
        weight_decay=0.01,
        train_sampling_strategy="group_by_length",
        disable_tqdm=True,
        report_to="none",
        logging_steps=1,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(model, arguments, train_dataset=splits["train"], processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    arguments.train_sampling_strategy = "random"  # else the Trainer predicts in an order of its own
    theirs = [float(one) for one in trainer.predict(splits["dev"]).predictions.argmax(axis=1)]
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]

    whole = load_task("glue/rte", TaskOptions(data_dir=data))
    task = replace(whole, train=whole.train.take(range(48)), evaluate={"dev": whole.dev.take(range(60))})
    settings = TrainingSettings(
        epochs=2, batch_size=8, learning_rate=3e-4, warmup=0.1, weight_decay=0.01, max_length=length
    )
    ours = run_trial(
        Trial.resolve(minilm, task, PLAIN, seed, settings), minilm.path, tokenise(minilm.path, task, length)
    )
    assert ours.loss_curve == losses
    assert ours.predictions == theirs
    assert ours.scores["accuracy"] == np.mean(
        [one == row["labels"] for one, row in zip(theirs, splits["dev"], strict=True)]
    )
    assert ours.status == "ok"
