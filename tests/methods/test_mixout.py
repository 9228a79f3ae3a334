"""Mixout's expectation and masks, and what public codes get wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from noisytune.errors import ConfigError
from noisytune.methods import mixout

from .conftest import FAMILIES, batches, load, state_of


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.mark.parametrize("mask", ["column", "row", "element"])
def test_the_expectation_of_the_mixture_is_the_weight(mask: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2).double())
    anchors = {q: q.detach() + 1.0 for q in model.parameters()}
    weight = model[0].weight.detach().clone()
    mixout.attach_(model, 0.7, mask=mask, anchors=anchors)
    torch.manual_seed(0)
    total = torch.zeros(2, 3, dtype=torch.float64)
    n = 4000
    for _ in range(n):
        model(torch.zeros(1, 3, dtype=torch.float64))
        total += model[0].weight.detach()
    # One draw is off by 1 * sqrt(p / (1 - p)) on average; six standard errors.
    assert float((total / n - weight).abs().max()) < 6 * (0.7 / 0.3) ** 0.5 / n**0.5


LAYERS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, tuple[int, ...]]]] = {
    "linear": (lambda: nn.Linear(6, 4), "weight", {"column": (1, 6), "row": (4, 1), "element": (4, 6)}),
    "conv1d": (lambda: Conv1D(4, 6), "weight", {"column": (6, 1), "row": (1, 4), "element": (6, 4)}),
    "attention": (
        lambda: nn.MultiheadAttention(6, 2),
        "in_proj_weight",
        {"column": (1, 6), "row": (18, 1), "element": (18, 6)},
    ),
}


@pytest.mark.parametrize("mask", ["column", "row", "element"])
@pytest.mark.parametrize("layer", LAYERS)
def test_masks_have_the_shape_of_their_inputs(layer: str, mask: str) -> None:
    make, name, shapes = LAYERS[layer]
    model = nn.Sequential(make())
    mixout.attach_(model, 0.5, mask=mask)
    mix: Any = getattr(model[0].parametrizations, name)[0]
    mix.draw()
    assert mix.kept.shape == shapes[mask]
    assert set(mix.kept.unique().tolist()) <= {0.0, 2.0}


def test_xlnet_masks_the_inputs_of_its_projections(checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints["xlnet"])
    mixout.attach_(model, 0.5)
    attention = model.transformer.layer[0].rel_attn
    for name, shape in {"q": (16, 1, 1), "k": (16, 1, 1), "v": (16, 1, 1), "r": (16, 1, 1), "o": (1, 2, 8)}.items():
        assert attention.parametrizations[name][0].mask_shape == shape
    assert not hasattr(attention, "parametrizations.r_w_bias")


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_weights_of_the_body_are_mixed_and_nothing_else(checkpoints: dict[str, Path], family: str) -> None:
    model = load(checkpoints[family])
    plain = {id(p): name for name, p in model.named_parameters()}
    count = mixout.attach_(model, 0.5)
    mixed = {plain[id(p)] for name, p in model.named_parameters() if name.endswith(".original")}
    assert len(mixed) == count
    linear = {
        name
        for name, p in load(checkpoints[family]).base_model.named_parameters()
        if p.ndim > 1 and not any(part in name for part in ("embed", "shared", "wte", "wpe", "relative_attention_bias"))
    }
    linear -= {name for name in linear if name.endswith(("_bias", "seg_embed", "mask_emb"))}
    assert mixed == {f"{model.base_model_prefix}.{name}" for name in linear}


def test_one_mask_for_each_forward_pass_however_often_the_weight_is_read() -> None:
    """A parametrisation alone draws at each read, so that a layer would see several weights in one pass."""
    model = net().float()
    mixout.attach_(model, 0.5, anchors={q: q.detach() + 1.0 for q in model.parameters()})
    seen = []
    for _ in range(6):
        model(torch.zeros(1, 5))
        assert torch.equal(model[0].weight, model[0].weight)
        seen.append(model[0].weight.detach().clone())
    assert len({tuple(weight.flatten().tolist()) for weight in seen}) > 1


def test_attention_is_mixed_in_training_and_plain_in_evaluation() -> None:
    """``out_proj`` of MultiheadAttention is read without being called, and evaluation takes another path."""
    model = nn.Sequential(nn.MultiheadAttention(6, 2, batch_first=True))

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.inner[0](x, x, x, need_weights=False)[0]
            return found

    whole, x = Whole(), torch.randn(2, 3, 6)
    plain = copy.deepcopy(whole).eval()
    assert mixout.attach_(whole, 0.5, anchors={q: q.detach() + 1.0 for q in whole.parameters()}) == 2
    outputs = [whole(x) for _ in range(4)]
    assert not all(torch.equal(outputs[0], output) for output in outputs)
    mixes = [module for module in whole.modules() if isinstance(module, mixout.Mix)]
    assert all(mix.kept is not None for mix in mixes)
    with torch.no_grad():
        torch.testing.assert_close(whole.eval()(x), plain(x))


def test_dropout_goes_off_in_the_body_and_stays_on_in_the_head(checkpoints: dict[str, Path]) -> None:
    """Public codes forget the rates that attention keeps as plain numbers, such as T5's."""
    for family in FAMILIES:
        model = load(checkpoints[family])
        numbers = [module for module in model.base_model.modules() if isinstance(vars(module).get("dropout"), float)]
        assert bool(numbers) == (family == "t5")
        inside = set(model.base_model.modules())
        head = [module for module in model.modules() if isinstance(module, nn.Dropout) and module not in inside]
        rates = [module.p for module in head]
        mixout.attach_(model, 0.5)
        body = [module.p for module in model.base_model.modules() if isinstance(module, nn.Dropout)]
        assert set(body) == {0.0}
        assert all(module.dropout == 0.0 for module in numbers)
        assert [module.p for module in head] == rates
        mixout.detach_(model)
        assert all(module.dropout == 0.1 for module in numbers)


