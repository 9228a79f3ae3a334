"""How a trial is run: load, apply the arm's methods, train with the transformers Trainer, predict on dev.

With `noisytune.lab.trials.trainer` the only file of the lab that loads torch when it is imported.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    PrinterCallback,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from noisytune.errors import DataError, NonFiniteError
from noisytune.lab.kinds import metrics
from noisytune.lab.kinds.units import Units
from noisytune.lab.tasks import hold_out
from noisytune.lab.trials.arm import methods_of
from noisytune.lab.trials.environment import describe
from noisytune.lab.trials.norms import copies, l1_norms, weights_of
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Floats, Tokens, TokenSplit, load_tokenizer
from noisytune.lab.trials.trackers import Tracker
from noisytune.lab.trials.trainer import StackTrainer
from noisytune.lab.trials.trial import Trial
from noisytune.methods import Run, Stack
from noisytune.records import Status, TrialRecord

Report = Callable[[int, int, float | None], None]
"""Called after each step with the step (from 1), the number of steps, and the loss (None where it is not finite)."""

EVALUATION_BATCHES = 4
"""Dev examples predicted at a time, in training batches: without gradients there is room for more."""


def run_trial(
    trial: Trial, model_dir: Path, tokens: Tokens, report: Report | None = None, tracker: Tracker | None = None
) -> TrialRecord:
    """Run one trial. Its settings decide the outcome, up to the rounding of other hardware and other thread counts.

    The seed sets the head, the order of the data, dropout and the noise. The noise comes from a generator of its own:
    two arms of one seed start from the same head and see the same batches, and the same dropout unless a method draws
    from the same generator while training, as Mixout does.

    A regression learns standardised values: the training loss is in units of the train values' variance. References
    and predictions are in the user's units.

    Args:
        trial: the resolved settings.
        model_dir: where the weights are.
        tokens: the task as token ids.
        report: told of every step.
        tracker: where to log as well; not part of the outcome.

    Returns:
        the record. A diverged trial has neither scores nor predictions.

    Raises:
        DataError: the weights do not fit the model's configuration.
        NonFiniteError: the weights hold NaN or infinity.
        AlreadyPerturbedError: noise is asked for, and the weights carry some.
    """
    environment, clock = describe(torch.get_num_threads()), _Clock()
    settings = TrainingSettings.from_dict(trial.settings["training"])
    set_seed(trial.seed)
    model = _load(trial, model_dir)
    clock.lap("load")
    collate = DataCollatorWithPadding(load_tokenizer(model_dir))
    kind = trial.settings["task"]["kind"]
    data, chosen_by = tokens.train, tokens.dev
    if settings.select == "best" and settings.protocol == "clean":
        data, chosen_by = map(data.take, hold_out(data.targets))
    units = Units.of(data.targets) if kind == "regression" else None
    train = replace(data, labels=units.standardised(data.targets)) if units else data
    predict = partial(_predict, model, collate=collate, batch_size=EVALUATION_BATCHES * settings.batch_size)
    splits = {"dev": tokens.dev} | tokens.also
    best = None
    if settings.select == "best":
        best = _BestEpoch(chosen_by, partial(_score, kind, units, trial.settings["task"]["metric"]), predict, splits)
    batches = partial(_batches, train, collate, settings.batch_size, model.device)
    stack = Stack(methods_of(trial.settings["arm"]["methods"]), Run(model, trial.seed, kind == "regression", batches))
    weights = weights_of(model)  # a method may rename them while it trains
    applied = stack.begin_()
    before = copies(weights)
    clock.lap("prepare")
    losses = _train(stack, train, collate, settings, trial, report, tracker, best)
    stack.end_()
    clock.lap("train")
    finite = all(map(math.isfinite, losses))
    outputs: dict[str, Floats] = {}
    if finite:
        outputs = best.outputs if best else {name: predict(split) for name, split in splits.items()}
    clock.lap("evaluate")
    evaluations: dict[str, dict[str, Any]] = {}
    answers: dict[str, Floats] = {}
    for name, split in splits.items():
        state, guesses = _judge(kind, outputs.get(name), units)
        scores = metrics.score(kind, split.targets.tolist(), guesses) if guesses else {}
        evaluations[name] = {"status": state, "scores": scores}
        if guesses:
            answers |= {f"{name}/predictions": np.array(guesses), f"{name}/references": split.targets}
    status = evaluations["dev"]["status"]
    return TrialRecord(
        key=trial.key,
        settings=trial.settings,
        status=status,
        scores=evaluations["dev"]["scores"],
        evaluations=evaluations,
        loss_curve=losses if finite else losses[:-1],
        timing=clock.seconds | {"total": sum(clock.seconds.values())},
        applied=applied,
        environment=environment,
        norms={} if status == "diverged" else l1_norms(before, weights),
        epoch_scores=best.scores if best else [],
        outputs=answers,
    )


def check_arms(trial: Trial, model_dir: Path, arms: Iterable[Sequence[dict[str, Any]]]) -> None:
    """Make sure that a model can take the methods of arms, without changing any weight.

    Args:
        trial: says which head the model gets.
        model_dir: where the weights are.
        arms: each as in `noisytune.lab.trials.arm.Arm.methods`.

    Raises:
        ConfigError: a glob matches no tensor, or a selection of tensors is empty.
        NoisyTuneError: whatever else `run_trial` would raise before it trains.
    """
    run = Run(_load(trial, model_dir))
    for method in dict.fromkeys(method for arm in arms for method in methods_of(arm)):
        method.check(run)


class _Clock:
    """Seconds since the last lap, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.seconds[name], self._last = now - self._last, now


