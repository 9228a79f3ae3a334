"""QLoRA: noise, then four bits, then LoRA's matrices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

import noisytune.torch
from noisytune._pretrained import Model
from noisytune.checkpoint import perturb_checkpoint
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.lab.tasks import TaskOptions, task_from_rows
from noisytune.lab.trials.arguments import refuse_machine
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.quantised import quantise_
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trial import Trial
from tests.support.trials import noisy

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")
LORA = TrainingSettings(max_steps=2, batch_size=4, learning_rate=1e-3, max_length=64, lora="r=2,alpha=4")
QLORA = TrainingSettings(**LORA.to_dict() | {"quantize": "nf4"})


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_the_codes_are_those_of_a_noisy_checkpoint_that_is_quantised_while_it_loads(
    architecture: str, language_models: dict[str, Model], tmp_path: Path
) -> None:
    clean = language_models[architecture].path
    perturb_checkpoint(clean, tmp_path / "noisy", noise_lambda=0.1, seed=3)
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "noisy", quantization_config=how).state_dict()
    model = AutoModelForCausalLM.from_pretrained(clean)
    noisytune.torch.perturb_(model, noise_lambda=0.1, seed=3)
    held = quantise_(model, QLORA)
    ours = model.state_dict()
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name].cpu(), tensor.cpu(), rtol=0, atol=0, msg=name)
    codes = (tensor for name, tensor in theirs.items() if name.endswith(".weight") and tensor.dtype == torch.uint8)
    assert held == sum(2 * tensor.numel() for tensor in codes)


@pytest.mark.filterwarnings("ignore:inner dimension .32. is not aligned:UserWarning")  # a GPU's, of so small a model
def test_a_trial_trains_above_four_bits(language_models: dict[str, Model]) -> None:
    model = language_models["llama"]
    task = task_from_rows([{"prompt": f"say {i}", "completion": " one two"} for i in range(10)], TaskOptions())
    tokens = tokenise(model.path, task, 64)
    plain, zero, noise, whole = (
        run_trial(Trial.resolve(model, task, arm, 1, how), model.path, tokens)
        for arm, how in ((PLAIN, QLORA), (noisy(0), QLORA), (noisy(0.5), QLORA), (PLAIN, LORA))
    )
    assert plain.loss_curve == zero.loss_curve
    assert plain.scores == zero.scores
    assert len({tuple(record.loss_curve) for record in (plain, noise, whole)}) == 3
    assert plain.loss_curve == pytest.approx(whole.loss_curve, rel=0.05), "four bits are near the weights"
    told = plain.applied["lora"]
    assert 0 < told.pop("quantised") < told["total"]
    assert told == whole.applied["lora"]
    assert plain.status == "ok"


def test_what_does_not_go_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import bitsandbytes

    import noisytune.errors

    assert "quantize" not in LORA.to_dict()
    with pytest.raises(ConfigError, match=r"quantize holds weights in four bits.*give lora too"):
        TrainingSettings(quantize="nf4")
    with pytest.raises(ConfigError, match="leave pissa or quantize out"):
        TrainingSettings(quantize="nf4", lora="r=2,alpha=4,pissa")
    monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"xpu"})
    with pytest.raises(ConfigError, match="computes on xpu, and this machine has cpu"):
        refuse_machine(QLORA)
    monkeypatch.setattr(noisytune.errors, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'noisytune\[quantize\]'"):
        refuse_machine(QLORA)


def test_a_model_of_which_nothing_would_be_quantised_is_refused(language_models: dict[str, Model]) -> None:
    model = AutoModelForCausalLM.from_pretrained(language_models["gpt2"].path)
    with pytest.raises(ConfigError, match=r"quantize nf4: the model GPT2LMHeadModel has no .*: leave quantize out"):
        quantise_(model, QLORA)
