"""How a trial is run: load, apply the arm's methods, train with the transformers Trainer, predict on dev."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import torch
import transformers
from transformers import PrinterCallback, set_seed

from noisytune._metrics import direction
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds import KINDS, Collate, Labelled, TokenSplit
from noisytune.lab.tasks import hold_out
from noisytune.lab.trials.adapter import adapt_
from noisytune.lab.trials.arguments import arguments_of, checkpoint_, optimizer_of, refuse_machine, refuse_methods
from noisytune.lab.trials.arm import methods_of, passes_of
from noisytune.lab.trials.callbacks import BestEpoch, Report, Steps
from noisytune.lab.trials.environment import accelerator, describe
from noisytune.lab.trials.evaluate import DIVERGED, Evaluation, Evaluator, mean_scores, trial_status
from noisytune.lab.trials.head import keep_head_, without_head
from noisytune.lab.trials.norms import copies, have_moved, l1_norms, weights_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.soup import Soup, as_part, mean_losses, trainings_of
from noisytune.lab.trials.tokens import Tokens, load_tokenizer
from noisytune.lab.trials.trainer import StackTrainer
from noisytune.lab.trials.trial import Trial
from noisytune.methods import Method, Run, Stack
from noisytune.records import TrialRecord


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
    two arms of one seed start from the same head and see the same batches and the same dropout, unless a method draws
    while it trains, as Mixout does: then dropout differs, and on the CPU the order of the batches from the second epoch
    on, which is drawn from the generator of dropout.

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
    environment, clock = describe(torch.get_num_threads(), _processes()) | accelerator(), _Clock()
    how = _Training.of(training, model_dir, tokens)
    members, soup, curves, epoch_scores = trainings_of(how.methods), Soup(), [], []
    for member in range(members):
        last = how.run(member, as_part(report, member, members), clock)
        curves.append(last.losses)
        epoch_scores += last.epoch_scores
        if members > 1:
            soup.add(last.model)
        if member + 1 < members:
            del last  # its memory is the next one's
    if members > 1:
        soup.put_in_(last.model)
    losses = mean_losses(curves)
    finite = all(map(math.isfinite, losses))
    for trial, splits in asked:
        evaluations = dict.fromkeys(splits, DIVERGED)
        if finite:
            with _in_precision(last.model, how.settings.precision if how.settings.max_steps == 0 else "float32"):
                evaluations = how.evaluator.of(trial.settings["task"], how.tokenizer)(last.model, splits)
        clock.lap("evaluate")
        yield TrialRecord(
            key=trial.key,
            settings=trial.settings,
            loss_curve=list(takewhile(math.isfinite, losses)),
            timing=clock.taken(),
            applied=last.applied,
            environment=environment,
            epoch_scores=epoch_scores,
            **_outcome(evaluations, trial.primary or (next(iter(evaluations)),), last.norms, how.known),
        )


@dataclass
class _Trained:
    """What came of one training."""

    model: Any
    applied: dict[str, dict[str, Any]]
    losses: list[float]
    """Of every step, the last one not finite if training stopped for that."""
    norms: dict[str, dict[str, float]]
    epoch_scores: list[float | None]


@dataclass
class _Training:
    """What the trainings of a trial share."""

    trial: Trial
    model_dir: Path
    settings: TrainingSettings
    methods: tuple[Method, ...]
    tokenizer: Any
    train: Labelled
    chosen_by: TokenSplit
    """What chooses the best epoch."""
    evaluator: Evaluator
    watched: Mapping[str, TokenSplit]
    """What is scored before training too."""
    known: dict[str, dict[str, float]] = field(default_factory=dict)
    """What the untrained model scores there."""

    @classmethod
    def of(cls, trial: Trial, model_dir: Path, tokens: Tokens) -> Self:
        """From a trial's settings."""
        task, settings = trial.settings["task"], TrainingSettings.from_dict(trial.settings["training"])
        kind, selects = KINDS[task["kind"]], task.get("select", next(iter(tokens.evaluate)))
        methods = methods_of(trial.settings["arm"]["methods"])
        refuse_methods(settings, methods)
        tokenizer = load_tokenizer(model_dir)
        data, chosen_by = tokens.train, tokens.evaluate[selects]
        if settings.select == "best" and settings.protocol == "clean":
            data, chosen_by = map(data.take, hold_out(kind.spread(data.targets), data.groups))
        units, collate = kind.units(data.targets), kind.collate(tokenizer)
        batch_size = kind.evaluation_batches * settings.batch_size
        evaluator = Evaluator(kind, tuple(task["labels"]), units, collate, batch_size).of(task, tokenizer)
        train = Labelled(data, kind.labels(data, units))
        watched = {name: tokens.evaluate[name] for name in tokens.evaluate if name == kind.watched}
        return cls(trial, model_dir, settings, methods, tokenizer, train, chosen_by, evaluator, watched)

    def run(self, member: int, report: Report | None, clock: _Clock) -> _Trained:
        """Train once.

        Args:
            member: which training of the trial it is, from 0.
            report: told of every step.
            clock: of the trial.
        """
        settings, kind, seed, task = self.settings, self.evaluator.kind, self.trial.seed, self.trial.settings["task"]
        set_seed(settings.seed_of_head(seed))
        model = _load(self.trial, self.model_dir)
        _pad_as_(model, self.tokenizer)
        clock.lap("load")
        if member == 0:
            self.known = _known(self.evaluator, model, self.watched, settings.precision)
        collate = self.evaluator.collate
        batches = partial(_batches, self.train, collate, settings.batch_size, model.device)
        run = Run(model, seed, not kind.has_classes, batches, divergence=kind.divergence, member=member)
        run.total_steps, run.learning_rate = settings.steps(len(self.train)), settings.learning_rate
        run.precision = settings.precision
        stack = Stack(self.methods, run)
        weights = weights_of(model)  # a method may rename them while it trains
        applied = stack.begin_()
        for name, passes in passes_of(self.methods, settings, len(self.train)).items():
            applied.setdefault(name, {})["passes"] = passes
        if settings.lora:
            applied["lora"] = adapt_(model, settings, seed, with_head=bool(kind.head(task["labels"])))
            weights = weights_of(model)
        best = None
        if settings.select == "best":
            best = BestEpoch(model, stack, partial(self._score, model), direction(kind.name, task["metric"]))
        before = copies(weights)
        clock.lap("prepare")
        losses = _train(stack, self.train, collate, self.tokenizer, settings, self.trial, report, best)
        stack.end_()
        norms = l1_norms(before, weights_of(model))  # sharding makes other tensors of them
        if best:
            best.restore_()
        clock.lap("train")
        return _Trained(model, applied, losses, norms, best.scores if best else [])

    def _score(self, model: Any) -> float | None:
        (found,) = self.evaluator(model, {"chosen by": self.chosen_by}).values()
        return found.scores.get(self.trial.settings["task"]["metric"])


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
        told = adapt_(run.model, settings, trial.seed, with_head=bool(head))
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
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def taken(self) -> dict[str, float]:
        """Every lap and their sum; from now on all laps are 0 again."""
        found = self.seconds | {"total": sum(self.seconds.values())}
        self.seconds = dict.fromkeys(self.seconds, 0.0)
        return found


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
        model = without_head(model, loading, settings.seed_of_head(trial.seed))
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
    best: BestEpoch | None,
) -> list[float]:
    """Train in place and return every step's loss, the last one not finite if training stopped for that."""
    arguments = arguments_of(settings, trial.seed, trial.label)
    if settings.max_steps == 0:
        stack.run.model.to(arguments.device)  # where a Trainer would have scored it
        return []
    if settings.compile:
        torch.compiler.reset()  # what was compiled for earlier trials counts towards the limit of versions
        stack.run.model.compile()
    steps = Steps(report, [])
    callbacks = [steps, *([best] if best else [])]
    trainer = StackTrainer(
        stack,
        stack.run.model,
        arguments,
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
    with _in_precision(model, precision):
        return {name: one.scores for name, one in evaluator(model, splits).items()}


def _in_precision(model: Any, precision: str) -> AbstractContextManager[Any]:
    """What a Trainer puts around the model that it trains."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(model.device.type, dtype=half, enabled=half is not None)


def _pad_as_(model: Any, tokenizer: Any) -> None:
    """Tell a model that has no padding token which one the tokenizer pads with, as a Trainer does before it trains."""
    config = model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id


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
