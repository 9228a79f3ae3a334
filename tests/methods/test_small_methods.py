"""Layer-wise decay, L2-SP, re-initialisation, Child-Tuning, R-Drop, R3F, HyPe and NEFTune against what they promise."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import rel_entr, softmax
from torch import nn

from noisytune.errors import ConfigError
from noisytune.methods import Run, parse
from noisytune.methods._blocks import blocks, depth_of, token_embeddings
from noisytune.methods.child_tuning import fisher, largest, mask_gradients_
from noisytune.methods.hype import attach_, noise_like
from noisytune.methods.l2sp import attach_ as pull_
from noisytune.methods.llrd import layer_groups
from noisytune.methods.r3f import EmbeddingNoise, r3f_loss
from noisytune.methods.rdrop import rdrop_loss
from noisytune.methods.reinit import reinit_

from .conftest import FAMILIES, batches, load, start, state_of

Checkpoints = dict[str, Path]

# --- where a parameter lies ---

DEPTHS = {
    "bert": {
        "bert.embeddings.word_embeddings.weight": 3,
        "bert.embeddings.LayerNorm.bias": 3,
        "bert.encoder.layer.0.attention.self.query.weight": 2,
        "bert.encoder.layer.1.output.LayerNorm.weight": 1,
        "bert.pooler.dense.weight": 0,
        "classifier.weight": 0,
    },
    "roberta": {"roberta.embeddings.word_embeddings.weight": 3, "classifier.out_proj.bias": 0},
    "xlnet": {
        "transformer.word_embedding.weight": 3,
        "transformer.mask_emb": 3,
        "transformer.layer.0.rel_attn.q": 2,
        "transformer.layer.1.ff.layer_1.weight": 1,
        "logits_proj.weight": 0,
    },
    "gpt2": {
        "transformer.wte.weight": 3,
        "transformer.wpe.weight": 3,
        "transformer.h.0.attn.c_attn.weight": 2,
        "transformer.h.1.mlp.c_fc.bias": 1,
        "transformer.ln_f.weight": 0,
        "score.weight": 0,
    },
    "t5": {
        "transformer.shared.weight": 5,
        "transformer.encoder.block.0.layer.0.SelfAttention.q.weight": 4,
        "transformer.decoder.block.0.layer.0.SelfAttention.q.weight": 2,
        "transformer.decoder.block.1.layer.2.DenseReluDense.wi.weight": 1,
        "classification_head.dense.weight": 0,
    },
}


@pytest.mark.parametrize("family", FAMILIES)
def test_depth_of_each_part(checkpoints: Checkpoints, family: str) -> None:
    model = load(checkpoints[family])
    depth, named = depth_of(model), dict(model.named_parameters())
    assert {name: depth[named[name]] for name in DEPTHS[family]} == DEPTHS[family]
    assert len(depth) == len(named)
    assert len(blocks(model)) == (4 if family == "t5" else 2)


def test_a_model_without_blocks_is_refused() -> None:
    for arm in ("llrd", "reinit", "hype", "child_tuning"):
        with pytest.raises(ConfigError, match="Linear has no list of transformer blocks"):
            parse(arm)[0].check(Run(nn.Linear(2, 2)))
    for arm in ("neftune", "r3f"):
        with pytest.raises(ConfigError, match="no get_input_embeddings"):
            parse(arm)[0].check(Run(nn.Linear(2, 2)))


def test_token_embeddings_of_t5_are_those_that_are_called(checkpoints: Checkpoints) -> None:
    model = load(checkpoints["t5"])
    called: list[nn.Module] = []
    for part in model.modules():
        if isinstance(part, nn.Embedding) and part.num_embeddings == 50:
            part.register_forward_hook(lambda module, *_: called.append(module))
    model(**batches(1)[0])
    assert called
    assert set(called) <= set(token_embeddings(model))


# --- layer-wise learning-rate decay ---


@pytest.mark.parametrize("family", FAMILIES)
def test_learning_rates_fall_by_layer(checkpoints: Checkpoints, family: str) -> None:
    model = load(checkpoints[family])
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    groups = layer_groups(
        model,
        [{"params": wide, "lr": 2.0, "weight_decay": 0.1}, {"params": narrow, "lr": 1.0, "weight_decay": 0.0}],
        0.5,
    )
    named = {id(p): name for name, p in model.named_parameters()}
    seen = {named[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert len(seen) == len(named) == sum(len(group["params"]) for group in groups)
    for name, depth in DEPTHS[family].items():
        rate, decay = (2.0, 0.1) if dict(model.named_parameters())[name].ndim > 1 else (1.0, 0.0)
        assert seen[name] == (rate * 0.5**depth, decay)


# --- L2-SP ---


@given(st.floats(1e-4, 0.5), st.floats(0, 1))
def test_l2sp_pulls_by_a_known_factor(rate: float, strength: float) -> None:
    body, head = (nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64)) for _ in range(2))
    optimizer = torch.optim.SGD([body, head], lr=rate)
    pull_(optimizer, {body: torch.ones(2, dtype=torch.float64)}, strength)
    body.grad, head.grad = torch.zeros_like(body), torch.zeros_like(head)
    optimizer.step()
    share = rate * strength
    torch.testing.assert_close(body.detach() - 1, torch.tensor([1.0, -2.0], dtype=torch.float64) * (1 - share))
    torch.testing.assert_close(head.detach(), torch.tensor([2.0, -1.0], dtype=torch.float64) * (1 - share))


def test_l2sp_takes_the_place_of_weight_decay(checkpoints: Checkpoints) -> None:
    loop = start(checkpoints["bert"], "l2sp(strength=0)")
    assert {group["weight_decay"] for group in loop.optimizer.param_groups} == {0.0}
    for parameter in loop.stack.run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = state_of(loop.stack.run.model)
    loop.optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state_of(loop.stack.run.model).items())


# --- re-initialisation ---


@pytest.mark.parametrize("family", FAMILIES)
def test_the_top_is_drawn_again_and_the_rest_stays(checkpoints: Checkpoints, family: str) -> None:
    model, other = load(checkpoints[family]), load(checkpoints[family])
    before, random = state_of(model), torch.get_rng_state()
    drawn = reinit_(model, 1, seed=5)
    assert torch.equal(torch.get_rng_state(), random)
    assert reinit_(other, 1, seed=5) == drawn
    depth, named = depth_of(model), dict(model.named_parameters())
    top = {name for name, p in named.items() if depth[p] == 1 or "pooler" in name}
    assert set(drawn) == top
    changed = {name for name, tensor in state_of(model).items() if not torch.equal(tensor, before[name])}
    # Biases and layer norms of a model that never trained are as they start.
    assert changed == {name for name in changed if name in top}
    assert {name for name in top if named[name].ndim > 1} <= changed
    assert all(torch.equal(tensor, state_of(other)[name]) for name, tensor in state_of(model).items())
    for name in changed:
        if named[name].numel() > 200 and family in ("bert", "roberta"):
            assert float(named[name].detach().std()) == pytest.approx(0.02, rel=0.25)


def test_trained_norms_and_biases_start_again(checkpoints: Checkpoints) -> None:
    model = load(checkpoints["bert"])
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5)
    reinit_(model, 2, seed=0)
    for name, p in model.bert.named_parameters():
        if "encoder" in name or "pooler" in name:
            if "LayerNorm" in name:
                assert set(p.tolist()) == {1.0 if name.endswith("weight") else 0.0}
            elif p.ndim == 1:
                assert set(p.tolist()) == {0.0}
        elif "LayerNorm.weight" in name:
            assert set(p.tolist()) == {1.5}


def test_noise_and_anchors_leave_out_what_was_drawn_again(checkpoints: Checkpoints) -> None:
    loop = start(checkpoints["bert"], "reinit(layers=1)+noisytune(0.5)+recadam(gamma=20)")
    alone = start(checkpoints["bert"], "reinit(layers=1)")
    state, other = state_of(loop.stack.run.model), state_of(alone.stack.run.model)
    top = {name for name in state if "layer.1" in name or "pooler" in name}
    assert all(torch.equal(state[name], other[name]) for name in top)
    assert not torch.equal(
        state["bert.encoder.layer.0.output.dense.weight"], other["bert.encoder.layer.0.output.dense.weight"]
    )
    assert not top & set(loop.stack.run.anchors["noised"])


def test_more_layers_than_there_are(checkpoints: Checkpoints) -> None:
    with pytest.raises(ConfigError, match="layers is 3, but the model has 2 blocks"):
        parse("reinit(layers=3)")[0].check(Run(load(checkpoints["bert"])))


# --- Child-Tuning ---


@given(
    hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0, 1e6, width=32)),
    hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(0, 2, width=32)),
    st.floats(0.01, 1),
)
def test_the_largest_values_are_those_of_a_sort(one: Any, other: Any, share: float) -> None:
    masks = largest([torch.tensor(one), torch.tensor(other)], share)
    values = np.concatenate([one, other])
    wanted = math.ceil(share * values.size)
    threshold = np.sort(values)[-wanted]
    expected = (values >= threshold) & (values > 0)
    assert torch.cat(masks).tolist() == expected.tolist()


def test_fisher_information_is_that_of_single_gradients(checkpoints: Checkpoints) -> None:
    model = load(checkpoints["bert"])
    data, p = batches(3), model.bert.encoder.layer[0].output.dense.weight
    random = torch.get_rng_state()
    model.train()
    found = fisher(model, data, [p])[0]
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    assert p.grad is None
    model.eval()
    squares = [torch.autograd.grad(model(**batch).loss, p)[0].square() for batch in data]
    torch.testing.assert_close(found, torch.stack(squares).mean(0))
    with pytest.raises(ConfigError, match="at least one training batch"):
        fisher(model, [], [p])
    with torch.no_grad():
        p[0, 0] = math.nan
    with pytest.raises(ConfigError, match="Fisher information is not finite"):
        fisher(model, data, [p])


def test_the_child_learns_and_the_rest_does_not(checkpoints: Checkpoints) -> None:
    loop = start(checkpoints["bert"], "child_tuning(mode=D, p=0.2)")
    masks = loop.stack.run.kept["child_tuning"]
    named = {name: loop.stack.run.model.get_parameter(name) for name in masks}
    total = sum(p.numel() for p in named.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert loop.facts["child_tuning"]["learning"] == kept
    assert kept == pytest.approx(0.2 * total, rel=0.01)
    assert all(".layer." in name for name in named)
    loop.run(1)
    for name, p in named.items():
        assert bool((p.grad[~masks[name]] == 0).all())
        assert bool((p.grad[masks[name]] != 0).any()) == bool(masks[name].any())


def test_task_free_masks_keep_their_share_and_expectation() -> None:
    p = nn.Parameter(torch.zeros(400, 500))
    p.grad = torch.ones_like(p)
    mask_gradients_({"w": p}, 0.3, seed=1, step=7)
    kept = p.grad.clone()
    assert {round(value, 5) for value in kept.unique().tolist()} == {0.0, round(1 / 0.3, 5)}
    assert float(kept.mean()) == pytest.approx(1.0, abs=6 * (0.7 / 0.3) ** 0.5 / 200_000**0.5)
    for seed, step, name, same in ((1, 7, "w", True), (2, 7, "w", False), (1, 8, "w", False), (1, 7, "v", False)):
        p.grad = torch.ones_like(p)
        mask_gradients_({name: p}, 0.3, seed=seed, step=step)
        assert torch.equal(p.grad, kept) == same


# --- R-Drop and R3F ---


def passes(*logits: Any, labels: Any) -> Any:
    """A model that gives these logits one after the other."""
    left = [torch.tensor(one, dtype=torch.float64, requires_grad=True) for one in logits]

    def compute(_: Any) -> Any:
        found = left.pop(0)
        return SimpleNamespace(logits=found, loss=nn.functional.cross_entropy(found, torch.tensor(labels)))

    return compute


arrays = hnp.arrays(np.float64, (4, 3), elements=st.floats(-5, 5))


@given(arrays, arrays, st.floats(0.1, 5))
def test_rdrop_is_the_written_out_loss(one: Any, other: Any, alpha: float) -> None:
    labels = [0, 2, 1, 1]
    p, q = softmax(one, axis=1), softmax(other, axis=1)
    entropy = sum(-np.log(x[range(4), labels]).mean() for x in (p, q)) / 2
    apart = (rel_entr(p, q).sum(1).mean() + rel_entr(q, p).sum(1).mean()) / 2
    loss = rdrop_loss({}, passes(one, other, labels=labels), alpha)
    assert float(loss.detach()) == pytest.approx(entropy + alpha * apart, rel=1e-4, abs=1e-5)


@given(arrays, arrays, st.floats(0.1, 5))
def test_r3f_is_the_written_out_loss(one: Any, other: Any, lam: float) -> None:
    labels = [0, 2, 1, 1]
    p, q = softmax(one, axis=1), softmax(other, axis=1)
    apart = rel_entr(p, q).sum(1).mean() + rel_entr(q, p).sum(1).mean()
    noise: Any = SimpleNamespace(on=False)
    loss = r3f_loss({}, passes(one, other, labels=labels), noise, lam)
    assert float(loss.detach()) == pytest.approx(-np.log(p[range(4), labels]).mean() + lam * apart, rel=1e-4, abs=1e-5)
    assert noise.on is False


def test_regression_compares_values() -> None:
    def compute(values: list[list[float]]) -> Any:
        left = [torch.tensor(one).unsqueeze(1) for one in values]
        return lambda _: SimpleNamespace(logits=left.pop(0), loss=torch.tensor(0.0))

    values = [[1.0, 2.0], [1.5, 2.0]]
    assert float(rdrop_loss({}, compute(values), 2.0, regression=True)) == pytest.approx(2.0 * 0.125)
    noise: Any = SimpleNamespace(on=False)
    assert float(r3f_loss({}, compute(values), noise, 1.0, regression=True)) == pytest.approx(2 * 0.125)


@pytest.mark.parametrize("family", FAMILIES)
def test_r3f_noise_reaches_the_embeddings_and_nothing_stays(checkpoints: Checkpoints, family: str) -> None:
    model, batch = load(checkpoints[family]).eval(), batches(1)[0]
    clean = model(**batch).logits
    noise = EmbeddingNoise(model, eps=0.05)
    assert torch.equal(model(**batch).logits, clean)
    noise.on = True
    assert not torch.equal(model(**batch).logits, clean)
    noise.remove()
    assert torch.equal(model(**batch).logits, clean)


# --- HyPe and NEFTune ---


@pytest.mark.parametrize("family", FAMILIES)
def test_each_block_gets_other_noise(checkpoints: Checkpoints, family: str) -> None:
    model, batch = load(checkpoints[family]), batches(1)[0]
    inputs: list[torch.Tensor] = []

    def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
        inputs.append((args[0] if args else kwargs["hidden_states"]).detach().clone())

    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    seen = [block.register_forward_pre_hook(keep, with_kwargs=True) for block in blocks(model)]
    model.train()
    for module in model.modules():
        if isinstance(vars(module).get("dropout"), float):
            module.dropout = 0.0
    model(**batch)
    clean, inputs = inputs, []
    for handle in seen:
        handle.remove()
    attach_(model, 0.25)
    for block in blocks(model):
        block.register_forward_pre_hook(keep, with_kwargs=True)
    model(**batch)
    first = inputs[0] - clean[0]
    assert 0.2 < float(first.abs().max()) <= 0.25001
    assert not any(torch.allclose(one, other, atol=1e-3) for one, other in zip(inputs, clean, strict=True))
    model.eval()
    inputs.clear()
    model(**batch)
    assert all(torch.allclose(one, other, atol=1e-5) for one, other in zip(inputs, clean, strict=True))


def test_noise_has_the_stated_size() -> None:
    like = torch.zeros(100_000)
    torch.manual_seed(0)
    uniform, gaussian = noise_like(like, 0.5, "uniform"), noise_like(like, 0.5, "gaussian")
    assert float(uniform.abs().max()) <= 0.5
    assert float(uniform.std()) == pytest.approx(0.5 / 3**0.5, rel=0.02)
    assert float(gaussian.std()) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("family", FAMILIES)
def test_neftune_noise_is_alpha_over_root_length_times_width(checkpoints: Checkpoints, family: str) -> None:
    """T5 is where the hook of ``TrainingArguments`` reaches a module that is never called."""
    loop = start(checkpoints[family], "neftune(alpha=5)")
    model, batch = loop.stack.run.model, batches(1)[0]
    part = next(part for part in token_embeddings(model))
    model.train()
    found = part(batch["input_ids"]) - part.weight[batch["input_ids"]]
    bound = 5 / (8 * 16) ** 0.5
    assert 0.9 * bound < float(found.abs().max().detach()) <= 1.001 * bound
    model.eval()
    assert torch.equal(part(batch["input_ids"]), part.weight[batch["input_ids"]])


def test_no_gpu_is_seeded_by_what_draws_on_the_processor(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.manual_seed seeds every GPU there is, and nobody puts their state back."""
    seeded = list[int]()
    model, state = load(checkpoints["bert"]), torch.get_rng_state()
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    assert reinit_(model, 1, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    assert not seeded


def test_fisher_information_of_half_precision_does_not_vanish() -> None:
    """Squares of gradients below 2e-4 are 0 in float16, and a sum of like squares stops growing in bfloat16."""

    class Linear(nn.Module):
        def __init__(self, dtype: torch.dtype) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3, dtype=dtype))

        def forward(self, x: torch.Tensor) -> Any:
            return SimpleNamespace(loss=(self.weight * x).sum())

    for dtype, size, count in ((torch.float16, 1e-4, 2), (torch.bfloat16, 0.5, 1000)):
        model = Linear(dtype)
        data = [{"x": torch.full((3,), size, dtype=dtype)}] * count
        (found,) = fisher(model, data, [model.weight])
        np.testing.assert_allclose(found, np.full(3, float(data[0]["x"][0]) ** 2), rtol=1e-4)


def test_a_step_that_the_loss_scaler_skips_pulls_nothing() -> None:
    weight, scaler = nn.Parameter(torch.ones(2)), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.0, fused=True)
    pull_(optimizer, {}, strength=1.0, head_strength=0.5)
    for gradient, left in ((math.inf, 1.0), (0.0, 0.5)):
        scaler.scale(weight.sum()).backward()
        weight.grad = torch.full((2,), gradient)
        scaler.step(optimizer)
        scaler.update()
        assert weight.tolist() == [left, left]
