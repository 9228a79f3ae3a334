"""One GLUE training of ours against a Trainer script that pads to 128, and against a bare PyTorch loop: alternating.

    python benchmarks/glue.py [--rows 256] [--batch-size 8] [--epochs 1] [--rounds 2] [--threads 1] [--data-dir DIR]

Same model (all-MiniLM-L6-v2), examples, epochs and batch size in one process. Time is that of the training loop alone:
loading and tokenising are left out on all sides. Wall time is printed, and the process's CPU time, which is the one to
believe where other processes run. Targets: the script that pads, as the well-known example does, takes
at least 2 times ours on examples as long as RTE's and 4 times on examples as long as CoLA's; ours takes at most 1.08
times the bare loop, which gets ours' own batches, collated beforehand.

With --data-dir the examples are the first ones of RTE and CoLA in GLUE's official layout; without it they are random
words with the lengths of these, from the quantiles below.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from describe import machine
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PrinterCallback,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
    set_seed,
)
from transformers.utils import logging

from noisytune._pretrained import Model
from noisytune.lab.tasks import Split, TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trainer import StackTrainer
from noisytune.lab.trials.trial import Trial

LENGTHS = {
    "rte": (28, 36, 42, 47, 52, 58, 66, 84, 119, 128),
    "cola": (7, 8, 9, 9, 10, 11, 12, 13, 15, 20),
}
"""Tokens at the 5 %, 15 % ... 95 % quantile of the training sets, cut at 128."""
TARGET = {"rte": 2.0, "cola": 4.0}
MAX_LENGTH, SEED, LEARNING_RATE = 128, 0, 2e-4
Seconds = tuple[float, float]
Batches = list[dict[str, torch.Tensor]]


def made(name: str, rows: int, tokenizer: Any) -> TaskData:
    """Random words, each one token, so many that the example has the wanted length."""
    rng = np.random.default_rng(SEED)
    words = sorted(word for word in tokenizer.get_vocab() if word.isascii() and word.isalpha())
    texts = []
    for i in range(rows):
        length = LENGTHS[name][i % 10] - 2
        drawn = rng.choice(words, length)
        cut = max(1, length // 4)
        pair = (" ".join(drawn[cut + 1 :]), " ".join(drawn[:cut]))
        texts.append(pair if name == "rte" else (" ".join(drawn),))
    targets = tuple(float(i % 2) for i in rng.permutation(rows))
    dev = Split(tuple(texts[:4]), targets[:4])
    return TaskData(
        f"{name}-like", "classification", "accuracy", ("a", "b"), Split(tuple(texts), targets), {"dev": dev}, ()
    )


def read(name: str, rows: int, data_dir: Path) -> TaskData:
    """A part of the real training set."""
    return load_task(f"glue/{name}", TaskOptions(data_dir=data_dir, train_size=rows, dev_size=4))


class Clock:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Clock:
        self.start = perf_counter(), process_time()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds = perf_counter() - self.start[0], process_time() - self.start[1]


def timed(run: Callable[[], object]) -> Seconds:
    """What ``Trainer.train`` takes inside of ``run``."""
    clock, train = Clock(), Trainer.train

    def watch(*arguments: Any, **settings: Any) -> Any:
        with clock:
            return train(*arguments, **settings)

    Trainer.train = watch  # type: ignore[method-assign]
    try:
        run()
    finally:
        Trainer.train = train  # type: ignore[method-assign]
    return clock.seconds


def ours(model: Model, task: TaskData, settings: TrainingSettings) -> Callable[[], Seconds]:
    """The lab's trial."""
    tokens = tokenise(model.path, task, MAX_LENGTH)
    trial = Trial.resolve(model, task, PLAIN, SEED, settings)
    return lambda: timed(lambda: run_trial(trial, model.path, tokens))


def new_model(model: Model) -> Any:
    """The model with its new head, as in the trial."""
    set_seed(SEED)
    return AutoModelForSequenceClassification.from_pretrained(model.path, num_labels=2)


