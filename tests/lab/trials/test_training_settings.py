"""Settings that large models need: each does what it says on a CPU, or is refused before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import checkpoint
from transformers import AutoModelForSequenceClassification

from noisytune._pretrained import Model
from noisytune.errors import ConfigError
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials import arguments
from noisytune.lab.trials.arguments import arguments_of, optimizer_of
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import check_arms, run_trial
from noisytune.lab.trials.settings import OPTIMIZERS, SCHEDULES, TrainingSettings
from noisytune.lab.trials.tokens import Tokens, tokenise
from noisytune.lab.trials.trainer import StackTrainer
from noisytune.methods import Run, Stack
from noisytune.records import TrialRecord
from tests.support.tiny_models import save_model
from tests.support.trials import SHORT, a_trial, outcome

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


@pytest.fixture
def run(tiny_study: Study, tiny: Model, tiny_tokens: Tokens) -> Callable[..., TrialRecord]:
    return lambda arm=PLAIN, **changes: run_trial(a_trial(tiny_study, arm, **changes), tiny.path, tiny_tokens)


@pytest.fixture
def still(tmp_path: Path, save_tiny: Callable[..., Path]) -> Path:
    """A model without dropout, by which runs could differ."""
    return save_tiny(tmp_path / "still", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def test_defaults_are_no_part_of_a_trial() -> None:
    later = {"optimizer", "logging", "precision", "gradient_accumulation", "gradient_checkpointing", "attention"}
    assert not {*later, "compile"} & set(TrainingSettings().to_dict())
    assert TrainingSettings(precision="bf16").to_dict()["precision"] == "bf16"


@pytest.mark.parametrize("arm", ["plain", "rdrop"])
def test_accumulated_batches_are_one_batch(
    still: Path, tiny_study: Study, tiny_tokens: Tokens, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 examples: two steps of 24 and 16, in halves of 12, 12, 12 and 4."""
    monkeypatch.setattr("noisytune.methods._dropout.active", lambda _: True)
    monkeypatch.setattr("noisytune.methods.rdrop.torch.equal", lambda *_: False)  # the two passes are
    arms = {"arm": Arm.parse(arm), "weight_decay": 0.1}
    whole, halves = (
        run_trial(a_trial(tiny_study, **arms, batch_size=size, gradient_accumulation=n), still, tiny_tokens)
        for size, n in ((24, 1), (12, 2))
    )
    assert len(whole.loss_curve) == len(halves.loss_curve) == 2
    np.testing.assert_allclose(halves.loss_curve, whole.loss_curve, rtol=1e-5)
    assert halves.predictions == whole.predictions


