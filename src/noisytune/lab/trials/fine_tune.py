"""How a trial is run: load, apply the arm's methods, train with the transformers Trainer, predict on dev.

With `evaluate` and `trainer` beside it the only file of the lab that loads torch when it is imported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import transformers
from transformers import PrinterCallback, TrainerCallback, set_seed

from noisytune._metrics import direction
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Collate, Labelled, TokenSplit
from noisytune.lab.tasks import hold_out
from noisytune.lab.trials.adapter import put_on_
from noisytune.lab.trials.arguments import arguments_of, checkpoint_, optimizer_of, refuse_machine, refuse_methods
from noisytune.lab.trials.arm import methods_of
from noisytune.lab.trials.environment import describe
from noisytune.lab.trials.evaluate import DIVERGED, Evaluation, Evaluator, mean_scores, trial_status
from noisytune.lab.trials.head import keep_head_, without_head
from noisytune.lab.trials.lora import Lora
from noisytune.lab.trials.norms import copies, have_moved, l1_norms, weights_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, load_tokenizer
from noisytune.lab.trials.trainer import StackTrainer
from noisytune.lab.trials.trial import Trial
from noisytune.methods import Run, Stack
from noisytune.records import TrialRecord

Report = Callable[[int, int, float | None], None]
"""Called after each step with the step (from 1), the number of steps, and the loss (None where it is not finite)."""


def run_trial(trial: Trial, model_dir: Path, tokens: Tokens, report: Report | None = None) -> TrialRecord:
    """Run one trial that has a training of its own: `run_trials` of it alone."""
    (record,) = run_trials(trial, model_dir, tokens, [(trial, tokens.evaluate)], report)
    return record


def run_trials(
    training: Trial,
    model_dir: Path,
    tokens: Tokens,
    asked: Iterable[tuple[Trial, Mapping[str, TokenSplit]]],
    report: Report | None = None,
) -> Iterator[TrialRecord]:
    """Train once, and score each trial that rests on it. Settings decide the outcome, up to the rounding of other
    hardware and other thread counts.

    The seed sets the head, the order of the data, dropout and the noise. The noise comes from a generator of its own:
    two arms of one seed start from the same head and see the same batches, and the same dropout unless a method draws
    from the same generator while training, as Mixout does.

    A regression learns standardised values: the training loss is in units of the train values' variance. References
    and predictions are in the user's units.

    Args:
        training: the resolved settings that say what is trained.
        model_dir: where the weights are.
        tokens: its task as token ids.
        asked: trials with this training, usually itself alone, and the splits that each is scored on.
        report: told of every step.

    Yields:
        their records. The time of training is the first one's. A diverged trial has neither scores nor predictions.

    Raises:
        DataError: the weights do not fit the model's configuration.
        NonFiniteError: the weights hold NaN or infinity.
        AlreadyPerturbedError: noise is asked for, and the weights carry some.
    """
    environment, clock = describe(torch.get_num_threads(), _processes()), _Clock()
    task, settings = training.settings["task"], TrainingSettings.from_dict(training.settings["training"])
    kind, selects = KINDS[task["kind"]], task.get("select", next(iter(tokens.evaluate)))
    methods = methods_of(training.settings["arm"]["methods"])
    refuse_methods(settings, methods)
    set_seed(training.seed)
    model = _load(training, model_dir)
    clock.lap("load")
    tokenizer = load_tokenizer(model_dir)
    data, chosen_by = tokens.train, tokens.evaluate[selects]
    if settings.select == "best" and settings.protocol == "clean":
        data, chosen_by = map(data.take, hold_out(kind.spread(data.targets)))
    units, collate = kind.units(data.targets), kind.collate(tokenizer)
    train = Labelled(data, kind.labels(data, units))
    labels = tuple(task["labels"])
    evaluator = Evaluator(kind, labels, units, collate, kind.evaluation_batches * settings.batch_size)
    evaluator = evaluator.of(task, tokenizer)
    known = _known(
        evaluator,
        model,
        {name: tokens.evaluate[name] for name in tokens.evaluate if name == kind.watched},
        settings.precision,
    )
    batches = partial(_batches, train, collate, settings.batch_size, model.device)
    run = Run(model, training.seed, not kind.has_classes, batches, divergence=kind.divergence)
    run.total_steps, run.learning_rate = settings.steps(len(train)), settings.learning_rate
    run.precision = settings.precision
    stack = Stack(methods, run)
    weights = weights_of(model)  # a method may rename them while it trains
    applied = stack.begin_()
    if settings.lora:
        applied["lora"] = put_on_(model, Lora.read(settings.lora), training.seed, with_head=bool(kind.head(labels)))
        weights = weights_of(model)
    best = None
    if settings.select == "best":
        better = direction(kind.name, task["metric"])
        score = lambda: evaluator(model, {selects: chosen_by})[selects].scores.get(task["metric"])  # noqa: E731
        best = _BestEpoch(model, score, better)
    before = copies(weights)
    clock.lap("prepare")
    losses = _train(stack, train, collate, tokenizer, settings, training, report, best)
    stack.end_()
    norms = l1_norms(before, weights_of(model))  # sharding makes other tensors of them
    if best:
        best.restore_()
    clock.lap("train")
    finite = all(map(math.isfinite, losses))
    for trial, splits in asked:
        evaluations = dict.fromkeys(splits, DIVERGED)
        if finite:
            evaluations = evaluator.of(trial.settings["task"], tokenizer)(model, splits)
        clock.lap("evaluate")
        yield TrialRecord(
            key=trial.key,
            settings=trial.settings,
            loss_curve=list(takewhile(math.isfinite, losses)),
            timing=clock.taken(),
            applied=applied,
            environment=environment,
            epoch_scores=best.scores if best else [],
            **_outcome(evaluations, trial.primary or (next(iter(evaluations)),), norms, known),
        )


def check_arms(trial: Trial, model_dir: Path, arms: Iterable[Sequence[dict[str, Any]]]) -> tuple[str, ...]:
    """Make sure that a model can take the methods of arms, without changing any weight.

    Args:
        trial: says which head the model gets.
        model_dir: where the weights are.
        arms: each as in `noisytune.lab.trials.arm.Arm.methods`.

    Returns:
        what the user should know of them, one line each.

    Raises:
        ConfigError: a glob matches no tensor, or a selection of tensors is empty.
        NoisyTuneError: whatever else `run_trial` would raise before it trains.
    """
    settings = TrainingSettings.from_dict(trial.settings["training"])
    stacks = [methods_of(arm) for arm in arms]
    for methods in stacks:
        refuse_methods(settings, methods)
    run = Run(_load(trial, model_dir), learning_rate=settings.learning_rate, precision=settings.precision)
    run.total_steps = settings.steps(int(trial.settings["task"]["train_size"]))
    distinct = dict.fromkeys(method for methods in stacks for method in methods)
    for method in distinct:
        method.check(run)
    notices = tuple(dict.fromkeys(notice for method in distinct for notice in method.notices(run)))
    if settings.lora:
        head = KINDS[trial.settings["task"]["kind"]].head(trial.settings["task"]["labels"])
        told = put_on_(run.model, Lora.read(settings.lora), trial.seed, with_head=bool(head))
        notices += (f"lora {settings.lora}: {told['trainable']:,} of {told['total']:,} parameters are trained",)
    return notices


def _processes() -> int:
    """How many train together."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name], self._last = now - self._last, now

    def taken(self) -> dict[str, float]:
        """Every lap and their sum; from now on all laps are 0 again."""
        found = self.seconds | {"total": sum(self.seconds.values())}
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        return found


