"""The cost of a study: operations against PyTorch's own count, trials and tokens against the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from noisytune.cli.cost_display import duration, print_costs
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies import cost as costs
from noisytune.lab.studies.compare import arms_of
from noisytune.lab.studies.cost import Cost, cost_of, flops
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.runner import Speed
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.transformers_runner import TransformersRunner

from .test_shared_training import transferred


def test_operations_are_those_that_pytorch_counts() -> None:
    """A wide model on short texts: what the formula leaves out, attention's own products, is little there."""
    config = BertConfig(
        hidden_size=256, num_hidden_layers=3, num_attention_heads=4, intermediate_size=1024, vocab_size=90
    )
    model = BertForSequenceClassification(config)
    n = sum(p.numel() for name, p in model.named_parameters() if "embeddings" not in name)
    ids = torch.randint(90, (4, 16))
    with FlopCounterMode(display=False) as counter:
        model(ids, labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    assert flops(n, ids.numel()) == pytest.approx(counter.get_total_flops(), rel=0.05)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert flops(n, 0, ids.numel()) == pytest.approx(counter.get_total_flops(), rel=0.05)


def test_a_budget_counts_what_is_missing(tiny_study: Study, tmp_path: Path) -> None:
    study = replace(tiny_study, training=replace(tiny_study.training, epochs=3))
    found = cost_of(study, Store(tmp_path / "none"), InlineEngine(), 2)
    assert not (tmp_path / "none").exists()
    (task,) = found.tasks
    assert (found.trials, found.done, found.workers) == (4, 0, 2)
    assert task.arms == {arm.name: 2 for arm in study.arms}
    tokens = tokenise(study.model.path, study.tasks[0], study.training.max_length)
    assert task.tokens == pytest.approx(3 * sum(tokens.train.lengths))
    assert task.flops == pytest.approx(flops(found.parameters, task.tokens, sum(tokens.evaluate["dev"].lengths)))
    assert found.total("flops") == pytest.approx(4 * task.flops)
    assert (task.seconds > 0, task.precision) == (True, "float32")
    assert cost_of_done(study, tmp_path) == Cost(study.model.name, 0, (), 4, 2)


def test_an_arm_that_reads_twice_counts_twice(tiny_study: Study, tmp_path: Path) -> None:
    """Of one epoch, one of two and one of one that is read twice, the mean is 5/3 epochs."""
    arms = (*arms_of("sam"), Arm("plain(epochs=2)", (), {"epochs": 2}))
    study = replace(tiny_study, arms=arms, training=replace(tiny_study.training, epochs=1))
    (task,) = cost_of(study, Store(tmp_path / "none"), InlineEngine(), 2).tasks
    tokens = tokenise(study.model.path, study.tasks[0], study.training.max_length)
    assert task.tokens == pytest.approx(5 / 3 * sum(tokens.train.lengths))


def cost_of_done(study: Study, folder: Path) -> Cost:
    (folder / "trials").mkdir(parents=True)
    for trial in study.plan:
        (folder / "trials" / f"{trial.key}.json").write_text("")
    return cost_of(study, Store(folder), InlineEngine(), 2)


def test_parameters_are_those_of_the_model_without_embeddings(tiny_study: Study) -> None:
    from transformers import AutoModelForSequenceClassification

    (task,) = tiny_study.tasks
    speed = TransformersRunner.of(tiny_study.model, 32, Path()).calibrate(tiny_study.plan[0], (task,))
    assert isinstance(speed, Speed)
    load: Any = AutoModelForSequenceClassification
    model = load.from_pretrained(tiny_study.model.path, num_labels=len(task.labels))
    expected = sum(p.numel() for name, p in model.named_parameters() if ".embeddings." not in name)
    norms_of_embeddings = sum(p.numel() for name, p in model.named_parameters() if "embeddings.LayerNorm" in name)
    assert speed.parameters == expected + norms_of_embeddings


def test_steps_are_timed_where_another_split_than_the_first_selects(tiny_study: Study) -> None:
    (task,) = tiny_study.tasks
    two = replace(task, evaluate={"first": task.dev, "second": task.dev}, select="second", primary=("second",))
    study = replace(tiny_study, tasks=(two,))
    speed = TransformersRunner.of(study.model, 32, Path()).calibrate(study.plan[0], study.tasks)
    assert set(speed.lengths[two.name]) == {"train", "first", "second"}


def test_the_plan_fits_a_terminal(tiny_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    from noisytune._console import Console

    found = cost_of(tiny_study, Store("nowhere"), InlineEngine(), 2)
    tasks = tuple(replace(found.tasks[0], task=f"glue/{name}", tokens=2.4e8) for name in ("mnli", "rte"))
    half = tuple(replace(task, precision="bf16") for task in tasks)
    other = replace(found, model="google/electra-base-discriminator", tasks=half, parameters=85_000_000)
    assert found.seconds_on("A100") == pytest.approx(found.total("flops") / (0.4 * 19.5e12))
    assert other.seconds_on("A100") == pytest.approx(other.total("flops") / (0.4 * 312e12))
    print_costs(Console(width=80), "table2", Path("runs/paper"), [found, other])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(lines).split())
    assert "table2 on tiny-bert: 4 trials to run, 0 are done in runs/paper" in text
    assert "2 plain, 2 noisytune(0.15)" in text
    assert "All models: 12 trials" in text
    assert "Kaplan et al. 2020" in text
    peaks = "the float32 peak of 19.5 (A100) and 67 (H100), the bf16 peak of 312 (A100) and 989 (H100) TFLOP/s"
    assert f"40% of {peaks}" in text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "< 1 s"), (5.5, "5.5 s"), (119, "119 s"), (120, "2.0 min"), (7200, "2.0 h"), (9e5, "10.4 days")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def of_speed(study: Study, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cost:
    """The cost where 100 weights learn 50 tokens a second, texts have 10 tokens, and a model loads in 2 s."""
    lengths = {task.name: {"train": 10.0} | dict.fromkeys(task.evaluate, 7.0) for task in study.tasks}
    speed = SimpleNamespace(lengths=lengths, parameters=100, load_seconds=2.0, tokens_per_second=50.0)
    monkeypatch.setattr(costs, "_speeds", lambda *_: {study.tasks[0].kind: speed})
    return cost_of(study, Store(folder / "run"), InlineEngine(), 1)


def test_seconds_are_those_of_as_many_operations(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is learnt takes 6 operations a weight (Kaplan et al. 2020, table 1)."""
    (task,) = of_speed(tiny_study, tmp_path, monkeypatch).tasks
    assert task.seconds == pytest.approx(2.0 + task.flops / (6 * 100 * 50.0))


def test_a_shared_training_is_paid_once(tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (task,) = tiny_study.tasks
    study = replace(tiny_study, tasks=(task, transferred(task, "one"), transferred(task, "two")))
    found = of_speed(study, tmp_path, monkeypatch)
    assert [one.tokens > 0 for one in found.tasks] == [True, False, False]