def test_methods_see_accumulated_gradients_once_a_step(
    run: Callable[..., TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(Stack, "gradient_", lambda stack: seen.append(stack.run.step))
    record = run(gradient_accumulation=3, batch_size=5, epochs=2)
    assert seen == list(range(6))
    assert len(record.loss_curve) == TrainingSettings(epochs=2, batch_size=5, gradient_accumulation=3).steps(40) == 6


def test_activations_are_computed_twice_and_nothing_else(
    run: Callable[..., TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout: it is the same both times."""
    plain, seen = run(max_steps=2), []
    original = checkpoint.checkpoint

    def watch(*args: Any, **settings: Any) -> Any:
        seen.append(settings["use_reentrant"])
        return original(*args, **settings)

    monkeypatch.setattr("transformers.modeling_utils.checkpoint", watch)
    saved = run(gradient_checkpointing=True, max_steps=2)
    assert seen == [False] * 2 * len(plain.loss_curve)
    assert outcome(saved) == outcome(plain)


def test_half_precision_multiplies_and_keeps_the_weights(
    run: Callable[..., TrialRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    products: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    weights = set()
    forward = torch.nn.Linear.forward

    def watch(layer: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        found = forward(layer, given)
        products[layer.training].add(found.dtype)
        weights.add(layer.weight.dtype)
        return found

    plain = run(max_steps=2)
    monkeypatch.setattr(torch.nn.Linear, "forward", watch)
    half = run(precision="bf16", max_steps=2)
    assert products == {True: {torch.bfloat16}, False: {torch.bfloat16}}, "in training and in scoring"
    assert weights == {torch.float32}
    assert half.loss_curve != plain.loss_curve
    np.testing.assert_allclose(half.loss_curve, plain.loss_curve, rtol=0.02)


def test_the_environment_does_not_set_the_precision(
    trainer: Callable[..., StackTrainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert trainer().accelerator.mixed_precision == "no"


def test_attention_is_computed_as_asked(still: Path, tiny_study: Study, tiny_tokens: Tokens) -> None:
    seen: list[str] = []

    class Watch(Stack):
        def begin_(self) -> Any:
            config: Any = self.run.model.config
            seen.append(config._attn_implementation)
            return super().begin_()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noisytune.lab.trials.fine_tune.Stack", Watch)
        eager, sdpa = (
            run_trial(a_trial(tiny_study, attention=how, max_steps=2), still, tiny_tokens).loss_curve
            for how in ("eager", "sdpa")
        )
    assert seen == ["eager", "sdpa"]
    np.testing.assert_allclose(eager, sdpa, rtol=1e-5)


@pytest.fixture
def trainer(tiny: Model) -> Callable[..., StackTrainer]:
    """One that does not train."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny.path)

    def make(**changes: Any) -> StackTrainer:
        settings = replace(SHORT, **changes)
        kind = optimizer_of(settings)
        return StackTrainer(
            Stack((), Run(model)), model, arguments_of(settings, 0, "name"), optimizer_cls_and_kwargs=kind
        )

    return make


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_are_those_of_torch(trainer: Callable[..., StackTrainer], name: str) -> None:
    asked = trainer(optimizer=name, weight_decay=0.25)
    optimizer = asked.create_optimizer()
    assert type(optimizer) is getattr(torch.optim, name)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0.0]
    assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
    parameter = optimizer.param_groups[0]["params"][0]
    before = parameter.detach().clone()
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert not torch.equal(parameter, before)


def test_another_optimizer_trains(run: Callable[..., TrialRecord]) -> None:
    sgd, adamw = run(optimizer="SGD", max_steps=2), run(max_steps=2)
    assert 0 < sgd.norms["embeddings"]["moved"] < adamw.norms["embeddings"]["moved"]


def test_every_other_optimizer_of_torch_is_left_out_for_a_reason() -> None:
    every = {name for name, one in vars(torch.optim).items() if isinstance(one, type) and name != "Optimizer"}
    # Sparse gradients only; a closure; matrices only; whole batches, without weight decay.
    assert every - set(OPTIMIZERS) == {"SparseAdam", "LBFGS", "Muon", "Rprop"}


RATES: dict[str, Callable[[int, int], float]] = {
    "linear": lambda step, steps: 1 - step / steps,
    "cosine": lambda step, steps: (1 + math.cos(math.pi * step / steps)) / 2,
    "constant": lambda step, steps: 1.0,
    "inverse_sqrt": lambda step, steps: math.sqrt(2 / (step + 2)),
}
"""By step after the warm-up, which has 2 steps."""


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_by_step(trainer: Callable[..., StackTrainer], schedule: str) -> None:
    asked = trainer(schedule=schedule, warmup=0.2)
    optimizer = asked.create_optimizer()
    following, rates = asked.create_scheduler(10, optimizer), []
    for _ in range(10):
        rates.append(following.get_last_lr()[0])
        optimizer.step()
        following.step()
    after = [RATES[schedule](i, 8) for i in range(8)]
    np.testing.assert_allclose(rates, [0.0, 0.5e-3, *(1e-3 * rate for rate in after)], atol=1e-12)


def test_losses_looked_at_now_and_then_are_means(run: Callable[..., TrialRecord]) -> None:
    """Ten steps by fours: the last two are a mean of their own."""
    each, some = run(epochs=2), run(epochs=2, logging=4)
    by_hand = [np.mean(part) for part in np.split(each.loss_curve, [4, 8])]
    np.testing.assert_allclose(some.loss_curve, np.repeat(by_hand, [4, 4, 2]), rtol=1e-6)
    assert some.predictions == each.predictions


def test_a_loss_that_is_not_finite_ends_the_trial_at_the_next_look(run: Callable[..., TrialRecord]) -> None:
    record = run(learning_rate=1e38, weight_decay=10.0, epochs=4, logging=3)
    assert record.status == "diverged"
    assert len(record.loss_curve) in (0, 3)


REFUSED = {
    "precision fp16 needs a GPU": {"precision": "fp16"},
    "attention flash_attention_2 needs a GPU": {"attention": "flash_attention_2", "precision": "bf16"},
    "attention flex_attention needs a GPU": {"attention": "flex_attention"},
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
@pytest.mark.parametrize("said", REFUSED)
def test_what_a_cpu_cannot_do_is_refused(
    run: Callable[..., TrialRecord], tiny_study: Study, tiny: Model, said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        check_arms(a_trial(tiny_study, **REFUSED[said]), tiny.path, [])
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=said):
        run(**REFUSED[said])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gradient_checkpointing": True}, "gradient_checkpointing: XLNetForSequenceClassification does not"),
        ({"attention": "sdpa"}, "attention sdpa does not go with model"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    tmp_path: Path, tiny_study: Study, topics: TaskData, settings: dict[str, Any], said: str
) -> None:
    folder = save_model("xlnet", tmp_path / "xlnet", (texts[0] for texts in topics.train.texts))
    with pytest.raises(ConfigError, match=said) as caught:
        check_arms(a_trial(tiny_study, **settings), folder, [])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arm", "settings", "said"),
    [
        ("mixout+rdrop", {"gradient_checkpointing": True}, r"mixout\+rdrop under gradient checkpointing"),
        ("mixout+r3f", {"gradient_checkpointing": True}, r"mixout\+r3f under gradient checkpointing"),
        ("mixout+symnoise", {"gradient_checkpointing": True}, r"mixout\+symnoise under gradient checkpointing"),
        ("noisytune(soup=2)", {"lora": "r=4"}, "soup with lora"),
        ("noisytune+recadam", {"optimizer": "SGD"}, "recadam is an optimizer of its own: leave optimizer=SGD out"),
    ],
)
def test_what_a_method_cannot_do_is_refused(
    run: Callable[..., TrialRecord], tiny_study: Study, tiny: Model, arm: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_arms(a_trial(tiny_study, **settings), tiny.path, [Arm.parse(arm).methods])
    with pytest.raises(ConfigError, match=said):
        run(Arm.parse(arm), **settings)


def test_compiling_without_a_compiler_is_refused(
    tiny_study: Study, tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arguments, "_compiler", lambda gpu: False)
    with pytest.raises(ConfigError, match=r"compile needs .* and this machine has none"):
        check_arms(a_trial(tiny_study, compile=True), tiny.path, [])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside of torch.compile
@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.slow
def test_a_compiled_model_learns_the_same(still: Path, tiny_study: Study, topics: TaskData, precision: str) -> None:
    tokens = tokenise(still, topics, 32)
    study = replace(tiny_study, training=replace(tiny_study.training, precision=precision))
    plain, compiled = (
        run_trial(a_trial(study, Arm.parse("noisytune"), compile=on), still, tokens) for on in (False, True)
    )
    np.testing.assert_allclose(compiled.loss_curve, plain.loss_curve, rtol=1e-4 if precision == "float32" else 2e-2)
    assert np.mean(np.array(compiled.predictions) == np.array(plain.predictions)) > 0.9
