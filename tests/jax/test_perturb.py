"""Noise on JAX pytrees: the arrays' noise, bit for bit, on the host and in XLA, with and without 64-bit types, on one
device and on four."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is not installed")

import jax.numpy as jnp  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

import noisytune.jax as nj  # noqa: E402
from noisytune import field  # noqa: E402
from noisytune._noise.facts import DTYPES  # noqa: E402
from noisytune.arrays import perturb_arrays  # noqa: E402
from noisytune.config import NoisyTuneConfig  # noqa: E402
from noisytune.errors import ConfigError, NonFiniteError, UnsupportedTensorError  # noqa: E402
from noisytune.jax import _xla  # noqa: E402


def normal(shape, dtype=np.float32, spread=0.05):
    return np.random.default_rng(0).normal(0, spread, shape).astype(dtype)


def same_bits(one, other):
    one, other = np.asarray(one), np.asarray(other)
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    np.testing.assert_array_equal(one.reshape(-1).view(np.uint8), other.reshape(-1).view(np.uint8))


def left_alone(manifest):
    return {entry.name: entry.left_alone for entry in manifest.entries if entry.left_alone}


@pytest.fixture(params=["on the host", "in XLA"])
def path(request, monkeypatch):
    """Sends leaves down the path of accelerators by hiding that they are on the CPU."""
    if request.param == "in XLA":
        monkeypatch.setattr("noisytune.jax._perturb._on_host", lambda leaf: False)


# --- the same noise as the arrays' ---

EVERYWHERE = """
import sys
import jax, numpy as np
import noisytune.jax as nj
import noisytune.jax._perturb as route
from noisytune._noise.facts import DTYPES
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
devices = len(jax.devices())
meshes = [jax.make_mesh((devices // 2 or 1, min(devices, 2)), ("a", "b"), axis_types=(kind,) * 2)
          for kind in (AxisType.Auto, AxisType.Explicit)]
layouts = [NamedSharding(mesh, spec) for mesh in meshes for spec in (P("a", "b"), P(None, ("b", "a")), P())]
layouts = [None, *layouts[:6 if devices > 1 else 1]]
weights = np.load(sys.argv[1])
on_host, results = route._on_host, {}
for index, layout in enumerate(layouts):
    for where in ("host", "xla"):
        route._on_host = on_host if where == "host" else lambda leaf: False
        with jax.enable_x64(True):
            tree = {name: jax.device_put(weights[name].view(DTYPES[name]), layout) for name in weights.files}
        if index:
            tree = {"float32": tree["float32"], "bfloat16": tree["bfloat16"]}
        noisy, _ = nj.perturb(tree, noise_lambda=0.3, seed=4)
        for name, leaf in noisy.items():
            assert leaf.sharding == tree[name].sharding, (name, where, leaf.sharding)
            assert leaf.dtype == tree[name].dtype
            results[f"{name}/{index}/{where}"] = np.asarray(leaf).reshape(-1).view(np.uint8)
np.savez(sys.argv[2], **results)
"""


@pytest.mark.parametrize(("devices", "x64"), [pytest.param(1, "0", marks=pytest.mark.slow), (1, "1"), (4, "0")])
def test_arrays_and_jax_get_the_same_bits(devices, x64, tmp_path):
    weights = {name: normal((60, 76), dtype) for name, dtype in DTYPES.items()}
    expected, _ = perturb_arrays(weights, noise_lambda=0.3, seed=4)
    layouts = 6 if devices > 1 else 1  # on four devices: two kinds of meshes, split in three ways
    words = {name: w.view(f"u{w.itemsize}") for name, w in weights.items()}
    np.savez(tmp_path / "in.npz", **words)
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "JAX_ENABLE_X64": x64}
    command = [sys.executable, "-c", EVERYWHERE, str(tmp_path / "in.npz"), str(tmp_path / "out.npz")]
    subprocess.run(command, env={**os.environ, **flags, "JAX_PLATFORMS": "cpu"}, check=True)
    with np.load(tmp_path / "out.npz") as results:
        assert len(results.files) == 2 * (len(DTYPES) + layouts * 2)
        for label in results.files:
            name, _, where = label.split("/")
            if (name, where) == ("float64", "xla"):
                # A float64 scale is not rounded, and the last bit of its sums depends on their order.
                found = results[label].view(np.float64)
                np.testing.assert_allclose(found, expected[name].reshape(-1), rtol=0, atol=1e-15, err_msg=label)
                continue
            same = expected[name].reshape(-1).view(np.uint8)
            np.testing.assert_array_equal(results[label], same, err_msg=label)


@settings(deadline=None, max_examples=12)
@given(hnp.array_shapes(min_dims=0, max_dims=4, max_side=7), st.sampled_from(["float32", "float16", "bfloat16"]))
def test_any_shape_in_xla(shape, dtype):
    clean = normal(shape, DTYPES[dtype])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("noisytune.jax._perturb._on_host", lambda leaf: False)
        noisy, manifest = nj.perturb({"w": jnp.asarray(clean)}, noise_lambda=0.3, seed=9)
    expected, account = perturb_arrays({"w": clean}, noise_lambda=0.3, seed=9)
    same_bits(noisy["w"], expected["w"])
    assert left_alone(manifest) == left_alone(account)


@pytest.mark.parametrize("row", [0, 5, 2**18, 2**20 - 1])
def test_noise_of_a_part_of_an_array_of_2_to_the_34_elements(row):
    start = row * 2**14 + 100
    words = np.array([start >> 32, start & 0xFFFFFFFF], np.uint32)
    key = np.array(field.key(3, "w"), np.uint32)
    product = _xla._product(key, words, np.float32(1), (2, 500), (2**14, 1), "uniform")
    expected = [field.uniform(3, "w", first, 500) for first in (start, start + 2**14)]
    np.testing.assert_array_equal(product, expected)


def test_flat_indices_beyond_32_bits():
    high, low = _xla._flat_index(np.array([3, 2**32 - 1], np.uint32), (70_000, 2), (2**33 + 7, 1))
    index = np.asarray(high).astype(np.uint64) << np.uint64(32) | np.asarray(low)
    start = np.uint64(4 * 2**32 - 1)
    expected = (
        start + np.arange(70_000, dtype=np.uint64)[:, None] * np.uint64(2**33 + 7) + np.arange(2, dtype=np.uint64)
    )
    np.testing.assert_array_equal(index, expected)


def test_gaussian_noise_agrees_to_one_unit_in_the_last_place(path):
    weights = normal((200, 300))
    noisy, _ = nj.perturb({"w": jnp.asarray(weights)}, distribution="gaussian", seed=2)
    expected, account = perturb_arrays({"w": weights}, distribution="gaussian", seed=2)
    width = account.entries[0].scale
    assert (np.abs(noisy["w"] - expected["w"]) <= np.finfo(np.float32).eps * np.abs(expected["w"]).clip(width)).all()


def test_one_thread_launches_all_programs_of_other_devices(monkeypatch):
    """Where several processes share an array, each has to launch the same programs in the same order."""
    monkeypatch.setattr("noisytune.jax._perturb._on_host", lambda leaf: False)
    seen = set()

    def watched(function):
        def call(*args):
            seen.add(threading.current_thread())
            return function(*args)

        return call

    for name in ("moments", "add_noise"):
        monkeypatch.setattr(_xla, name, watched(getattr(_xla, name)))
    _, manifest = nj.perturb({f"w{i}": jnp.asarray(normal((400, 300))) for i in range(6)})
    assert len(manifest.perturbed) == 6
    assert seen == {threading.main_thread()}


def test_accounts_of_host_and_xla_agree(path):
    weights = normal((400, 300), spread=3) + 5
    _, manifest = nj.perturb({"w": jnp.asarray(weights)}, scale="global")
    (entry,) = manifest.entries
    assert entry.std == pytest.approx(weights.astype(np.float64).std(ddof=1), rel=1e-12)
    assert entry.realised_std == pytest.approx(entry.scale / 12**0.5, rel=0.01)
    assert (entry.shape, entry.dtype) == ((400, 300), "float32")


# --- Flax ---


def test_nnx_and_a_plain_dict_get_the_same_noise():
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    class Model(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(8, 16, rngs=rngs), nnx.Linear(16, 4, rngs=rngs)])
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.dropout = nnx.Dropout(0.1, rngs=rngs)

    model = Model(nnx.Rngs(0))
    clean = {f"layers.{i}.kernel": np.array(model.layers[i].kernel[...]) for i in range(2)}
    noisy, manifest = nj.perturb(nnx.state(model, nnx.Param), seed=5)
    np.testing.assert_array_equal(model.layers[0].kernel[...], clean["layers.0.kernel"])
    nnx.update(model, noisy)
    expected, _ = perturb_arrays(clean, seed=5)
    for i in range(2):
        same_bits(model.layers[i].kernel[...], expected[f"layers.{i}.kernel"])
    assert {entry.name for entry in manifest.perturbed} == set(clean)
    assert left_alone(manifest)["norm.scale"] == "constant"
    _, whole = nj.perturb(nnx.state(model))
    assert left_alone(whole)["dropout.rngs.key"].startswith("not floating point: key<")


def test_linen_variables_and_their_params_get_the_same_noise():
    linen = pytest.importorskip("flax.linen", reason="Flax is not installed")

    class Model(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=False)(linen.Dense(4)(linen.Dense(16)(x)))

    variables = Model().init(jax.random.key(0), jnp.ones((2, 8)))
    whole, manifest = nj.perturb(variables, seed=5)
    inside, _ = nj.perturb(variables["params"], seed=5)
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(lambda a, b: bool((a == b).all()), whole["params"], inside))
    assert [entry.name for entry in manifest.perturbed] == ["Dense_0.kernel", "Dense_1.kernel"]
    assert left_alone(manifest)["batch_stats.BatchNorm_0.mean"] == "not in params"
    kernel = variables["params"]["Dense_0"]["kernel"]
    expected, _ = perturb_arrays({"Dense_0.kernel": np.asarray(kernel)}, seed=5)
    same_bits(whole["params"]["Dense_0"]["kernel"], expected["Dense_0.kernel"])
    Model().apply(whole, jnp.ones((2, 8)), mutable=["batch_stats"])


@pytest.mark.parametrize("is_inside", [False, True], ids=["params", "variables inside params"])
def test_of_a_training_state_only_the_parameters_take_noise(is_inside):
    train_state = pytest.importorskip("flax.training.train_state", reason="Flax is not installed")
    optax = pytest.importorskip("optax", reason="Optax is not installed")

    class State(train_state.TrainState):
        batch_stats: object

    dense, statistics = {"kernel": jnp.asarray(normal((8, 4)))}, {"mean": jnp.asarray(normal(4))}
    params = {"params": {"dense": dense}, "batch_stats": statistics} if is_inside else {"dense": dense}
    state = State.create(apply_fn=None, params=params, tx=optax.adam(1e-3), batch_stats=statistics)
    for step in (1, 2):
        state = state.apply_gradients(grads=jax.tree_util.tree_map(lambda leaf, by=step: leaf * by, state.params))
    noisy, manifest = nj.perturb(state, seed=5)
    assert [entry.name for entry in manifest.perturbed] == ["dense.kernel"]
    clean = state.params["params"] if is_inside else state.params
    made = noisy.params["params"] if is_inside else noisy.params
    expected, _ = perturb_arrays({"dense.kernel": np.asarray(clean["dense"]["kernel"])}, seed=5)
    same_bits(made["dense"]["kernel"], expected["dense.kernel"])
    assert {why for name, why in left_alone(manifest).items() if "nu" in name} == {"not in params"}
    jax.tree_util.tree_map(same_bits, noisy.opt_state, state.opt_state)
    jax.tree_util.tree_map(same_bits, noisy.batch_stats, state.batch_stats)
    if is_inside:
        same_bits(noisy.params["batch_stats"]["mean"], state.params["batch_stats"]["mean"])
    noisy.apply_gradients(grads=noisy.params)


def test_a_training_state_whose_parts_have_no_names_is_refused():
    class Unnamed:
        def __init__(self, params, opt_state):
            self.params, self.opt_state = params, opt_state

    parts = (lambda state: ((state.params, state.opt_state), None)), (lambda _, parts: Unnamed(*parts))
    jax.tree_util.register_pytree_node(Unnamed, *parts)
    with pytest.raises(
        UnsupportedTensorError, match=r"Unnamed has no weights under params\.\*: give its params instead"
    ):
        nj.perturb(Unnamed({"w": jnp.asarray(normal((3, 3)))}, {"nu": jnp.ones(3)}))


@pytest.mark.parametrize("given", ["state", "module"])
def test_statistics_and_random_state_of_an_nnx_model_stay_clean(given):
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")

    class Scale(nnx.Param):
        """A kind of parameter."""

    class Normalised(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(4, 3, rngs=rngs)
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.scale = Scale(jnp.arange(3.0))
            self.dropout = nnx.Dropout(0.1, rngs=rngs)

        def __call__(self, x):
            return self.scale[...] * self.dropout(self.norm(self.linear(x)))

    model = Normalised(nnx.Rngs(0))
    model(jax.random.normal(jax.random.key(0), (8, 4)))
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)))
    noisy, manifest = nj.perturb(nnx.state(model) if given == "state" else model, noise_lambda=0.15, seed=1)
    assert {e.name for e in manifest.perturbed} == {"linear.kernel", "scale"}
    assert {name for name, why in left_alone(manifest).items() if why == "not an nnx.Param"} >= {
        "norm.mean",
        "norm.var",
    }
    nnx.update(model, noisy if given == "state" else nnx.state(noisy))
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat)), before)


# --- stacks ---


def stack(*shape):
    """Matrices of sizes from 1 to 1000."""
    return normal(shape) * np.geomspace(1, 1000, shape[0]).astype(np.float32).reshape(-1, *(1,) * (len(shape) - 1))


def test_each_expert_of_a_stack_has_noise_by_its_own_size(path):
    clean = {"moe": {"experts": {"up": jnp.asarray(stack(4, 16, 8))}, "gate": {"kernel": jnp.asarray(normal((16, 4)))}}}
    noisy, manifest = nj.perturb(clean, seed=3)
    weights = {"moe.experts.up": stack(4, 16, 8), "moe.gate.kernel": normal((16, 4))}
    expected, _ = perturb_arrays(weights, seed=3)
    same_bits(noisy["moe"]["experts"]["up"], expected["moe.experts.up"])
    same_bits(noisy["moe"]["gate"]["kernel"], expected["moe.gate.kernel"])
    (told,) = manifest.notices
    assert told.startswith("moe.experts.up (and 3 more) is one of the experts or layers that are stacked")
    out, _ = nj.perturb(clean, seed=3, exclude="moe.experts.up")
    assert out["moe"]["experts"]["up"] is clean["moe"]["experts"]["up"]


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_layers_of_nn_scan_count_one_by_one(path, kind):
    """As many matrices as layers, each with the noise that the layer alone would have under that name."""
    layers = {
        "mlp": {"kernel": stack(3, 8, 4), "bias": stack(3, 4)},
        "moe": {"experts": {"w": stack(3, 2, 8, 4)}},
        "constant": {"scale": np.ones((3, 8), np.float32)},
    }
    tree = jax.tree_util.tree_map(kind, {"params": {"decoder": {"layers": layers}, "head": {"kernel": normal((4, 3))}}})
    noisy, manifest = nj.perturb(tree, seed=3)
    assert jax.tree_util.tree_structure(noisy) == jax.tree_util.tree_structure(tree)
    found = {entry.name: entry for entry in manifest.entries}
    assert [name for name in found if "kernel" in name] == [
        *(f"decoder.layers.mlp.kernel[{layer}]" for layer in range(3)),
        "head.kernel",
    ]
    assert "decoder.layers.moe.experts.w[2][1]" in found
    made = noisy["params"]["decoder"]["layers"]
    assert type(made["mlp"]["kernel"]) is type(kind(normal(3)))
    for layer in range(3):
        name = f"decoder.layers.mlp.kernel[{layer}]"
        expected, _ = perturb_arrays({name: layers["mlp"]["kernel"][layer]}, seed=3)
        same_bits(made["mlp"]["kernel"][layer], expected[name])
    assert found["decoder.layers.constant.scale[0]"].left_alone == "constant"
    same_bits(made["constant"]["scale"], layers["constant"]["scale"])


@pytest.mark.parametrize(
    "layers",
    [
        {"kernel": normal((4, 8, 2)), "bias": normal(4)},  # one attention layer: a vector is beside it
        {"kernel": normal((4, 8)), "other": normal((4, 3))},  # two matrices
        {"kernel": normal((4, 8, 2)), "other": normal((3, 8))},  # not so many of each
        {"0": {"kernel": normal((4, 8, 2)), "scale": normal((4, 8))}},  # layers by themselves
    ],
)
def test_what_stacks_nothing_is_one_tensor(layers):
    _, manifest = nj.perturb({"layers": layers}, seed=3)
    assert not [entry.name for entry in manifest.entries if entry.name.endswith("]")]
    assert not manifest.notices


# --- the tree ---


def test_structure_other_leaves_and_the_input_stay_as_they_were(path):
    tree = {
        "layers": [{"w": jnp.asarray(normal((4, 5)))}, {"w": normal((3, 3))}],
        "steps": jnp.arange(3),
        "ones": jnp.ones(4),
        "temperature": jnp.float32(2),
        "empty": jnp.zeros((0, 2)),
        "key": jax.random.key(0),
        "rate": 0.1,
        "none": None,
    }
    before = jax.tree_util.tree_map(lambda leaf: leaf, tree)
    copies = [np.array(layer["w"]) for layer in tree["layers"]]
    noisy, manifest = nj.perturb(tree)
    assert jax.tree_util.tree_structure(noisy) == jax.tree_util.tree_structure(tree)
    assert [entry.name for entry in manifest.perturbed] == ["layers.0.w", "layers.1.w"]
    assert isinstance(noisy["layers"][0]["w"], jax.Array)
    assert isinstance(noisy["layers"][1]["w"], np.ndarray)
    for name in ("steps", "ones", "temperature", "empty", "key", "rate"):
        assert noisy[name] is before[name]
    for layer, clean, changed in zip(tree["layers"], copies, noisy["layers"], strict=True):
        np.testing.assert_array_equal(layer["w"], clean)
        assert (np.asarray(changed["w"]) != clean).any()
    assert left_alone(manifest) == {
        "steps": "not floating point: int32",
        "ones": "constant",
        "temperature": "one element",
        "empty": "empty",
        "key": "not floating point: key<fry>",
        "rate": "not an array",
    }


CODES = {
    "qwix": {"kernel": {"qvalue": np.arange(32, dtype=np.int8).reshape(8, 4), "scale": normal((1, 4))}},
    "scaled float8": {"weight": normal((8, 4), DTYPES["float8_e4m3fn"]), "weight_scale_inv": normal((2, 2))},
}


@pytest.mark.parametrize("layer", CODES.values(), ids=CODES)
def test_codes_with_their_scales_are_refused_as_among_arrays(layer):
    tree = {"dense": jax.tree_util.tree_map(jnp.asarray, layer)}
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    arrays = {jax.tree_util.keystr(path, simple=True, separator="."): np.asarray(leaf) for path, leaf in flat}
    with pytest.raises(UnsupportedTensorError, match=r"is quantised \(.*, with .*scale.* beside it\)") as ours:
        nj.perturb(tree)
    with pytest.raises(UnsupportedTensorError) as theirs:
        perturb_arrays(arrays)
    assert str(ours.value) == str(theirs.value)
    outside = {"params": {"kernel": jnp.asarray(normal((3, 3)))}, "quantised": tree}
    assert [entry.name for entry in nj.perturb(outside)[1].perturbed] == ["kernel"]


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float32"])
def test_the_scale_of_a_norm_gives_no_codes_away(dtype):
    """A model of Flax that is float8 throughout."""
    norm = {"scale": normal(8), "bias": normal(8)}
    tree = {"norm": norm, "dense": {"kernel": normal((8, 4)), "bias": normal(4)}}
    tree = jax.tree_util.tree_map(lambda leaf: leaf.astype(DTYPES[dtype]), tree)
    assert len(nj.perturb(tree)[1].perturbed) == 4


def test_buffers_and_adapters_stay_as_they_are():
    tree = {
        "bn": {"running_mean": normal(8), "scale": normal(8)},
        "rotary": {"inv_freq": normal(8)},
        "layers": {"rotary": {"inv_freq": normal((3, 8))}, "mlp": {"kernel": normal((3, 8, 4))}},
        "dense": {"kernel": normal((8, 4)), "kernel_lora_a": normal((8, 2)), "kernel_lora_b": normal((2, 4))},
    }
    noisy, manifest = nj.perturb(jax.tree_util.tree_map(jnp.asarray, tree))
    assert left_alone(manifest) == {
        "bn.running_mean": "buffer",
        "dense.kernel_lora_a": "adapter",
        "dense.kernel_lora_b": "adapter",
        **{f"layers.rotary.inv_freq[{layer}]": "buffer" for layer in range(3)},
        "rotary.inv_freq": "buffer",
    }
    same_bits(noisy["layers"]["rotary"]["inv_freq"], tree["layers"]["rotary"]["inv_freq"])


def test_an_array_under_two_paths_gets_one_noise():
    shared = jnp.asarray(normal((4, 4)))
    noisy, manifest = nj.perturb({"decoder": shared, "embedding": shared})
    assert noisy["decoder"] is noisy["embedding"]
    assert manifest.entries[0].own_names == ("decoder", "embedding")


def test_uncommitted_arrays_stay_so(path):
    noisy, _ = nj.perturb({"w": jnp.asarray(normal((4, 4)))})
    assert not noisy["w"].committed


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (
            lambda: jnp.asarray([1.0, jnp.nan, 2.0]),
            NonFiniteError,
            r"bad \(float32, shape \(3,\)\) has 1 values .* NaN",
        ),
        (lambda: jnp.asarray([65_000, 3], jnp.float16), NonFiniteError, "could pass the dtype's largest value 65504"),
        (lambda: jnp.triu(jnp.full((9, 9), jnp.finfo(jnp.bfloat16).min), 1), NonFiniteError, "could pass the dtype's"),
        (lambda: jnp.asarray([0.5, 3], jnp.float4_e2m1fn), UnsupportedTensorError, "takes no noise"),
        (lambda: jax.ShapeDtypeStruct((3,), jnp.float32), UnsupportedTensorError, "has no values"),
    ],
)
def test_refusals(path, bad, error, message):
    with pytest.raises(error, match=message):
        nj.perturb({"good": jnp.asarray(normal((3, 3))), "bad": bad()}, noise_lambda=3e4)


REPLICATED = """
import sys
import jax, jax.numpy as jnp, numpy as np
import noisytune.jax as nj
import noisytune.jax._perturb as route
from flax.jax_utils import replicate
from noisytune.errors import UnsupportedTensorError
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
kernel = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
layers = {"layers": {"kernel": kernel, "bias": kernel[0]}, "step": np.int32(3)}
rows = NamedSharding(Mesh(jax.devices(), ("rows",)), P("rows"))
split = {"w": kernel[:2], "ones": np.ones((2, 3), np.float32), "none": np.zeros((2, 0), np.float32)}
split = jax.device_put(split, rows)
for hides in (False, True):  # hidden, the leaves go down the path of accelerators
    if hides:
        route._on_host = lambda leaf: False
    for tree in ({"kernel": kernel}, layers):
        try:
            nj.perturb(replicate(tree))
        except UnsupportedTensorError as error:
            print(error)
    noisy, manifest = nj.perturb(split)
    assert [entry.name for entry in manifest.perturbed] == ["w"]
    assert nj.perturb(replicate({"w": kernel}), exclude="w")[1].entries[0].left_alone == "excluded"
"""


def test_parameters_that_are_replicated_for_pmap_are_refused():
    """Each replica would get noise of its own; a weight that is split by rows takes noise."""
    pytest.importorskip("flax", reason="Flax is not installed")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", REPLICATED]
    printed = subprocess.run(command, env={**os.environ, **flags}, check=True, capture_output=True, text=True).stdout
    said = printed.splitlines()
    assert said[0] == "kernel (float32, shape (2, 8, 4)) is replicated for pmap: perturb before replicate"
    assert len(said) == 4
    assert all(line.endswith("is replicated for pmap: perturb before replicate") for line in said)


def test_more_refusals():
    gone = jnp.asarray(normal(4))
    gone.delete()
    with pytest.raises(UnsupportedTensorError, match="was deleted or donated"):
        nj.perturb({"w": gone})
    with pytest.raises(UnsupportedTensorError, match="outside jit"):
        jax.jit(lambda tree: nj.perturb(tree)[0])({"w": jnp.ones(3)})
    with pytest.raises(UnsupportedTensorError, match=r"the same name 'a\.b'"):
        nj.perturb({"a.b": jnp.ones(3), "a": {"b": jnp.ones(4)}})
    with pytest.raises(ConfigError, match="a config or settings, not both"):
        nj.perturb({}, NoisyTuneConfig(), seed=1)
    with pytest.raises(ConfigError, match="matches none"):
        nj.perturb({"w": jnp.ones(3)}, include="v*")
    with pytest.raises(ConfigError, match=r"tensors by name do not say which .* give the tensor's name"):
        nj.perturb({"w": jnp.ones(3)}, exclude="@token_embeddings")
