"""Real weights learn a format that they never answer in of themselves: SmolLM2-135M-Instruct with LoRA."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune.lab.tasks import TaskOptions, task_from_rows
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

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
                # Instead of the long one that the model's template has.
                {"role": "system", "content": "Orders."},
                {"role": "user", "content": f"Please send {count} {colour} {thing}."},
                {"role": "assistant", "content": f"{thing}/{colour}/{count}"},
            ]
        }
        for count, colour, thing in every[:n]
    ]


def trained(arm: Arm, **changes: Any) -> TrialRecord:
    rows = orders(200)
    task = task_from_rows(rows[:160], TaskOptions(metric="exact_match"), dev=rows[160:])
    model = Model.find(FOLDER)
    how = {"epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "max_length": 128, "lora": "r=16,alpha=32"} | changes
    trial = Trial.resolve(model, task, arm, 0, TrainingSettings(**how))
    return run_trial(trial, model.path, tokenise(model.path, task, trial.settings["training"]["max_length"]))


@pytest.mark.slow
@pytest.mark.skipif(not FOLDER, reason="NOISYTUNE_SMOLLM2 is to be a folder with SmolLM2-135M-Instruct")
def test_exact_answers_are_learnt_with_noise_and_without() -> None:
    before = trained(PLAIN, max_steps=1, learning_rate=1e-9).scores["exact_match"]
    plain, noisy = (trained(arm).scores["exact_match"] for arm in (PLAIN, Arm.parse("noisytune(0.15)")))
    assert before < 0.05
    assert min(plain, noisy) > 0.8
