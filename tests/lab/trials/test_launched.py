"""A training on several processes is the training of one; and it fails in one line, with nothing left running."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisytune import _processes
from noisytune._pretrained import Model
from noisytune._processes import marked
from noisytune.errors import ConfigError, DataError, TrialError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.launched import Launched
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord
from tests.support.trials import SHORT, a_trial, noisy

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")

TWO = ("torchrun", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0")


@dataclass(frozen=True)
class Told:
    """A runner that does as it is told, on every process."""

    how: str

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        on_step(1, 2, 0.5)
        if self.how == "data":
            raise DataError("the labels are upside down")
        if self.how == "memory":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.how == "leaves":
            sys.stderr.write("so long\n")
            sys.stderr.flush()
            os._exit(3)
        if self.how == "hangs":
            time.sleep(600)
        yield from ()


@dataclass(frozen=True)
class Sharded:
    """Another runner, whose models are sharded as FSDP2 does it: accelerate refuses to on a CPU."""

    runner: TransformersRunner

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        from accelerate import Accelerator
        from torch.distributed.fsdp import fully_shard

        from noisytune.lab.trials.trainer import StackTrainer

        plain = StackTrainer.create_optimizer

        def create_optimizer(trainer: Any, model: Any = None) -> Any:
            fully_shard(trainer.model)
            return plain(trainer, model)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StackTrainer, "create_optimizer", create_optimizer)
            patch.setattr(Accelerator, "prepare_model", lambda _, model, **__: model)
            yield from self.runner.run(training, trials, on_step)


@pytest.fixture
def trial(tiny_study: Study) -> Trial:
    return a_trial(tiny_study)


def alone(how: str) -> Launched:
    return Launched(Told(how), (sys.executable,))  # type: ignore[arg-type]


@pytest.fixture
def still(tmp_path: Path, tiny_study: Study, tiny: Model, save_tiny: Callable[..., Path]) -> TransformersRunner:
    """Of a model without dropout, by which the processes differ."""
    folder = save_tiny(tmp_path / "still", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    runner = TransformersRunner(folder, tiny.digest, SHORT.max_length, tmp_path)
    runner.prepare(tiny_study.tasks[0])
    return runner


@pytest.mark.parametrize(
    "how", [pytest.param(lambda runner: runner, id="DDP"), pytest.param(Sharded, id="FSDP2", marks=pytest.mark.slow)]
)
def test_two_processes_train_as_one_does(
    tiny_study: Study, still: TransformersRunner, how: Callable[[Any], Any]
) -> None:
    """40 examples in batches of 13: seven and six rows each, and one that is left over."""
    settings = {"batch_size": 13, "max_steps": None, "epochs": 2, "weight_decay": 0.1}
    trial = a_trial(tiny_study, noisy(0.15), **settings)
    steps: list[int] = []
    (one,) = still.run(trial, [trial], lambda *_: None)
    (two,) = Launched(how(still), TWO).run(trial, [trial], lambda step, *_: steps.append(step))
    assert steps == list(range(1, 9))
    assert two.environment["processes"] == 2
    assert "processes" not in one.environment
    assert two.applied == one.applied
    np.testing.assert_allclose(two.loss_curve, one.loss_curve, rtol=2e-5)
    assert two.scores == one.scores
    for role, norms in one.norms.items():
        assert two.norms[role]["before"] == norms["before"]
        assert two.norms[role]["moved"] == pytest.approx(norms["moved"], rel=1e-3), role


@pytest.mark.parametrize(("how", "error", "says"), [
    ("data", DataError, "the labels are upside down"),
    pytest.param("memory", RuntimeError, "out of memory", marks=pytest.mark.slow),
    ("leaves", TrialError, "ended with code 3"),
])  # fmt: skip
def test_what_goes_wrong_in_a_process_is_told(trial: Trial, how: str, error: type[Exception], says: str) -> None:
    steps: list[Any] = []
    with pytest.raises(error, match=says) as caught:
        list(alone(how).run(trial, [trial], lambda *step: steps.append(step)))
    assert steps == [(1, 2, 0.5)]
    if how == "leaves":
        assert "so long" in "".join(caught.value.__notes__)


def test_a_launcher_that_is_no_program(trial: Trial) -> None:
    with pytest.raises(ConfigError, match="launcher 'no-such-program' cannot be started: No such file"):
        list(replace(alone("data"), launcher=("no-such-program",)).run(trial, [trial], lambda *_: None))


def test_nothing_is_left_of_a_training_that_is_given_up(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_processes.uuid, "uuid4", lambda: type("", (), {"hex": "of-this-test"}))

    def stop(*_: Any) -> None:
        assert marked(f"{_processes.CHILD}=of-this-test")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(alone("hangs").run(trial, [trial], stop))
    assert not marked(f"{_processes.CHILD}=of-this-test")
