"""What `attach` adds to the start of a training: from train() to the first step, with and without, alternating.

python benchmarks/attach.py [--rounds 5]
"""

import argparse
import tempfile
from collections.abc import Iterator
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

import torch
from describe import machine
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from noisytune.integrations.transformers import attach

TARGET = 1.0
"""Seconds more, for 110M parameters, once the kernels are compiled."""


class Clock(TrainerCallback):
    """When the training loop is reached."""

    begun = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self.begun = perf_counter()


def start(model: torch.nn.Module, folder: str, noise_lambda: float | None) -> float:
    """Seconds from train() to the first step."""
    arguments = TrainingArguments(
        folder, max_steps=1, report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no"
    )
    clock, example = Clock(), {"input_ids": torch.ones(4, dtype=torch.long), "labels": torch.tensor(1)}
    trainer = Trainer(model, arguments, train_dataset=[example] * 2, callbacks=[clock])
    if noise_lambda is not None:
        attach(trainer, noise_lambda=noise_lambda)
    begin = perf_counter()
    trainer.train()
    return clock.begun - begin


def models() -> Iterator[torch.nn.Module]:
    """BERT-base, each time one without a receipt."""
    for seed in count():
        torch.manual_seed(seed)
        yield BertForSequenceClassification(BertConfig())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    print(machine())
    seconds: dict[float | None, list[float]] = {None: [], 0.15: []}
    fresh = models()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for noise_lambda, times in seconds.items():
                times.append(start(next(fresh), folder, noise_lambda))
    more = [attached - plain for plain, attached in zip(seconds[None], seconds[0.15], strict=True)]
    print(f"from train() to the first step, 110M parameters: plain {median(seconds[None][1:]):.2f} s")
    print(f"  attached, first in the process (kernels come from the cache): {more[0]:+.2f} s")
    print(f"  attached, median of {rounds}: {median(more[1:]):+.2f} s (target below {TARGET:+.2f} s)")


if __name__ == "__main__":
    main()
