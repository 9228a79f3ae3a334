"""Noise without a record: found where it is, not where it is not, and honest where nobody can tell."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune._noise.kernels import add_noise_
from noisytune.config import NoisyTuneConfig
from noisytune.integrations._trace import TENSORS, look, sample_size


def weights(n=60_000, seed=0):
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32) * 0.02 + 0.001


def noised(config, n=60_000, name="a.weight"):
    w = weights(n)
    add_noise_(w, float(w.std()), config.noise_lambda, config.distribution, config.seed, name)
    return w


@given(seed=st.integers(0, 2**64 - 1), distribution=st.sampled_from(["uniform", "gaussian"]))
def test_the_seed_that_is_asked_for_is_found_whatever_it_is(seed, distribution):
    config = NoisyTuneConfig(seed=seed, distribution=distribution)
    assert look([("a.weight", noised(config))], config).config == config


@given(st.integers(0, 2**32))
def test_clean_weights_are_clean(seed):
    trace = look([("a.weight", weights(seed=seed))], NoisyTuneConfig(seed=seed))
    assert trace.config is None
    assert trace.is_certain


def test_another_usual_seed_is_found_and_its_strength_estimated():
    found = look([("a.weight", noised(NoisyTuneConfig(seed=42, noise_lambda=0.3)))], NoisyTuneConfig(seed=1)).config
    assert found.seed == 42
    assert found.noise_lambda == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("asked", [0.1, 0.2, 0.25])
def test_noise_of_another_strength_is_not_taken_for_the_one_that_is_asked_for(asked):
    tensors = [(f"{i}.weight", noised(NoisyTuneConfig(seed=42, noise_lambda=0.15), name=f"{i}.weight")) for i in "abcd"]
    found = look(tensors, NoisyTuneConfig(seed=42, noise_lambda=asked)).config
    assert found.noise_lambda == pytest.approx(0.15, abs=0.02)


def test_training_does_not_hide_it():
    config = NoisyTuneConfig(seed=3)
    w = noised(config)
    trained = w + 0.5 * w.std() * np.random.default_rng(1).standard_normal(w.size).astype(np.float32)
    assert look([("a.weight", trained)], config).config.seed == 3


def test_noise_of_another_tensor_is_not_this_ones():
    config = NoisyTuneConfig(seed=3)
    assert look([("b.weight", noised(config))], config).config is None


def test_a_small_model_is_nothing_to_judge_by():
    config = NoisyTuneConfig()
    assert look([("a.weight", noised(config, n=500))], config) == look([], config)
    assert not look([], config).is_certain


def test_what_cannot_be_measured_is_left_out():
    config = NoisyTuneConfig(seed=3)
    useless = [np.full(100, np.nan, np.float32), np.ones(100, np.float32), np.zeros(0, np.float32)]
    tensors = [("a.weight", noised(config)), *((f"{i}.weight", w) for i, w in enumerate(useless))]
    assert look(tensors, config).config == config


def test_the_sample_is_as_large_as_the_noise_is_weak():
    sizes = [sample_size(NoisyTuneConfig(noise_lambda=strength)) for strength in (0.3, 0.15, 0.05, 0)]
    assert sizes == sorted(sizes)
    assert sizes[-1] * TENSORS <= 1 << 21
