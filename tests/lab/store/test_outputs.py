"""The file of outputs: what goes in comes out, whatever it is stored as."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load, save

from noisytune.lab.store.outputs import pack, unpack

ARRAYS = {
    "class ids": (np.arange(9.0), np.uint8),
    "ids with no word": (np.array([[-1.0, 3.0], [2.0, 0.0]]), np.int8),
    "many classes": (np.array([0.0, 300.0]), np.uint16),
    "far from 0": (np.array([-(2.0**31), 5.0]), np.int32),
    "too far": (np.array([2.0**53 - 1, 1.0]), np.float64),
    "fractions": (np.array([0.1, 1.0]), np.float64),
    "halves": (np.array([0.5, 1.0]), np.float16),
    "minus zero": (np.array([-0.0, 1.0]), np.float16),
    "not finite": (np.array([np.nan, np.inf, 1.0]), np.float16),
    "lines and none": (np.array([[400_001.0, np.nan], [-1.0, 1.0]]), np.float32),
    "none": (np.zeros((0, 2)), np.float64),
    "float32": (np.ones(3, np.float32), np.float32),
    "integers": (np.arange(3), np.int64),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_numbers_are_small_in_the_file_and_the_same_outside(case: str) -> None:
    array, stored = ARRAYS[case]
    content = pack({"dev/items": array, "test/items": np.array([0.3])})
    assert load(content)["dev/items"].dtype == stored
    found = unpack(content, "here")["dev/items"]
    assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert content == pack({"dev/items": array, "test/items": np.array([0.3])})


def test_files_of_plain_floats_are_read() -> None:
    content = save({"dev/items": np.array([0.0, 1.0])})
    assert unpack(content, "here")["dev/items"].dtype == np.float64
