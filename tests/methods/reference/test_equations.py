"""Every method trains as its equations say: sixty steps in float64 beside a second implementation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch.func import functional_call

from methods.conftest import Loop, batches
from noisytune.methods import METHODS, Run, Stack, parse
from noisytune.methods.child_tuning import mask_gradients_
from noisytune.methods.mixout import Mix

from . import equations as eq
from .training import DECAY, STEPS, Batch, adamw, by_hand, model_of, moments, rate_at

Checkpoints = dict[str, Path]
COVERED = {
    "recadam",
    "l2sp",
    "mixout",
    "child_tuning",
    "rdrop",
    "r3f",
    "hype",
    "neftune",
    "ema",
    "sam",
    "symnoise",
    "llrd",
    "noisytune",
    "reinit",
}


def slowly(*values: str) -> list[Any]:
    """Parameters of a test that run in the slow set."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def ours(folder: Path, arm: str, dropout: float = 0.0, steps: int = STEPS) -> Any:
    """The model of an arm after sixty steps."""
    run = Run(model_of(folder, dropout), seed=0, batches=lambda: batches())
    loop = Loop(Stack(parse(arm), run))
    torch.manual_seed(1)
    loop.run(steps)
    loop.stack.end_()
    return run.model


def apart(one: Any, other: Any) -> float:
    """The largest difference between two models' weights."""
    named = dict(other.named_parameters())
    assert named.keys() == dict(one.named_parameters()).keys()
    return max(float((p - named[name]).detach().abs().max()) for name, p in one.named_parameters())


def stars(folder: Path) -> dict[str, eq.Array]:
    """The pretrained weights by name; the head has none."""
    model = model_of(folder)
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters() if name.startswith("bert.")}


def test_every_method_is_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(METHODS) <= tested


@pytest.mark.parametrize("anneal", ["sigmoid", *slowly("linear", "constant")])
def test_recadam(checkpoints: Checkpoints, anneal: str) -> None:
    """Body and head: the head is plain Adam."""
    folder, star = checkpoints["bert"], stars(checkpoints["bert"])
    model = model_of(folder)
    kept = moments(model)

    def step(name: str, theta: eq.Array, g: eq.Array, t: int) -> eq.Array:
        lam = eq.weight_of_the_task(anneal, t, k=0.2, t0=20, w=1.0)
        direction = eq.adam_direction(g, *kept[name], t)
        decay = DECAY if theta.ndim > 1 else 0.0
        return eq.recadam_step(theta, star.get(name), direction, rate_at(t), lam, 1.0, 50.0, decay)

    arm = f"recadam(anneal={anneal}, k=0.2, t0=20, gamma=50)"
    assert apart(ours(folder, arm), by_hand(model, batches(), step)) < 1.6e-14


def test_l2sp(checkpoints: Checkpoints) -> None:
    folder, star = checkpoints["bert"], stars(checkpoints["bert"])
    model = model_of(folder)
    kept = moments(model)

    def step(name: str, theta: eq.Array, g: eq.Array, t: int) -> eq.Array:
        # Adam as Kingma & Ba have it: eps beside the corrected sqrt(v).
        m, v = kept[name]
        m[...] = 0.9 * m + 0.1 * g
        v[...] = 0.999 * v + 0.001 * g * g
        theta = theta - rate_at(t) * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        return eq.l2sp_pull(theta, star.get(name), rate_at(t), strength=5.0, head_strength=0.5)

    assert apart(ours(folder, "l2sp(strength=5, head_strength=0.5)"), by_hand(model, batches(), step)) < 1e-13


@pytest.mark.parametrize("mask", ["column", *slowly("row", "element")])
def test_mixout(checkpoints: Checkpoints, mask: str) -> None:
    """The masks are those that ours drew; the mixture and its gradient are the reference's."""
    folder, p = checkpoints["bert"], 0.6
    run = Run(model_of(folder))
    loop = Loop(Stack(parse(f"mixout(p={p}, mask={mask})"), run))
    mixes = {name: part for name, part in run.model.named_modules() if isinstance(part, Mix)}
    other = model_of(folder)
    anchors = {name: q.detach().clone() for name, q in other.named_parameters()}
    worst = 0.0

    def loss_of(batch: Batch) -> torch.Tensor:
        nonlocal worst
        (loss,) = loop.run(1)
        weights = dict(other.named_parameters())
        for name, mix in mixes.items():
            weight = name.replace("parametrizations.", "").removesuffix(".0")
            stays = (mix.kept > 0).double()  # type: ignore[operator]
            weights[weight] = eq.mixture(weights[weight], anchors[weight], stays, p)
        output = functional_call(other, weights, kwargs=batch)
        worst = max(worst, abs(float(output.loss.detach()) - loss))
        return output.loss

    adamw(other, batches(), loss_of)
    loop.stack.end_()
    assert len(mixes) == 13, "six in each of two layers, and the pooler"
    assert worst < 1.8e-15
    assert apart(run.model, other) < 1e-13


