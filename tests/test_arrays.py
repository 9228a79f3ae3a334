"""Noise on arrays and state dicts: the module's noise, bit for bit, and everything checked before anything is
written."""

import copy

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from noisytune import field
from noisytune._noise.facts import DTYPES
from noisytune.arrays import perturb_arrays, perturb_arrays_
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError, NonFiniteError, UnsupportedTensorError
from noisytune.torch import perturb_, perturb_state_dict

FLOATS = list(DTYPES)


def normal(shape, dtype=np.float32, spread=0.05):
    return np.random.default_rng(0).normal(0, spread, shape).astype(dtype)


def to_numpy(tensor):
    dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
    return tensor.detach().reshape(-1).view(torch.uint8).numpy().copy().view(dtype).reshape(tensor.shape)


def same_bits(one, other):
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8))


def left_alone(manifest):
    return {entry.own_names[0]: entry.left_alone for entry in manifest.entries if entry.left_alone}


def network(dtype="float32"):
    torch.manual_seed(0)
    layers = [torch.nn.Embedding(50, 16, padding_idx=3), torch.nn.Linear(16, 33), torch.nn.BatchNorm1d(33)]
    return torch.nn.Sequential(*layers).to(getattr(torch, dtype))


# --- the same noise as the module's ---


@pytest.mark.parametrize("scale", ["matrix", "global"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_module_state_dict_and_arrays_get_the_same_bits(dtype, scale):
    module = network(dtype)
    tensors = copy.deepcopy(module).state_dict()
    arrays = {name: to_numpy(p) for name, p in module.named_parameters()}
    config = NoisyTuneConfig(noise_lambda=0.3, seed=4, scale=scale)
    accounts = [
        perturb_(module, config),
        perturb_state_dict(tensors, config, padding_rows={"0.weight": 3}),
        perturb_arrays_(arrays, config, padding_rows={"0.weight": 3}),
    ]
    for name, parameter in module.named_parameters():
        same_bits(to_numpy(tensors[name]), to_numpy(parameter))
        same_bits(arrays[name], to_numpy(parameter))
    assert len(accounts[0].perturbed) == 3  # a batch norm's weight and bias are constant
    assert all(account.perturbed == accounts[0].perturbed for account in accounts)


def test_state_dict_of_a_model_with_a_head_gets_the_base_models_noise():
    transformers = pytest.importorskip("transformers", reason="needs a model with a head")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(config)
    weights = copy.deepcopy(model.state_dict())
    assert weights["cls.predictions.decoder.weight"] is not weights["bert.embeddings.word_embeddings.weight"]
    manifest = perturb_state_dict(weights, base_prefix="bert", padding_rows={"embeddings.word_embeddings.weight": 0})
    perturb_(model, scope="all")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    tied = next(entry for entry in manifest.entries if entry.name == "embeddings.word_embeddings.weight")
    assert set(tied.own_names) == {"bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"}


@settings(deadline=None, max_examples=60)
@given(hnp.array_shapes(min_dims=0, max_dims=4, max_side=9), st.sampled_from(FLOATS), st.integers(0, 2**64 - 1))
def test_equation_one_for_any_shape_and_dtype(shape, dtype, seed):
    clean = normal(shape, DTYPES[dtype])
    noisy, manifest = perturb_arrays({"w": clean}, noise_lambda=0.3, seed=seed)
    (entry,) = manifest.entries
    if clean.size < 2 or (clean == clean.reshape(-1)[0]).all():
        assert entry.left_alone
        same_bits(noisy["w"], clean)
    else:
        assert entry.std == pytest.approx(clean.astype(np.float64).std(ddof=1), rel=1e-10)
        same_bits(noisy["w"], field.add_noise(clean, entry.std, 0.3, "uniform", seed, "w"))


@pytest.mark.parametrize(
    "view", [lambda a: a.T, lambda a: a[::2, ::-3], lambda a: np.asfortranarray(a), lambda a: a[5:, 1:2]]
)
def test_noise_follows_the_index_whatever_the_memory_layout(view):
    array = view(normal((40, 30)))
    expected, _ = perturb_arrays({"w": np.ascontiguousarray(array)})
    perturb_arrays_({"w": array})
    np.testing.assert_array_equal(array, expected["w"])


# --- what is left alone ---


def test_integers_constants_single_elements_and_buffers_are_left_alone():
    arrays = {
        "weight": normal((4, 5)),
        "position_ids": np.arange(9),
        "mask": np.ones(3, bool),
        "ones": np.ones(6, np.float32),
        "temperature": np.float32([2.0]),
        "nothing": np.zeros((0, 3), np.float32),
        "bn.running_mean": normal(7),
    }
    before = copy.deepcopy(arrays)
    manifest = perturb_arrays_(arrays)
    assert left_alone(manifest) == {
        "position_ids": "not floating point: int64",
        "mask": "not floating point: bool",
        "ones": "constant",
        "temperature": "one element",
        "nothing": "empty",
        "bn.running_mean": "buffer",
    }
    changed = {name for name in arrays if not np.array_equal(arrays[name], before[name])}
    assert changed == {"weight"}


def test_include_and_exclude():
    manifest = perturb_arrays_({"a.weight": normal(9), "a.bias": normal(8), "b.weight": normal(7)}, include="a.*")
    assert left_alone(manifest) == {"b.weight": "not included"}
    with pytest.raises(ConfigError, match=r"'c\.\*' matches none"):
        perturb_arrays_({"a": normal(3)}, exclude="c.*")


def test_tied_arrays_get_one_noise_and_stay_tied():
    shared = normal((6, 4))
    clean = {"head.weight": shared, "embedding.weight": shared.reshape(6, 4)}
    noisy, manifest = perturb_arrays(clean)
    assert noisy["head.weight"] is noisy["embedding.weight"]
    assert manifest.entries[0].own_names == ("head.weight", "embedding.weight")
    np.testing.assert_array_equal(
        noisy["head.weight"],
        field.add_noise(shared, shared.astype(float).std(ddof=1), 0.15, "uniform", 0, "head.weight"),
    )


def test_what_is_no_tensor_in_a_state_dict_is_left_alone():
    weights = {"weight": torch.randn(4, 4), "epoch": 3, "extra": {"a": 1}}
    manifest = perturb_state_dict(weights)
    assert left_alone(manifest) == {"epoch": "not a tensor", "extra": "not a tensor"}


def test_lambda_zero_changes_nothing():
    clean = normal((3, 3))
    noisy, manifest = perturb_arrays({"w": clean}, noise_lambda=0)
    same_bits(noisy["w"], clean)
    assert left_alone(manifest) == {"w": "lambda is 0"}


# --- what is refused, before anything is written ---


def damaged(value=np.nan):
    array = normal((70, 1000))
    array[69, 999] = value
    return array


def read_only():
    array = normal(5)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (lambda: damaged(), NonFiniteError, r"bad \(float32, shape \(70, 1000\)\) has 1 values that are NaN"),
        (lambda: damaged(-np.inf), NonFiniteError, "infinite"),
        (lambda: np.array([1e200, 0, 1]), NonFiniteError, "standard deviation overflows"),
        (lambda: np.float16([65_000, -65_504, 3]), NonFiniteError, "could pass the dtype's largest value 65504"),
        (lambda: np.array([448, -3, 1]).astype(ml_dtypes.float8_e4m3fn), NonFiniteError, "largest value 448"),
        (lambda: normal(5, np.longdouble), UnsupportedTensorError, "takes no noise"),
        (lambda: normal(5, ">f4"), UnsupportedTensorError, "takes no noise"),
        (lambda: normal(5, ml_dtypes.float8_e8m0fnu), UnsupportedTensorError, "takes no noise"),
        (read_only, UnsupportedTensorError, "read-only"),
        (lambda: [1.0, 2.0], UnsupportedTensorError, "not a NumPy array but list"),
    ],
)
def test_refusals_leave_every_array_as_it_was(bad, error, message):
    good = normal((5, 5))
    before = good.copy()
    with pytest.raises(error, match=message):
        perturb_arrays_({"good": good, "bad": bad()}, noise_lambda=3)
    np.testing.assert_array_equal(good, before)