@dataclass
class _Steps(TrainerCallback):
    """Keeps every loss, passes it on, and stops at the first that is not finite."""

    report: Report | None
    losses: list[float]

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss")
        if loss is None:
            return
        self.losses.append(loss)
        if self.report:
            self.report(state.global_step, state.max_steps, loss if math.isfinite(loss) else None)
        if not math.isfinite(loss):
            control.should_training_stop = True


@dataclass
class _BestEpoch(TrainerCallback):
    """Scores the model after each epoch, and keeps what the best one predicts."""

    chosen_by: TokenSplit
    score: Callable[[TokenSplit, Floats], float | None]
    predict: Callable[[TokenSplit], Floats]
    splits: dict[str, TokenSplit]
    """What the kept predictions are of."""
    scores: list[float | None] = field(default_factory=list)
    """One an epoch."""
    outputs: dict[str, Floats] = field(default_factory=dict)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seen = self.predict(self.chosen_by)
        value = self.score(self.chosen_by, seen)
        highest = max((score for score in self.scores if score is not None), default=-math.inf)
        self.scores.append(value)
        if not self.outputs or (value is not None and value > highest):
            self.outputs = {
                name: seen if split is self.chosen_by else self.predict(split) for name, split in self.splits.items()
            }


def _load(trial: Trial, model_dir: Path) -> Any:
    task, name = trial.settings["task"], trial.settings["model"]["name"]
    regression = task["kind"] == "regression"
    labels = dict(enumerate(["value"] if regression else task["labels"]))
    load = partial(
        AutoModelForSequenceClassification.from_pretrained,
        str(model_dir),
        # Said, not left open: otherwise transformers asks on the terminal, which a worker has not.
        trust_remote_code=False,
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
        problem_type="regression" if regression else "single_label_classification",
        # A half-precision checkpoint would otherwise be trained in half precision.
        dtype=torch.float32,
        # A checkpoint fine-tuned on another task has a head with another number of classes: it gets a new one.
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    try:
        model, loading = load()
    except ValueError as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(
            f"model {name!r}: transformers has no classifier for it, and code that comes with a model is never run: "
            f"{reason}"
        ) from error
    body = [key for key in model.state_dict() if key.startswith(f"{model.base_model_prefix}.")]
    if body and set(body) <= set(loading["missing_keys"]):
        raise DataError(f"model {name!r}: none of its weights fit the model that its config.json describes")
    for key, parameter in model.named_parameters():
        # The sum settles nearly every case, without a copy of the tensor.
        if not parameter.sum().isfinite() and not parameter.isfinite().all():
            raise NonFiniteError(
                f"model {name!r}: {key} has values that are NaN or infinite: the checkpoint is damaged"
            )
    return model


def _batches(data: TokenSplit, collate: DataCollatorWithPadding, size: int, device: Any) -> Iterator[dict[str, Any]]:
    """The training data in its own order."""
    for start in range(0, len(data), size):
        batch = collate([data[i] for i in range(start, min(start + size, len(data)))])
        yield {name: tensor.to(device) for name, tensor in batch.items()}


def _train(
    stack: Stack,
    data: TokenSplit,
    collate: DataCollatorWithPadding,
    settings: TrainingSettings,
    trial: Trial,
    report: Report | None,
    tracker: Tracker | None,
    best: _BestEpoch | None,
) -> list[float]:
    """Train in place and return every step's loss, the last one not finite if training stopped for that."""
    arguments = TrainingArguments(
        # Nothing is saved; the Trainer wants a folder that exists.
        output_dir=tempfile.gettempdir(),
        save_strategy="no",
        seed=trial.seed,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=trial.settings["training"]["learning_rate"],
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=tracker.report_to if tracker else "none",
        run_name=trial.label,
    )
    steps = _Steps(report, [])
    callbacks = [steps, *([best] if best else []), *(tracker.callbacks(trial.label) if tracker else [])]
    trainer = StackTrainer(
        stack,
        stack.run.model,
        arguments,
        data_collator=collate,
        train_dataset=data,
        processing_class=collate.tokenizer,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        if tracker:
            tracker.finish()
    return steps.losses


@torch.inference_mode()
def _predict(model: Any, data: TokenSplit, collate: DataCollatorWithPadding, batch_size: int) -> Floats:
    """The model's outputs, shape (examples, outputs), in the data's order. Batches hold texts of like length."""
    model.eval()
    order = np.argsort(data.lengths, kind="stable")
    outputs = []
    for start in range(0, len(order), batch_size):
        examples = [data[int(i)] for i in order[start : start + batch_size]]
        # Values to predict may lie outside float32's range, and are not needed here.
        batch = collate([{name: part for name, part in one.items() if name != "labels"} for one in examples])
        inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
        outputs.append(model(**inputs).logits.double().cpu().numpy())
    stacked = np.concatenate(outputs)
    restored = np.empty_like(stacked)
    restored[order] = stacked
    return restored


def _score(kind: Any, units: Units | None, metric: str, data: TokenSplit, outputs: Floats) -> float | None:
    """One metric of a model's outputs; None where it is undefined."""
    _, predictions = _judge(kind, outputs, units)
    return metrics.score(kind, data.targets.tolist(), predictions).get(metric) if predictions else None


def _judge(kind: str, outputs: Floats | None, units: Units | None = None) -> tuple[Status, list[float]]:
    """Status and predictions: class ids, or values in the user's units."""
    if outputs is None or not np.isfinite(outputs).all():
        return "diverged", []
    if kind == "classification":
        classes = outputs.argmax(axis=1)
        return ("collapsed" if len(set(classes.tolist())) == 1 else "ok"), [float(c) for c in classes]
    values = outputs[:, 0]
    # Values that differ by no more than float32's rounding tell nothing apart.
    same = np.ptp(values) <= 1e-6 * max(1.0, float(np.abs(values).max()))
    predictions = units.restored(values) if units else values
    if not np.isfinite(predictions).all():
        return "diverged", []
    return ("collapsed" if same else "ok"), predictions.tolist()
