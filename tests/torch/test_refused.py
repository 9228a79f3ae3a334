"""Modules that noise leaves alone or refuses: quantised, damaged, expanded, wrapped."""

import warnings

import pytest
import torch
from torch import nn

import noisytune.torch
from noisytune.errors import NonFiniteError, UnsupportedTensorError
from noisytune.torch import perturb_
from tests.support.modules import bits, left_alone, small_model, unchanged

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


def test_overlapping_parameters_are_refused():
    buffer = torch.randn(30)
    model = nn.ParameterDict({"a": nn.Parameter(buffer[:20]), "b": nn.Parameter(buffer[10:])})
    with pytest.raises(UnsupportedTensorError, match="share part of their memory"):
        perturb_(model, noise_lambda=0.15)
    assert torch.equal(model["a"], buffer[:20])
    neighbours = nn.ParameterDict({"a": nn.Parameter(buffer[:20]), "b": nn.Parameter(buffer[20:])})
    assert len(perturb_(neighbours, noise_lambda=0.15).perturbed) == 2


def test_expanded_parameters_are_refused_before_anything_is_written():
    model = nn.ParameterDict({"a": nn.Parameter(torch.randn(10))})
    model["b"] = nn.Parameter(torch.randn(10, 1).expand(10, 5))
    before = model["a"].detach().clone()
    with pytest.raises(UnsupportedTensorError, match=r"b .* is expanded"):
        perturb_(model, noise_lambda=0.15)
    assert torch.equal(model["a"], before)
    assert noisytune.torch.receipt(model) is None


def test_quantised_and_integer_weights():
    class Quantised(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(4, 4)
            self.codes = nn.Parameter(torch.randint(0, 255, (4, 4), dtype=torch.uint8), requires_grad=False)

    model = Quantised()
    before = bits(model)
    with pytest.raises(
        UnsupportedTensorError, match=r"codes \(uint8, shape \(4, 4\)\) is quantised .* before quantising"
    ):
        perturb_(model, noise_lambda=0.15)
    assert unchanged(model, before)
    assert len(perturb_(model, noise_lambda=0.15, exclude="codes").perturbed) == 2
    indices = nn.ParameterDict({"index": nn.Parameter(torch.arange(9), requires_grad=False)})
    assert left_alone(perturb_(indices, noise_lambda=0.15)) == {"index": "not floating point: int64"}


def test_codes_with_their_scales_are_refused_as_in_a_state_dict():
    model = nn.ModuleDict({"q": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    model["q"].register_buffer("qweight", torch.ones(2, 4, dtype=torch.int32))
    model["q"].register_buffer("scales", torch.ones(1, 4))
    words = r"q.qweight is quantised \(int32, with q.scales beside it\)"
    for perturb in (perturb_, lambda module: noisytune.torch.perturb_state_dict(module.state_dict())):
        with pytest.raises(UnsupportedTensorError, match=words):
            perturb(model)


def test_weights_that_older_releases_of_transformers_cut_are_refused():
    """Before 5.16 tensor parallelism left plain tensors: each rank's part would pass for a whole one."""
    model = small_model()
    model._tp_size = 2
    before = bits(model)
    with pytest.raises(UnsupportedTensorError, match=r"the model is cut .* take transformers 5\.16 or newer"):
        perturb_(model, noise_lambda=0.15)
    assert unchanged(model, before)
    model._tp_size = None
    assert perturb_(model, noise_lambda=0.15).perturbed


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    for compiled in (torch.jit.script(model), nn.Sequential(torch.jit.trace(model, torch.ones(1, 4)))):
        with pytest.raises(UnsupportedTensorError, match="is compiled by TorchScript"):
            perturb_(compiled)


@pytest.mark.parametrize(
    "made", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn, torch.nested.as_nested_tensor]
)
@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning", "ignore:The PyTorch API of nested:UserWarning")
def test_tensors_that_are_not_strided_are_refused_unless_excluded(made):
    model = nn.ParameterDict({"w": torch.eye(4), "other": nn.Parameter(made(torch.eye(4)))})
    with pytest.raises(UnsupportedTensorError, match=r"other .* make it dense, or exclude it"):
        perturb_(model)
    assert left_alone(perturb_(model, exclude="other")) == {"other": "excluded"}
    state = dict(nn.ParameterDict(dict(model)).state_dict())
    with pytest.raises(UnsupportedTensorError, match=r"other .* make it dense, or exclude it"):
        noisytune.torch.perturb_state_dict(state)


def test_a_state_dict_within_a_checkpoint_is_asked_for():
    state = nn.Linear(4, 4).state_dict()
    with pytest.raises(UnsupportedTensorError, match="'model' is itself a state dict: give that one"):
        noisytune.torch.perturb_state_dict({"model": state, "epoch": 3})
    state["part._extra_state"] = {"amax": torch.ones(3)}
    state["note"] = {"epoch": 3}
    manifest = noisytune.torch.perturb_state_dict(state)
    assert left_alone(manifest) == {"part._extra_state": "not a tensor", "note": "not a tensor"}


def test_dynamically_quantised_module_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), {nn.Linear})
    with pytest.raises(UnsupportedTensorError, match=r"0 is quantised \(Linear\)"):
        perturb_(model, noise_lambda=0.15)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_damaged_weights_are_refused_by_name_and_nothing_is_written(bad):
    model = small_model()
    with torch.no_grad():
        model[3].weight[1, 2] = bad
    before = bits(model)
    with pytest.raises(
        NonFiniteError, match=r"3.weight \(float32, shape \(5, 33\)\) has 1 values that are NaN or infinite"
    ):
        perturb_(model, noise_lambda=0.15)
    assert unchanged(model, before)
    assert noisytune.torch.receipt(model) is None


def test_a_spread_beyond_float64_is_said_to_be_that():
    layer = nn.Linear(3, 3).double()
    with torch.no_grad():
        layer.weight[0, 0] = 1e200
    with pytest.raises(NonFiniteError, match="standard deviation overflows"):
        perturb_(layer, noise_lambda=0.15)


def test_noise_that_would_overflow_half_precision_is_refused():
    layer = nn.Linear(64, 64).half()
    with torch.no_grad():
        layer.weight.uniform_(-1, 1).mul_(65_000)
    with pytest.raises(NonFiniteError, match="could pass the dtype's largest value 65504"):
        perturb_(layer, noise_lambda=0.3)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: nn.Linear(4, 4, device="meta"), "weight .* is on the meta device"),
        (lambda: nn.LazyLinear(4), "is lazy"),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)), "is parametrised"),
        (lambda: nn.ParameterDict({"w": nn.Parameter(torch.zeros(4, dtype=torch.complex64))}), None),
    ],
)
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_other_kinds_of_parameters(model, words):
    if words is None:
        assert not perturb_(model(), noise_lambda=0.15).perturbed
        return
    with pytest.raises(UnsupportedTensorError, match=words):
        perturb_(model(), noise_lambda=0.15)


def test_inference_tensors_are_refused():
    with torch.inference_mode():
        model = nn.Linear(4, 4)
    with pytest.raises(UnsupportedTensorError, match="is an inference tensor"):
        perturb_(model, noise_lambda=0.15)
