"""Texts to token ids, once a study: made in a worker, kept in the run folder, read by every trial."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from noisytune._pretrained import positions
from noisytune.errors import ConfigError, DataError, RunFolderError
from noisytune.lab.kinds import Ragged, TokenSplit
from noisytune.lab.store import write_file
from noisytune.lab.tasks import TaskData
from noisytune.records import digest

_FORMAT = "5"
_LOOKED_AT = 20
"""Examples of each split that a tokenizer is compared with its file on."""
_MOST_LAYERS = 10_000
"""Of a model that is built to see what it costs."""

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Tokens:
    """A task as a model sees it."""

    train: TokenSplit
    """Empty for a task that is trained on another one's."""
    evaluate: Mapping[str, TokenSplit]
    """As in `noisytune.lab.tasks.TaskData.evaluate`."""
    notices: tuple[str, ...]
    """What the user should know, one line each."""

    def write(self, file: Path) -> None:
        """Keep the tokens in a safetensors file, whole or not at all.

        Raises:
            RunFolderError: no space, or no permission.
        """
        from safetensors.numpy import save

        arrays: Arrays = {}
        for number, split in enumerate((self.train, *self.evaluate.values())):
            arrays |= {f"{number}/{name}": array for name, array in _arrays(split).items()}
        about = {
            "format": _FORMAT,
            "notices": json.dumps(self.notices),
            "evaluate": json.dumps(list(self.evaluate)),
            "digest": _digest(arrays),
            "name": file.name,
        }
        write_file(file, save(arrays, about))

    @classmethod
    def read(cls, file: Path) -> Self:
        """The inverse of `write`.

        Raises:
            RunFolderError: the file is not one that noisytune wrote, or was changed since.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(file), framework="numpy") as opened:
                about = opened.metadata()
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if about["digest"] != _digest(arrays):
                raise KeyError("its contents were changed")
            if about["name"] != file.name:
                raise KeyError(f"it was written as {about['name']}")
            names = json.loads(about["evaluate"])
            train, *others = (_split(arrays, f"{number}/") for number in range(len(names) + 1))
            return cls(train, dict(zip(names, others, strict=True)), tuple(json.loads(about["notices"])))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise RunFolderError(f"{file}: damaged tokens ({error}); delete the file to make them again") from error


def _arrays(split: TokenSplit) -> Arrays:
    """Everything of a split by name."""
    columns = {f"inputs/{name}": column for name, column in split.inputs.items()}
    columns |= {f"notes/{name}": column for name, column in split.notes.items()}
    arrays: Arrays = {name: found for name in ("owner", "groups") if (found := getattr(split, name)) is not None}
    if split.originals is not None:
        columns["originals"] = split.originals
    if isinstance(split.targets, Ragged):
        columns["targets"] = split.targets
    else:
        arrays["targets"] = split.targets
    for name, column in columns.items():
        arrays |= {f"{name}/values": column.values, f"{name}/starts": column.starts}
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _split(arrays: Arrays, prefix: str) -> TokenSplit:
    """The inverse of `_arrays`."""
    mine = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    columns = {
        name.removesuffix("/values"): Ragged(array, mine[name.removesuffix("values") + "starts"])
        for name, array in mine.items()
        if name.endswith("/values")
    }

    def under(room: str) -> dict[str, Ragged]:
        return {name.removeprefix(room): column for name, column in columns.items() if name.startswith(room)}

    targets = columns["targets"] if "targets" in columns else mine["targets"]
    notes, originals = under("notes/"), columns.get("originals")
    return TokenSplit(under("inputs/"), targets, notes, mine.get("owner"), originals, mine.get("groups"))


def _digest(arrays: Arrays) -> str:
    """BLAKE2b of names, types, shapes and contents."""
    total = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()


def cache_name(model_digest: str, task_digest: str, max_length: int) -> str:
    """The name of the file that holds a task's tokens for a model."""
    return f"tokens-{digest([_FORMAT, model_digest, task_digest, max_length])}.safetensors"


