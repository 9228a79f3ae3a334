"""Whole scripts on real weights and real text, by `noisytune compare --command`.

The scores are those of running them by hand, on the clean weights and on what `noisytune perturb` writes.
"""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from noisytune.checkpoint import perturb_checkpoint
from noisytune.lab.store import Store
from noisytune.lab.tasks import TaskOptions, load_task

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "examples"
CASES = {
    "trainer": (
        "own_trainer.py --model_name_or_path {model} --seed {seed} --output_dir {out} --train_file train.csv "
        "--dev_file dev.csv --max_steps 12",
        ["--score", "eval_accuracy"],
        lambda out, said: json.loads((out / "all_results.json").read_text())["eval_accuracy"],
    ),
    "loop": (
        "own_loop.py {model} {out} train.csv dev.csv --seed {seed} --steps 12",
        ["--score", "accuracy"],
        lambda out, said: float(re.findall(r"accuracy: ([0-9.]+)", said)[-1]),
    ),
    "keras": (
        "own_keras.py",
        ["--score", "dev.accuracy", "--env", "TRAIN=train.csv", "--env", "DEV=dev.csv", "--env", "KERAS_BACKEND=jax"],
        lambda out, said: json.loads((out / "metrics.json").read_text())["dev"]["accuracy"],
    ),
}


@pytest.fixture
def texts(tmp_path):
    task = load_task("topics", TaskOptions(train_size=96, dev_size=48))
    for name, split in (("train", task.train), ("dev", task.dev)):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "label"])
            writer.writerows(
                [text, task.labels[int(target)]] for (text,), target in zip(split.texts, split.targets, strict=True)
            )
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_script_gives_what_it_gives_by_hand(name, texts, minilm):
    if name == "keras":
        pytest.importorskip("keras", reason="the script is Keras'")
    command, options, read = CASES[name]
    command = f"{sys.executable} {EXAMPLES}/{command}"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}

    def run(words, more=None):
        return subprocess.run(
            words, cwd=texts, env=environment | (more or {}), capture_output=True, text=True, check=True, timeout=1200
        ).stdout

    call = [sys.executable, "-m", "noisytune", "compare", "--command", command, "--model", str(minilm.path), *options]
    said = run([*call, "--seeds", "2", "--workers", "1", "--out", "run"])
    assert "after 2 pairs" in said
    store = Store(texts / "run")
    study = store.read_study()
    records = {(record.arm, record.seed): record for record in store.records()}
    assert len(records) == 4
    assert study.tasks[0]["facts"]["rerun"]["floor"] == 0

    perturb_checkpoint(minilm.path, texts / "noisy", noise_lambda=0.15, seed=1)
    for arm, seed, model in (("plain", 0, minilm.path), ("noisytune(0.15)", 1, texts / "noisy")):
        out = texts / f"by-hand-{seed}"
        out.mkdir()
        filled = command.format(model=model, seed=seed, out=out).split()
        told = {"NOISYTUNE_MODEL": str(model), "NOISYTUNE_SEED": str(seed), "NOISYTUNE_OUT": str(out)}
        told |= dict(option.split("=") for option in options[2:] if "=" in option)
        by_hand = read(out, run(filled, told))
        assert records[arm, seed].scores[options[1]] == by_hand
    if name == "loop":
        assert "| Task | Arm | Seed | Only the arm is right" in (texts / "run/report.md").read_text()
