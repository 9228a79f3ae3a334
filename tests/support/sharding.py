"""A model on several ranks: cut in every way, and compared with the whole one."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from noisytune.torch import perturb_, receipt

DTYPES = [torch.float32, torch.bfloat16]


class Model(nn.Module):
    """Ties, a padding row, a constant, one element, and lengths that 2, 3 and 4 ranks cannot share evenly."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        torch.manual_seed(0)
        self.embeddings = nn.Embedding(301, 16, padding_idx=150)
        self.dense = nn.Linear(16, 5)
        self.wide = nn.Linear(16, 1200)
        self.kernel = nn.Conv1d(6, 7, 3)
        self.norm = nn.LayerNorm(16)
        self.third = nn.Parameter(torch.full((70,), 1 / 3))
        self.temperature = nn.Parameter(torch.tensor([2.0]))
        self.decoder = nn.Linear(16, 301, bias=False)
        with torch.no_grad():
            self.norm.bias.normal_()
            self.embeddings.weight[150] = 5.0
            self.wide.weight.add_(100)
        self.to(dtype)
        self.decoder.weight = self.embeddings.weight

    def forward(self, tokens):
        hidden = self.norm(self.embeddings(tokens))
        return self.decoder(hidden).sum() + self.dense(hidden).sum() + self.wide(hidden).sum()


def bits(tensor):
    local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return local.detach().clone().contiguous().reshape(-1).view(torch.uint8)


def all_bits(model):
    return {name: bits(p) for name, p in model.named_parameters()}


def agree(value):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, value)
    return all(one == everyone[0] for one in everyone)


def perturb_strictly(model, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return perturb_(model, **{"noise_lambda": 0.3, "seed": 5} | settings)


def check(shard, make=Model, gather=True, **settings):
    """Sharding and then perturbing gives what perturbing and then sharding gives, and what one process gives."""
    whole = make()
    expected = perturb_strictly(whole, **settings)
    oracle, model = shard(copy.deepcopy(whole)), shard(make())
    found = perturb_strictly(model, **settings)
    for name, parameter in oracle.named_parameters():
        assert torch.equal(bits(model.get_parameter(name)), bits(parameter)), name
    for name, parameter in whole.named_parameters() if gather else ():
        mine = model.get_parameter(name)
        full = mine.full_tensor() if isinstance(mine, DTensor) else mine
        assert torch.equal(full.detach().view(torch.uint8), parameter.detach().view(torch.uint8)), name
    assert agree(repr(found.entries))
    for mine, theirs in zip(found.entries, expected.entries, strict=True):
        assert (mine.name, mine.own_names, mine.shape) == (theirs.name, theirs.own_names, theirs.shape)
        assert (mine.dtype, mine.left_alone) == (theirs.dtype, theirs.left_alone)
        assert (mine.scale is None) == (theirs.scale is None) == (theirs.left_alone is not None)
        assert mine.std is None or mine.std == pytest.approx(theirs.std, rel=1e-12)
        assert mine.scale is None or np.float32(mine.scale) == np.float32(theirs.scale)
        assert mine.scale is None or mine.realised_std == pytest.approx(theirs.realised_std, rel=1e-4)
    assert receipt(model)["seed"] == settings.get("seed", 5)
    return model


def world(*shape):
    return init_device_mesh("cpu", shape or (dist.get_world_size(),))


def named(**axes):
    return init_device_mesh("cpu", tuple(axes.values()), mesh_dim_names=tuple(axes))


def fsdp(mesh, **options):
    def shard(model):
        fully_shard(model.wide, mesh=mesh, **options)
        return fully_shard(model, mesh=mesh, **options)

    return shard


def place(mesh, placements):
    """Tensor parallel: every parameter that ``placements(parameter)`` gives placements for; ties stay tied."""

    def shard(model):
        done = {}
        for part in model.modules():
            for name, parameter in list(part.named_parameters(recurse=False)):
                if parameter not in done and (found := placements(parameter)):
                    done[parameter] = nn.Parameter(
                        distribute_tensor(parameter.detach(), mesh, found, src_data_rank=None)
                    )
                part.register_parameter(name, done.get(parameter, parameter))
        return model

    return shard


def second_dim(parameter):
    even = parameter.ndim > 1 and parameter.shape[1] % dist.get_world_size() == 0
    return Shard(1) if even else None
