"""What every route says of the same tensors: arrays, state dicts and files share one set of reasons and refusals."""

import numpy as np
import pytest
import safetensors.numpy
import torch

from noisytune.arrays import perturb_arrays
from noisytune.checkpoint import inspect_checkpoint
from noisytune.errors import ConfigError, NonFiniteError, UnsupportedTensorError
from noisytune.torch import perturb_state_dict

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((4, 3), np.float32)
MASK = np.triu(np.full((64, 64), np.finfo(np.float32).min), 1)
REASONS = {
    "a.weight": (WEIGHT, None),
    "a.excluded": (WEIGHT + 1, "excluded"),
    "a.lora_A.weight": (WEIGHT + 2, "adapter"),
    "a.constant": (np.full(7, 1 / 3, np.float32), "constant"),
    "a.one": (np.ones(1, np.float32), "one element"),
    "a.empty": (np.ones((0, 3), np.float32), "empty"),
    "a.running_mean": (WEIGHT + 3, "buffer"),
    "a.ids": (np.arange(5), "not floating point: int64"),
    "a.excluded.ids": (np.arange(5), "not floating point: int64"),
}


def in_arrays(tensors, folder, **settings):
    return perturb_arrays(tensors, **settings)[1]


def in_a_state_dict(tensors, folder, **settings):
    return perturb_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()}, **settings)


def in_files(tensors, folder, **settings):
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return inspect_checkpoint(folder, **settings)


@pytest.fixture(params=[in_arrays, in_a_state_dict, in_files], ids=lambda route: route.__name__)
def route(request, tmp_path):
    return lambda tensors, **settings: request.param(tensors, tmp_path, **settings)


def test_the_same_tensors_are_left_alone_for_the_same_reasons(route):
    manifest = route({name: array for name, (array, _) in REASONS.items()}, exclude="a.excluded*")
    assert {entry.name: entry.left_alone for entry in manifest.entries} == {n: why for n, (_, why) in REASONS.items()}


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_names_alone_know_no_token_embeddings(route, option):
    with pytest.raises(
        ConfigError, match=rf"{option}: @token_embeddings: .*: give the tensor's name instead \(word_emb"
    ):
        route({"word_embeddings.weight": WEIGHT}, **{option: "@token_embeddings"})


def test_without_noise_every_weight_says_so(route):
    manifest = route({"w": WEIGHT, "c": np.ones(3, np.float32)}, noise_lambda=0)
    assert {entry.name: entry.left_alone for entry in manifest.entries} == {"w": "lambda is 0", "c": "constant"}


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (
            {"w": np.where(WEIGHT > 0, np.nan, WEIGHT).astype(np.float32)},
            NonFiniteError,
            r"w \(float32.*NaN or inf",
        ),
        ({"w": np.array([1e200, 0, 1])}, NonFiniteError, "standard deviation overflows"),
        ({"w": np.float16([65_000, -65_504, 3])}, NonFiniteError, r"up to 65504: noise .* largest value 65504"),
        ({"w": MASK}, NonFiniteError, r"up to 3.40282e\+38: noise .* largest value 3.40282e\+38"),
        ({"w": WEIGHT, "module.w": WEIGHT + 1}, UnsupportedTensorError, "have the same canonical name 'w': "),
    ],
    ids=["NaN", "huge", "overflow", "a mask", "names"],
)
def test_the_same_refusals_in_the_same_words(route, bad, error, words):
    with pytest.raises(error, match=words):
        route(bad, noise_lambda=1)


def test_large_values_with_room_for_noise_are_no_overflow(route):
    spread = RNG.uniform(-1e38, 1e38, 10_000).astype(np.float32)  # the sum of the squares is beyond the largest one
    assert [entry.left_alone for entry in route({"w": spread}, noise_lambda=1).entries] == [None]


def test_the_number_of_bad_values_is_counted(route):
    weights = WEIGHT.copy()
    weights[0] = np.inf
    with pytest.raises(NonFiniteError, match="has 3 values that are NaN or infinite: the checkpoint is damaged"):
        route({"w": weights})
