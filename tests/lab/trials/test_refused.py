"""Weights, noises and code that a trial refuses, and heads that it replaces."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import noisytune.torch
from noisytune.errors import AlreadyPerturbedError, ConfigError, DataError, NonFiniteError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials import fine_tune as training
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.tokens import Tokens
from tests.support.trials import a_trial, noisy

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


def test_nan_in_the_weights_is_refused_in_every_arm(tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][3, 4] = math.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for arm in (PLAIN, noisy(0.15)):
        with pytest.raises(NonFiniteError, match=r"encoder\.layer\.0\.output\.dense\.weight"):
            run_trial(a_trial(tiny_study, arm), folder, tiny_tokens)


def test_a_head_that_starts_infinite_is_not_blamed_on_the_checkpoint(
    tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens
) -> None:
    folder = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"initializer_range": 3e38}))
    for arm in (PLAIN, noisy(0.15)):
        with pytest.raises(
            NonFiniteError, match=r"classifier\.weight has \d+ values .*: a bad initialisation, not the"
        ):
            run_trial(a_trial(tiny_study, arm), folder, tiny_tokens)


def test_weights_of_another_model_are_refused(tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    weights = {f"other.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="none of its weights fit"):
        run_trial(a_trial(tiny_study), folder, tiny_tokens)


@pytest.mark.parametrize(
    "auto_map", [{}, {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Own"}]
)
def test_code_that_comes_with_a_model_is_not_run(
    tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens, auto_map: dict[str, str]
) -> None:
    folder = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    settings = json.loads((folder / "config.json").read_text()) | {"model_type": "own", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match="code that comes with a model is never run") as caught:
        run_trial(a_trial(tiny_study), folder, tiny_tokens)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_weights_that_carry_noise_are_not_given_more(tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_study.model.path)
    noisytune.torch.perturb_(model, noise_lambda=0.1)
    model.save_pretrained(tmp_path)
    for file in tiny_study.model.path.glob("*token*"):
        shutil.copy(file, tmp_path)
    shutil.copy(tiny_study.model.path / "vocab.txt", tmp_path)
    with pytest.raises(AlreadyPerturbedError):
        run_trial(a_trial(tiny_study, noisy(0.15)), tmp_path, tiny_tokens)


def state_of(model: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_noises_are_checked_without_adding_any(tiny_study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Any] = []
    load = training._load

    def watch(*args: Any) -> Any:
        loaded.append(load(*args))
        loaded.append(state_of(loaded[0]))
        return loaded[0]

    monkeypatch.setattr(training, "_load", watch)
    trial, folder = a_trial(tiny_study), tiny_study.model.path
    arms = [noisy(0.1), noisy(0.3, scale="global"), noisy(0.1, include="*query*"), noisy(0.0, scope="all")]
    training.check_arms(trial, folder, [arm.methods for arm in arms])
    model, before = loaded
    assert noisytune.torch.receipt(model) is None
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"include": "*qeury*"}, r"include: '\*qeury\*' matches none"),
        ({"exclude": ("*query*", "*wrod*")}, r"exclude: '\*wrod\*' matches none"),
        ({"exclude": "*"}, "no tensor is left to perturb"),
        ({"include": "classifier.*"}, "no tensor is left to perturb"),
    ],
)
def test_a_noise_that_cannot_be_is_refused(tiny_study: Study, settings: dict[str, Any], said: str) -> None:
    arms = [arm.methods for arm in (noisy(0.1), noisy(0.1, **settings))]
    with pytest.raises(ConfigError, match=said) as caught:
        training.check_arms(a_trial(tiny_study), tiny_study.model.path, arms)
    assert "\n" not in str(caught.value)
