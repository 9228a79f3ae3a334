"""RecAdam against its closed form, and what public codes get wrong."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from noisytune.errors import ConfigError
from noisytune.methods import Run, Stack, parse
from noisytune.methods.recadam import RecAdam, recall_weight

from .conftest import FAMILIES, batches, load, start

SHAPES = [(3, 4), (4,), (2, 2, 2)]


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64, generator=generator)) for shape in SHAPES]


@given(st.floats(1e-6, 1e-3), st.floats(0, 1000), st.integers(1, 400))
def test_without_a_gradient_the_distance_shrinks_by_a_known_factor(lr: float, gamma: float, t0: int) -> None:
    p = torch.nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    star = torch.tensor([1.0, 1.0], dtype=torch.float64)
    optimizer = RecAdam([p], {p: star}, lr=lr, gamma=gamma, t0=t0)
    distance = p.detach() - star
    for t in range(1, 6):
        p.grad = torch.zeros_like(p)
        optimizer.step()
        distance = distance * (1 - lr * gamma * (1 - recall_weight(t, t0=t0)))
        torch.testing.assert_close(p.detach() - star, distance, rtol=1e-9, atol=1e-12)


def test_the_script_defaults_halve_a_noise_in_a_few_steps() -> None:
    """lr * gamma = 0.1 at 2e-5: with a clean anchor the noise is nearly gone after 50 steps."""
    p = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = RecAdam([p], {p: torch.zeros(1, dtype=torch.float64)}, lr=2e-5)
    for _ in range(50):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    assert float(p.detach()) == pytest.approx(0.9**50, rel=1e-6)


def test_recall_weight_rises_from_nothing_to_w() -> None:
    for anneal in ("sigmoid", "linear"):
        weights = [recall_weight(t, anneal=anneal, w=0.8) for t in range(1, 1000)]
        assert weights == sorted(weights)
        assert weights[0] < 0.01
        assert weights[-1] == pytest.approx(0.8)
    assert recall_weight(1, k=1000, t0=1000) == 0.0


def test_a_saved_state_holds_no_anchor_and_resumes() -> None:
    """Public codes keep the anchors in param_groups: each optimizer checkpoint then holds the model once more."""

    def fresh() -> tuple[list[torch.nn.Parameter], RecAdam]:
        ours = parameters()
        return ours, RecAdam(ours, {p: p.detach().clone() for p in ours}, lr=0.01, gamma=10)

    def step(ours: list[torch.nn.Parameter], optimizer: RecAdam, times: int) -> None:
        for _ in range(times):
            for p in ours:
                p.grad = torch.cos(p.detach())
            optimizer.step()

    (one, first), (other, second) = fresh(), fresh()
    step(one, first, 4)
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    tensors = sum(p.numel() * p.element_size() for p in one)
    assert file.tell() < 2 * tensors + 8000
    file.seek(0)
    for p, q in zip(one, other, strict=True):
        q.data.copy_(p.detach())
    second.load_state_dict(torch.load(file))
    step(one, first, 3)
    step(other, second, 3)
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_is_anchored_and_its_head_is_not(checkpoints: dict[str, Path], family: str) -> None:
    """Public codes match a substring of the model type: nothing is pulled for XLNet, XLM-R, T5 and GPT-2."""
    model = load(checkpoints[family])
    stack = Stack(parse("recadam"), Run(model))
    facts = stack.begin_()
    base = {f"{model.base_model_prefix}.{name}" for name, _ in model.base_model.named_parameters()}
    anchored = set(stack.run.anchors["noised"])
    assert anchored == base
    assert facts["recadam"]["anchored"] == len(anchored) == len(base)


def test_a_head_is_plain_adam(checkpoints: dict[str, Path]) -> None:
    """The authors' grouping gives it the weight 0, and so neither lam(t) nor a pull."""
    ours, theirs = parameters(), parameters()
    optimizers = RecAdam(ours, {}, lr=0.01, weight_decay=0.1), torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1)
    for _ in range(20):
        for p in (*ours, *theirs):
            p.grad = torch.cos(p.detach())
        for optimizer in optimizers:
            optimizer.step()
    # AdamW decays before its step: the two differ by the decay of one step's change.
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=20 * 0.01 * 0.1 * 0.011)


def test_t0_fits_the_training_unless_it_is_given(checkpoints: dict[str, Path]) -> None:
    for arm, total, expected in (
        ("recadam", None, 250.0),
        ("recadam", 9_000, 250.0),
        ("recadam", 51, 17.0),
        ("recadam(t0=20)", 51, 20.0),
        ("recadam(t0=0.5)", 40, 20.0),
    ):
        run = Run(load(checkpoints["bert"]), total_steps=total, learning_rate=2e-5)
        stack = Stack(parse(arm), run)
        assert stack.begin_()["recadam"]["t0"] == expected
        assert stack.optimizer([{"params": [*run.model.parameters()], "lr": 1e-5}], None).defaults["t0"] == expected  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"a share of the training \(0.5\) needs its length"):
        Stack(parse("recadam(t0=0.5)"), Run(load(checkpoints["bert"]))).begin_()


