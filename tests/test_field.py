"""The noise field against published known answers, its golden bytes and its statistics."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from noisytune import field

# Random123 1.14, tests/kat_vectors: philox4x32 10 rounds. Counter, key, result.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

# Frozen: these bytes may never change within version 1. (seed, name, index) -> bits.
GOLDEN = [
    (0, "embeddings.word_embeddings.weight", 0, 0x3A4AFD95),
    (1, "encoder.layer.0.attention.self.query.weight", 4095, 0x9A16ACC0),
    (2**64 - 1, "head:classifier.weight", 4096, 0xEA9D7911),
    (42, "ünïcode.重み", 1_000_000_007, 0x3CA0443D),
    (7, "w", 2**44 + 5, 0x5F90D63A),
]


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    k0, k1 = (int(word) for word in words(key))
    assert field.philox4x32(words(counter)[:, None], (k0, k1))[:, 0].tolist() == words(expected).tolist()


@pytest.mark.parametrize(("seed", "name", "index", "expected"), GOLDEN)
def test_golden_bits(seed, name, index, expected):
    assert int(field.bits(seed, name, index, 1)[0]) == expected


def test_version_is_the_one_that_the_golden_bits_belong_to():
    assert field.VERSION == 1


@given(st.integers(0, 3 * field.BLOCK), st.integers(1, 3 * field.BLOCK))
def test_a_run_of_the_field_does_not_depend_on_where_it_starts(start, count):
    whole = field.bits(3, "w", 0, start + count)
    assert np.array_equal(field.bits(3, "w", start, count), whole[start:])


def test_uniform_is_inside_the_open_interval_symmetric_and_never_zero():
    every_value = (np.arange(2**24, dtype=np.uint32)).astype(np.float32) * np.float32(2**-24) - np.float32(0.5 - 2**-25)
    assert every_value.min() == -every_value.max()
    assert every_value.max() < 0.5
    assert not (every_value == 0).any()
    assert len(np.unique(every_value)) == 2**24
    drawn = field.uniform(1, "w", 0, 1 << 18)
    assert np.isin(drawn, every_value).all()


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_mean_variance_and_shape_of_the_distribution(distribution):
    n = 1 << 20
    values = field.noise(distribution, 5, "encoder.weight", 0, n).astype(np.float64)
    spread = 1 / np.sqrt(12)
    assert abs(values.mean()) < 4 * spread / np.sqrt(n)
    assert values.var() == pytest.approx(1 / 12, rel=0.01)
    expected = stats.uniform(-0.5, 1) if distribution == "uniform" else stats.norm(0, spread)
    assert stats.kstest(values, expected.cdf).pvalue > 1e-3


def test_all_bits_of_a_word_are_fair():
    words = field.bits(9, "w", 0, 1 << 18)
    ones = np.array([((words >> np.uint32(bit)) & 1).mean() for bit in range(32)])
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(words.size)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
def test_noise_of_other_names_seeds_and_neighbours_is_uncorrelated(distribution):
    n = 1 << 18
    one = field.noise(distribution, 1, "layer.0.weight", 0, n)
    others = {
        "name": field.noise(distribution, 1, "layer.1.weight", 0, n),
        "seed": field.noise(distribution, 2, "layer.0.weight", 0, n),
        "neighbour": np.roll(one, 1),
        "lane": np.roll(one, field.LANE),
        "block": np.roll(one, field.BLOCK),
    }
    for what, other in others.items():
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(n), what


def test_key_depends_on_every_bit_of_the_seed():
    keys = {field.key(1 << bit, "w") for bit in range(64)}
    assert len(keys) == 64


def test_equation_one_against_plain_arithmetic():
    weights = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    std = float(np.std(weights.astype(np.float64), ddof=1))
    u = field.uniform(1, "w", 0, 15).astype(np.float64).reshape(3, 5)
    expected = weights + 0.15 * std * u
    perturbed = field.add_noise(weights, std, 0.15, "uniform", 1, "w")
    np.testing.assert_allclose(perturbed, expected, rtol=0, atol=1e-6)
    assert (np.abs(perturbed - weights) < 0.15 / 2 * std + 1e-6).all()
