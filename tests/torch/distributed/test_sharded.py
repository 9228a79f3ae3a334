"""perturb_ on sharded modules: bit for bit the noise of one process, or the same error on all ranks."""

import tracemalloc
import warnings
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DeviceMesh, DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.placement_types import _StridedShard
from torch.utils._python_dispatch import TorchDispatchMode

import noisytune.torch
from noisytune.errors import (
    AlreadyPerturbedError,
    ConfigError,
    NoisyTuneError,
    NonFiniteError,
    UnsupportedTensorError,
)
from noisytune.torch import _dtensor, perturb_, receipt
from tests.support.sharding import (
    DTYPES,
    Model,
    agree,
    all_bits,
    bits,
    check,
    fsdp,
    named,
    perturb_strictly,
    place,
    second_dim,
    world,
)

# --- the same noise ---


def fully_sharded():
    for dtype in (*DTYPES, torch.float16):
        check(fsdp(world()), lambda dtype=dtype: Model(dtype))


def all_settings():
    check(fsdp(world()), scale="global")
    check(fsdp(world()), distribution="gaussian", seed=2**63)
    check(fsdp(world()), exclude="wide.*")
    with pytest.raises(ConfigError, match="matches none"):
        perturb_(fsdp(world())(Model()), exclude="*nothing*")


def second_dimension_and_offload():
    for dtype in DTYPES:
        check(fsdp(world(), shard_placement_fn=second_dim), lambda dtype=dtype: Model(dtype))
    check(fsdp(world(), offload_policy=CPUOffloadPolicy(pin_memory=False)))


def weights_outside_the_memory_of_the_cpu():
    """The torch operations that other devices run give the bits of the compiled kernels here."""
    whole, models = Model(), [fsdp(world())(Model()), fsdp(world(), shard_placement_fn=second_dim)(Model())]
    perturb_strictly(whole)
    with mock.patch.object(noisytune.torch._tensors, "on_cpu", return_value=False):
        for model in models:
            perturb_strictly(model)
            for name, parameter in whole.named_parameters():
                assert torch.equal(model.get_parameter(name).full_tensor(), parameter), name


def tensor_parallel():
    for dim in (0, 1):
        check(place(world(), lambda p, dim=dim: [Shard(dim)] if p.ndim > dim else [Replicate()]))
        check(place(world(), lambda p, dim=dim: [Shard(p.ndim - 1)] if p.ndim > dim else None))
    check(place(world(), lambda p: [_StridedShard(0, split_factor=3)] if p.shape[0] == 1200 else None))


def hybrid():
    for dtype in DTYPES:
        check(fsdp(named(replicate=2, shard=2)), lambda dtype=dtype: Model(dtype))


def fully_sharded_and_tensor_parallel():
    mesh = named(data=2, tensor=2)
    for dtype in DTYPES:
        for dim in (0, 1):

            def shard(model, dim=dim):
                model = place(mesh["tensor"], lambda p: [Shard(dim)] if p.ndim > dim and p.ndim < 3 else None)(model)
                return fsdp(mesh["data"])(model)

            model = check(shard, lambda dtype=dtype: Model(dtype), gather=False)
            strided = any(isinstance(one, _StridedShard) for one in model.wide.weight.placements)
            assert strided == (dim == 0)


def two_dimensional_placements():
    mesh = world(2, 2)
    for pair in ([Shard(0), Shard(0)], [Shard(1), Shard(0)], [Shard(0), Replicate()], [Replicate(), Shard(0)]):
        check(place(mesh, lambda p, pair=pair: pair if p.ndim > 1 else None))


