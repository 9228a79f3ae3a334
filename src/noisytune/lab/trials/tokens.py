"""Texts to token ids, once a study: made in a worker, kept in the run folder, read by every trial."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from noisytune.errors import ConfigError, DataError, RunFolderError
from noisytune.lab.store import write_file
from noisytune.lab.tasks import Split, TaskData
from noisytune.records import digest

_FORMAT = "2"

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TokenSplit:
    """The examples of one split, one after the other. Indexing gives what a transformers collator takes."""

    ids: Ints
    """All token ids, shape (tokens,)."""
    types: Ints | None
    """Token types (first or second text), shape (tokens,); None where the model has none."""
    starts: npt.NDArray[np.int64]
    """Where each example starts, and the end, shape (examples + 1,)."""
    targets: Floats
    """Class ids or values, shape (examples,)."""
    labels: Sequence[int] | Sequence[float]
    """The targets as the loss wants them: whole numbers for classes."""

    def take(self, indices: Sequence[int]) -> TokenSplit:
        """The examples at ``indices``, in that order."""
        pieces = [np.arange(self.starts[i], self.starts[i + 1]) for i in indices]
        where = np.concatenate(pieces)
        return TokenSplit(
            ids=self.ids[where],
            types=None if self.types is None else self.types[where],
            starts=np.concatenate([[0], np.cumsum([len(piece) for piece in pieces])]),
            targets=self.targets[list(indices)],
            labels=[self.labels[i] for i in indices],
        )

    @property
    def lengths(self) -> list[int]:
        """Tokens of each example."""
        return [int(n) for n in np.diff(self.starts)]

    def first(self, size: int) -> TokenSplit:
        """The first examples."""
        starts = self.starts[: size + 1]
        types = None if self.types is None else self.types[: starts[-1]]
        return TokenSplit(self.ids[: starts[-1]], types, starts, self.targets[:size], self.labels[:size])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        part = slice(self.starts[index], self.starts[index + 1])
        example: dict[str, Any] = {"input_ids": self.ids[part].tolist(), "labels": self.labels[index]}
        if self.types is not None:
            example["token_type_ids"] = self.types[part].tolist()
        return example


@dataclass(frozen=True)
class Tokens:
    """A task as a model sees it."""

    train: TokenSplit
    dev: TokenSplit
    notices: tuple[str, ...]
    """What the user should know, one line each."""
    also: dict[str, TokenSplit] = field(default_factory=dict)
    """As in `noisytune.lab.tasks.TaskData.also`."""

    def write(self, file: Path) -> None:
        """Keep the tokens in a safetensors file, whole or not at all.

        Raises:
            RunFolderError: no space, or no permission.
        """
        from safetensors.numpy import save

        arrays: dict[str, npt.NDArray[Any]] = {}
        splits = {"train": self.train, "dev": self.dev} | self.also
        for name, split in splits.items():
            arrays |= {f"{name}.ids": split.ids, f"{name}.starts": split.starts, f"{name}.targets": split.targets}
            if split.types is not None:
                arrays[f"{name}.types"] = split.types
        whole = isinstance(self.train.labels[0], int)
        about = {
            "format": _FORMAT,
            "notices": json.dumps(self.notices),
            "classes": str(int(whole)),
            "splits": json.dumps(list(splits)),
        }
        write_file(file, save(arrays, about))

    @classmethod
    def read(cls, file: Path) -> Self:
        """The inverse of `write`.

        Raises:
            RunFolderError: the file is not one that noisytune wrote.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(file), framework="numpy") as opened:
                about = opened.metadata()
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            splits = {}
            for name in json.loads(about["splits"]):
                ids, starts, targets = (arrays[f"{name}.{part}"] for part in ("ids", "starts", "targets"))
                labels = _labels(targets, classes=about["classes"] == "1")
                splits[name] = TokenSplit(ids, arrays.get(f"{name}.types"), starts, targets, labels)
            return cls(splits.pop("train"), splits.pop("dev"), tuple(json.loads(about["notices"])), splits)
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise RunFolderError(f"{file}: damaged tokens ({error}); delete the file to make them again") from error


def cache_name(model_digest: str, task: TaskData, max_length: int) -> str:
    """The name of the file that holds a task's tokens for a model."""
    return f"tokens-{digest([_FORMAT, model_digest, task.digest, max_length])}.safetensors"


