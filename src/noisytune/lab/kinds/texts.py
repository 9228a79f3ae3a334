"""What the kinds share whose examples are a text or two."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from noisytune.errors import DataError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.kind import Collate, Kind
from noisytune.lab.kinds.split import Split
from noisytune.lab.kinds.units import Units
from noisytune.records import Status


class Texts(Kind):
    """Examples of one text or two, one row each."""

    model_class = "AutoModelForSequenceClassification"

    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """One row an example; pairs and texts are cut at ``max_length``."""
        columns = [list(column) for column in zip(*split.texts, strict=True)]
        if len(columns) > 2:
            raise DataError(f"{where}: {len(columns)} texts in an example, a model takes one or two")
        wanted = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        encoded = tokenizer(*columns, return_token_type_ids=types, **wanted)
        names = [name for name in ("input_ids", "token_type_ids") if encoded.get(name) is not None]
        inputs = {name: Ragged.of(encoded[name], np.int32) for name in names}
        return TokenSplit(inputs, np.asarray(split.targets, dtype=np.float64))

    def about_lengths(self, data: TokenSplit, max_length: int, name: str) -> str:
        """How many may be cut."""
        full = sum(length >= max_length for length in data.lengths)
        return f"{full} of {len(data)} {name} texts reach max_length {max_length} and may be cut" if full else ""

    def collate(self, tokenizer: Any) -> Collate:
        """Padded to the longest of the batch."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(tokenizer)


class TextKind(Texts):
    """The model says one thing of each example; outputs of shape (examples, outputs)."""

    problem: ClassVar[str]
    """What transformers calls the loss: its ``problem_type``."""

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """One output a class."""
        named = dict(enumerate(labels))
        return {
            "id2label": named,
            "label2id": {label: i for i, label in named.items()},
            "problem_type": self.problem,
        }

    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """The logits of each example."""
        return list(found.logits.cpu().double().numpy())

    def judge(self, outputs: list[Floats], data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """Outputs that are not finite are diverged; the rest is the kind's."""
        stacked = np.stack(outputs)
        return self.read(stacked, units) if np.isfinite(stacked).all() else ("diverged", np.empty(0))

    def references(self, data: TokenSplit) -> Floats:
        """The targets."""
        return np.asarray(data.targets)

    @abstractmethod
    def read(self, outputs: Floats, units: Units | None) -> tuple[Status, Floats]:
        """Status and predictions from finite outputs, shape (examples, outputs)."""