def indices_are_those_of_distribute_tensor():
    torch.manual_seed(3)
    mesh = world(2, 2) if dist.get_world_size() == 4 else world()
    for _ in range(60):
        shape = torch.randint(1, 12, (int(torch.randint(1, 4, ())),)).tolist()
        choices = [Replicate(), *(Shard(dim) for dim in range(len(shape)))]
        choices += [_StridedShard(dim, split_factor=2) for dim in range(len(shape))]
        placements = [choices[int(torch.randint(len(choices), ()))] for _ in range(mesh.ndim)]
        full = torch.arange(torch.Size(shape).numel()).view(shape)
        sharded = distribute_tensor(full, mesh, placements, src_data_rank=None)
        flat = sharded.to_local().flatten()
        assert _dtensor.problem(sharded) is None
        piece, found = _dtensor.piece_of(sharded), torch.full_like(flat, -1)
        for where, start in piece.runs(range(0)):
            found[where] = torch.arange(start, start + where.stop - where.start)
        assert torch.equal(found, flat), (shape, placements)


def after_a_forward_pass():
    """The root's weights are gathered then: what is written to them would be lost."""
    whole, model = Model(), fsdp(world())(Model())
    tokens = torch.arange(4)
    model(tokens)
    assert not isinstance(model.dense.weight, DTensor)
    perturb_strictly(whole)
    perturb_strictly(model)
    for name, parameter in whole.named_parameters():
        assert torch.equal(model.get_parameter(name).full_tensor(), parameter), name
    assert model(tokens).item() == pytest.approx(whole(tokens).item(), rel=1e-6)


def distributed_data_parallel():
    whole, model = Model(), nn.parallel.DistributedDataParallel(Model())
    perturb_strictly(whole)
    perturb_strictly(model)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def ranks_outside_the_mesh_are_not_waited_for():
    """A mesh of two dimensions that leaves rank 2 out; rank 2 never calls perturb_, or calls it in vain."""
    model, whole = place(DeviceMesh("cpu", [[0], [1]]), lambda _: [Shard(0), Replicate()])(Model()), Model()
    perturb_strictly(whole)
    if dist.get_rank() == 2:
        with pytest.raises(UnsupportedTensorError, match="rank 2 holds no part of the model"):
            perturb_(model)
        return
    perturb_strictly(model)
    mine = distribute_tensor(whole.wide.weight.detach(), DeviceMesh("cpu", [0, 1]), [Shard(0)], src_data_rank=None)
    assert torch.equal(bits(model.wide.weight), bits(mine))


def no_full_tensor_is_made():
    class Largest(TorchDispatchMode):
        found = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **kwargs or {})
            if type(made) is torch.Tensor:
                self.found = max(self.found, made.numel())
            return made

    model = fully_shard(nn.Linear(1500, 1000))
    perturb_strictly(fully_shard(nn.Linear(1500, 1000)))
    tracemalloc.start()
    with Largest() as largest:
        perturb_strictly(model)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert largest.found <= model.weight.to_local().numel()
    assert peak < 1_000_000


# --- the same refusal ---


def refused_everywhere(model, error, match, **settings):
    before = all_bits(model)
    with pytest.raises(error, match=match) as caught:
        perturb_strictly(model, **settings)
    assert all(torch.equal(before[name], value) for name, value in all_bits(model).items())
    return str(caught.value)


def a_value_that_is_not_finite():
    for bad in (float("nan"), float("inf")):
        model = fsdp(world())(Model())
        local = model.wide.weight.detach().to_local()
        if dist.get_rank() == 1:
            kept, local[3, 2] = local[3, 2].item(), bad
        message = refused_everywhere(
            model, NonFiniteError, r"wide.weight \(float32, shape \(1200, 16\)\) has 1 values that are NaN or infinite"
        )
        assert agree(message)
        assert receipt(model) is None
        if dist.get_rank() == 1:
            local[3, 2] = kept
        perturb_strictly(model)


def noise_that_would_overflow_on_one_rank():
    def make():
        return fully_shard(nn.Linear(64, 64, bias=False).half())

    model = make()
    if dist.get_rank() == 1:
        model.weight.detach().to_local()[0, 0] = 65_500
    assert agree(refused_everywhere(model, NonFiniteError, "has values up to 65504: noise of up to", noise_lambda=3))


def a_second_perturbation():
    model = fsdp(world())(Model())
    perturb_strictly(model)
    refused_everywhere(model, AlreadyPerturbedError, "carry noise already")
    perturb_strictly(model, again=True)