def tokenise(model_dir: Path, task: TaskData, max_length: int) -> Tokens:
    """Turn a task's texts into token ids with the model's own tokenizer, texts and pairs cut at ``max_length``.

    Args:
        model_dir: the model's directory.
        task: texts and targets.
        max_length: tokens, marks of start and end included.

    Raises:
        ConfigError: ``max_length`` is more than the model can take, or what is asked of reading does not fit it.
        DataError: no tokenizer, no token to pad with, or a text without tokens.
    """
    limit = _positions(model_dir)
    tokenizer = load_tokenizer(model_dir)
    if limit is not None and max_length > limit:
        raise ConfigError(f"max_length {max_length}: the model has only {limit} positions; give max_length={limit}")
    kind, types = task.of_kind, _has_types(model_dir)
    if not kind.is_trained:
        kind.read_by(task.reading).for_model(_configuration(model_dir))
    notices, splits = [], {}
    if tokenizer.pad_token == tokenizer.eos_token:
        notices.append(f"texts are padded with the model's end token {tokenizer.eos_token!r}, masked")
    texts = [text for split in task.splits.values() for row in split.texts[:_LOOKED_AT] for text in row]
    if told := _unlike_its_file(tokenizer, model_dir, [text for text in texts if isinstance(text, str)]):
        notices.append(told)
    for name, split in task.splits.items():
        where = f"{task.name}, {name}"
        splits[name] = replace(kind.encode(tokenizer, split, max_length, types, where), groups=_numbered(split.groups))
        _check(splits[name], tokenizer, _rows_of_embedding(model_dir), where)
        if not kind.has_marks:
            _check_marks(splits[name], tokenizer, where)
        if told := kind.about_lengths(splits[name], max_length, name):
            notices.append(f"{task.name}: {told}")
    none = TokenSplit({}, np.empty(0))
    return Tokens(none if task.trained_on else splits.pop("train"), splits, tuple(notices))


def load_tokenizer(model_dir: Path) -> Any:
    """The model's tokenizer, with a token to pad with.

    Raises:
        DataError: the directory holds none, or it has no token that could pad.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"{model_dir}: its tokenizer cannot be loaded: {_reason(error)}") from error
    # A text that holds "</s>" is a text.
    tokenizer.split_special_tokens = True
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise DataError(f"{model_dir}: its tokenizer has no padding token and no end token; set pad_token in it")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _unlike_its_file(tokenizer: Any, model_dir: Path, texts: Sequence[str]) -> str | None:
    """What to say where transformers reads ``tokenizer.json`` as another tokenizer than the file describes.

    Source: https://github.com/huggingface/transformers/issues/48206.
    """
    import tokenizers

    try:
        written = tokenizers.Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    except Exception:  # none, or of another release: the class decides
        return None
    written.no_truncation()
    written.no_padding()
    written.encode_special_tokens = True  # a text that holds "</s>" is a text
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids != written.encode(text, add_special_tokens=False).ids:
            return (
                f"transformers {version('transformers')} makes other tokens of {text[:40]!r} than "
                f"{model_dir / 'tokenizer.json'} says ({type(tokenizer).__name__})"
            )
    return None


def _reason(error: Exception) -> str:
    """Why a tokenizer cannot be loaded: what is missing, where the message names a library that is."""
    text = str(error).strip()
    for library in ("sentencepiece", "tiktoken", "protobuf"):
        module = "google.protobuf" if library == "protobuf" else library
        if library in text.lower() and not _installed(module):
            return f"it needs the library {library!r}, which is not installed: run  pip install {library}"
    return text.splitlines()[0] if text else type(error).__name__


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _check(data: TokenSplit, tokenizer: Any, embeddings: int | None, where: str) -> None:
    """Refuse what a model cannot read or learn from."""
    lengths = data.lengths
    if 0 in lengths:
        raise DataError(f"{where}: example {lengths.index(0) + 1} is empty; remove it")
    # transformers makes an empty tokenizer where a model's folder has none.
    if set(np.unique(data.inputs["input_ids"].values).tolist()) <= set(tokenizer.all_special_ids):
        raise DataError(
            f"{where}: the model's tokenizer knows no word of it; are its files (tokenizer.json ...) there?"
        )

    ids = data.inputs["input_ids"]
    for token in (int(ids.values.max()), tokenizer.pad_token_id):
        if embeddings is not None and token >= embeddings:
            raise DataError(
                f"{where}: the token {tokenizer.convert_ids_to_tokens(token)!r} has id {token}, but the model's "
                f"embedding has {embeddings} rows: its tokenizer is larger; give the tokenizer that belongs to it"
            )


def _numbered(groups: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """Numbers from 0, by first occurrence; None where there are no groups."""
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64) if groups else None


def _check_marks(data: TokenSplit, tokenizer: Any, where: str) -> None:
    """Refuse texts that hold a mark of the model."""
    ids = data.inputs["input_ids"]
    # Some tokenizers find marks in texts even so; the unknown token is not one of them.
    marks = list(set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})
    found = [int(np.isin(row, marks).sum()) for row in ids]
    usual = max(tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
    if max(found) > min(*found, usual):
        row = found.index(max(found))
        example = row if data.owner is None else int(data.owner[row])
        named = ", ".join(sorted({tokenizer.convert_ids_to_tokens(int(i)) for i in ids[row] if i in marks}))
        raise DataError(
            f"{where}: example {example + 1} holds a special token of the model ({named}) as text, which its tokenizer "
            "cannot tell from its own marks; remove it from the text"
        )


def _configuration(model_dir: Path) -> Any:
    """As transformers reads it."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(str(model_dir), trust_remote_code=False)