def padded(model: Model, task: TaskData, settings: TrainingSettings) -> Callable[[], Seconds]:
    """A straightforward script: every example padded to the maximal length, and Trainer."""
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    rows = [
        tokenizer(*texts, padding="max_length", truncation=True, max_length=MAX_LENGTH) | {"labels": int(target)}
        for texts, target in zip(task.train.texts, task.train.targets, strict=True)
    ]

    def run() -> Seconds:
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(),
            save_strategy="no",
            seed=SEED,
            num_train_epochs=settings.epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        trainer = Trainer(new_model(model), arguments, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        return timed(lambda: trainer.train())

    return run


def bare(model: Model, batches: Batches, settings: TrainingSettings) -> Callable[[], Seconds]:
    """Forward, backward, clip, AdamW, linear schedule; nothing else."""

    def run() -> Seconds:
        network = new_model(model).train()
        with Clock() as clock:
            optimizer = torch.optim.AdamW(
                network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
            )
            schedule = get_linear_schedule_with_warmup(optimizer, 0, len(batches))
            for batch in batches:
                network(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
        return clock.seconds

    return run


def batches_of(run: Callable[[], Seconds]) -> Batches:
    """What the trial trains on, in its order; the first run warms up as well."""
    seen: Batches = []
    step = StackTrainer.training_step

    def watch(self: StackTrainer, model: Any, inputs: dict[str, torch.Tensor], *more: Any) -> torch.Tensor:
        seen.append({name: tensor.to(model.device) for name, tensor in inputs.items()})
        return step(self, model, inputs, *more)

    StackTrainer.training_step = watch  # type: ignore[method-assign]
    try:
        run()
    finally:
        StackTrainer.training_step = step  # type: ignore[method-assign]
    return seen


def main() -> None:
    """Run the three and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = Model.find()
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    settings = TrainingSettings(
        epochs=options.epochs, batch_size=options.batch_size, learning_rate=LEARNING_RATE, max_length=MAX_LENGTH
    )
    print(machine())
    print(
        f"all-MiniLM-L6-v2, {options.rows} rows, {options.epochs} epoch(s), batches of {options.batch_size}, "
        f"{torch.get_num_threads()} thread(s), median of {options.rounds} alternating rounds\n"
    )
    for name, target in TARGET.items():
        task = read(name, options.rows, options.data_dir) if options.data_dir else made(name, options.rows, tokenizer)
        mine = ours(model, task, settings)
        batches = batches_of(mine)
        rivals = {
            "ours": mine,
            "padded to 128": padded(model, task, settings),
            "bare loop": bare(model, batches, settings),
        }
        seconds: dict[str, list[Seconds]] = {rival: [] for rival in rivals}
        for _ in range(options.rounds):
            for rival, run in rivals.items():
                seconds[rival].append(run())
        tokens = sum(int(batch["input_ids"].numel()) for batch in batches)
        print(
            f"{task.name}: {tokens:,} tokens with padding, {options.rows * options.epochs * MAX_LENGTH:,} at 128 each"
        )
        print(f"{'':18}{'wall':>24}{'CPU':>24}")
        for rival, times in seconds.items():
            print(f"  {rival:16}" + "".join(f"{median(kind):22.2f} s" for kind in zip(*times, strict=True)))
        for what, above, below, aim in (
            ("padded / ours", "padded to 128", "ours", f"at least {target:g}"),
            ("ours / bare", "ours", "bare loop", "at most 1.08"),
        ):
            pairs = [zip(*both, strict=True) for both in zip(seconds[above], seconds[below], strict=True)]
            rounds = [[one / other for one, other in pair] for pair in pairs]
            shown = [f"{median(r):.2f} ({min(r):.2f}..{max(r):.2f})" for r in zip(*rounds, strict=True)]
            print(f"  {what:16}{shown[0]:>24}{shown[1]:>24}   target {aim}")
        print(flush=True)


if __name__ == "__main__":
    main()
