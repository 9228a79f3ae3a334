"""Verifying and comparing: what was written is what the receipt says."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
import xxhash

from noisytune.checkpoint import diff_checkpoints, perturb_checkpoint, verify_checkpoint
from noisytune.checkpoint._safetensors import make_header
from noisytune.checkpoint._stream import LARGEST_PIECE
from noisytune.errors import (
    DataError,
    NoisyTuneError,
)
from tests.support.checkpoints import WEIGHTS, load, save


def verdict(folder, against):
    try:
        return "fine" if verify_checkpoint(folder, against).ok else "damaged"
    except NoisyTuneError as error:
        return "damaged" if "\n" not in str(error) else str(error)


def test_every_single_bit_counts(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "noisy")
    file = tmp_path / "noisy" / "model.safetensors"
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    for position in rng.integers(0, 8 * len(whole), 300):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << int(position % 8)
        file.write_bytes(damaged)
        assert [verdict(tmp_path / "noisy", against) for against in (None, clean)] == ["damaged", "damaged"]
    file.write_bytes(whole)
    assert verify_checkpoint(tmp_path / "noisy", clean).ok


def test_verify_forgives_the_last_digits_of_sums(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "noisy")
    file = tmp_path / "noisy" / "noisytune.json"
    for factor, is_right in ((1 + 1e-14, True), (1 + 1e-6, False)):
        record = json.loads(file.read_text())
        entry = next(entry for entry in record["entries"] if entry["std"])
        entry["std"] *= factor
        file.write_text(json.dumps(record))
        assert verify_checkpoint(tmp_path / "noisy", clean).ok == is_right


def test_recorded_hashes_are_those_of_mebibytes(tmp_path):
    values = np.arange(700_001, dtype=np.float32)
    folder = save(tmp_path / "clean", {"long.weight": values})
    perturb_checkpoint(folder, tmp_path / "same", noise_lambda=0)
    record = json.loads((tmp_path / "same" / "noisytune.json").read_text())
    content = values.tobytes()
    leaves = [xxhash.xxh3_128_digest(content[i : i + 2**20]) for i in range(0, len(content), 2**20)]
    assert record["tensors"] == {"long.weight": xxhash.xxh3_128_hexdigest(b"".join(leaves))}


def test_verify_refuses_hashes_of_another_kind(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "noisy")
    record = json.loads((tmp_path / "noisy" / "noisytune.json").read_text())
    (tmp_path / "noisy" / "noisytune.json").write_text(json.dumps(record | {"hash": "SHA-256"}))
    with pytest.raises(DataError, match=r"SHA-256.*XXH3-128"):
        verify_checkpoint(tmp_path / "noisy")


def test_verify_names_the_tensor_and_looks_at_receipt_and_source(clean, tmp_path):
    noisy = tmp_path / "noisy"
    perturb_checkpoint(clean, noisy)
    file = noisy / "model.safetensors"
    values = load(noisy)["bert.encoder.query.weight"]
    other_values = values.copy()
    other_values[3, 2] += np.float16(0.25)
    file.write_bytes(file.read_bytes().replace(values.tobytes(), other_values.tobytes()))
    found = verify_checkpoint(noisy, clean)
    assert any("bert.encoder.query.weight, element 17" in problem for problem in found.problems)
    other = shutil.copytree(clean, tmp_path / "other")
    weights = other / "model.safetensors"
    bias = WEIGHTS["classifier.bias"]
    weights.write_bytes(weights.read_bytes().replace(bias.tobytes(), (bias + 1).tobytes()))
    assert "not the checkpoint" in verify_checkpoint(noisy, other).problems[0]
    with pytest.raises(DataError, match=r"no noisytune\.json"):
        verify_checkpoint(clean)


def test_diff_is_the_relative_l1_change(tmp_path):
    a = save(tmp_path / "a", {"x.query.weight": np.array([1, -3], np.float32), "b": np.ones(2, np.float32)})
    b = save(tmp_path / "b", {"bert.x.query.weight": np.array([2, -3], np.float16), "bert.b": np.ones(3, np.float32)})
    found = diff_checkpoints(a, b)
    (role,) = found.roles()
    assert (role.name, role.relative, found.only_first, found.only_second) == ("query", 0.25, ("b",), ("b",))


@pytest.mark.parametrize("dtypes", [(ml_dtypes.float8_e5m2, np.float64), (np.float64, ml_dtypes.float8_e5m2)], ids=str)
def test_diff_of_long_tensors_of_different_dtypes(tmp_path, dtypes):
    size = LARGEST_PIECE // 4 + 7
    for name, value, dtype in zip("ab", (2, 3), dtypes, strict=True):
        values = np.full(size, value, dtype)
        save(tmp_path / name, {})
        header = make_header([("x.query.weight", values.dtype.name, (size,), values.nbytes)])
        (tmp_path / name / "model.safetensors").write_bytes(header + values.tobytes())
    total = diff_checkpoints(tmp_path / "a", tmp_path / "b").total()
    assert (total.elements, total.relative) == (size, 0.5)
