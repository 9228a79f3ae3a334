"""LoRA in trials: the same as TRL and PEFT do, on top of the noise, for every architecture and kind."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_utils import set_seed

from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, task_from_rows
from noisytune.lab.trials.adapter import put_on_
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import check_arms, run_trial
from noisytune.lab.trials.lora import REFUSED, Lora
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord
from noisytune.torch import perturb_
from tests.support.language_models import MORE
from tests.support.trials import a_trial, noisy

pytestmark = [
    pytest.mark.usefixtures("one_thread", "quiet"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # of PEFT
]

NUMBERS = ("one", "two", "three", "four", "five", "six")
ROWS = [{"prompt": f"say {word} {i}: ", "completion": f"{word} {word}"} for i, word in enumerate(NUMBERS * 4)]
TRAINING = TrainingSettings(epochs=2, batch_size=4, learning_rate=1e-3, max_length=256)


@pytest.fixture(scope="module")
def task() -> TaskData:
    return task_from_rows(ROWS, TaskOptions(), dev=ROWS[:4])


@pytest.fixture(scope="module")
def tokens(language_models: dict[str, Model], task: TaskData) -> Tokens:
    return tokenise(language_models["llama"].path, task, TRAINING.max_length)


def run(model: Model, task: TaskData, tokens: Tokens, arm: Arm = PLAIN, seed: int = 0, **settings: Any) -> TrialRecord:
    trial = Trial.resolve(model, task, arm, seed, replace(TRAINING, **settings))
    return run_trial(trial, model.path, tokens)


def trl_losses(model: Model, folder: Path, lora: LoraConfig | None, accumulation: int, **changes: Any) -> list[float]:
    """Of TRL's own trainer with the same settings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what TRL says at its import
        from trl import SFTConfig, SFTTrainer
    arguments = SFTConfig(
        str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        gradient_checkpointing=False,
        learning_rate=1e-3,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        weight_decay=0.01,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        bf16=False,
        seed=3,
        train_sampling_strategy="group_by_length",
        completion_only_loss=True,
        packing=False,
        max_length=256,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **changes,
    )
    set_seed(3)
    loaded = AutoModelForCausalLM.from_pretrained(model.path, dtype=torch.float32)
    trainer = SFTTrainer(
        loaded,
        arguments,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(model.path),
        peft_config=lora,
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore")  # TRL's own
@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("lora", [None, "r=4,alpha=16"])
def test_losses_are_those_of_trl_step_by_step(
    lora: str | None,
    accumulation: int,
    language_models: dict[str, Model],
    task: TaskData,
    tokens: Tokens,
    tmp_path: Path,
) -> None:
    model = language_models["llama"]
    record = run(model, task, tokens, seed=3, lora=lora, gradient_accumulation=accumulation)
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear") if lora else None
    theirs = trl_losses(model, tmp_path, config, accumulation)
    assert len(theirs) == len(record.loss_curve) == 12 // accumulation
    np.testing.assert_allclose(record.loss_curve, theirs, rtol=1e-5)


@pytest.mark.parametrize("architecture", MORE)
def test_every_architecture_takes_it(architecture: str, language_models: dict[str, Model], task: TaskData) -> None:
    model = language_models[architecture]
    tokens = tokenise(model.path, task, 256)
    record = run(model, task, tokens, max_steps=2, lora="r=2,alpha=4")
    told = record.applied["lora"]
    assert 0 < told["trainable"] < told["total"] / 4
    assert record.status == "ok"
    assert sum(role["elements"] for role in record.norms.values()) == told["trainable"]


@pytest.mark.parametrize(
    ("more", "settings"),
    [
        ("dropout=0.1", {"precision": "bf16", "gradient_accumulation": 2}),
        ("dora", {"precision": "bf16"}),
        ("rslora,targets=q_proj|v_proj", {}),
        ("pissa", {"gradient_accumulation": 2}),
    ],
)
def test_no_noise_is_plain_bit_for_bit(
    more: str, settings: dict[str, Any], language_models: dict[str, Model], task: TaskData, tokens: Tokens
) -> None:
    lora = f"r=4,alpha=8,{more}"
    plain, zero, noise = (
        run(language_models["llama"], task, tokens, arm, max_steps=2, lora=lora, **settings)
        for arm in (PLAIN, noisy(0), noisy(0.3))
    )
    assert plain.loss_curve == zero.loss_curve != noise.loss_curve
    for name, array in plain.outputs.items():
        np.testing.assert_array_equal(array, zero.outputs[name])


def test_noise_goes_below_the_adapter(language_models: dict[str, Model]) -> None:
    """On the weights first; PiSSA then starts from what carries it, and PEFT does the same with a noised model."""
    path = language_models["llama"].path
    ours, theirs = (perturb_and_load(path) for _ in range(2))
    put_on_(ours, Lora.read("r=4,alpha=8,pissa"), 5, with_head=False)
    set_seed(5)
    wrapped = get_peft_model(
        theirs, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", init_lora_weights="pissa")
    )
    for (name, one), (_, other) in zip(ours.named_parameters(), wrapped.named_parameters(), strict=True):
        assert torch.equal(one, other), name
        assert one.requires_grad == other.requires_grad, name


def perturb_and_load(path: Path) -> Any:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    perturb_(model, noise_lambda=0.2, seed=1)
    return model


def test_the_adapter_is_one_that_peft_can_keep(language_models: dict[str, Model], tmp_path: Path) -> None:
    """What is put on has PEFT's names: saved by it and loaded by it alone, the outputs are the same."""
    from peft import get_peft_model_state_dict

    path = language_models["llama"].path
    ours = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    put_on_(ours, Lora.read("r=4,alpha=8"), 0, with_head=False)
    torch.manual_seed(0)
    for parameter in ours.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    base = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    theirs = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    renamed = {
        f"base_model.model.{name.replace('.weight', '.default.weight')}": tensor
        for name, tensor in get_peft_model_state_dict(ours).items()
    }
    assert not theirs.load_state_dict(renamed, strict=False).unexpected_keys
    theirs.save_pretrained(tmp_path / "adapter")
    plain = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    again = PeftModel.from_pretrained(plain, tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        assert torch.equal(ours.eval()(ids).logits, again.eval()(ids).logits)


def test_a_classifier_trains_its_new_head_too(tiny_study: Study, tiny_tokens: Tokens) -> None:
    trial = a_trial(tiny_study, lora="r=2,alpha=4")
    record = run_trial(trial, tiny_study.model.path, tiny_tokens)
    assert "head" in record.norms
    assert record.norms["head"]["moved"] > 0
    assert trial.settings["training"]["lora"] == "r=2,alpha=4"
    notices = check_arms(trial, tiny_study.model.path, [()])
    assert any("parameters are trained" in line for line in notices)


def test_keys_know_the_settings_and_not_how_they_are_written() -> None:
    assert "lora" not in TrainingSettings().to_dict()
    one, other = (TrainingSettings(lora=text) for text in ("r=8,alpha=32", {"alpha": 32, "r": 8}))  # type: ignore[arg-type]
    assert one == other
    assert one.to_dict()["lora"] == "r=8,alpha=32"
    assert Lora.read(Lora.read("r=3,targets=a|b,dora,dropout=0.1").text).targets == ("a", "b")
    assert one.for_model(Model("m", Path(), "0")).learning_rate == 2e-4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r=0", "lora: r must be a whole number >= 1, got '0'"),
        ("rank=8", "lora has no setting 'rank'"),
        ("r=8,r=4", "a setting is given twice"),
        ("dora=maybe", "lora: dora must be true or false, got 'maybe'"),
        (3, "lora must be settings such as r=16,alpha=32"),
    ],
)
def test_settings_that_make_no_sense_are_refused(text: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        TrainingSettings(lora=text)


@pytest.mark.parametrize("arm", ["sam", "symnoise", "ema(decay=0.9)"])
def test_methods_work_on_what_is_trained(
    arm: str, language_models: dict[str, Model], task: TaskData, tokens: Tokens
) -> None:
    """The weights below stay as they are; accumulated, and in half precision."""
    how = {"lora": "r=4", "max_steps": 2, "precision": "bf16", "gradient_accumulation": 2}
    plain, one = (run(language_models["llama"], task, tokens, each, **how) for each in (PLAIN, Arm.parse(arm)))
    assert one.status == "ok"
    assert one.norms != plain.norms
    assert one.norms.keys() == plain.norms.keys()


@pytest.mark.parametrize("method", REFUSED)
def test_methods_on_weights_that_are_not_trained_are_refused(
    method: str, language_models: dict[str, Model], task: TaskData
) -> None:
    arm = Arm.parse(method)
    trial = Trial.resolve(language_models["llama"], task, arm, 0, replace(TRAINING, lora="r=4"))
    with pytest.raises(ConfigError, match=f"{method} works on weights that lora does not train"):
        check_arms(trial, language_models["llama"].path, [arm.methods])


def test_layers_that_are_not_there_are_named(language_models: dict[str, Model], task: TaskData) -> None:
    trial = Trial.resolve(language_models["llama"], task, PLAIN, 0, replace(TRAINING, lora="r=4,targets=query"))
    with pytest.raises(ConfigError, match=r"lora r=4,alpha=32,targets=query: .*not found"):
        check_arms(trial, language_models["llama"].path, [()])


@pytest.mark.filterwarnings("ignore")  # TRL's own
def test_neftune_is_that_of_transformers(
    language_models: dict[str, Model], task: TaskData, tokens: Tokens, tmp_path: Path
) -> None:
    record = run(language_models["llama"], task, tokens, Arm.parse("neftune"), seed=3)
    theirs = trl_losses(language_models["llama"], tmp_path, None, 1, neftune_noise_alpha=5.0)
    np.testing.assert_allclose(record.loss_curve, theirs, rtol=1e-5)
    assert not np.allclose(theirs, run(language_models["llama"], task, tokens, seed=3).loss_curve, rtol=1e-5)