def one_rank_that_fails_alone():
    """Nobody waits for it: the others raise too, and say which rank to ask."""
    model = fsdp(world())(Model())
    if dist.get_rank() == 1:
        refused_everywhere(model, ConfigError, "noise_lambda must be", noise_lambda=-1)
    else:
        refused_everywhere(model, NoisyTuneError, "rank 1 could not perturb its part .* says why")
    perturb_strictly(model)


def one_rank_that_fails_while_writing():
    model = fsdp(world())(Model())
    if dist.get_rank() == 1:
        with (
            mock.patch.object(noisytune._noise.kernels, "add_noise_", side_effect=MemoryError),
            pytest.raises(MemoryError),
        ):
            perturb_strictly(model)
    else:
        with pytest.raises(NoisyTuneError, match="rank 1 could not perturb its part"):
            perturb_strictly(model)
    assert receipt(model)


def settings_that_differ_between_ranks():
    model = fsdp(world())(Model())
    refused_everywhere(model, ConfigError, "rank 1 has other settings .* than rank 0", seed=min(dist.get_rank(), 1))


def copies_that_differ_between_ranks():
    model = place(world(), lambda p: [Shard(0)] if p.ndim > 1 else None)(Model())
    with torch.no_grad():
        model.wide.bias.add_(dist.get_rank() * model.wide.bias)
    refused_everywhere(model, UnsupportedTensorError, "wide.bias .* has other values on ranks")


def placements_that_cannot_be_told():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(DTensor.from_local(torch.randn(4, 4), world(), [Partial()]))

    refused_everywhere(Sum(), UnsupportedTensorError, r"weight .* has the placement Partial\(sum\): redistribute")
    wrong = DTensor.from_local(torch.randn(4, 4), world(), [Shard(0)], shape=torch.Size([3, 4]), stride=(4, 1))
    refused_everywhere(
        nn.ParameterDict({"w": nn.Parameter(wrong)}), UnsupportedTensorError, "has a local shard of shape"
    )


def flattened_by_the_first_fsdp():
    from torch.distributed.fsdp import FullyShardedDataParallel

    for use_orig_params in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = FullyShardedDataParallel(
                nn.Sequential(nn.Linear(8, 6)), use_orig_params=use_orig_params, device_id=torch.device("cpu")
            )
        refused_everywhere(model, UnsupportedTensorError, "is flattened by FSDP: perturb before wrapping")


CASES = {
    2: [
        fully_sharded,
        all_settings,
        second_dimension_and_offload,
        weights_outside_the_memory_of_the_cpu,
        tensor_parallel,
        indices_are_those_of_distribute_tensor,
        after_a_forward_pass,
        distributed_data_parallel,
        no_full_tensor_is_made,
        a_value_that_is_not_finite,
        noise_that_would_overflow_on_one_rank,
        a_second_perturbation,
        one_rank_that_fails_alone,
        one_rank_that_fails_while_writing,
        settings_that_differ_between_ranks,
        copies_that_differ_between_ranks,
        placements_that_cannot_be_told,
        flattened_by_the_first_fsdp,
    ],
    3: [
        fully_sharded,
        tensor_parallel,
        a_value_that_is_not_finite,
        one_rank_that_fails_alone,
        ranks_outside_the_mesh_are_not_waited_for,
    ],
    4: [
        fully_sharded,
        hybrid,
        fully_sharded_and_tensor_parallel,
        two_dimensional_placements,
        indices_are_those_of_distribute_tensor,
        a_value_that_is_not_finite,
    ],
}


@pytest.mark.parametrize("ranks", [n if n == 2 else pytest.param(n, marks=pytest.mark.slow) for n in CASES])
def test_on_ranks(passes_on_ranks, ranks):
    passes_on_ranks(__file__, ranks, CASES[ranks])


def test_the_weights_of_a_deepspeed_engine_are_refused_with_what_to_do():
    """Its parameters are marked by where their float32 copy is; partitions without an engine take noise."""
    layer = nn.Linear(4, 4)
    layer.weight._hp_mapping = object()
    with pytest.raises(UnsupportedTensorError, match=r"DeepSpeed engine.*perturb before deepspeed.initialize"):
        perturb_(layer)
