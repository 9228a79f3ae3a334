"""The compiled field against the plain one, bit for bit."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune import field
from noisytune._noise import kernels, moments

SETTINGS = {"std": 0.037, "noise_lambda": 0.15, "seed": 11, "name": "encoder.layer.3.output.dense.weight"}


def weights_of(dtype, size, spread=0.05):
    return np.random.default_rng(size).normal(0, spread, size).astype(dtype)


def same_bits(one, other):
    assert one.dtype == other.dtype
    words = f"u{one.dtype.itemsize}"
    np.testing.assert_array_equal(one.view(words), other.view(words))


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize("size", [1, 3, 1023, 4095, 4096, 4097, 70_001, (1 << 20) + 4099])
def test_uniform_noise_is_the_references_bit_for_bit(dtype, size):
    weights = weights_of(dtype, size)
    expected = field.add_noise(weights, distribution="uniform", **SETTINGS)
    kernels.add_noise_(weights, distribution="uniform", **SETTINGS)
    same_bits(weights, expected)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 20_000), max_size=6), st.sampled_from(kernels.DTYPES))
def test_any_chunking_gives_the_same_bits(cuts, dtype):
    weights = weights_of(dtype, 20_000)
    expected = field.add_noise(weights, distribution="uniform", **SETTINGS)
    edges = [0, *sorted(cuts), weights.size]
    for a, b in pairwise(edges):
        kernels.add_noise_(weights[a:b], distribution="uniform", start=a, **SETTINGS)
    same_bits(weights, expected)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=str)
def test_any_number_of_threads_gives_the_same_bits_and_the_same_account(dtype):
    weights = weights_of(dtype, 3 * kernels.CHUNK + 12_345)
    alone = weights.copy()
    account = kernels.add_noise_(alone, distribution="uniform", **SETTINGS)
    for threads in (2, 3, 7):
        shared = weights.copy()
        with ThreadPoolExecutor(threads) as pool:
            assert kernels.moments(shared, pool) == kernels.moments(shared)
            assert kernels.add_noise_(shared, distribution="uniform", pool=pool, **SETTINGS) == account
        same_bits(shared, alone)


def test_far_offsets_use_the_counters_high_word():
    start = 2**44 + 4095
    weights = np.zeros(5000, np.float32)
    kernels.add_noise_(weights, 1.0, 1.0, "uniform", 7, "w", start=start)
    np.testing.assert_array_equal(weights, field.uniform(7, "w", start, 5000))


def test_gaussian_noise_agrees_to_one_unit_in_the_last_place():
    n = 200_001
    weights = np.zeros(n, np.float32)
    kernels.add_noise_(weights, 1.0, 1.0, "gaussian", 7, "w")
    expected = field.gaussian(7, "w", 0, n)
    assert (np.abs(weights - expected) <= np.spacing(np.abs(expected))).all()
    assert (weights == expected).mean() > 0.999


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=str)
def test_rounding_of_half_precision_over_every_finite_value(dtype):
    """Zero noise leaves each value as it is, subnormals included; real noise rounds as the reference."""
    words = np.arange(2**16, dtype=np.uint32).astype(np.uint16)
    every = words.view(dtype)
    every = every[np.isfinite(every.astype(np.float32))].copy()
    still = every.copy()
    kernels.add_noise_(still, 0.0, 0.0, "uniform", 1, "w")
    np.testing.assert_array_equal(still.astype(np.float32), every.astype(np.float32))
    for std in (1e-7, 1e-4, 0.3):
        moved = every[np.abs(every.astype(np.float32)) < 60_000].copy()
        expected = field.add_noise(moved, std, 0.15, "uniform", 1, "w")
        kernels.add_noise_(moved, std, 0.15, "uniform", 1, "w")
        same_bits(moved, expected)


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_the_account_is_what_was_really_added(dtype, distribution):
    weights = weights_of(dtype, 100_003)
    before = weights.astype(np.float64)
    account = kernels.add_noise_(weights, distribution=distribution, **SETTINGS)
    added = weights.astype(np.float64) - before
    assert account.n == added.size
    assert account.std == pytest.approx(np.std(added, ddof=1), rel=1e-4)
    assert account.mean == pytest.approx(added.mean(), abs=account.std * 1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e18, 1e30])
@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_the_account_holds_for_weights_of_any_size(dtype, size, distribution):
    weights = (np.random.default_rng(0).normal(0, 1, 10_007) * size).astype(dtype)
    before = weights.astype(np.float64)
    account = kernels.add_noise_(weights, size, 0.15, distribution, 1, "w")
    assert account.std == pytest.approx(np.std(weights.astype(np.float64) - before, ddof=1), rel=1e-4, abs=0)


@pytest.mark.parametrize("dtype", kernels.DTYPES, ids=str)
def test_moments_of_every_dtype_are_the_references(dtype):
    weights = weights_of(dtype, 150_001)
    compiled, plain = kernels.moments(weights), moments.of(weights)
    assert compiled.n == plain.n
    assert compiled.std == pytest.approx(plain.std, rel=1e-12)
