"""The plugin for axolotl, called as its plugin manager does. axolotl itself is too large to be installed for tests."""

from __future__ import annotations

import importlib
import logging
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.torch import perturb_, receipt

NAME = "noisytune.integrations.axolotl"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Any:
    base = ModuleType("axolotl.integrations.base")
    base.BasePlugin = type("BasePlugin", (), {})  # type: ignore[attr-defined]
    for name, module in {
        "axolotl": ModuleType("axolotl"),
        "axolotl.integrations": ModuleType("i"),
        base.__name__: base,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    yield importlib.import_module(NAME).NoisyTunePlugin()
    sys.modules.pop(NAME, None)


def test_it_adds_what_perturb_adds_once(
    plugin: Any, language_models: dict[str, Model], caplog: pytest.LogCaptureFixture
) -> None:
    load = AutoModelForCausalLM.from_pretrained
    model, expected = (load(language_models["llama"].path) for _ in range(2))
    cfg = {"seed": 3, "noisytune": {"noise_lambda": 0.1}}
    plugin.pre_model_load(cfg)
    with caplog.at_level(logging.WARNING):
        plugin.post_model_build(cfg, model)
        plugin.post_model_build(cfg, model)
    perturb_(expected, noise_lambda=0.1, seed=3)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    first, second = caplog.messages
    assert "seed 3 (of axolotl's seed)" in first
    assert "already: none was added" in second


def test_a_rank_without_weights_is_marked(plugin: Any) -> None:
    model = torch.nn.Linear(4, 4, device="meta")
    plugin.post_model_build({"noisytune": {"seed": 5}}, model)
    assert receipt(model) is not None
    assert receipt(model)["seed"] == 5  # type: ignore[index]


def test_it_says_what_cannot_be_before_weights_are_read(plugin: Any) -> None:
    with pytest.raises(ConfigError, match=r"load_in_4bit quantises.*noisytune perturb base DIR"):
        plugin.pre_model_load({"load_in_4bit": True, "base_model": "base"})
    with pytest.raises(ConfigError, match="noise_lambda"):
        plugin.pre_model_load({"noisytune": {"noise_lambda": -1}})
    module = sys.modules[NAME]
    assert plugin.get_input_args() == f"{NAME}.NoisyTuneArgs"
    assert module.NoisyTuneArgs(noisytune={"noise_lambda": 0.1}).noisytune == {"noise_lambda": 0.1}


def test_without_axolotl_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "axolotl", None)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    with pytest.raises(MissingExtraError, match="pip install axolotl"):
        importlib.import_module(NAME)


def test_an_adapter_is_merged_onto_the_weights_with_their_noise(plugin: Any) -> None:
    """By default axolotl merges files, without a model that a plugin could see."""
    noise = {"noisytune": {"noise_lambda": 0.1}}
    asked: dict[str, Any] = {"merge_lora": True} | noise
    for cfg in (asked, {"merge_lora": True, "noisytune": {"noise_lambda": 0}}, dict(noise)):
        plugin.register(cfg)
        assert cfg.get("merge_method") == ("legacy" if cfg is asked else None)
