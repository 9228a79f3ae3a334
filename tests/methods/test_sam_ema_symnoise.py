"""SAM, the mean of the weights, and symmetric noise against what they promise."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from noisytune.errors import ConfigError
from noisytune.methods import Run, parse
from noisytune.methods.ema import Mean
from noisytune.methods.symnoise import SymmetricNoise

from .conftest import batches, load, start, state_of

Checkpoints = dict[str, Path]


def test_sam_climbs_only_while_a_gradient_is_taken(checkpoints: Checkpoints) -> None:
    """What was climbed is taken back exactly, and the random numbers are those of a plain pass."""
    loop, plain = start(checkpoints["bert"], "sam(0.5)"), start(checkpoints["bert"], "plain")
    model, batch = loop.stack.run.model, batches(1)[0]
    before, seen, drawn = state_of(model), list[float](), list[torch.Tensor]()
    for each in (loop, plain):
        torch.manual_seed(4)
        each.stack.run.model.train()
        loss = each.stack.loss(batch, lambda inputs, each=each: each.stack.run.model(**inputs))
        seen.append(float(loss.detach()))
        loss.backward()
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
    assert seen[0] == pytest.approx(seen[1], rel=1e-6), "the loss that is told is that of the weights themselves"
    climbed = sum(float((p.detach() - before[name]).square().sum()) for name, p in model.named_parameters())
    assert math.sqrt(climbed) == pytest.approx(0.5, rel=1e-4)
    loop.stack.gradient_()
    assert all(torch.equal(p.detach(), before[name]) for name, p in model.named_parameters())


def test_sam_is_refused_where_its_first_gradient_would_be_wrong(checkpoints: Checkpoints) -> None:
    sam = parse("sam")[0]
    with pytest.raises(ConfigError, match="take bf16 or float32"):
        sam.check(Run(load(checkpoints["bert"]), precision="fp16"))
    sharded = nn.Module()
    sharded.register_parameter("_flat_param", nn.Parameter(torch.ones(2)))
    with pytest.raises(ConfigError, match="sharded weights"):
        sam.loss(Run(sharded), {}, lambda _: SimpleNamespace(loss=sharded._flat_param.sum()))


def test_the_mean_leaves_training_alone_and_counts_its_last_tenth(checkpoints: Checkpoints) -> None:
    loop, plain = start(checkpoints["bert"], "ema"), start(checkpoints["bert"], "plain")
    torch.manual_seed(1)
    losses = loop.run(4)
    torch.manual_seed(1)
    assert plain.run(4) == losses
    last = state_of(loop.stack.run.model)
    with loop.stack.evaluated():
        mean = state_of(loop.stack.run.model)
    assert all(torch.equal(value, last[name]) for name, value in state_of(loop.stack.run.model).items())
    assert any(not torch.equal(mean[name], last[name]) for name in last)
    run = Run(load(checkpoints["bert"]), total_steps=200)
    assert parse("ema")[0].attach_(run) == {"decay": pytest.approx(0.95)}
    assert parse("ema")[0].attach_(Run(run.model, total_steps=1_000_000)) == {"decay": 0.999}


def test_symmetric_noise_is_opposite_and_of_one_size(checkpoints: Checkpoints) -> None:
    model, ids = load(checkpoints["bert"]), batches(1)[0]["input_ids"]
    noise, table = SymmetricNoise(model, alpha=5.0), model.bert.embeddings.word_embeddings
    clean = table(ids)
    noise.sign = 1
    there = table(ids) - clean
    noise.sign = -1
    back = table(ids) - clean
    torch.testing.assert_close(there, -back)
    torch.testing.assert_close(there.abs(), torch.full_like(there, 5 / math.sqrt(8 * 16)))
    assert 0.4 < float((there > 0).float().mean()) < 0.6
    noise.sign = 0
    assert torch.equal(table(ids), clean)


def test_sam_under_autocast_sees_the_climbed_weights() -> None:
    model, inputs = nn.Linear(4, 1, bias=False), torch.ones(2, 4)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))
    run, (sam,) = Run(model), parse("sam(4.0)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = sam.loss(run, {}, lambda _: SimpleNamespace(loss=model(inputs).float().square().mean()))
    loss.backward()
    sam.gradient_(run)
    # The gradient's direction is 1/2 each, so each weight climbs by 2: the sum is 18 there, and its gradient 36.
    torch.testing.assert_close(model.weight.grad, torch.full((1, 4), 36.0))


def test_each_table_of_an_encoder_and_decoder_gets_its_own_noise_back(checkpoints: Checkpoints) -> None:
    model, ids = load(checkpoints["t5"]), batches(1)[0]["input_ids"]
    noise, found = SymmetricNoise(model, alpha=5.0), {}
    tables = model.transformer.encoder.embed_tokens, model.transformer.decoder.embed_tokens
    for noise.sign in (0, 1, -1):
        found[noise.sign] = [table(ids).detach() for table in tables]
    for clean, there, back in zip(found[0], found[1], found[-1], strict=True):
        torch.testing.assert_close(there + back, 2 * clean)


def test_the_mean_of_half_precision_weights_moves_on() -> None:
    """In bfloat16 a move below half a unit in the last place would be rounded to none, and the mean stand still."""
    weight = nn.Parameter(torch.full((4,), 1.0, dtype=torch.bfloat16))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    mean, expected, seen = Mean(optimizer, 0.99), np.zeros(4), 0.0
    for step in range(300):
        weight.data.fill_(1 + step / 100)
        weight.grad = torch.zeros_like(weight)
        optimizer.step()
        expected, seen = 0.99 * expected + 0.01 * weight.detach().double().numpy(), 0.99 * seen + 0.01
        if step % 100 == 50:  # a look at it changes nothing
            last = weight.detach().clone()
            with mean.in_place():
                np.testing.assert_allclose(weight.detach().double(), expected / seen, rtol=2**-8)
            assert torch.equal(weight, last)
    (value,) = optimizer.state_dict()["noisytune_mean"]["values"]
    np.testing.assert_allclose(value, expected / seen, rtol=1e-5)


def test_a_step_that_the_loss_scaler_skips_is_not_in_the_mean() -> None:
    weight, scaler = nn.Parameter(torch.ones(2)), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.AdamW([weight], lr=1.0, fused=True)
    mean = Mean(optimizer, 0.5)
    for gradient in (1.0, math.inf, 1.0):
        scaler.scale(weight.sum()).backward()
        weight.grad = torch.full((2,), gradient)
        scaler.step(optimizer)
        scaler.update()
    assert mean.steps == 2
