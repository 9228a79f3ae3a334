"""Real weights learn a format that they never answer in of themselves: SmolLM2-135M-Instruct with LoRA."""

from __future__ import annotations

import os
import random

import pytest

from noisytune._pretrained import Model
from noisytune.lab.tasks import TaskOptions, task_from_rows
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trial import Trial

FOLDER = os.environ.get("NOISYTUNE_SMOLLM2", "")
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "brown", "grey")
THINGS = ("apples", "boxes", "chairs", "pens", "shirts", "cups", "books", "lamps", "hats", "shoes")


def orders(n: int) -> list[dict[str, object]]:
    """``Please send 6 yellow hats.`` is answered by ``hats/yellow/6``."""
    every = [(count, colour, thing) for count in range(2, 30) for colour in COLOURS for thing in THINGS]
    random.Random(0).shuffle(every)
    return [
        {
            "messages": [
                {"role": "user", "content": f"Please send {count} {colour} {thing}."},
                {"role": "assistant", "content": f"{thing}/{colour}/{count}"},
            ]
        }
        for count, colour, thing in every[:n]
    ]


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="NOISYTUNE_SMOLLM2 is to be a folder with SmolLM2-135M-Instruct")
def test_exact_answers_are_learnt() -> None:
    rows = orders(232)
    task = task_from_rows(rows[:192], TaskOptions(metric="exact_match"), dev=rows[192:])
    model = Model.find(FOLDER)
    tokens = tokenise(model.path, task, 128)
    short = TrainingSettings(max_steps=1, batch_size=8, max_length=128, lora="r=16,alpha=32", learning_rate=1e-9)
    long = TrainingSettings(epochs=2, batch_size=8, max_length=128, lora="r=16,alpha=32", learning_rate=1e-3)
    before, after = (run_trial(Trial.resolve(model, task, PLAIN, 0, how), model.path, tokens) for how in (short, long))
    assert before.scores["exact_match"] < 0.05
    assert after.scores["exact_match"] > 0.8