def test_child_tuning(checkpoints: Checkpoints) -> None:
    """The masks are the same for the same batches, and so is the training."""
    folder, share = checkpoints["bert"], 0.3
    model = model_of(folder).eval()
    squares = {name: np.zeros(p.shape) for name, p in model.named_parameters() if ".layer." in name}
    for batch in batches():
        model.zero_grad()
        model(**batch).loss.backward()
        for name, p in model.named_parameters():
            if name in squares:
                squares[name] += p.grad.numpy() ** 2 / len(batches())
    masks = eq.most_informative(squares, share)
    stack = Stack(parse(f"child_tuning(p={share})"), Run(model_of(folder), batches=batches))
    stack.begin_()
    for name, mask in stack.run.kept["child_tuning"].items():
        assert np.array_equal(mask.numpy(), masks[name]), name

    def masked(t: int) -> None:
        for name, p in model.named_parameters():
            if name in masks:
                p.grad *= torch.from_numpy(masks[name])

    assert apart(ours(folder, f"child_tuning(p={share})"), adamw(model, batches(), mask=masked)) == 0


def test_task_free_child_tuning(checkpoints: Checkpoints) -> None:
    """g * M / p with the masks that ours drew."""
    folder, share = checkpoints["bert"], 0.3
    model = model_of(folder)

    def masked(t: int) -> None:
        for name, p in model.named_parameters():
            if name.startswith("bert."):
                drawn = torch.nn.Parameter(torch.zeros_like(p))
                drawn.grad = torch.ones_like(p)
                mask_gradients_({name: drawn}, share, seed=0, step=t - 1)
                p.grad = p.grad * (drawn.grad > 0) / share

    assert apart(ours(folder, f"child_tuning(mode=F, p={share})"), adamw(model, batches(), mask=masked)) < 1e-14


def test_rdrop(checkpoints: Checkpoints) -> None:
    folder, alpha = checkpoints["bert"], 0.7
    model = model_of(folder, dropout=0.1)

    def loss_of(batch: Batch) -> torch.Tensor:
        p, q = model(**batch).logits, model(**batch).logits
        labels = batch["labels"]
        return (eq.entropy(p, labels) + eq.entropy(q, labels)) / 2 + alpha * eq.divergence(p, q) / 2

    assert apart(ours(folder, f"rdrop({alpha})", dropout=0.1), adamw(model, batches(), loss_of)) < 1e-13


@pytest.mark.parametrize("distribution", ["uniform", *slowly("gaussian")])
def test_r3f(checkpoints: Checkpoints, distribution: str) -> None:
    folder, lam, eps = checkpoints["bert"], 0.8, 0.1
    model = model_of(folder)

    def loss_of(batch: Batch) -> torch.Tensor:
        rest = {"attention_mask": batch["attention_mask"]}
        words = model.bert.embeddings.word_embeddings.weight[batch["input_ids"]]
        p = model(inputs_embeds=words, **rest).logits
        uniform = distribution == "uniform"
        noise = eq.uniform_between(-eps, eps, words) if uniform else eps * torch.randn(words.shape, dtype=words.dtype)
        q = model(inputs_embeds=words + noise, **rest).logits
        return eq.entropy(p, batch["labels"]) + lam * eq.divergence(p, q)

    arm = f"r3f({lam}, eps={eps}, distribution={distribution})"
    assert apart(ours(folder, arm), adamw(model, batches(), loss_of)) < 1e-12


def hidden(model: Any, batch: Batch, noise: Any) -> torch.Tensor:
    """The logits of a BERT, block by block, with noise on what enters each."""
    h = model.bert.embeddings(batch["input_ids"])
    for layer in model.bert.encoder.layer:
        h = layer(h + noise(h))
    return model.classifier(model.bert.pooler(h))


def test_hype(checkpoints: Checkpoints) -> None:
    folder, sigma = checkpoints["bert"], 0.05
    model = model_of(folder)

    def loss_of(batch: Batch) -> torch.Tensor:
        logits = hidden(model, batch, lambda h: eq.uniform_between(-1, 1, h) * sigma)
        return torch.nn.functional.cross_entropy(logits, batch["labels"])

    assert apart(ours(folder, f"hype({sigma})", dropout=0.0), adamw(model, batches(), loss_of)) == 0


def test_neftune(checkpoints: Checkpoints) -> None:
    folder, alpha = checkpoints["bert"], 5.0
    model = model_of(folder)

    def loss_of(batch: Batch) -> torch.Tensor:
        words = model.bert.embeddings.word_embeddings(batch["input_ids"])
        size = alpha / torch.tensor(words.shape[1] * words.shape[2]).sqrt()
        noise = torch.empty_like(words).uniform_(-float(size), float(size))
        return model(inputs_embeds=words + noise, attention_mask=batch["attention_mask"], labels=batch["labels"]).loss

    assert apart(ours(folder, f"neftune({alpha})"), adamw(model, batches(), loss_of)) == 0


