"""A Python function as the trial: what it gets, what it may return, and where it runs."""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from noisytune.errors import ConfigError, RunFolderError, TrialError
from noisytune.lab import InlineEngine, LocalEngine, OwnTrial, compare
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.function import Function
from noisytune.lab.trials.trial import Trial
from noisytune.torch import perturb_

ROOT = Path(__file__).resolve().parents[3]


def trial_of(arm, seed=3, folder=Path()):
    return OwnTrial(Trial({"arm": {"name": arm, "methods": list(Arm.parse(arm).methods)}, "seed": seed}), None, folder)


def linear():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 2))


def by_weights(trial):
    """Its score follows from the seed and the noise."""
    model = trial.perturb_(linear())
    draw = np.random.default_rng(trial.seed)
    total = float(sum(parameter.detach().abs().sum() for parameter in model.parameters()))
    return {"accuracy": draw.random() / 2 + total % 0.1, "loss": draw.random()}


@pytest.fixture
def run(tmp_path):
    def call(train, **options):
        inline = {"seeds": 2, "engine": InlineEngine(), "out": tmp_path / "run"}
        return compare(train, **inline | options)

    return call


def test_pairs_of_a_function(run):
    result = run(by_weights, score="accuracy", seeds=3)
    frame = result.to_frame()
    assert list(frame["arm"]) == ["plain", "noisytune(0.15)"] * 3
    (row,) = result.summary
    means = 100 * frame.groupby("arm")["accuracy"].mean()
    assert row.difference == pytest.approx(means["noisytune(0.15)"] - means["plain"])
    assert result.records[1].applied["noisytune"]["perturbed"] > 0
    assert result.study.tasks[0]["facts"]["rerun"]["floor"] == 0
    assert result.study.training["function"] == "by_weights"
    assert "by_weights" in result.report().read_text()
    longer = run(by_weights, score="accuracy", seeds=4)
    assert [record.timing for record in longer.records[:6]] == [record.timing for record in result.records]


def test_perturb_is_that_of_torch_with_the_seed_of_the_trial():
    trial, model, other = trial_of("noisytune(0.3)"), linear(), linear()
    assert trial.perturb_(model) is model
    perturb_(other, noise_lambda=0.3, seed=3)
    assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    plain = trial_of("plain")
    assert torch.equal(plain.perturb_(linear())[0].weight, linear()[0].weight)
    assert plain.noise is None
    assert (trial.noise.noise_lambda, trial.noise.seed) == (0.3, 3)


def test_what_is_new_stays_as_it_is():
    model = linear()
    trial_of("noisytune").perturb_(model, exclude=["1.*"])
    assert torch.equal(model[1].weight, linear()[1].weight)
    assert not torch.equal(model[0].weight, linear()[0].weight)


def test_a_tree_is_not_changed():
    pytest.importorskip("jax", reason="trees are perturbed by JAX")
    tree = {"kernel": np.linspace(-1, 1, 12, dtype=np.float32)}
    noisy = trial_of("noisytune").perturb_(tree)
    assert tree["kernel"][0] == -1
    assert not np.array_equal(noisy["kernel"], tree["kernel"])


def test_a_keras_model_is_changed_in_place():
    keras = pytest.importorskip("keras", reason="the model is Keras'")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    before = keras.ops.convert_to_numpy(model.layers[0].kernel.value)
    assert trial_of("noisytune").perturb_(model) is model
    assert not np.array_equal(before, keras.ops.convert_to_numpy(model.layers[0].kernel.value))


def test_methods_of_a_bare_loop_are_those_of_the_arm():
    trial, model = trial_of("noisytune+recadam"), linear()
    stack = trial.methods(model, total_steps=4, learning_rate=1e-4)
    optimizer = stack.optimizer(
        [{"params": list(model.parameters()), "lr": 1e-4, "weight_decay": 0.0}], torch.optim.AdamW
    )
    assert type(optimizer).__name__ == "RecAdam"
    assert trial.applied.keys() == {"noisytune", "recadam"}
    with pytest.raises(ConfigError, match=r"trial.methods\(model\) has the hooks of recadam"):
        trial.perturb_(model)


def test_an_arm_that_never_reaches_the_model_is_an_error(run):
    def forgets(trial):
        return {"accuracy": 1 / (2 + trial.seed)}

    result = run(forgets, score="accuracy")
    assert len(result.failures) == 2
    assert (
        "forgets-noisytune(0.15)-seed0 failed: the arm noisytune(0.15) was never applied" in result.failures[0].reason
    )


def test_a_seed_that_is_ignored_ends_the_study(run):
    with pytest.raises(TrialError, match=r"the seed is ignored"):
        run(lambda trial: 0.5)


