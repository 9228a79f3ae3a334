"""Studies of language models: their positions, what may choose an epoch, and how they grow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.cost import cost_of, flops
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.studies.tune import Tuning
from noisytune.lab.tasks import TaskData, TaskOptions, task_from_rows
from noisytune.lab.tasks.language import MAX_LENGTH
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from tests.support.engines import Ledger, files, run

WORDS = ("one", "two", "three", "four", "five")


def answered(n: int = 20) -> TaskData:
    rows = [{"prompt": f"say {WORDS[i % 5]} {i}", "completion": f" {WORDS[i % 5]}"} for i in range(n)]
    return task_from_rows(rows, TaskOptions(metric="exact_match", max_new_tokens=2))


def chosen(metric: str | None = None) -> TaskData:
    rows = [{"prompt": f"say {i}", "choices": [" one", " two"], "answer": i % 2} for i in range(40)]
    return task_from_rows(rows, TaskOptions(metric=metric))


def a_study(model: Model, task: TaskData, seeds: tuple[int, ...] = (0, 1), **training: Any) -> Study:
    settings = TrainingSettings(**{"max_steps": 2, "batch_size": 8, "learning_rate": 1e-3} | training)
    arms = (PLAIN, Arm.parse("noisytune(0.15)"))
    return Study(name="t", model=model, tasks=(task,), arms=arms, seeds=seeds, training=settings, margin=1.0)


def test_rows_are_as_long_as_the_model_has_positions(language_models: dict[str, Model], tmp_path: Path) -> None:
    task, model = answered(), language_models["llama"]
    assert task.training == {"max_length": MAX_LENGTH}
    study = a_study(model, task)
    (trial, *_) = study.plan
    assert trial.settings["training"]["max_length"] == 256
    assert study.record.tasks[0]["training"] == {"max_length": 256}
    assert any("has 256 positions: max_length is that, not 1024" in notice for notice in study.notices)
    # A model that has them keeps the keys of trials that were run before.
    large = shutil.copytree(model.path, tmp_path / "large")
    config = json.loads((large / "config.json").read_bytes())
    (large / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    found = Model.find(str(large))
    first = a_study(found, task)
    assert first.plan[0].key == Trial.resolve(found, task, PLAIN, 0, first.training).key
    assert first.tasks == (task,)
    assert first.notices == task.notices


@pytest.mark.parametrize("protocol", ["paper", "clean"])
def test_choices_choose_no_epoch_on_train(language_models: dict[str, Model], protocol: str) -> None:
    model, how = language_models["llama"], {"select": "best", "protocol": protocol}
    a_study(model, chosen("nll"), **how)
    a_study(model, chosen(), protocol=protocol)
    if protocol == "paper":
        a_study(model, chosen(), **how)
        return
    with pytest.raises(ConfigError, match=r"choice_accuracy is undefined.*choose by another metric"):
        a_study(model, chosen(), **how)
    clean = TrainingSettings(protocol="clean")
    with pytest.raises(ConfigError, match="choice_accuracy is undefined"):
        Tuning(name="t", model=model, task=chosen(), arms=("noisytune",), budget=1, seeds=1, training=clean)


@pytest.mark.usefixtures("one_thread")
def test_two_seeds_become_three_and_an_interrupted_study_goes_on_the_same(
    language_models: dict[str, Model], tmp_path: Path
) -> None:
    study = a_study(language_models["qwen3"], answered(), lora="r=2,alpha=4")
    cut = Ledger(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run(study, tmp_path / "cut", engine=cut)
    ledger, _, _ = run(study, tmp_path / "cut")
    assert len(ledger.ran) == 1
    ledger, _, _ = run(replace(study, seeds=(0, 1, 2)), tmp_path / "cut")
    assert [seed for seed, _, _ in ledger.ran] == [2, 2]

    def trained(folder: Path, seeds: tuple[int, ...]) -> Store:
        with InlineEngine() as engine:
            run_study(replace(study, seeds=seeds), Store(folder), engine, lambda event: None)
        return Store(folder)

    trained(tmp_path / "grown", (0,))
    kept = files(tmp_path / "grown")
    grown, whole = trained(tmp_path / "grown", (0, 1)), trained(tmp_path / "whole", (0, 1))
    assert {key: files(tmp_path / "grown")[key] for key in kept} == kept
    for trial in study.plan:
        one, other = (store.read(trial.key) for store in (grown, whole))
        assert (one.scores, one.loss_curve, one.evaluations) == (other.scores, other.loss_curve, other.evaluations)


@pytest.mark.usefixtures("one_thread")
def test_the_cost_of_lora_is_of_frozen_weights_without_embeddings(
    language_models: dict[str, Model], tmp_path: Path
) -> None:
    plain, small = (a_study(language_models["llama"], answered(), **how) for how in ({}, {"lora": "r=2,alpha=4"}))
    with InlineEngine() as engine:
        whole, frozen = (cost_of(study, Store(tmp_path / "none"), engine, 1) for study in (plain, small))
    matrices = frozen.parameters - whole.parameters
    assert 0 < matrices < whole.parameters, "the table of embeddings is in neither"
    read = frozen.tasks[0].flops - flops(frozen.parameters, frozen.tasks[0].tokens, frozen=True)
    assert read == pytest.approx(whole.tasks[0].flops - flops(whole.parameters, whole.tasks[0].tokens), rel=0.5)
    assert flops(1, 1, frozen=True) == 4.0
