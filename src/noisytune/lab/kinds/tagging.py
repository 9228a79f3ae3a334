"""A tag for each word of a sentence."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from noisytune._metrics import METRICS, Items
from noisytune._metrics.tags import are_entities, tag_items
from noisytune.errors import DataError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.kind import Collate, Kind
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor

IGNORED = -100
"""The label of tokens that the loss passes over."""
NO_WORD = -1.0
"""What stands behind the end of a sentence."""
WORDS = "words"
"""The note that says of which word a token is the first one; -1 for all other tokens."""


class Tagging(Kind):
    """Texts are the words of a sentence, targets their tags' ids.

    The first token of a word is labelled and predicts. A sentence that is too long becomes several rows, cut between
    words; their predictions are joined again.
    """

    name = "tagging"
    model_class = "AutoModelForTokenClassification"
    keeps_items = True

    def metrics(self, labels: Sequence[str]) -> list[str]:
        """F1 of entities first where tags mark them, else F1 of plain tags."""
        keys = list(METRICS[self.name])
        return keys if are_entities(labels) else [key for key in keys if key != "entity_f1"]

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """None: a part is drawn without regard to the tags."""
        return (0.0,) * len(targets)

    def spread(self, targets: Any) -> Sequence[float] | Floats:
        """The sentences' lengths."""
        return [float(len(target)) for target in targets]

    def counts(self, targets: Sequence[Target], classes: int) -> list[int]:
        """Words that have each tag."""
        found = Counter(tag for target in targets for tag in target)
        return [found[float(i)] for i in range(classes)]

    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """One row a sentence, or several where it has more tokens than ``max_length``."""
        if not tokenizer.is_fast:
            raise DataError(f"{where}: tags need a tokenizer that knows its words; the model has no tokenizer.json")
        for splitter in _splitters(tokenizer.backend_tokenizer.pre_tokenizer):
            if hasattr(splitter, "add_prefix_space"):
                # Byte-level tokenizers know a word inside a text by the space before it.
                tokenizer.add_prefix_space = splitter.add_prefix_space = True
        room = max_length - tokenizer.num_special_tokens_to_add()
        pieces, owner = [], []
        for i, words in enumerate(split.texts):
            for start, end in _pieces(_tokens_of_words(tokenizer, words), room):
                pieces.append((start, list(words[start:end])))
                owner.append(i)
        wanted = {"truncation": True, "max_length": max_length, "return_attention_mask": False}
        encoded = tokenizer(
            [words for _, words in pieces], is_split_into_words=True, return_token_type_ids=types, **wanted
        )
        firsts = [
            [-1 if word is None else start + word for word in _firsts(encoded.word_ids(row))]
            for row, (start, _) in enumerate(pieces)
        ]
        names = [name for name in ("input_ids", "token_type_ids") if encoded.get(name) is not None]
        return TokenSplit(
            inputs={name: Ragged.of(encoded[name], np.int32) for name in names},
            targets=Ragged.of(split.targets, np.float64),
            notes={WORDS: Ragged.of(firsts, np.int32)},
            owner=np.array(owner, dtype=np.int64),
        )

    def about_lengths(self, data: TokenSplit, max_length: int, name: str) -> str:
        """How many were split."""
        several = int((np.bincount(np.asarray(data.owner)) > 1).sum())
        return f"{several} of {len(data)} {name} sentences are longer than max_length {max_length} and were split" * (
            several > 0
        )

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """One output a tag."""
        return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}

    def collate(self, tokenizer: Any) -> Collate:
        """Padded to the longest of the batch, labels too."""
        from transformers import DataCollatorForTokenClassification

        return DataCollatorForTokenClassification(tokenizer, label_pad_token_id=IGNORED)

    def labels(self, data: TokenSplit, units: Units | None) -> list[list[int]]:
        """A row's tags, each at the first token of its word."""
        return [
            [IGNORED if word < 0 else int(tags[word]) for word in words]
            for words, tags in ((words, data.targets[owner]) for words, owner in _rows(data))
        ]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Of the tags' probabilities, averaged over the words."""
        from noisytune.methods._divergence import symmetric_divergence

        labelled = inputs["labels"] != IGNORED
        return symmetric_divergence(one[labelled], other[labelled], regression=False)

    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """The logits of each row's tokens, shape (tokens, tags)."""
        logits, there = found.logits.cpu().double().numpy(), inputs["attention_mask"].bool().cpu().numpy()
        return [row[tokens] for row, tokens in zip(logits, there, strict=True)]

    def judge(self, outputs: list[Floats], data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """The tag with the largest output for each word, laid out as `references`; collapsed where all are the same.

        A word without tokens gets the first tag.
        """
        if not all(np.isfinite(row).all() for row in outputs):
            return "diverged", np.empty(0)
        gold = self.references(data)
        tags = np.where(gold < 0, NO_WORD, 0.0)
        for row, (words, owner) in zip(outputs, _rows(data), strict=True):
            first = np.flatnonzero(words >= 0)
            tags[owner, words[first]] = row[first].argmax(axis=1)
        return ("collapsed" if len(np.unique(tags[gold >= 0])) == 1 else "ok"), tags

    def references(self, data: TokenSplit) -> Floats:
        """The tags' ids, shape (sentences, longest); -1 behind a sentence's end."""
        lengths = np.array([len(tags) for tags in data.targets])
        there = np.arange(lengths.max()) < lengths[:, None]
        table = np.full(there.shape, NO_WORD)
        table[there] = np.concatenate(list(data.targets))
        return table

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """Chunks found, wrong and missed, tags right and all of each sentence."""
        return tag_items(predictions, self.references(data), labels)


def _splitters(splitter: Any) -> Iterator[Any]:
    """What cuts a text into words: itself, and what it is a sequence of."""
    yield splitter
    if hasattr(splitter, "__getitem__"):
        with suppress(IndexError):
            for place in itertools.count():
                yield from _splitters(splitter[place])


def _tokens_of_words(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """How many tokens each word has."""
    encoded = tokenizer(list(words), is_split_into_words=True, add_special_tokens=False)
    counts = [0] * len(words)
    for word in encoded.word_ids():
        if word is not None:
            counts[word] += 1
    return counts


def _pieces(counts: Sequence[int], room: int) -> Iterator[tuple[int, int]]:
    """Where pieces of at most ``room`` tokens start and end, in words; a word that needs more stands alone.

    >>> list(_pieces([2, 2, 5, 1], 4))
    [(0, 2), (2, 3), (3, 4)]
    """
    start, used = 0, 0
    for word, count in enumerate(counts):
        if used and used + count > room:
            yield start, word
            start, used = word, 0
        used += count
    yield start, len(counts)


def _firsts(words: Sequence[int | None]) -> Iterator[int | None]:
    """The word of each token that is its first one, None for the others."""
    before = None
    for word in words:
        yield word if word != before else None
        before = word


def _rows(data: TokenSplit) -> Iterator[tuple[Any, int]]:
    """Of each row the words of its tokens, and its sentence."""
    return zip(data.notes[WORDS], (int(i) for i in np.asarray(data.owner)), strict=True)