@dataclass
class _Steps(TrainerCallback):
    """Keeps the loss of every step, a mean for each of its steps, passes it on, and stops where it is not finite."""

    report: Report | None
    losses: list[float]

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss")
        if loss is None:
            return
        self.losses += [loss] * (state.global_step - len(self.losses))
        if self.report:
            self.report(state.global_step, state.max_steps, loss if math.isfinite(loss) else None)
        if not math.isfinite(loss):
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


class _BestEpoch(TrainerCallback):
    """Scores the model after each epoch, and keeps the weights of the best one in main memory.

    Args:
        model: as it will be trained; its tensors stay the same objects.
        score: its score now; None where it is undefined.
        better: -1 where a lower score is better, else 1.
    """

    def __init__(self, model: Any, score: Callable[[], float | None], better: int = 1) -> None:
        self.scores: list[float | None] = []
        self._better = better
        self._tensors, self._score = [*model.parameters(), *model.buffers()], score
        self._kept: list[torch.Tensor] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        value = self._score()
        highest = max((self._better * score for score in self.scores if score is not None), default=-math.inf)
        self.scores.append(value)
        if not self._kept or (value is not None and self._better * value > highest):
            self._kept = [tensor.detach().to("cpu", copy=True) for tensor in self._tensors]

    @torch.no_grad()
    def restore_(self) -> None:
        """Put the best epoch's weights back; the model stays as it is where no epoch was finished."""
        for tensor, kept in zip(self._tensors, self._kept, strict=False):
            tensor.copy_(kept)