def test_symnoise(checkpoints: Checkpoints) -> None:
    """As in the paper: one batch of twice the size, its halves with opposite noise."""
    folder, alpha = checkpoints["bert"], 5.0
    model = model_of(folder)

    def loss_of(batch: Batch) -> torch.Tensor:
        words = model.bert.embeddings.word_embeddings(batch["input_ids"])
        noise = eq.signs(words) * alpha / math.sqrt(words.shape[1] * words.shape[2])
        twice = {name: torch.cat([batch[name], batch[name]]) for name in ("attention_mask", "labels")}
        return model(inputs_embeds=torch.cat([words + noise, words - noise]), **twice).loss

    assert apart(ours(folder, f"symnoise({alpha})"), adamw(model, batches(), loss_of)) < 1e-12


def test_sam(checkpoints: Checkpoints) -> None:
    """The gradient at w + e, by functional calls: no weight is changed but by the optimizer."""
    folder, rho = checkpoints["bert"], 0.1
    model = model_of(folder, dropout=0.1)

    def loss_of(batch: Batch) -> torch.Tensor:
        random, named = torch.get_rng_state(), dict(model.named_parameters())
        gradients = torch.autograd.grad(model(**batch).loss, list(named.values()))
        found = {name: g.numpy() for name, g in zip(named, gradients, strict=True)}
        moved = {name: named[name] + torch.from_numpy(e) for name, e in eq.uphill(found, rho).items()}
        torch.set_rng_state(random)
        return functional_call(model, moved, kwargs=batch).loss

    assert apart(ours(folder, f"sam({rho})", dropout=0.1), adamw(model, batches(), loss_of)) < 1e-12


def test_ema(checkpoints: Checkpoints) -> None:
    """Training is plain; what is left is the mean of the weights after its steps."""
    folder, decay = checkpoints["bert"], 0.9
    every = [adamw(model_of(folder), batches(), steps=t) for t in range(1, 6)]
    after = [{name: p.detach().numpy() for name, p in model.named_parameters()} for model in every]
    for name, p in ours(folder, f"ema({decay})", steps=5).named_parameters():
        expected = eq.weighted_mean([weights[name] for weights in after], decay)
        np.testing.assert_allclose(p.detach().numpy(), expected, rtol=0, atol=1e-14)


def test_llrd(checkpoints: Checkpoints) -> None:
    """The rates by name; then the training is that of the rates."""
    folder, decay = checkpoints["bert"], 0.8

    def factor(name: str) -> float:
        if "embeddings" in name:
            return decay**3
        place = name.partition(".layer.")[2]
        return 1.0 if not place else decay ** (2 - int(place[0]))

    other = adamw(model_of(folder), batches(), factor=factor)
    assert apart(ours(folder, f"llrd({decay})"), other) < 2e-16


def test_noisytune(checkpoints: Checkpoints) -> None:
    """Equation (1): between -lambda/2 and lambda/2 standard deviations are added, uniformly; then training is plain."""
    folder, strength = checkpoints["bert"], 0.3
    clean, noised = stars(folder), ours(folder, f"noisytune({strength})", steps=0)
    units = []
    for name, p in noised.named_parameters():
        if name in clean and clean[name].min() < clean[name].max():
            units.append((p.detach().numpy() - clean[name]).ravel() / np.std(clean[name], ddof=1) / strength)
    everything = np.concatenate(units)
    assert np.abs(everything).max() <= 0.5 + 1e-9
    assert kstest(everything, "uniform", args=(-0.5, 1.0)).pvalue > 0.001
    assert apart(ours(folder, f"noisytune({strength})", steps=5), adamw(noised, batches(), steps=5)) == 0


def test_reinit(checkpoints: Checkpoints) -> None:
    """The top block and the pooler from N(0, initializer_range), biases 0, layer norms (1, 0); then plain training."""
    folder = checkpoints["bert"]
    drawn = ours(folder, "reinit", steps=0)
    clean, top = stars(folder), ("bert.encoder.layer.1.", "bert.pooler.")
    matrices = []
    for name, p in drawn.named_parameters():
        if not name.startswith(top):
            assert name not in clean or np.array_equal(p.detach(), clean[name])
        elif p.ndim > 1:
            matrices.append(p.detach().numpy().ravel())
        else:
            assert set(p.tolist()) == {1.0 if "LayerNorm.weight" in name else 0.0}
    assert kstest(np.concatenate(matrices), "norm", args=(0, 0.02)).pvalue > 0.001
    assert apart(ours(folder, "reinit", steps=5), adamw(drawn, batches(), steps=5)) == 0