def tokenise(model_dir: Path, task: TaskData, max_length: int) -> Tokens:
    """Turn a task's texts into token ids with the model's own tokenizer, texts and pairs cut at ``max_length``.

    Args:
        model_dir: the model's directory.
        task: texts and targets.
        max_length: tokens, marks of start and end included.

    Raises:
        ConfigError: ``max_length`` is more than the model can take.
        DataError: no tokenizer, no token to pad with, or a text without tokens.
    """
    limit = _positions(model_dir)
    tokenizer = load_tokenizer(model_dir)
    if limit is not None and max_length > limit:
        raise ConfigError(f"max_length {max_length}: the model has only {limit} positions; give --max-length {limit}")
    notices = []
    if tokenizer.pad_token == tokenizer.eos_token:
        notices.append(f"texts are padded with the model's end token {tokenizer.eos_token!r}, masked")
    splits = {}
    encode = partial(tokenizer, truncation=True, max_length=max_length, return_token_type_ids=_has_types(model_dir))
    for name, split in ({"train": task.train, "dev": task.dev} | task.also).items():
        tokens = _tokenise_split(tokenizer, encode, split, f"{task.name}, {name}", task.kind == "classification")
        splits[name] = tokens
        full = sum(length >= max_length for length in tokens.lengths)
        if full:
            notices.append(
                f"{task.name}: {full} of {len(tokens)} {name} texts reach --max-length {max_length} and may be cut"
            )
    return Tokens(splits.pop("train"), splits.pop("dev"), tuple(notices), splits)


def load_tokenizer(model_dir: Path) -> Any:
    """The model's tokenizer, with a token to pad with.

    Raises:
        DataError: the directory holds none, or it has no token that could pad.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model_dir), trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{model_dir}: its tokenizer cannot be loaded: {reason}") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise DataError(f"{model_dir}: its tokenizer has no padding token and no end token; set pad_token in it")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenise_split(tokenizer: Any, encode: Callable[..., Any], split: Split, where: str, classes: bool) -> TokenSplit:
    columns = [list(column) for column in zip(*split.texts, strict=True)]
    if len(columns) > 2:
        raise DataError(f"{where}: {len(columns)} texts in an example, a model takes one or two")
    encoded = encode(*columns, return_attention_mask=False)
    lengths = [len(ids) for ids in encoded["input_ids"]]
    if 0 in lengths:
        raise DataError(f"{where}: example {lengths.index(0) + 1} is empty; remove it")
    # transformers makes an empty tokenizer where a model's folder has none.
    if {token for ids in encoded["input_ids"] for token in ids} <= set(tokenizer.all_special_ids):
        raise DataError(
            f"{where}: the model's tokenizer knows no word of it; are its files (tokenizer.json ...) there?"
        )
    types = encoded.get("token_type_ids")
    targets = np.asarray(split.targets, dtype=np.float64)
    return TokenSplit(
        ids=np.concatenate([np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]),
        types=None if types is None else np.concatenate([np.asarray(row, dtype=np.int32) for row in types]),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        targets=targets,
        labels=_labels(targets, classes),
    )


def _labels(targets: Floats, classes: bool) -> list[int] | list[float]:
    return [int(t) for t in targets] if classes else [float(t) for t in targets]


def _config(model_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    return found


def _has_types(model_dir: Path) -> bool | None:
    """Whether the model tells token types apart; None where its configuration is silent: then the tokenizer decides."""
    config = _config(model_dir)
    if config.get("model_type") == "xlnet":
        return True  # its types are relative: they need no table, and so no size
    size = config.get("type_vocab_size")
    return size > 1 if isinstance(size, int) else None


def _positions(model_dir: Path) -> int | None:
    """How many tokens the model has positions for; None where it does not say."""
    config = _config(model_dir)
    found = config.get("max_position_embeddings") or config.get("n_positions")
    return found - _reserved(model_dir, found) if isinstance(found, int) and found > 0 else None


def _reserved(model_dir: Path, positions: int) -> int:
    """Positions that no token gets: RoBERTa and its kin count from the one after the padding's.

    Only the model's code says so: its table of positions then has a row for padding. No weights are read.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    any_kind: Any = AutoModel
    try:
        with torch.device("meta"):
            model = any_kind.from_config(AutoConfig.from_pretrained(str(model_dir), trust_remote_code=False))
    except (ValueError, KeyError, ImportError, OSError):
        # A model of an unknown kind: loading it will say so.
        return 0
    rows = [
        table.padding_idx + 1
        for name, table in model.named_modules()
        if "position" in name and isinstance(table, torch.nn.Embedding) and table.num_embeddings == positions
        if table.padding_idx is not None
    ]
    return max(rows, default=0)
