"""What will a study cost? Trials, tokens, floating-point operations, and time here and on stated GPUs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

from noisytune.lab.engines import Engine
from noisytune.lab.store import Store
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.trials.tokens import Tokens, tokenise
from noisytune.lab.trials.trial import Trial

SAMPLE = 256
"""Examples of a split by which its tokens are counted."""
STEPS = 3
"""Optimizer steps that are timed, after as many that warm up."""
GPUS = {"A100": 19.5e12, "H100": 67e12}
"""Peak float32 operations a second outside the tensor cores, NVIDIA's data sheets (SXM): trials train in float32."""
UTILISATION = 0.4
"""The share of that peak which is assumed."""


def flops(parameters: int, train_tokens: float, dev_tokens: float = 0.0) -> float:
    """6 N for a token trained on (2 N forward, 4 N backward), 2 N for a token that is only read.

    Args:
        parameters: N, without embeddings, which are looked up and not multiplied.
        train_tokens: of all epochs.
        dev_tokens: read without gradients.

    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1. Attention's own products,
    about length / (6 x width) of that, are left out, as there.

    >>> flops(85_000_000, 1000)
    510000000000.0
    """
    return 2.0 * parameters * (3.0 * train_tokens + dev_tokens)


@dataclass(frozen=True)
class Speed:
    """What a few timed steps of a model show, by one worker."""

    parameters: int
    """Without embeddings."""
    lengths: dict[str, dict[str, float]]
    """Mean tokens of an example, by task and split."""
    tokens_per_second: float
    """In training; padding does not count."""
    load_seconds: float


@dataclass(frozen=True)
class TaskBudget:
    """The trials of one model on one task that are not done yet."""

    task: str
    arms: dict[str, int]
    """Trials by arm."""
    tokens: float
    """Read in training by one trial, all epochs."""
    flops: float
    """Of one trial, evaluation included."""
    seconds: float
    """Of one trial, by one worker of this machine."""

    @property
    def trials(self) -> int:
        """How many."""
        return sum(self.arms.values())


@dataclass(frozen=True)
class Budget:
    """What the rest of a study of one model will cost."""

    model: str
    parameters: int
    """Without embeddings."""
    tasks: tuple[TaskBudget, ...]
    done: int
    """Trials that the run folder holds already."""
    workers: int
    """Trials at a time on this machine."""

    @property
    def trials(self) -> int:
        """Still to be run."""
        return sum(task.trials for task in self.tasks)

    def total(self, what: str) -> float:
        """``tokens``, ``flops`` or ``seconds`` of all trials; seconds as if they were run one after the other."""
        return sum(task.trials * float(getattr(task, what)) for task in self.tasks)


def budget(study: Study, store: Store, engine: Engine, workers: int) -> Budget:
    """Count the trials that the run folder lacks, and time a few steps of the model here.

    Arms are counted as plain fine-tuning: `noisytune.methods` says what each costs beside that.

    Args:
        study: what would be run.
        store: of the run folder. Nothing is written.
        engine: where trials would run.
        workers: how many at a time.
    """
    missing = [trial for trial in study.plan if not store.has(trial.key)]
    done = len(study.plan) - len(missing)
    if not missing:
        return Budget(study.model.name, 0, (), done, workers)
    tasks: list[TaskBudget] = []
    speeds = _speeds(study, missing, engine)
    for task in study.tasks:
        mine = [trial.arm for trial in missing if trial.task == task.name]
        if task.kind not in speeds:
            continue
        speed = speeds[task.kind]
        tokens = {name: speed.lengths[task.name][name] * len(split) for name, split in task.splits.items()}
        train = tokens.pop("train") * study.training.epochs
        dev = sum(tokens.values())
        tasks.append(
            TaskBudget(
                task=task.name,
                arms={arm.name: mine.count(arm.name) for arm in study.arms},
                tokens=train,
                flops=flops(speed.parameters, train, dev),
                seconds=speed.load_seconds + (train + dev / 3) / speed.tokens_per_second,
            )
        )
    parameters = next(iter(speeds.values())).parameters
    return Budget(study.model.name, parameters, tuple(tasks), done, workers)


def _speeds(study: Study, missing: list[Trial], engine: Engine) -> dict[str, Speed]:
    """Each kind of task in what is missing, timed by its first trial: heads and batches differ between kinds."""
    firsts = {trial.settings["task"]["kind"]: trial for trial in reversed(missing)}
    speeds: dict[str, Speed] = {}
    for kind, trial in firsts.items():
        samples = tuple(_sampled(task) for task in study.tasks if task.kind == kind)
        job = CalibrationJob(trial, samples, study.model.path.absolute())
        engine.run([job], partial(speeds.__setitem__, kind))
    return speeds


@dataclass(frozen=True)
class CalibrationJob:
    """Time a few steps of one trial, and count the tokens of all tasks' samples."""

    trial: Trial
    tasks: tuple[TaskData, ...]
    """Samples; the trial's task is among them."""
    model_dir: Path

    @property
    def label(self) -> str:
        """What is done."""
        return f"timing {self.trial.settings['model']['name']}"

    def __call__(self, report: Callable[[object], None]) -> Speed:
        """Do it."""
        from noisytune.lab.trials.fine_tune import run_trial

        training = self.trial.settings["training"]
        tokens = {task.name: tokenise(self.model_dir, task, training["max_length"]) for task in self.tasks}
        mine, size = tokens[self.trial.task], STEPS * training["batch_size"]
        name, dev = next(iter(mine.evaluate.items()))
        few = replace(mine, train=mine.train.first(size), evaluate={name: dev.first(1)})
        # Batches hold texts of like length: only a whole pass has known tokens. The first one warms up.
        settings = {**self.trial.settings, "training": {**training, "epochs": 2, "max_steps": None}}
        ends: list[float] = []
        record = run_trial(Trial(settings), self.model_dir, few, lambda *_: ends.append(perf_counter()))
        half = len(ends) // 2
        body = {kind: norms["elements"] for kind, norms in record.norms.items() if kind != "embeddings"}
        return Speed(
            parameters=int(sum(body.values())),
            lengths={name: _lengths(each) for name, each in tokens.items()},
            tokens_per_second=sum(few.train.lengths) / (ends[-1] - ends[half - 1]),
            load_seconds=record.timing["load"] + record.timing["prepare"],
        )


def _sample(split: Split) -> Split:
    """Examples from all over the split."""
    step = max(1, len(split) // SAMPLE)
    return split.take(range(0, len(split), step)[:SAMPLE])


def _sampled(task: TaskData) -> TaskData:
    evaluate = {name: _sample(split) for name, split in task.evaluate.items()}
    return replace(task, train=_sample(task.train), evaluate=evaluate)


def _lengths(tokens: Tokens) -> dict[str, float]:
    """Mean tokens of an example of each split."""
    return {name: sum(split.lengths) / len(split) for name, split in {"train": tokens.train, **tokens.evaluate}.items()}
