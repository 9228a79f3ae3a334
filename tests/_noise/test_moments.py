"""Mergeable moments against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune._noise import kernels, moments
from noisytune._noise.moments import BLOCK, Moments


@given(st.integers(2, 3 * BLOCK), st.floats(-100, 100), st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))
def test_std_is_numpys_sample_standard_deviation(size, mean, spread, seed):
    values = np.random.default_rng(seed).normal(mean, spread, size).astype(np.float32)
    expected = np.std(values.astype(np.float64), ddof=1)
    assert moments.of(values).std == pytest.approx(expected, rel=1e-12)
    assert kernels.moments(values).std == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=9), st.integers(0, 2**32 - 1))
def test_merged_parts_are_the_whole(sizes, seed):
    parts = [np.random.default_rng([seed, i]).normal(i, 1, size) for i, size in enumerate(sizes)]
    merged = moments.merge([moments.of(part) for part in parts])
    whole = np.concatenate(parts)
    assert merged.n == whole.size
    assert merged.mean == pytest.approx(whole.mean(), rel=1e-12, abs=1e-12)
    assert merged.m2 == pytest.approx(((whole - whole.mean()) ** 2).sum(), rel=1e-10, abs=1e-10)


def test_scale_is_the_same_in_float32_however_a_tensor_is_sharded():
    generator = np.random.default_rng(0)
    values = generator.normal(0.01, 0.02, 300_000).astype(np.float32)
    whole = np.float32(0.15 * moments.of(values).std)
    for _ in range(50):
        cuts = np.sort(generator.integers(0, values.size, 7))
        shards = [shard for shard in np.split(values, cuts) if shard.size]
        assert np.float32(0.15 * moments.merge([moments.of(shard) for shard in shards]).std) == whole


@pytest.mark.parametrize("value", [0.0, 1 / 3, -1e30, 1e-40])
@pytest.mark.parametrize("size", [2, 1000, BLOCK + 1, 3 * BLOCK])
@pytest.mark.parametrize("measure", [moments.of, kernels.moments])
def test_constant_is_seen_exactly(value, size, measure):
    values = np.full(size, value, np.float32)
    assert measure(values).is_constant
    values[size // 2] = np.nextafter(values[0], np.float32(np.inf), dtype=np.float32)
    assert not measure(values).is_constant


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("measure", [moments.of, kernels.moments])
def test_non_finite_is_seen(bad, measure):
    values = np.random.default_rng(0).normal(size=BLOCK + 10).astype(np.float32)
    for where in (0, 17, BLOCK, BLOCK + 9):
        damaged = values.copy()
        damaged[where] = bad
        assert not measure(damaged).is_finite


def test_few_numbers():
    assert moments.merge([]) == moments.EMPTY
    assert np.isnan(Moments(1, 3.0, 0.0).std)
    assert moments.merge([moments.EMPTY, moments.of(np.array([1.0, 3.0])), moments.EMPTY]).std == pytest.approx(2**0.5)


@pytest.mark.parametrize("blocks", [1, 2, 63, 64, 65, 129, 1000, 4097])
@pytest.mark.parametrize("last", [1, 7, 65_535, 65_536])
def test_many_blocks_are_merged_as_few_are_to_the_bit(blocks, last):
    random = np.random.default_rng([blocks, last])
    means, m2s = random.normal(0, 3, blocks), random.exponential(9, blocks)
    counts = [moments.BLOCK] * (blocks - 1) + [last]
    one_by_one = moments.merge(
        [moments.Moments(*part) for part in zip(counts, means.tolist(), m2s.tolist(), strict=True)]
    )
    assert moments.of_blocks(sum(counts), means, m2s) == one_by_one


def test_many_blocks_one_of_which_is_not_finite():
    means = np.zeros(200)
    means[150] = np.inf
    assert not moments.of_blocks(200 * moments.BLOCK, means, np.ones(200)).is_finite
