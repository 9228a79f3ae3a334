"""What may not change unnoticed: trial keys, help pages, public names, files, and pages of a folder written long ago.

A change that is meant rewrites a file by deleting it and running this module; the difference then shows in the commit.
Trial keys and the folder of format 1 are never rewritten: finished trials would be lost to their users.
"""

import importlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import typer.main
from typer.testing import CliRunner

from noisytune._pretrained import Model
from noisytune.checkpoint import perturb_checkpoint
from noisytune.cli import app
from noisytune.lab.store import Store
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.report import render_html, render_markdown

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = sorted(typer.main.get_command(app).commands)


def same(name, content):
    """The content is the golden file's; a file that is missing is written, and the test fails once."""
    file = GOLDEN / name
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        pytest.fail(f"{file} was missing and is written now: look at it, and commit it")
    assert content == file.read_text(encoding="utf-8")


PAIRS = Split((("one", "two"), ("three", "four"), ("five", "six"), ("seven", "eight")), (0.0, 1.0, 1.0, 0.0))
VALUES = Split((("one",), ("two",), ("three",), ("four",)), (0.5, 1.5, -2.0, 3.25))
CLASSES = TaskData("pairs", "classification", "accuracy", ("no", "yes"), PAIRS, {"dev": PAIRS}, ())
REGRESSION = TaskData("values", "regression", "pearson", (), VALUES, {"dev": VALUES}, ())
TWO_SPLITS = {"dev": PAIRS, "mismatched": PAIRS}
TWO_DEV_SETS = TaskData("two", "classification", "matthews", ("no", "yes"), PAIRS, TWO_SPLITS, ())
MODEL = Model("bert", Path("bert"), "0123456789abcdef")
OLD = TrainingSettings(learning_rate=5e-5, warmup=0.0, weight_decay=0.0)
"""The defaults when the keys were written down."""
TRIALS = {
    "plain": (CLASSES, PLAIN, 0, OLD),
    "another seed": (CLASSES, PLAIN, 7, OLD),
    "noise": (CLASSES, Arm.parse("noisytune"), 0, OLD),
    "every setting of the noise": (
        CLASSES,
        Arm.parse("noisytune(0.1, distribution=gaussian, scale=global, scope=all)"),
        1,
        OLD,
    ),
    "two methods": (CLASSES, Arm.parse("noisytune(0.15)+mixout(p=0.8)"), 2, OLD),
    "recadam": (CLASSES, Arm.parse("recadam(t0=20)"), 0, OLD),
    "regression": (REGRESSION, Arm.parse("noisytune"), 0, replace(OLD, learning_rate=2e-5)),
    "every setting of the training": (
        CLASSES,
        PLAIN,
        0,
        TrainingSettings(
            epochs=5,
            learning_rate=1,
            batch_size=8,
            max_length=64,
            warmup=0.06,
            weight_decay=0.01,
            max_grad_norm=2.0,
            max_steps=9,
        ),
    ),
    "best epoch": (CLASSES, PLAIN, 0, replace(OLD, select="best", protocol="clean")),
    "a second dev set": (TWO_DEV_SETS, PLAIN, 0, replace(OLD, select="best")),
    "an arm with a training of its own": (
        CLASSES,
        Arm("l2sp", Arm.parse("l2sp").methods, {"learning_rate": 3e-5, "epochs": 7}),
        0,
        OLD,
    ),
}


def test_trial_keys():
    keys = {name: Trial.resolve(MODEL, task, *rest).key for name, (task, *rest) in TRIALS.items()}
    same("trial_keys.json", json.dumps(keys, indent=1) + "\n")


@pytest.mark.parametrize("page", ["--help", *(f"{command} --help" for command in COMMANDS), "compare --help-all"])
def test_help_pages(page):
    result = CliRunner().invoke(app, page.split(), terminal_width=80, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert result.exit_code == 0
    text = "\n".join(line.rstrip() for line in result.output.splitlines())
    name = page.removesuffix("--help").strip().replace(" --help", "") or "noisytune"
    same(f"help/{name}.txt", text.strip() + "\n")


def test_public_names():
    for line in (GOLDEN / "public_names.txt").read_text().split():
        module, _, name = line.partition(":")
        assert not name or getattr(importlib.import_module(module), name) is not None, line


def test_bytes_of_a_perturbed_checkpoint(tmp_path):
    """The manifest and the weights, on a checkpoint that says nothing of the machine."""
    rng = np.random.default_rng(0)
    weights = {
        "bert.embeddings.word_embeddings.weight": rng.standard_normal((9, 4), np.float32),
        "bert.encoder.query.weight": rng.standard_normal((6, 5), np.float32).astype(np.float16),
        "classifier.bias": rng.standard_normal(3),
        "bert.constant": np.full(7, 1 / 3, np.float32),
        "bert.one": np.ones(1, np.float32),
        "bert.embeddings.position_ids": np.arange(5),
    }
    (tmp_path / "clean").mkdir()
    safetensors.numpy.save_file(weights, tmp_path / "clean/model.safetensors", {"format": "pt"})
    (tmp_path / "clean/config.json").write_text('{"model_type": "bert", "pad_token_id": 2}')
    perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", noise_lambda=0.3, seed=7)
    written = (tmp_path / "noisy/noisytune.json").read_text()
    # Sums differ between processors: six digits of what was added are certain.
    same("noisytune.json", re.sub(r"\d+\.\d{13,}", lambda number: f"{float(number[0]):.5g}", written) + "\n")
    same("perturbed.hex", (tmp_path / "noisy/model.safetensors").read_bytes().hex() + "\n")


def without_figures(html):
    return re.sub(r"<svg.*?</svg>", "<svg/>", html, flags=re.DOTALL)


def test_a_run_folder_of_format_1_renders(tmp_path):
    shutil.copytree(GOLDEN / "run-format-1", tmp_path / "run")
    store = Store(tmp_path / "run")
    study, records = store.read_study(), store.records()
    assert len(records) == len(study.trials)
    same("report.md", render_markdown(study, records))
    same("report.html", without_figures(render_html(study, records)))
