"""Noise first, then four bits: what QLoRA trains upon."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from noisytune._pretrained import Model
from noisytune.checkpoint import perturb_checkpoint, verify_checkpoint
from noisytune.errors import ConfigError, DataError, NoisyTuneError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(language_models: dict[str, Model], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same noise, without codes and with them."""
    clean, place = language_models["llama"].path, tmp_path_factory.mktemp("four")
    perturb_checkpoint(clean, place / "noisy", noise_lambda=0.1, seed=1)
    perturb_checkpoint(clean, place / "codes", noise_lambda=0.1, seed=1, quantize="nf4")
    return place / "noisy", place / "codes"


def test_the_codes_are_those_of_the_noisy_weights(folders: tuple[Path, Path]) -> None:
    noisy, codes = folders
    how = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    theirs = AutoModelForCausalLM.from_pretrained(noisy, quantization_config=how).state_dict()
    ours = AutoModelForCausalLM.from_pretrained(codes).state_dict()
    assert list(ours) == list(theirs)
    assert ours["model.layers.0.mlp.up_proj.weight"].dtype == torch.uint8
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0, msg=name)


def test_everything_beside_the_weights_stays(folders: tuple[Path, Path]) -> None:
    noisy, codes = folders
    assert sorted(path.name for path in codes.iterdir()) == sorted(path.name for path in noisy.iterdir())
    before, after = (json.loads((folder / "config.json").read_bytes()) for folder in folders)
    assert after.pop("quantization_config")["bnb_4bit_quant_type"] == "nf4"
    assert after == before, "the receipt too"
    before, after = (json.loads((folder / "noisytune.json").read_bytes()) for folder in folders)
    assert after.pop("quantised") == "nf4"
    assert after == before
    assert (codes / "tokenizer.json").read_bytes() == (noisy / "tokenizer.json").read_bytes()


def test_codes_are_neither_verified_nor_perturbed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    noisy, codes = folders
    assert verify_checkpoint(noisy).ok
    with pytest.raises(DataError, match=r"quantised \(nf4\) after the noise: verify a copy without --quantize"):
        verify_checkpoint(codes)
    with pytest.raises(NoisyTuneError, match="quantised"):
        perturb_checkpoint(codes, tmp_path / "again", again=True)


@pytest.mark.parametrize("found", ["device", "class"])
def test_what_cannot_be_quantised_is_said_before_anything_is_written(
    found: str, language_models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    import bitsandbytes

    clean = shutil.copytree(language_models["llama"].path, tmp_path / "clean")
    error: type[Any] = ConfigError
    if found == "device":
        monkeypatch.setattr(bitsandbytes, "supported_torch_devices", {"xpu"})
        said = "computes on xpu, and this machine has (cpu|cpu, cuda): install a newer one"
    else:
        config = json.loads((clean / "config.json").read_bytes())
        (clean / "config.json").write_text(json.dumps(config | {"architectures": ["OwnModel"]}))
        error, said = DataError, "names 'OwnModel', which transformers does not have"
    with pytest.raises(error, match=said):
        perturb_checkpoint(clean, tmp_path / "out", quantize="nf4")
    assert [path.name for path in tmp_path.iterdir()] == ["clean"]
