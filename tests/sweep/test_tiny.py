"""Tiny models of any type: small, each with a head, and with weights that noise could not hide in."""

import pytest
import torch
from sweep.configs import LARGEST, model_types, tiny_config
from sweep.models import build, classes
from sweep.sample import QUICK, SAMPLE


def test_forty_types_stand_for_all() -> None:
    assert len(SAMPLE) == 40
    assert set(QUICK) < set(SAMPLE)
    assert set(SAMPLE) <= set(model_types())


@pytest.mark.parametrize("model_type", ["gpt_neox", "mixtral", "roformer"])
def test_small_and_the_same_each_time(model_type: str) -> None:
    config = tiny_config(model_type)
    base, *heads = classes(model_type, config)
    model = build(base, config)
    assert heads
    assert sum(parameter.numel() for parameter in model.parameters()) < LARGEST
    again = build(base, config).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.std() > 0 for parameter in model.parameters())


def test_experts_are_of_other_sizes() -> None:
    config = tiny_config("mixtral")
    model = build(classes("mixtral", config)[0], config)
    stack = model.layers[0].mlp.experts.down_proj
    sizes = stack.flatten(1).std(dim=1)
    assert sizes[-1] > 5 * sizes[0]
