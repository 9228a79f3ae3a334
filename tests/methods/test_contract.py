"""What every method promises, on five families of models. A method without an entry below fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from noisytune.methods import METHODS, parse

from .conftest import CONTRACT, batches, load, start, state_of

ARMS = {
    "reinit": "reinit(layers=1)",
    "noisytune": "noisytune(0.5)",
    "ema": "ema(decay=0.8)",
    "mixout": "mixout(p=0.5)",
    "hype": "hype(sigma=0.01)",
    "neftune": "neftune(alpha=1)",
    "symnoise": "symnoise(alpha=1)",
    "llrd": "llrd(decay=0.8)",
    "l2sp": "l2sp(strength=1)",
    "recadam": "recadam(gamma=20, t0=5)",
    "child_tuning": "child_tuning(p=0.4)",
    "rdrop": "rdrop",
    "r3f": "r3f(eps=0.01)",
    "sam": "sam",
}
"""Settings under which a method does something that these tests can see."""
MORE = ["child_tuning(mode=F, p=0.4)", "mixout(p=0.5, mask=element)", "recadam(anneal=linear, gamma=20, t0=5)"]
COMBINED = [f"noisytune(0.5)+{arm}" for name, arm in ARMS.items() if name not in ("noisytune", "reinit")]
NO_NEUTRAL = {
    "l2sp": "it replaces the loop's weight decay",
    "recadam": "its weight decay comes after the step and its bias correction is rounded in another order",
}
EVERY = [*ARMS.values(), *MORE]

Checkpoints = dict[str, Path]


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_every_method_has_an_entry() -> None:
    assert set(ARMS) == set(METHODS)
    for name, arm in ARMS.items():
        assert [method.name for method in parse(arm)] == [name]
        assert (METHODS[name].neutral is None) == (name in NO_NEUTRAL), name


@pytest.mark.parametrize("family", CONTRACT)
@pytest.mark.parametrize("arm", EVERY)
def test_trains_and_is_decided_by_its_seed(checkpoints: Checkpoints, family: str, arm: str) -> None:
    one, again, plain = (start(checkpoints[family], a) for a in (arm, arm, "plain"))
    before = one.loss()
    torch.manual_seed(1)
    losses = one.run(6)
    torch.manual_seed(1)
    assert again.run(6) == losses
    scored = again.loss()
    one.run(34)
    assert one.loss() < 0.95 * before
    torch.manual_seed(1)
    assert (plain.run(6), plain.loss()) != (losses, scored), "the method does something"


@pytest.mark.parametrize("family", CONTRACT)
@pytest.mark.parametrize("arm", EVERY)
def test_a_resumed_run_is_an_uninterrupted_one(checkpoints: Checkpoints, family: str, arm: str) -> None:
    whole, first = start(checkpoints[family], arm), start(checkpoints[family], arm)
    torch.manual_seed(1)
    losses = whole.run(6)
    torch.manual_seed(1)
    first.run(3)
    saved = first.save()
    second = start(checkpoints[family], arm)
    second.restore(saved)
    assert second.run(3) == losses[3:]
    for loop in (second, whole):
        loop.stack.end_()
    assert equal(state_of(second.stack.run.model), state_of(whole.stack.run.model))


@pytest.mark.parametrize("family", CONTRACT)
@pytest.mark.parametrize("arm", EVERY)
def test_state_dict_and_evaluation_are_the_plain_models(
    checkpoints: Checkpoints, family: str, arm: str, tmp_path: Path
) -> None:
    loop, plain = start(checkpoints[family], arm), load(checkpoints[family])
    loop.run(2)
    model, batch = loop.stack.run.model, batches(1)[0]
    model.eval()
    with loop.stack.evaluated():
        during = model(**batch).logits
        assert set(state_of(model)) == set(plain.state_dict())
        plain.load_state_dict(state_of(model))
        plain.eval()
        assert torch.equal(plain(**batch).logits, during)
        model.save_pretrained(tmp_path / "during")
    loop.stack.end_()
    assert torch.equal(model(**batch).logits, during)
    assert [type(module) for module in model.modules()] == [type(module) for module in plain.modules()]
    model.train()
    plain.train()
    torch.manual_seed(5)
    trained = model(**batch).logits
    torch.manual_seed(5)
    assert torch.equal(plain(**batch).logits, trained), "dropout as before"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for folder in ("during", "after"):
        if folder == "after":
            model.save_pretrained(tmp_path / folder)
        again, told = type(model).from_pretrained(tmp_path / folder, output_loading_info=True)
        assert not told["missing_keys"]
        assert not told["unexpected_keys"]
        assert equal(state_of(again), state_of(model))


@pytest.mark.parametrize("family", CONTRACT)
@pytest.mark.parametrize("name", [name for name in ARMS if name not in NO_NEUTRAL])
def test_the_neutral_setting_is_plain_training(checkpoints: Checkpoints, family: str, name: str) -> None:
    settings = ", ".join(f"{key}={value}" for key, value in (METHODS[name].neutral or {}).items())
    ends = []
    for arm in ("plain", f"{name}({settings})"):
        loop = start(checkpoints[family], arm)
        torch.manual_seed(1)
        losses, random = loop.run(4), torch.get_rng_state()
        loop.stack.end_()
        ends.append((losses, state_of(loop.stack.run.model), random))
    (losses, state, random), (other_losses, other_state, other_random) = ends
    assert losses == other_losses
    assert equal(state, other_state)
    assert torch.equal(random, other_random)


@pytest.mark.parametrize("arm", EVERY)
def test_trains_in_bfloat16_autocast_with_accumulation(checkpoints: Checkpoints, arm: str) -> None:
    loop = start(checkpoints["bert"], arm, accumulate=2, context=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    before = loop.loss()
    loop.run(30)
    assert loop.loss() < 0.95 * before
    assert all(p.dtype == torch.float32 for p in loop.stack.run.model.parameters())


@pytest.mark.parametrize("arm", COMBINED)
@pytest.mark.parametrize("family", ["bert", "xlnet"])
def test_combined_with_noise(checkpoints: Checkpoints, family: str, arm: str) -> None:
    """The noise is there when training starts, and what pulls back pulls towards the noised weights."""
    loop = start(checkpoints[family], arm)
    noise = start(checkpoints[family], "noisytune(0.5)")
    assert equal(state_of(loop.stack.run.model), state_of(noise.stack.run.model))
    for name, anchor in loop.stack.run.anchors.get("noised", {}).items():
        assert torch.equal(state_of(loop.stack.run.model)[name], anchor)
    before = loop.loss()
    loop.run(30)
    assert loop.loss() < before


@pytest.mark.parametrize("name", ["mixout", "recadam", "l2sp"])
def test_anchors_are_noised_or_clean(checkpoints: Checkpoints, name: str) -> None:
    clean = state_of(load(checkpoints["bert"]))
    for anchor in ("noised", "clean"):
        arm = ARMS[name].replace("(", f"(anchor={anchor}, ")
        loop = start(checkpoints["bert"], f"noisytune(0.5)+{arm}")
        same = [torch.equal(value, clean[name]) for name, value in loop.stack.run.anchors[anchor].items()]
        assert set(loop.stack.run.anchors) == {anchor}
        assert loop.facts[name]["anchor"] == anchor
        assert all(same) if anchor == "clean" else same.count(False) > 10
        assert not any("classifier" in name for name in loop.stack.run.anchors[anchor])


@pytest.mark.parametrize(
    "arm",
    [arm if ARMS["mixout"] == arm or "mode=F" in arm else pytest.param(arm, marks=pytest.mark.slow) for arm in EVERY],
)
def test_compiles_as_one_graph(checkpoints: Checkpoints, arm: str) -> None:
    """Through Dynamo with its eager backend, without a graph break; the losses are those of the plain model."""
    torch._dynamo.reset()
    loop, other = start(checkpoints["bert"], arm), start(checkpoints["bert"], arm)
    compiled: Any = torch.compile(loop.stack.run.model, backend="eager", fullgraph=True)
    loop.module = compiled
    torch.manual_seed(1)
    losses = loop.run(2)
    torch.manual_seed(1)
    assert other.run(2) == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_ranks_stay_together(checkpoints: Checkpoints, tmp_path: Path) -> None:
    """Two processes with other data and other dropout: after each step the same weights."""
    program = Path(__file__).with_name("ranks.py")
    ranks = [
        subprocess.Popen([sys.executable, program, str(rank), checkpoints["bert"], tmp_path, *EVERY])
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    one, other = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for arm in EVERY:
        assert equal(one[arm], other[arm]), arm
    sharded = [arm for arm in EVERY if f"sharded {arm}" in one]
    assert len(sharded) == 8, sharded
    for arm in sharded:
        alone = start(checkpoints["bert"], arm)
        torch.manual_seed(0)
        alone.run(3)
        with alone.stack.evaluated():
            state = state_of(alone.stack.run.model)
        for name, tensor in state.items():
            torch.testing.assert_close(one[f"sharded {arm}"][name], tensor, msg=f"{arm}: {name}")
