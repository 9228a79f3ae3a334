"""What Numba compiles: kept, checked when it is read, and compiled whatever the environment says."""

import importlib.util
import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from noisytune._noise import kernels

SOURCE = """
import numpy as np
from noisytune._noise._compiler import compiled

@compiled(for_python=True)
def successor(word):
    return np.uint32(word) + np.uint32(1)
"""
WORD = 2**32 - 1
"""Its successor is 2**32 as Numba compiles it, in 64 bits; in plain Python it is 0, with a warning."""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module()``: the source, imported anew each time; its compilations are kept beside it."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    (tmp_path / "tiny.py").write_text(SOURCE)

    def load():
        spec = importlib.util.spec_from_file_location("tiny", tmp_path / "tiny.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return load


@pytest.fixture
def kept(tmp_path):
    """``kept()``: the one file that holds the compilation."""

    def find():
        (file,) = (tmp_path / "__pycache__").glob("*.nbc")
        return file

    return find


def test_a_compilation_is_kept_and_read(module, kept):
    first = module().successor(np.uint32(WORD))
    written = kept().stat().st_mtime_ns
    assert (first, module().successor(np.uint32(WORD))) == (2**32, 2**32)
    assert kept().stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content + b"x",
        lambda content: b"\x00" * len(content),
        lambda content: content[:-100] + bytes([content[-100] ^ 4]) + content[-99:],
        lambda content: content[:20] + b"not a pickle",
    ],
    ids=["empty", "half of it", "longer", "zeros", "one bit", "no pickle"],
)
def test_a_damaged_file_is_compiled_anew_and_replaced(module, kept, damage):
    module().successor(np.uint32(WORD))
    whole = kept().read_bytes()
    kept().write_bytes(damage(whole))
    assert module().successor(np.uint32(WORD)) == 2**32
    repaired = kept().read_bytes()
    assert len(repaired) > len(whole) // 2
    kept().write_bytes(damage(repaired))
    assert module().successor(np.uint32(WORD)) == 2**32


def test_a_file_that_can_be_neither_read_nor_replaced_costs_nothing_but_time(module, kept):
    module().successor(np.uint32(WORD))
    place = kept()
    place.unlink()
    place.mkdir()
    assert module().successor(np.uint32(WORD)) == 2**32


def test_compiled_although_the_compiler_is_switched_off_for_everyone_else(module, monkeypatch):
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    numba.config.reload_config()
    try:
        assert module().successor(np.uint32(WORD)) == 2**32
        assert numba.config.DISABLE_JIT == 1
        assert numba.njit(lambda x: x).__name__ == "<lambda>"
        assert not hasattr(numba.njit(lambda x: x), "overloads")
    finally:
        monkeypatch.undo()
        numba.config.reload_config()
    assert numba.config.DISABLE_JIT == 0


@pytest.mark.slow
def test_the_same_bits_with_the_compiler_switched_off():
    program = """
import numpy as np
from noisytune._noise import kernels
for dtype in kernels.DTYPES:
    for distribution in ("uniform", "gaussian"):
        values = np.linspace(-1, 1, 5000).astype(dtype)
        moments = kernels.moments(values)
        kernels.add_noise_(values, moments.std, 0.15, distribution, 1, "weight")
        print(dtype, distribution, moments, values.tobytes().hex()[:4000])
"""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | more, capture_output=True, text=True, check=True
        ).stdout
        for more in ({}, {"NUMBA_DISABLE_JIT": "1"})
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count("\n") == 2 * len(kernels.DTYPES)