def test_arrays_that_share_part_of_their_memory_are_refused():
    whole = normal(20)
    with pytest.raises(UnsupportedTensorError, match=r"a \(.*\) and b \(.*\) share part of their memory"):
        perturb_arrays_({"a": whole[:12], "b": whole[8:]})
    perturb_arrays_({"a": whole[:12], "b": whole[8:]}, exclude="b")


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(4, dtype=torch.int8), torch.empty(3, device="meta"), torch.randn(4, 1).expand(4, 5)],
    ids=["int8", "meta", "expanded"],
)
def test_state_dicts_that_cannot_be_perturbed_are_refused(bad):
    good = torch.randn(5, 5)
    before = good.clone()
    with pytest.raises(UnsupportedTensorError, match=r"^bad "):
        perturb_state_dict({"good": good, "bad": bad})
    assert torch.equal(good, before)


@pytest.mark.parametrize(
    ("quantised", "said"),
    [
        ({"q.qweight": ((2, 16), "int32"), "q.scales": ((1, 16), "float16")}, "q.qweight .*int32, with q.scales"),
        ({"q.weight": ((4, 4), "float8_e4m3fn"), "q.weight_scale_inv": ((1, 1), "float32")}, "q.weight .*float8"),
        ({"q.weight": ((4, 4), "int8"), "q.SCB": ((4,), "float32")}, "q.weight .*int8"),
    ],
    ids=["GPTQ", "float8", "bitsandbytes"],
)
def test_codes_with_their_scales_are_refused_though_each_could_take_noise_or_be_left_alone(quantised, said):
    arrays = {"good": normal((5, 5))}
    for name, (shape, dtype) in quantised.items():
        arrays[name] = normal(shape).astype(getattr(ml_dtypes, dtype, dtype))
    before = {name: array.copy() for name, array in arrays.items()}
    with pytest.raises(UnsupportedTensorError, match=said):
        perturb_arrays_(arrays)
    assert all((arrays[name].view(np.uint8) == array.view(np.uint8)).all() for name, array in before.items())
    tensors = {"good": torch.from_numpy(arrays["good"])}
    for name, (shape, dtype) in quantised.items():
        tensors[name] = torch.zeros(shape).to(getattr(torch, dtype))
    with pytest.raises(UnsupportedTensorError, match="quantised"):
        perturb_state_dict(tensors)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="a config or settings, not both"):
        perturb_arrays_({}, NoisyTuneConfig(), seed=1)
    with pytest.raises(ConfigError, match="'v': there is no such tensor"):
        perturb_arrays_({"w": normal((3, 2))}, padding_rows={"v": 0})
    with pytest.raises(ConfigError, match=r"row 3 of 'w': the shape is \(3, 2\)"):
        perturb_arrays_({"w": normal((3, 2))}, padding_rows={"w": 3})
    with pytest.raises(UnsupportedTensorError, match="same canonical name 'w'"):
        perturb_arrays_({"w": normal(3), "module.w": normal(4)})


def test_gaussian_noise_may_overflow_where_uniform_noise_cannot() -> None:
    """From 65,000 on half of the std of 600 stays below float16's 65,504, and 1.66 of it do not."""
    weights = np.where(np.arange(4000) % 2, 65_000, 63_800).astype(np.float16)
    assert np.isfinite(perturb_arrays({"w": weights}, noise_lambda=1.0, seed=0)[0]["w"]).all()
    with pytest.raises(NonFiniteError, match="could pass the dtype's"):
        perturb_arrays({"w": weights}, noise_lambda=1.0, seed=0, distribution="gaussian")
