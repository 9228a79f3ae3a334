"""Architectures of transformers, sharded: the same weights as those of one process, bit for bit, and the same names."""

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers.distributed import DistributedConfig

from noisytune.torch import perturb_


def load_table():
    spec = importlib.util.spec_from_file_location(
        "families", Path(__file__).parents[2] / "_perturb" / "test_families.py"
    )
    families = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(families)
    return families.TINY, families.WITH_HEAD


TINY, WITH_HEAD = load_table()
TINY |= {"mixtral": TINY["llama"] | {"num_key_value_heads": 2, "num_local_experts": 3}}
WITH_HEAD |= {"mixtral": AutoModelForCausalLM}


def make(family, dtype):
    """A language model of the family: most tie their output to the word embeddings. 99 words: no even shards."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, vocab_size=99, pad_token_id=1, **TINY[family])
    return WITH_HEAD.get(family, AutoModelForMaskedLM).from_config(config).to(dtype)


def shard(model):
    """Every block, then the rest. On four ranks, matrices are first cut in two across rows or columns by turns."""
    mesh = None
    if dist.get_world_size() == 4:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
        cut_matrices(model, mesh["tensor"])
        mesh = mesh["data"]
    stacks = {name: part for name, part in model.named_modules() if isinstance(part, nn.ModuleList)}
    outermost = [part for name, part in stacks.items() if not any(name.startswith(outer + ".") for outer in stacks)]
    for block in (block for stack in outermost for block in stack):
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def cut_matrices(model, mesh):
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    placements = [[Shard(number % 2)] for number in range(len(matrices))]
    cut = {
        parameter: nn.Parameter(distribute_tensor(parameter.detach(), mesh, placement, src_data_rank=None))
        for parameter, placement in zip(matrices, placements, strict=True)
    }
    for part in model.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, cut.get(parameter, parameter))


def case_of(family):
    def case():
        for dtype in (torch.float32, torch.bfloat16):
            whole, model, oracle = (make(family, dtype) for _ in range(3))
            settings = {"noise_lambda": 0.15, "seed": 1, "scope": "all"}
            expected, found = perturb_(whole, **settings), perturb_(shard(model), **settings)
            oracle.load_state_dict(whole.state_dict())
            shard(oracle)
            assert any(isinstance(parameter, DTensor) for parameter in model.parameters())
            for name, parameter in model.named_parameters():
                right = oracle.get_parameter(name)
                assert parameter.placements == right.placements
                assert torch.equal(parameter.to_local(), right.to_local()), name
                if dist.get_world_size() < 4:
                    assert torch.equal(parameter.full_tensor(), whole.get_parameter(name)), name
            names = [
                [(entry.name, entry.own_names, entry.left_alone) for entry in m.entries] for m in (expected, found)
            ]
            assert names[0] == names[1]
            assert len(found.perturbed) >= 8

    case.__name__ = family.replace("-", "_")
    return case


def perturbed_as_loaded(family, sizes, **plan):
    """The model that transformers spreads over the ranks as it loads it, and its manifest; it equals the whole one."""
    os.environ.update(RANK=str(dist.get_rank()), LOCAL_RANK=str(dist.get_rank()), WORLD_SIZE=str(dist.get_world_size()))
    with tempfile.TemporaryDirectory() as folder:
        shared = [folder]
        dist.broadcast_object_list(shared)
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes)).save_pretrained(*shared)
        dist.barrier()  # transformers writes on rank 0 only
        whole = AutoModelForCausalLM.from_pretrained(*shared)
        model = AutoModelForCausalLM.from_pretrained(*shared, distributed_config=DistributedConfig(**plan))
        dist.barrier()
    expected, found = (perturb_(m, noise_lambda=0.15, seed=1) for m in (whole, model))
    assert found.notices == expected.notices
    assert [entry.name for entry in found.perturbed] == [entry.name for entry in expected.perturbed]
    for name, parameter in model.named_parameters():
        full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        assert torch.equal(full, whole.get_parameter(name)), name
    return model, found


EXPERTS = TINY["mixtral"] | {"num_local_experts": 4, "vocab_size": 99}


def tensor_parallel_as_transformers_does_it():
    """Mixtral's fused gate and up projections are cut as strided shards; norms stay plain. The files hold each expert
    by itself."""
    model, found = perturbed_as_loaded("mixtral", EXPERTS, tp_plan="auto")
    assert sum("experts.3.w1" in entry.name for entry in found.perturbed) == 2
    assert any(isinstance(p, DTensor) and isinstance(p.placements[0], _StridedShard) for p in model.parameters())


def experts_split_over_the_ranks():
    """Half of Mixtral's experts on each rank, beside FSDP and tensor parallelism: each has its own scale."""
    for plan in ({"ep_size": 2, "fsdp_size": 2}, {"ep_size": 2, "tp_size": 2}):
        model, found = perturbed_as_loaded("mixtral", EXPERTS, **plan)
        assert model.model.layers[0].mlp.experts.gate_up_proj.to_local().shape[0] == 2
        assert sum(".experts." in entry.name for entry in found.perturbed) == 2 * 4 * 3


def stacks_of_experts_split_over_the_ranks():
    """The files hold the experts of gpt-oss in stacks, with biases."""
    sizes = TINY["llama"] | {"num_key_value_heads": 2, "num_local_experts": 4, "head_dim": 8, "vocab_size": 99}
    model, found = perturbed_as_loaded("gpt_oss", sizes, ep_size=2, fsdp_size=2)
    assert model.model.layers[0].mlp.experts.gate_up_proj.to_local().shape[0] == 2
    assert sum(entry.name.endswith("experts.down_proj[3]") for entry in found.perturbed) == 2


CASES = {ranks: [case_of(family) for family in TINY] for ranks in (2, 3, 4)}
CASES[2] += [
    tensor_parallel_as_transformers_does_it,
    experts_split_over_the_ranks,
    stacks_of_experts_split_over_the_ranks,
]


@pytest.mark.parametrize("ranks", [2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)])
def test_on_ranks(passes_on_ranks, ranks):
    passes_on_ranks(__file__, ranks, CASES[ranks])
