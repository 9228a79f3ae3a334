"""What will a study cost? Trials, tokens, floating-point operations, and time here and on stated GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from noisytune.lab.engines import Engine, JobFailed
from noisytune.lab.store import Store
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.trials.arm import reads
from noisytune.lab.trials.jobs import CalibrationJob
from noisytune.lab.trials.runner import Runner, Speed
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial

SAMPLE = 256
"""Examples of a split by which its tokens are counted."""
_HALF = {"A100": 312e12, "H100": 989e12}
PEAKS = {"float32": {"A100": 19.5e12, "H100": 67e12}, "bf16": _HALF, "fp16": _HALF}
"""Peak operations a second by precision, NVIDIA's data sheets (SXM): of float32 outside the tensor cores, which PyTorch
leaves alone for it; of the others in them, without sparsity."""
GPUS = tuple(_HALF)
UTILISATION = 0.4
"""The share of that peak which is assumed."""


def flops(parameters: int, train_tokens: float, dev_tokens: float = 0.0, *, frozen: bool = False) -> float:
    """6 N for a token trained on (2 N forward, 4 N backward), 2 N for a token that is only read.

    Args:
        parameters: N, without embeddings, which are looked up and not multiplied.
        train_tokens: of all epochs.
        dev_tokens: read without gradients.
        frozen: LoRA trains small matrices beside the weights: gradients pass through these, 2 N, and none is theirs.

    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", section 2.1. Attention's own products,
    about length / (6 x width) of that, are left out, as there.

    >>> flops(85_000_000, 1000)
    510000000000.0
    """
    return 2.0 * parameters * ((2.0 if frozen else 3.0) * train_tokens + dev_tokens)


def seconds_on(gpu: str, work: float, precision: str) -> float:
    """The time of so many operations on one GPU.

    >>> seconds_on("A100", 312e12, "bf16"), round(seconds_on("A100", 312e12, "float32"), 6)
    (2.5, 40.0)
    """
    return work / (UTILISATION * PEAKS[precision][gpu])


@dataclass(frozen=True)
class TaskCost:
    """The trials of one model on one task that are not done yet."""

    task: str
    arms: dict[str, int]
    """Trials by arm."""
    tokens: float
    """Read in training by one trial, all epochs and passes: the mean of those that are missing."""
    flops: float
    """Of one trial, evaluation included."""
    seconds: float
    """Of one trial, by one worker of this machine."""
    precision: str = "float32"
    """In which it trains."""

    @property
    def trials(self) -> int:
        """How many."""
        return sum(self.arms.values())


@dataclass(frozen=True)
class Cost:
    """What the rest of a study of one model will cost."""

    model: str
    parameters: int
    """Without embeddings."""
    tasks: tuple[TaskCost, ...]
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

    def seconds_on(self, gpu: str) -> float:
        """Of all trials, on one GPU."""
        return sum(task.trials * seconds_on(gpu, task.flops, task.precision) for task in self.tasks)


def cost_of(study: Study, store: Store, engine: Engine, workers: int) -> Cost:
    """Count the trials that the run folder lacks, and time a few steps of the model here.

    An arm counts as plain fine-tuning on as many tokens as it reads: `noisytune.methods` says what each adds to that.

    Args:
        study: what would be run.
        store: of the run folder. Nothing is written.
        engine: where trials would run.
        workers: how many at a time.
    """
    finished = store.index()
    missing = [trial for trial in study.plan if trial.key not in finished]
    done = len(study.plan) - len(missing)
    if not missing:
        return Cost(study.model.name, 0, (), done, workers)
    tasks: list[TaskCost] = []
    runner = TransformersRunner.of(study.model, study.training.max_length, store.cache_folder)
    speeds = _speeds(study, missing, engine, runner)
    paid = {trial.task for trial in missing}
    for task in study.tasks:
        mine = [trial.arm for trial in missing if trial.task == task.name]
        source = study.trained_for(task)
        if source.kind not in speeds:
            continue
        speed = speeds[source.kind]
        training, rows = study.training_for(task), len(task.train)
        arms = {arm.name: mine.count(arm.name) for arm in study.arms}
        times = sum(arms[arm.name] * reads(arm, training, rows) for arm in study.arms)
        train = speed.lengths[source.name]["train"] * rows * times / max(1, len(mine))
        dev = sum(speed.lengths[task.name][name] * len(split) for name, split in task.evaluate.items())
        if task.trained_on:
            # Another task that is to be run pays for the training.
            train = 0.0 if source.name in paid else train
            paid.add(source.name)
        tasks.append(
            TaskCost(
                task=task.name,
                arms=arms,
                tokens=train,
                flops=flops(speed.parameters, train, dev, frozen=bool(study.training.lora)),
                seconds=speed.load_seconds + (train + dev / 3) / speed.tokens_per_second,
                precision=training.precision,
            )
        )
    parameters = next(iter(speeds.values())).parameters
    return Cost(study.model.name, parameters, tuple(tasks), done, workers)


def _speeds(study: Study, missing: list[Trial], engine: Engine, runner: Runner) -> dict[str, Speed]:
    """Each kind of training in what is missing, timed by its first trial: heads and batches differ between kinds."""
    trainings = [study.training_of(trial) for trial in missing]
    firsts = {trial.settings["task"]["kind"]: trial for trial in reversed(trainings)}
    speeds: dict[str, Speed] = {}
    for kind, trial in firsts.items():
        tasks = [task for task in study.tasks if study.trained_for(task).kind == kind]
        samples = {task.name: _sampled(task) for task in (*tasks, *map(study.trained_for, tasks))}
        job = CalibrationJob(trial, runner, tuple(samples.values()))
        engine.run([job], partial(_note, speeds, kind))
    return speeds


def _note(speeds: dict[str, Speed], kind: str, found: Speed | JobFailed) -> None:
    if isinstance(found, JobFailed):
        raise found.error
    speeds[kind] = found


def _sample(split: Split) -> Split:
    """Examples from all over the split."""
    step = max(1, len(split) // SAMPLE)
    return split.take(range(0, len(split), step)[:SAMPLE])


def _sampled(task: TaskData) -> TaskData:
    evaluate = {name: _sample(split) for name, split in task.evaluate.items()}
    trained_on = task.trained_on and _sampled(task.trained_on)
    train = trained_on.train if trained_on else _sample(task.train)
    return replace(task, train=train, evaluate=evaluate, trained_on=trained_on)