def test_a_training_that_mostly_recalls_is_said_before_it_runs(checkpoints: dict[str, Path]) -> None:
    def told(arm: str, rate: float) -> list[str]:
        (method,) = parse(arm)
        return method.notices(Run(load(checkpoints["bert"]), total_steps=51, learning_rate=rate))

    assert told("recadam", 2e-5) == []
    assert "half of the pull is left at step 250 of 51" in told("recadam(t0=250)", 2e-5)[0]
    assert told("recadam(t0=50, anneal=linear)", 2e-5) == []
    assert recall_weight(100, anneal="linear", t0=200) == 0.5
    assert "half of the pull is left at step 100 of 51" in told("recadam(t0=200, anneal=linear)", 2e-5)[0]
    assert "takes back 100% of the way" in told("recadam", 2e-4)[0]
    with pytest.raises(ConfigError, match=r"diverges: .* = 5 is above 2; lower gamma below 2000"):
        parse("recadam")[0].check(Run(load(checkpoints["bert"]), learning_rate=1e-3))
    parse("recadam(anneal=constant)")[0].check(Run(load(checkpoints["bert"]), learning_rate=1e-3))
    with pytest.raises(ConfigError, match=r"diverges: .* = 25 is above 2; lower gamma below 400"):
        start(checkpoints["bert"], "recadam")  # in a loop that does not say its rate, by that of its groups


def test_the_pull_is_there_from_the_first_step(checkpoints: dict[str, Path]) -> None:
    """The class defaults of the authors' file (k = 0) leave the weight at one half for ever; the script's do not."""
    assert recall_weight(1) < 1e-50
    assert recall_weight(1000) == 1.0
    with pytest.raises(ConfigError, match="k must be > 0: at 0 the pull never ends"):
        RecAdam(parameters(), {}, k=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"anneal": "cosine"}, "anneal must be sigmoid, linear, constant, got 'cosine'"),
        ({"t0": 0}, "t0 must be > 0, got 0"),
        ({"lr": -1.0}, "lr must be >= 0"),
        ({"betas": (0.9, 1.0)}, "betas"),
        ({"w": 0}, "w must be > 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RecAdam(parameters(), {}, **settings)


def test_a_divergent_pull_is_refused_with_the_numbers() -> None:
    p = torch.nn.Parameter(torch.ones(2))
    optimizer = RecAdam([p], {p: torch.zeros(2)}, lr=1e-3)
    p.grad = torch.ones(2)
    with pytest.raises(ConfigError, match=r"lr\*gamma\*\(w-lam\) = 0.001\*5000\*1 = 5 is above 2 at step 1"):
        optimizer.step()
    assert torch.equal(p.detach(), torch.ones(2))


def test_anchors_must_fit() -> None:
    ours = parameters()
    with pytest.raises(ConfigError, match=r"shape \(3, 4\) has an anchor of shape \(4,\)"):
        RecAdam(ours, {ours[0]: torch.zeros(4)})
    with pytest.raises(ConfigError, match="belongs to no parameter"):
        RecAdam(ours[:1], {ours[1]: torch.zeros(4)})


def test_clipping_does_not_reach_the_pull(checkpoints: dict[str, Path]) -> None:
    """The pull is the same whatever the gradient is scaled to."""
    loop = start(checkpoints["bert"], "recadam(gamma=20)", data=batches(1))
    name, star = next(iter(loop.stack.run.anchors["noised"].items()))
    p = loop.stack.run.model.get_parameter(name)
    p.data += 1.0
    for q in loop.stack.run.model.parameters():
        q.grad = torch.zeros_like(q)
    before = p.detach() - star
    loop.optimizer.step()
    after = p.detach() - star
    torch.testing.assert_close(after, before * (1 - 5e-3 * 20), rtol=1e-4, atol=1e-6)


def test_weights_of_several_dtypes_go_to_the_fused_kernel_one_dtype_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU it refuses others; on a processor it takes them."""
    mixed = [torch.nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    seen, fused = list[set[torch.dtype]](), torch._fused_adam_

    def watched(parameters: list[torch.Tensor], *rest: Any, **settings: Any) -> None:
        seen.append({p.dtype for p in parameters})
        fused(parameters, *rest, **settings)

    monkeypatch.setattr(torch, "_fused_adam_", watched)
    both = [torch.nn.Parameter(torch.ones(2, dtype=dtype)) for dtype in (torch.float32, torch.bfloat16)]
    for some, anchors in ((mixed, {mixed[0]: torch.zeros(2)}), (both, {p: torch.zeros_like(p) for p in both})):
        optimizer = RecAdam(some, anchors, lr=0.01, gamma=1.0)
        for p in some:
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert [len(dtypes) for dtypes in seen] == [1, 1, 1, 1]
