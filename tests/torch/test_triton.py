"""The Triton kernels: run by Triton's interpreter against NumPy, compiled for a GPU that is not there, and run on one
that is."""

import json
import os
import re
import subprocess
import sys
from collections import Counter

import ml_dtypes
import numpy as np
import pytest
import torch

from noisytune import field
from noisytune._noise import moments
from tests.support.once import made_once

pytest.importorskip("triton", reason="triton is not installed")

DTYPES = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
STD, LAMBDA, SEED, NAME = 0.05, 0.15, 11, "encoder.layer.3.output.dense.weight"
RUNS = [(1, 0), (5, 3), (4096, 0), (9001, 4000), (12_289, 16), (5000, 2**34 + 5)]
"""(size, start): odd sizes, borders of blocks, and an offset that needs the counter's high word to be made."""

CASES = [(dtype, *run, distribution) for dtype in DTYPES for run in RUNS for distribution in ("uniform", "gaussian")]

INTERPRETED = """
import json, sys
import numpy as np, torch
from noisytune.torch import _triton
std, noise_lambda, seed, name, cases = json.loads(sys.argv[1])
weights, results = dict(np.load(sys.argv[2])), {}
for i, (dtype, size, start, distribution) in enumerate(cases):
    tensor = torch.from_numpy(weights[str(i)]).view(getattr(torch, dtype))
    before = _triton.moments(tensor)
    added = _triton.add_noise_(tensor, std, noise_lambda, distribution, seed, name, start=start)
    results[f"{i}"] = tensor.view(torch.uint8).numpy()
    results[f"{i}.moments"], results[f"{i}.added"] = np.array(before), np.array(added)
for label in ("large", "constant", "nan"):
    results[label] = np.array(_triton.moments(torch.from_numpy(weights[label])))
results["small"] = weights["small"]
added = _triton.add_noise_(torch.from_numpy(results["small"]), 1e-25, noise_lambda, "uniform", seed, name)
results["small.added"] = np.array(added)
np.savez(sys.argv[3], **results)
"""


def weights_of(case):
    dtype, size, start, _ = case
    return np.random.default_rng(size + start % 1000).normal(0, STD, size).astype(DTYPES[dtype])


def special_weights():
    large = np.random.default_rng(0).normal(5, 3, 150_001).astype(np.float32)
    damaged = large.copy()
    damaged[100_000] = np.nan
    small = np.random.default_rng(1).normal(0, 1e-25, 9000).astype(np.float32)
    return {"large": large, "constant": np.full(70_000, 1 / 3, np.float32), "nan": damaged, "small": small}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory):
    """What the kernels gave for every case: TRITON_INTERPRET is read when triton is imported, so in a fresh process."""
    with np.load(made_once(tmp_path_factory, "interpreted", _interpret) / "results.npz") as results:
        return dict(results)


def _interpret(folder):
    cases = {str(i): weights_of(case).view(np.uint8) for i, case in enumerate(CASES)}
    np.savez(folder / "weights.npz", **cases, **special_weights())
    settings = json.dumps([STD, LAMBDA, SEED, NAME, CASES])
    subprocess.run(
        [sys.executable, "-c", INTERPRETED, settings, folder / "weights.npz", folder / "results.npz"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        check=True,
    )


def assert_moments_of_added(account, before, after):
    added = after.astype(np.float64) - before.astype(np.float64)
    np.testing.assert_allclose(account, moments.of(added), rtol=1e-9, atol=1e-14 * abs(added).max() ** 2)


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda i: "-".join(map(str, CASES[i])))
def test_interpreted_kernels_against_the_field(interpreted, index):
    dtype, size, start, distribution = CASES[index]
    weights = weights_of(CASES[index])
    result = interpreted[str(index)].view(DTYPES[dtype])
    work = np.float64 if dtype == "float64" else np.float32
    noise = field.noise(distribution, SEED, NAME, start, size).astype(work)
    expected = (weights.astype(work) + noise * work(LAMBDA * STD)).astype(weights.dtype)
    if distribution == "uniform":
        np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))
    else:
        # one unit in the last place of the noise may move a weight to its neighbour
        unit = float(ml_dtypes.finfo(DTYPES[dtype]).eps) if dtype != "float64" else float(np.finfo(np.float32).eps)
        difference = np.abs(result.astype(np.float64) - expected.astype(np.float64))
        assert (difference <= unit * np.maximum(np.abs(expected.astype(np.float64)), LAMBDA * STD)).all()
    assert_moments_of_added(interpreted[f"{index}.added"], weights, result)
    np.testing.assert_allclose(interpreted[f"{index}.moments"], moments.of(weights), rtol=1e-11)


def test_interpreted_moments_over_several_blocks(interpreted):
    weights = special_weights()
    np.testing.assert_allclose(interpreted["large"], moments.of(weights["large"]), rtol=1e-12)
    n, mean, m2 = interpreted["constant"]
    assert (n, mean, m2) == (70_000, np.float32(1 / 3), 0)
    assert not moments.Moments(*interpreted["nan"]).is_finite


