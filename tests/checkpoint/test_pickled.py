"""PyTorch's own files that are no weights: the true cause in words."""

import zipfile

import numpy as np
import pytest

from noisytune.checkpoint import inspect_checkpoint
from noisytune.errors import NoisyTuneError

torch = pytest.importorskip("torch", reason="writes torch's own files")

WEIGHTS = {"bert.a": torch.from_numpy(np.eye(3, dtype=np.float32))}


def archive(file):
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("a", "b")


BROKEN = {
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "page": (lambda file: file.write_text("<!doctype html><html>not found</html>"), "<!doctype html"),
    "meta": (lambda file: torch.save(WEIGHTS | {"bert.m": torch.empty(2, 4, device="meta")}, file), "'bert.m'.*meta"),
    "no tensors": (lambda file: torch.save({}, file), "no tensors"),
    "nested": (lambda file: torch.save({"state_dict": WEIGHTS}, file), "'state_dict' is no tensor"),
    "archive": (archive, "cannot be read as a PyTorch file"),
    "cut": (lambda file: (torch.save(WEIGHTS, file), file.write_bytes(file.read_bytes()[:200])), "cannot be read"),
    "surrogate": (lambda file: torch.save({"bert.\ud800": WEIGHTS["bert.a"]}, file), "no Unicode text"),
}


@pytest.mark.parametrize(("write", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_wrong_is_said_in_one_line(write, words, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    write(tmp_path / "pytorch_model.bin")
    with pytest.raises(NoisyTuneError, match=words) as caught:
        inspect_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_tensors_without_elements_and_views_are_read(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    views = {"bert.e": torch.empty(0, 4), "bert.x": torch.randn(1, 4).expand(5, 4)}
    negative, conjugate = torch.tensor([1 + 2j, 3 + 4j]).conj().imag, torch.tensor([1 + 2j]).conj()
    torch.save(WEIGHTS | views | {"bert.n": negative, "bert.c": conjugate}, tmp_path / "pytorch_model.bin")
    found = {entry.name: entry for entry in inspect_checkpoint(tmp_path).entries}
    assert found["e"].left_alone == "empty"
    assert found["x"].shape == (5, 4)
    assert found["n"].std == pytest.approx(2**0.5)
