"""Answers that are spans of a text: extractive question answering."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from noisytune._metrics import Items
from noisytune._metrics.answers import answer_items
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.kind import Collate, Kind
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor

Places = npt.NDArray[np.int64]

STRIDE = 128
"""Tokens that two parts of a context share; a third of a row where that is less."""
LONGEST_QUESTION = 64
"""Tokens of a question, as XTREME cuts it; a third of a row where that is less."""
LOSSY = ("0.23.1", "0.23.2")
"""Releases of tokenizers that say nothing of what lies behind the first tokens of a long text.

Source: https://github.com/huggingface/tokenizers/issues/2091.
"""
N_BEST = 20
"""Starts and ends that are looked at."""
LONGEST_ANSWER = 30
"""Tokens."""
AT_ONCE = 1000
"""Examples given to the tokenizer at a time: what it says of them takes more memory than their tokens."""

STARTS, ENDS, LABELS = "starts", "ends", "labels"
"""Notes of a row: the characters of the context where each token starts and ends (-1 of a token outside it), and the
first and last token of the gold answer."""
OUTSIDE = -1
CUT = "cut"
"""How many tokens are left of a question that was too long."""


class Spans(Kind):
    """Texts are a question and its context, targets its gold answers: the character where each begins, and its text.

    A context that is too long becomes several rows that overlap; the best answer of all of them is the example's. An
    answer that begins at -1 is not in the context: it counts when predictions are scored, and nothing is learnt of it.

    Source: the question-answering example of transformers (``run_qa.py``).
    """

    name = "spans"
    model_class = "AutoModelForQuestionAnswering"
    has_classes = False
    keeps_items = True

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """None: a part is drawn without regard to the answers."""
        return (0.0,) * len(targets)

    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """One row an example, or several where it has more tokens than ``max_length``; the question is in each."""
        if not tokenizer.is_fast:
            raise DataError(
                f"{where}: answers need a tokenizer that knows where its tokens stand; the model has no tokenizer.json"
            )
        if (installed := version("tokenizers")) in LOSSY:
            raise ConfigError(
                f"{where}: tokenizers {installed} loses parts of long contexts (its issue 2091): install 0.23.3"
            )
        marks, share = tokenizer.num_special_tokens_to_add(pair=True), max_length // 3
        stride, longest = min(STRIDE, share), min(LONGEST_QUESTION, share)
        if max_length - longest - marks <= stride:
            raise ConfigError(f"max_length {max_length}: too few tokens for a question and a context; give at least 16")
        wanted = {"truncation": "only_second", "max_length": max_length, "stride": stride}
        wanted |= {"return_overflowing_tokens": True, "return_offsets_mapping": True, "return_attention_mask": False}
        golds = [_first_inside(answers) for answers in split.targets]
        columns: dict[str, list[Any]] = {name: [] for name in ("input_ids", "token_type_ids", STARTS, ENDS, LABELS)}
        owner: list[int] = []
        cut: list[dict[str, int]] = []
        for begin in range(0, len(split), AT_ONCE):
            chosen = range(begin, min(begin + AT_ONCE, len(split)))
            asked = [split.texts[i][0].lstrip() for i in chosen]
            questions = _cut(tokenizer, asked, longest)
            cut += [{CUT: longest} if one != other else {} for one, other in zip(asked, questions, strict=True)]
            contexts = [split.texts[i][1] for i in chosen]
            encoded = tokenizer(questions, contexts, return_token_type_ids=types, **wanted)
            for row, place in enumerate(encoded["overflow_to_sample_mapping"]):
                ids, inside = encoded["input_ids"][row], np.equal(np.array(encoded.sequence_ids(row), dtype=float), 1)
                starts, ends = _characters(encoded["offset_mapping"][row], inside, contexts[place])
                columns[STARTS].append(starts)
                columns[ENDS].append(ends)
                columns[LABELS].append(_label(starts, ends, golds[chosen[place]], _no_answer(ids, tokenizer)))
                owner.append(chosen[place])
            for name in ("input_ids", "token_type_ids"):
                columns[name] += [np.array(row, dtype=np.int32) for row in encoded.get(name) or ()]
        texts = [
            {"context": context, "answers": [text for _, text in answers], "language": split.language} | more
            for (_, context), answers, more in zip(split.texts, split.targets, cut, strict=True)
        ]
        originals = [np.frombuffer(json.dumps(one, ensure_ascii=False).encode(), dtype=np.uint8) for one in texts]
        ragged = {name: Ragged.of(rows, np.int32) for name, rows in columns.items() if rows}
        return TokenSplit(
            inputs={name: ragged.pop(name) for name in ("input_ids", "token_type_ids") if name in ragged},
            targets=np.array(golds, dtype=np.float64),
            notes=ragged,
            owner=np.array(owner, dtype=np.int64),
            originals=Ragged.of(originals, np.uint8),
        )

    def about_lengths(self, data: TokenSplit, max_length: int, name: str) -> str:
        """How many contexts are read in parts, and how many questions are cut."""
        several = int((np.bincount(np.asarray(data.owner)) > 1).sum())
        told = [f"{several} of {len(data)} {name} contexts are longer than max_length {max_length}: read in parts"]
        longest = [one[CUT] for one in _originals(data) if CUT in one]
        cut = [f"{len(longest)} {name} questions are cut to {tokens} tokens" for tokens in longest[:1]]
        return "; ".join(told * (several > 0) + cut)

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """An output for starts, and one for ends."""
        return {"id2label": {0: "start", 1: "end"}, "label2id": {"start": 0, "end": 1}}

    def collate(self, tokenizer: Any) -> Collate:
        """Padded to the longest of the batch; labels under the names that these models give them."""
        import torch
        from transformers import DataCollatorWithPadding

        pad, left = DataCollatorWithPadding(tokenizer), tokenizer.padding_side == "left"

        def collated(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
            batch = pad([{name: value for name, value in row.items() if name != "labels"} for row in rows])
            if "labels" in rows[0]:
                places = torch.tensor([row["labels"] for row in rows])
                if left:
                    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
                    places += batch["input_ids"].shape[1] - lengths[:, None]
                batch["start_positions"], batch["end_positions"] = places.unbind(1)
            return batch

        return collated

    def labels(self, data: TokenSplit, units: Units | None) -> list[list[int]]:
        """First and last token of the first gold answer where the row holds all of it, else twice the CLS token."""
        return [row.tolist() for row in data.notes[LABELS]]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Of the probabilities of starts and of ends, averaged over both and over the rows.

        Args:
            one: logits, shape (rows, 2, tokens).
            other: the same shape.
            inputs: the batch.
        """
        import torch

        from noisytune.methods._divergence import symmetric_divergence

        padding = inputs["attention_mask"][:, None] == 0
        one, other = (
            logits.float().masked_fill(padding, torch.finfo(torch.float32).min).flatten(0, 1) for logits in (one, other)
        )
        return symmetric_divergence(one, other, regression=False)

    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """The logits of each row's tokens to be the first one and the last one of the answer, shape (tokens, 2)."""
        logits = np.stack([part.cpu().double().numpy() for part in (found.start_logits, found.end_logits)], axis=-1)
        there = inputs["attention_mask"].bool().cpu().numpy()
        return [row[tokens] for row, tokens in zip(logits, there, strict=True)]

    def judge(self, outputs: list[Floats], data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """The span with the largest sum of logits over an example's rows: where it starts and ends in the context.

        Collapsed where the place does not depend on the text: all answers that are not empty have the same tokens,
        counted from the first one of the row's context. An example without a span among the best is answered by an
        empty one.
        """
        if not all(np.isfinite(row).all() for row in outputs):
            return "diverged", np.empty(0)
        scores, said = np.full(len(data), -np.inf), np.zeros((len(data), 2))
        tokens: dict[int, tuple[int, int]] = {}
        rows = zip(outputs, data.notes[STARTS], data.notes[ENDS], np.asarray(data.owner), strict=True)
        for logits, starts, ends, owner in rows:
            score, first, last = _best(logits, starts != OUTSIDE)
            if score > scores[owner]:
                scores[owner], said[owner] = score, (starts[first], ends[last])
                before = int(np.argmax(starts != OUTSIDE))
                tokens[int(owner)] = (first - before, last - before)
        return ("collapsed" if len(set(tokens.values())) <= 1 else "ok"), said

    def references(self, data: TokenSplit) -> Floats:
        """Where the first gold answer starts and ends, shape (examples, 2); -1 where its context does not hold it."""
        return np.asarray(data.targets)

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """F1 and exact match, by the evaluator of SQuAD or, where the split says its language, of MLQA."""
        texts = _originals(data)
        said = [one["context"][int(a) : int(b)] for one, (a, b) in zip(texts, predictions, strict=True)]
        return answer_items(said, [one["answers"] for one in texts], texts[0]["language"])


def _originals(data: TokenSplit) -> list[dict[str, Any]]:
    """Of each example its context, its gold answers, the language of the split, and `CUT` where the question is cut."""
    return [json.loads(row.tobytes()) for row in data.originals or ()]


def _first_inside(answers: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """Start and end of the first answer whose place is known; -1 twice where there is none.

    >>> _first_inside([(-1, "Oslo"), (3, "Rome")]), _first_inside([(-1, "Oslo")])
    ((3, 7), (-1, -1))
    """
    return next(((start, start + len(text)) for start, text in answers if start >= 0), (OUTSIDE, OUTSIDE))


def _cut(tokenizer: Any, questions: list[str], longest: int) -> list[str]:
    """The questions, each with its first ``longest`` tokens alone."""
    offsets = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    # What is left may have other tokens than it had, and a token may stand at the very end.
    return [
        _cut(tokenizer, [question[: min(places[longest][0], len(question) - 1)]], longest)[0]
        if len(places) > longest
        else question
        for question, places in zip(questions, offsets, strict=True)
    ]


def _characters(offsets: Sequence[tuple[int, int]], inside: Any, context: str) -> tuple[Places, Places]:
    """Where tokens start and end in the context, without the white space before a word; -1 of those outside it."""
    starts, ends = np.full(len(offsets), OUTSIDE), np.full(len(offsets), OUTSIDE)
    for i in np.flatnonzero(inside).tolist():
        start, end = offsets[i]
        token = context[start:end]
        starts[i], ends[i] = start + len(token) - len(token.lstrip()), end
    return starts, ends


def _label(starts: Places, ends: Places, gold: tuple[int, int], no_answer: int) -> list[int]:
    """The first and the last token that hold characters of the answer.

    >>> starts, ends = np.array([-1, 0, 4, 8, -1]), np.array([-1, 3, 7, 9, -1])
    >>> _label(starts, ends, (4, 9), 0), _label(starts, ends, (4, 10), 0), _label(starts, ends, (-1, -1), 0)
    ([2, 3], [0, 0], [0, 0])
    """
    start, end = gold
    tokens = np.flatnonzero((starts < end) & (ends > start) & (starts != OUTSIDE))
    whole = start >= 0 and len(tokens) and starts[starts != OUTSIDE].min() <= start and ends.max() >= end
    return [int(tokens[0]), int(tokens[-1])] if whole else [no_answer, no_answer]


def _no_answer(ids: list[int], tokenizer: Any) -> int:
    """The place of the token that stands for the whole row: CLS, or what begins a text."""
    return next((ids.index(mark) for mark in (tokenizer.cls_token_id, tokenizer.bos_token_id) if mark in ids), 0)


def _best(logits: Floats, inside: npt.NDArray[np.bool_]) -> tuple[float, int, int]:
    """Score, first and last token of the best answer of a row; the score is -inf where there is none.

    Args:
        logits: shape (tokens, 2).
        inside: whether a token is one of the context, shape (tokens,).

    >>> _best(np.array([[9.0, 9], [1, 0], [0, 1], [1.5, 0]]), np.array([False, True, True, True]))
    (2.0, 1, 2)
    """
    firsts, lasts = (np.argsort(-logits[:, side], kind="stable")[:N_BEST] for side in (0, 1))
    lengths = lasts[None] - firsts[:, None] + 1
    allowed = inside[firsts][:, None] & inside[lasts][None] & (lengths >= 1) & (lengths <= LONGEST_ANSWER)
    scores = np.where(allowed, logits[firsts, 0][:, None] + logits[lasts, 1][None], -np.inf)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[first, last]), int(firsts[first]), int(lasts[last])