def test_tied_weights_are_left_alone() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5), nn.Linear(5, 4))
    model[1].weight = model[0].weight
    assert [module for module, *_ in mixout.mixable(model)] == [model[2]]
    mixout.attach_(model, 0.5)
    assert model[1].weight is model[0].weight


def test_a_checkpoint_saved_while_attached_loads_into_a_plain_model(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Keys of a parametrised model would load as a random one, with nothing but a warning."""
    model = load(checkpoints["gpt2"])
    mixout.attach_(model, 0.5)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.01)
    model.save_pretrained(tmp_path)
    again, told = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    mixout.detach_(model)
    assert all(torch.equal(tensor, state_of(model)[name]) for name, tensor in state_of(again).items())


def test_loading_while_attached_is_strict() -> None:
    model, other = net(), net(1)
    mixout.attach_(model, 0.5)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model[0].parametrizations.weight.original, other[0].weight)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict({"0.bias": other[0].bias.detach()})


def test_the_anchor_follows_the_model(checkpoints: dict[str, Path]) -> None:
    model = load(checkpoints["bert"])
    mixout.attach_(model, 0.5)
    model.to(torch.bfloat16)
    batch = batches(1)[0]
    assert model(**batch).logits.dtype == torch.bfloat16


def test_gradient_checkpointing_sees_the_masks_of_the_forward_pass(checkpoints: dict[str, Path]) -> None:
    gradients = []
    for recompute in (False, True):
        model = load(checkpoints["bert"])
        mixout.attach_(model, 0.5, anchors={p: p.detach() + 0.1 for p in model.base_model.parameters()})
        if recompute:
            enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
            enable({"use_reentrant": False})
        model.train()
        torch.manual_seed(0)
        model(**batches(1)[0]).loss.backward()
        gradients.append([p.grad.clone() for p in model.bert.encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_what_cannot_be_is_refused() -> None:
    for p in (-0.1, 1.0):
        with pytest.raises(ConfigError, match="p must be 0 <= p < 1"):
            mixout.attach_(net(), p)
    with pytest.raises(ConfigError, match="mask must be"):
        mixout.attach_(net(), 0.5, mask="columns")
    with pytest.raises(ConfigError, match="has no pretrained linear layer"):
        mixout.attach_(nn.Sequential(nn.Embedding(3, 3)), 0.5)
    model = net()
    mixout.attach_(model, 0.5)
    with pytest.raises(ConfigError, match="attached already"):
        mixout.attach_(model, 0.5)


def test_a_base_model_that_is_called_alone_has_new_masks(checkpoints: dict[str, Path]) -> None:
    model, seen = load(checkpoints["bert"]), list[torch.Tensor]()
    mixout.attach_(model, 0.5, anchors={p: p.detach() + 1.0 for p in model.base_model.parameters()})
    model.train()
    dense = model.bert.encoder.layer[0].output.dense
    for _ in range(2):
        model.base_model(batches(1)[0]["input_ids"])
        seen.append(dense.weight.detach().clone())
    assert not torch.equal(seen[0], dense.parametrizations.weight.original)
    assert not torch.equal(*seen)