def _load(trial: Trial, model_dir: Path) -> Any:
    task, name = trial.settings["task"], trial.settings["model"]["name"]
    kind, settings = KINDS[task["kind"]], TrainingSettings.from_dict(trial.settings["training"])
    refuse_machine(settings)
    model_class: Any = getattr(transformers, kind.model_class)
    load = partial(
        model_class.from_pretrained,
        str(model_dir),
        # Said, not left open: otherwise transformers asks on the terminal, which a worker has not.
        trust_remote_code=False,
        **kind.head(task["labels"]),
        # A half-precision checkpoint would otherwise be trained in half precision.
        dtype=torch.float32,
        # A checkpoint fine-tuned on another task has a head with another number of classes: it gets a new one.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **({"attn_implementation": settings.attention} if settings.attention else {}),
    )
    try:
        model, loading = load()
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        if settings.attention and ("attention" in reason.lower() or "attn" in reason):
            raise ConfigError(f"attention {settings.attention} does not go with model {name!r}: {reason}") from error
        raise DataError(
            f"model {name!r}: transformers has no {kind.model_class} for it, and code that comes with a model is never "
            f"run: {reason}"
        ) from error
    if settings.keep_head:
        keep_head_(model, loading, model_dir, task["labels"])
    else:
        model = without_head(model, loading, trial.seed)
    if settings.gradient_checkpointing:
        checkpoint_(model)
    body = [key for key in model.state_dict() if key.startswith(f"{model.base_model_prefix}.")]
    if body and set(body) <= set(loading["missing_keys"]):
        raise DataError(f"model {name!r}: none of its weights fit the model that its config.json describes")
    kind.ready_(name, model, loading["missing_keys"])
    for key, parameter in model.named_parameters():
        # The sum settles nearly every case, without a copy of the tensor.
        if not parameter.sum().isfinite() and not parameter.isfinite().all():
            from noisytune._perturb.refusals import non_finite  # brings Numba, which a plain trial does without

            is_new = key in loading["missing_keys"] or key in {found[0] for found in loading["mismatched_keys"]}
            raise non_finite(f"model {name!r}: {key}", int((~parameter.isfinite()).sum()), is_new)
    return model


def _batches(data: Labelled, collate: Collate, size: int, device: Any) -> Iterator[dict[str, Any]]:
    """The training data in its own order."""
    for start in range(0, len(data), size):
        batch = collate([data[i] for i in range(start, min(start + size, len(data)))])
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def _train(
    stack: Stack,
    data: Labelled,
    collate: Collate,
    tokenizer: Any,
    settings: TrainingSettings,
    trial: Trial,
    report: Report | None,
    best: _BestEpoch | None,
) -> list[float]:
    """Train in place and return every step's loss, the last one not finite if training stopped for that."""
    if settings.compile:
        torch.compiler.reset()  # what was compiled for earlier trials counts towards the limit of versions
        stack.run.model.compile()
    steps = _Steps(report, [])
    callbacks = [steps, *([best] if best else [])]
    trainer = StackTrainer(
        stack,
        stack.run.model,
        arguments_of(settings, trial.seed, trial.label),
        data_collator=collate,
        train_dataset=data,
        processing_class=tokenizer,
        callbacks=callbacks,
        optimizer_cls_and_kwargs=optimizer_of(settings),
    )
    if best and trainer.is_fsdp_enabled:
        raise ConfigError("select best needs the weights of an epoch whole, and FSDP shards them: leave it out")
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return steps.losses


def _known(
    evaluator: Evaluator, model: Any, splits: Mapping[str, TokenSplit], precision: str
) -> dict[str, dict[str, float]]:
    """Scores of a model that is not trained yet, by split; in the precision in which it will be scored again."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    with torch.autocast(model.device.type, dtype=half, enabled=half is not None):
        return {name: one.scores for name, one in evaluator(model, splits).items()}


def _outcome(
    evaluations: dict[str, Evaluation],
    primary: tuple[str, ...],
    norms: dict[str, Any],
    known: Mapping[str, dict[str, float]],
) -> dict[str, Any]:
    """What the record says of how the trial went.

    Args:
        evaluations: by split.
        primary: the splits whose mean is the score.
        norms: how far the weights moved, as in `noisytune.records.TrialRecord.norms`.
        known: scores before training, by split.
    """
    status = trial_status(evaluations, primary, have_moved(norms))
    return {
        "status": status,
        "scores": {} if status == "diverged" else mean_scores(evaluations, primary),
        "evaluations": {
            name: {"status": one.status, "scores": one.scores}
            | ({"chosen": one.chosen} if one.chosen else {})
            | ({"before": known[name]} if name in known else {})
            for name, one in evaluations.items()
        },
        "norms": {} if status == "diverged" else norms,
        "outputs": {
            f"{name}/{what}": array for name, one in evaluations.items() for what, array in one.outputs.items()
        },
    }
