"""TRL's trainers are transformers' Trainer underneath: SFT and DPO on a tiny Llama-style model."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from noisytune.integrations.transformers import attach, load_adapter
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

trl = pytest.importorskip("trl", reason="TRL is not installed")

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402

SETTINGS = {"noise_lambda": 0.3, "seed": 5}
LINES = ["the noise is small", "the model is large", "a seed is a number", "the weights are noised before training"] * 8
pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture
def arguments(tmp_path):
    return {
        "output_dir": str(tmp_path / "run"),
        "max_steps": 12,
        "save_steps": 12,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
        "logging_steps": 4,
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "disable_tqdm": True,
    }


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def noised(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    perturb_(model, **SETTINGS)
    return model


def test_sft_learns_and_the_checkpoint_reloads(llama, arguments, at_start, same, weights):
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    trainer = trl.SFTTrainer(
        model,
        trl.SFTConfig(max_length=16, **arguments),
        train_dataset=Dataset.from_dict({"text": LINES}),
        callbacks=[at_start],
    )
    attach(trainer, **SETTINGS).train()
    assert same(at_start.weights[0], weights(noised(llama)))
    assert losses(trainer)[-1] < 0.8 * losses(trainer)[0]
    reloaded = AutoModelForCausalLM.from_pretrained(f"{arguments['output_dir']}/checkpoint-12")
    assert same(weights(reloaded), weights(trainer.model))
    assert receipt(reloaded)["seed"] == 5


def test_an_adapter_of_sft_finds_its_noise_again(llama, arguments):
    """SFTTrainer puts the adapter on when it is made; the base below gets the noise all the same."""
    trainer = trl.SFTTrainer(
        AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32),
        trl.SFTConfig(max_length=16, **arguments),
        train_dataset=Dataset.from_dict({"text": LINES}),
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    attach(trainer, **SETTINGS).train()
    folder = f"{arguments['output_dir']}/checkpoint-12"
    assert Manifest.read(folder).config.seed == 5
    tokens = torch.arange(1000, 1010)[None]
    loaded = load_adapter(AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32), folder)
    with torch.no_grad():
        expected = trainer.model.eval()(tokens).logits
        assert torch.equal(loaded.eval()(tokens).logits, expected)
        clean = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
        clean.load_adapter(folder)
        assert not torch.equal(clean.eval()(tokens).logits, expected)


def test_the_reference_of_dpo_is_clean(llama, arguments, at_start, same, weights):
    """TRL loads it from the model's path; the policy gets the noise."""
    model = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    pairs = {"prompt": LINES, "chosen": [" yes"] * len(LINES), "rejected": [" no"] * len(LINES)}
    trainer = trl.DPOTrainer(
        model,
        args=trl.DPOConfig(max_length=16, **arguments | {"learning_rate": 1e-3}),
        train_dataset=Dataset.from_dict(pairs),
        processing_class=AutoTokenizer.from_pretrained(llama),
        callbacks=[at_start],
    )
    attach(trainer, **SETTINGS).train()
    assert same(at_start.weights[0], weights(noised(llama)))
    assert losses(trainer)[-1] < losses(trainer)[0]
    clean = weights(AutoModelForCausalLM.from_pretrained(llama))
    reference = weights(trainer.accelerator.unwrap_model(trainer.ref_model))
    assert all(torch.equal(reference[name].float(), value.float()) for name, value in clean.items())