def test_interpreted_account_of_weights_whose_squares_float32_does_not_hold(interpreted):
    assert moments.Moments(*interpreted["small.added"]).std == pytest.approx(LAMBDA * 1e-25 / 12**0.5, rel=0.05)
    assert_moments_of_added(interpreted["small.added"], special_weights()["small"], interpreted["small"])


# --- compiled for an H100, on any machine ---

POINTERS = {"float32": "*fp32", "float64": "*fp64", "float16": "*fp16", "bfloat16": "*i16"}


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """(kernel, dtype, distribution, fusion) -> the PTX and the machine code for sm_90, in a fresh process: here,
    another test may have set the interpreter."""
    return json.loads((made_once(tmp_path_factory, "ptx", _compile) / "assembly.json").read_text())


def _compile(folder):
    program = f"""
import json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from noisytune.torch import _triton
found = {{}}
def build(kernel, signature, **options):
    names = kernel.arg_names
    constants = {{(names.index(n),): v for n, v in signature.items() if not isinstance(v, str)}}
    types = {{n: v if isinstance(v, str) else "constexpr" for n, v in signature.items()}}
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=_triton.OPTIONS | options)
    has_rounded_weights = kernel is _triton.add_kernel and not signature["is_gaussian"]
    return built.asm["ptx"], built.asm["sass"] if has_rounded_weights else ""
for dtype, pointer in {POINTERS!r}.items():
    add = dict(weights=pointer, sums="*fp64", squares="*fp64", size="i64", start="i64", key="u64", scale_bits="i64",
               is_gaussian=False, is_bfloat16=dtype == "bfloat16", is_aligned=True)
    found[f"add {{dtype}} uniform"] = build(_triton.add_kernel, add)
    moments = dict(weights=pointer, means="*fp64", m2s="*fp64", size="i64", is_bfloat16=dtype == "bfloat16",
                   block_size=65536, tile=4096)
    found[f"moments {{dtype}}"] = build(_triton.moments_kernel, moments)
    if dtype == "float32":
        found["add float32 gaussian"] = build(_triton.add_kernel, add | dict(is_gaussian=True))
        found["fused"] = build(_triton.add_kernel, add, enable_fp_fusion=True)
print(json.dumps(found))
"""
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"TRITON_CACHE_DIR": str(folder)}
    with (folder / "assembly.json").open("w") as found:
        subprocess.run([sys.executable, "-c", program], env=env, check=True, stdout=found)


def fused(code):
    ptx, sass = code
    return Counter(re.findall(r"\bfma\.rn\.f\d+|\bmad\.f\d+", ptx)) + Counter(re.findall(r"\b[FD]FMA\b", sass))


@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_uniform_kernels_have_no_fused_multiply_add(assembly, dtype):
    assert not fused(assembly[f"add {dtype} uniform"])
    assert "fma.rn" not in assembly[f"moments {dtype}"][0]


def test_compiled_gaussian_kernel_fuses_only_inside_the_logarithm_and_cosine(assembly):
    """Those are in float64; the weights' path is in float32."""
    ptx, _ = assembly["add float32 gaussian"]
    assert set(re.findall(r"fma\.rn\.f\d+", ptx)) == {"fma.rn.f64"}


def test_the_search_for_fused_multiply_adds_finds_them_where_they_are(assembly):
    assert {"fma.rn.f32", "FFMA"} <= set(fused(assembly["fused"]))


# --- on a GPU ---


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_on_a_gpu(dtype, distribution):
    from noisytune._noise import kernels
    from noisytune.torch import _device, _triton

    weights = np.random.default_rng(0).normal(0, STD, 300_001).astype(DTYPES[dtype])
    tensor = torch.from_numpy(weights.view(np.uint8)).view(getattr(torch, dtype)).cuda()
    assert _device.backend(tensor) is _triton
    np.testing.assert_allclose(_triton.moments(tensor), kernels.moments(weights), rtol=1e-11)
    for run in (slice(0, 300_001), slice(4097, 100_000)):
        account = _triton.add_noise_(tensor[run], STD, LAMBDA, distribution, SEED, NAME, start=run.start)
        expected = kernels.add_noise_(weights[run], STD, LAMBDA, distribution, SEED, NAME, start=run.start)
        np.testing.assert_allclose(account[2], expected[2], rtol=1e-4)  # the CPU's sums are in float32
    result = tensor.view(torch.uint8).cpu().numpy()
    same = (result == weights.view(np.uint8)).mean()
    assert same == 1 if distribution == "uniform" else same > 0.999


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_account_on_a_gpu_of_weights_whose_squares_float32_does_not_hold():
    from noisytune.torch import _triton

    weights = special_weights()["small"]
    tensor = torch.from_numpy(weights).cuda()
    account = _triton.add_noise_(tensor, 1e-25, LAMBDA, "uniform", SEED, NAME)
    assert_moments_of_added(account, weights, tensor.cpu().numpy())
