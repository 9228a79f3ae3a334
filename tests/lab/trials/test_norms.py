"""What trials record of the weights' movement, against `noisytune diff` on the checkpoints and against plain NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from noisytune._pretrained import Model
from noisytune.checkpoint import diff_checkpoints
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.norms import copies, l1_norms, weights_of
from noisytune.lab.trials.tokens import Tokens
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord


def run(study: Study, tokens: Tokens, arm: Arm, **changes: Any) -> TrialRecord:
    settings = study.training.to_dict() | changes
    trial = Trial.resolve(study.model, study.tasks[0], arm, 0, type(study.training)(**settings))
    return run_trial(trial, study.model.path, tokens)


def test_the_sums_are_those_of_the_checkpoints(tiny: Model, tmp_path: Path) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(tiny.path)
    model.save_pretrained(tmp_path / "before")
    weights = weights_of(model)
    before = copies(weights)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(tmp_path / "after")
    norms = l1_norms(before, weights)
    roles = {change.name: change for change in diff_checkpoints(tmp_path / "before", tmp_path / "after").roles()}
    assert norms.keys() == roles.keys()
    for role, change in roles.items():
        assert norms[role]["elements"] == change.elements
        assert norms[role]["before"] == pytest.approx(change.size, rel=1e-6)
        assert norms[role]["moved"] == pytest.approx(change.changed, rel=1e-4)
    files = load_file(tmp_path / "after" / "model.safetensors")
    total = sum(np.abs(tensor.astype(np.float64)).sum() for tensor in files.values())
    assert sum(role["after"] for role in norms.values()) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("arm", ["plain", "noisytune", "mixout", "noisytune+recadam(t0=2, gamma=100)"])
def test_every_trial_records_them(tiny_study: Study, tiny_tokens: Tokens, arm: str) -> None:
    record = run(tiny_study, tiny_tokens, Arm.parse(arm))
    assert {"query", "key", "value", "feed-forward", "embeddings", "head"} <= record.norms.keys()
    assert all(role["moved"] > 0 for role in record.norms.values())
    assert TrialRecord.from_json(record.to_json(), "here") == record


def test_training_starts_from_the_noised_weights(tiny_study: Study, tiny_tokens: Tokens) -> None:
    plain, noisy = (run(tiny_study, tiny_tokens, arm, max_steps=1) for arm in (PLAIN, Arm.parse("noisytune(2)")))
    assert noisy.norms["query"]["before"] > 1.05 * plain.norms["query"]["before"]
    # The first step of AdamW moves a weight by the learning rate at most, however large the noise.
    for record in (plain, noisy):
        query = record.norms["query"]
        assert 0.5 < query["moved"] / (tiny_study.training.learning_rate * query["elements"]) < 1.001


def test_a_diverged_trial_has_none(tiny_study: Study, tiny_tokens: Tokens) -> None:
    record = run(tiny_study, tiny_tokens, PLAIN, learning_rate=1e30)
    assert (record.status, record.norms) == ("diverged", {})


def test_records_of_earlier_versions_are_read(tiny_study: Study, tiny_tokens: Tokens) -> None:
    record = run(tiny_study, tiny_tokens, PLAIN, max_steps=1)
    earlier = json.loads(record.to_json())
    del earlier["norms"]
    assert TrialRecord.from_json(json.dumps(earlier), "here").norms == {}