def _config(model_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return found


def _rows_of_embedding(model_dir: Path) -> int | None:
    """How many tokens the model knows; None where it does not say."""
    config = _config(model_dir)
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None


def _has_types(model_dir: Path) -> bool | None:
    """Whether the model tells token types apart; None where its configuration is silent: then the tokenizer decides."""
    config = _config(model_dir)
    if config.get("model_type") == "xlnet":
        return True  # its types are relative: they need no table, and so no size
    size = config.get("type_vocab_size")
    return size > 1 if isinstance(size, int) else None


def _positions(model_dir: Path) -> int | None:
    """How many tokens the model has positions for; None where it does not say."""
    found = positions(model_dir)
    return None if found is None else found - _reserved(model_dir, found)


def _reserved(model_dir: Path, positions: int) -> int:
    """Rows of the table of positions that no token gets: RoBERTa's has 514 rows, for at most 512 tokens.

    It and its kin count from the row after the padding's, which is 1 there. Only the model's code says so: its table
    then has a row for padding. No weights are read.
    """
    import torch

    model = without_weights(model_dir)
    if model is None:  # loading it will say so
        return 0
    rows = [
        table.padding_idx + 1
        for name, table in model.named_modules()
        if "position" in name and isinstance(table, torch.nn.Embedding) and table.num_embeddings == positions
        if table.padding_idx is not None
    ]
    return max(rows, default=0)


def looked_up(model: Any) -> int:
    """Parameters of a model that are looked up and not multiplied: its tables of embeddings, each once."""
    import torch

    tables = {id(one.weight): one.weight for one in model.modules() if isinstance(one, torch.nn.Embedding)}
    return sum(int(table.numel()) for table in tables.values())


def without_weights(model_dir: Path) -> Any | None:
    """The base model that a configuration describes, without memory for its weights; None of an unknown kind.

    Args:
        model_dir: a folder with ``config.json``.
    """
    import torch
    from transformers import AutoModel

    from noisytune.checkpoint._code import may_be_built

    any_kind: Any = AutoModel
    try:
        config = _configuration(model_dir)
        if not may_be_built(config.to_dict(), _MOST_LAYERS):
            return None
        with torch.device("meta"):
            return any_kind.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, ImportError, OSError):
        return None