@pytest.mark.parametrize(
    ("returned", "score", "said"),
    [
        (None, None, r"returned None: expected a number"),
        ({}, None, r"expected a number, scores by their names"),
        ({"a": 1, "b": 2}, None, r"returned a, b, not score: say which is compared, such as score='accuracy'"),
        ({"a": "high"}, None, r"score is 'high': expected a number"),
        (83.0, None, r"score is 83, which is no fraction"),
        ({"scores": 0.5, "items": {"predictions": [1], "references": [1, 2]}}, None, r"columns of one length"),
        (
            {"scores": 0.5, "items": {"predictions": [1], "references": [1], "groups": []}},
            None,
            r"columns of one length",
        ),
        ({"scores": 0.5, "items": [1]}, None, r"prediction 1: expected an object"),
    ],
)
def test_what_a_function_may_not_return(run, returned, score, said):
    with pytest.raises(TrialError, match=said):
        run(lambda trial: returned, score=score)


def test_what_a_function_may_return(run):
    for i, form in enumerate(
        (
            lambda x: x,
            lambda x: torch.tensor(x),
            lambda x: np.float32(x),
            lambda x: {"accuracy": x},
            lambda x: {"scores": {"score": x, "loss": 3}},
            lambda x: {"scores": {"score": x, "caf\udce9": 3}},
            lambda x: {"scores": x, "items": [{"prediction": 1, "reference": 1}, {"prediction": 0, "reference": 1}]},
            lambda x: {"scores": x, "items": {"predictions": np.ones(3), "references": torch.tensor([1, 0, 1])}},
            lambda x: {"scores": x, "items": {"predictions": [1, 0], "references": [1, 1], "groups": ["a", "b"]}},
        )
    ):

        def train(trial, form=form):
            trial.perturb_(linear())
            return form(1 / (2 + trial.seed))

        result = run(train, out=f"form-{i}", rerun=False)
        assert [record.scores["score"] for record in result.records if record.arm == "plain"] == pytest.approx(
            [1 / 2, 1 / 3]
        )


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_other_source_is_another_study(run):
    def train(trial):
        trial.perturb_(linear())
        return 1 / (2 + trial.seed)

    run(train)
    before = Function(train).told()

    def train(trial):
        trial.perturb_(linear())
        return 1 / (3 + trial.seed)

    assert before != Function(train).told()
    with pytest.raises(RunFolderError, match=r"its script is"):
        run(train)
    given = [Function(functools.partial(train, epochs=n)).told() for n in (1, 2)]
    assert given[0] != given[1]


FACTOR = 2.0


def plain_training(trial, given=None):
    return 1 / (2 + trial.seed)


def test_plain_values_around_a_function_are_part_of_its_trials(monkeypatch):
    """The same source with another learning rate in its closure, its globals, its defaults or its object is another
    study; what a training may change by the way, such as a list, is none of it."""

    def closed_over(rate, seen):
        def train(trial):
            seen.append(trial.seed)
            return rate / (2 + trial.seed)

        return train

    class Training:
        def __init__(self, rate):
            self.rate = rate

        def __call__(self, trial):
            return self.rate * FACTOR

    def with_default(rate):
        def train(trial, rate=rate):
            return rate

        return train

    def told(call):
        return Function(call).told()

    for make in (lambda rate: closed_over(rate, []), Training, with_default):
        assert told(make(0.1)) == told(make(0.1))
        assert told(make(0.1)) != told(make(0.9))
    assert told(closed_over(0.1, [])) == told(closed_over(0.1, [1, 2]))
    before = told(Training(0.1))
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    assert told(Training(0.1)) != before


def test_what_a_partial_gives_is_known_by_its_content():
    def told(given):
        return Function(functools.partial(plain_training, given=given)).told()

    assert told(np.zeros(2000)) != told(np.r_[np.zeros(1000), 1.0, np.zeros(999)])
    assert told(np.zeros(2000)) == told(np.zeros(2000))
    assert told(SimpleNamespace(rate=1)) != told(SimpleNamespace(rate=2))
    assert " at 0x" not in str(told(object()))


def test_worker_processes_get_the_function_whole(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # where workers find this module
    here = os.getpid()
    factor = 0.5

    def train(trial):
        import os

        assert os.getpid() != here
        trial.perturb_(linear())
        (trial.out / "kept").write_text("here")
        return factor / (2 + trial.seed)

    with LocalEngine(1) as engine:
        result = compare(train, seeds=2, engine=engine, out=tmp_path / "run")
    assert [record.scores["score"] for record in result.records][::2] == [0.25, 0.5 / 3]
    assert len(list((tmp_path / "run/outputs").glob("*/kept"))) == 4


def test_what_cannot_be_sent_is_said(tmp_path):
    lock = threading.Lock()

    def train(trial):
        with lock:
            return 0.5

    with pytest.raises(ConfigError, match=r"train cannot be sent to a worker process .*engine=InlineEngine\(\)"):
        compare(train, seeds=1, out=tmp_path / "run")


def test_what_does_not_go_together(run):
    with pytest.raises(ConfigError, match=r"training, options: a function of yours knows"):
        run(by_weights, training={"epochs": 3}, options={"train_size": 4})
    with pytest.raises(ConfigError, match=r"score goes with a function"):
        compare("model", "topics", score="accuracy")
    with pytest.raises(ConfigError, match=r"two models are given"):
        compare("one", "topics", model="two")
    with pytest.raises(ConfigError, match=r"no setting 'scor'"):
        run(by_weights, score={"scor": "accuracy"})
