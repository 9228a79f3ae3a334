"""The kind of task whose answers are completions by a causal language model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from noisytune._metrics import Items
from noisytune._metrics.answers import answer_items, same_answer
from noisytune._metrics.language import (
    CHOICE,
    COLUMNS,
    EXACT,
    F1,
    JSON,
    NLL,
    PATTERN,
    TOKENS,
    json_match,
    pattern_match,
)
from noisytune.errors import ConfigError, DataError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.kind import Collate, Kind
from noisytune.lab.kinds.language.generate import answers
from noisytune.lab.kinds.language.rows import (
    ELSEWHERE,
    IGNORED,
    PASSAGE,
    RIGHT,
    TEXT,
    last_completion,
    marks_of,
    rows_of,
)
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor

ANSWER, CUT = "answer", "cut"
"""In an example's original: the completion that is compared with generated ones, and tokens that were left out."""


@dataclass(frozen=True)
class Language(Kind):
    """Texts are the parts of an example, targets the role of each: see `noisytune.lab.kinds.language.rows`.

    The loss is on completions alone: all turns of the assistant in a chat. Scored are their likelihood; with a setting
    for reading, greedy answers to what stands before the last completion; of choices which one is most likely.
    """

    name: ClassVar = "language"
    model_class: ClassVar = "AutoModelForCausalLM"
    has_classes: ClassVar = False
    keeps_items: ClassVar = True
    watched: ClassVar = ELSEWHERE
    answers_untrained: ClassVar = True
    undefined_on_train: ClassVar = ("choice_accuracy",)
    has_marks: ClassVar = True
    evaluation_batches: ClassVar = 1

    limit: int | None = None
    """Tokens of a generated answer; 0: as many as the longest completion of the split. None: nothing is generated."""
    pattern: str | None = None
    ends: tuple[int, ...] = ()
    """Tokens that end the completions of the split: a base model may name others."""
    tokenizer: Any = None

    def read_by(self, reading: Mapping[str, Any]) -> Self:
        """With ``max_new_tokens`` (0: as the longest completion) and ``answer_pattern``, where answers are generated.

        Raises:
            ConfigError: another setting, or no regular expression.
        """
        if unknown := set(reading) - {"max_new_tokens", "answer_pattern"}:
            raise ConfigError(f"a task of the kind language has no setting {', '.join(sorted(unknown))}")
        pattern = reading.get("answer_pattern")
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ConfigError(f"answer_pattern {pattern!r} is no regular expression: {error}") from error
        return replace(self, limit=reading.get("max_new_tokens"), pattern=pattern)

    def for_split(self, data: TokenSplit) -> Self:
        """With the length of answers and what ends them; without any where a split has texts without a prompt."""
        if self.limit is None or not all(ANSWER in one for one in _originals(data)):
            return replace(self, limit=None)
        completions = [row[last_completion(row) :].tolist() for row in data.inputs["labels"]]
        marks = set(marks_of(self.tokenizer).values())
        ends = {found[-1] for tokens in completions if (found := [token for token in tokens if token in marks])}
        return replace(self, limit=self.limit or max(map(len, completions)), ends=tuple(sorted(ends)))

    def for_tokenizer(self, tokenizer: Any) -> Self:
        """With what reads generated answers."""
        return replace(self, tokenizer=tokenizer)

    def ready_(self, name: str, model: Any, fresh: Sequence[str]) -> None:
        """Refuse a model whose outputs were not trained, or see what they are to predict."""
        import torch

        if head := [key for key in fresh if not key.startswith(f"{model.base_model_prefix}.")]:
            raise DataError(
                f"model {name!r}: its checkpoint has no language-model head ({head[0]} is missing); "
                "give a causal language model"
            )
        # Two texts that differ in their last token: what is predicted after their first one must be the same.
        texts = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 1]], device=model.device)
        was = model.training
        model.eval()
        with torch.no_grad():
            one, other = model(input_ids=texts, attention_mask=torch.ones_like(texts)).logits[:, 0].float()
        model.train(was)
        if not torch.allclose(one, other, rtol=1e-4, atol=1e-5):
            raise DataError(
                f"model {name!r}: it sees what it should predict, so it is no causal language model; "
                "give one that generates text (--model)"
            )
        model.config.use_cache = False  # of no use in training; generation asks for it

    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """None: a part is drawn without regard to the texts."""
        return (0.0,) * len(targets)

    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """One row an example, or one a choice."""
        tokenizer.split_special_tokens = False  # templates are made of marks
        ids, labels, owner, right, originals = [], [], [], [], []
        for i, (texts, roles) in enumerate(zip(split.texts, split.targets, strict=True)):
            rows = rows_of(tokenizer, texts, roles, max_length, f"{where}: example {i + 1} ({texts[0][:30]!r})")
            ids += [row.ids for row in rows]
            labels += [row.labels for row in rows]
            owner += [i] * len(rows)
            right.append(roles.index(RIGHT) - 1 if RIGHT in roles else -1)
            answer = {} if roles[0] in (TEXT, PASSAGE) else {ANSWER: texts[right[-1] + 1 or -1]}
            originals.append(answer | ({CUT: cut} if (cut := sum(row.cut for row in rows)) else {}))
        packed = [np.frombuffer(json.dumps(one, ensure_ascii=False).encode(), dtype=np.uint8) for one in originals]
        several = len(owner) > len(split)
        return TokenSplit(
            inputs={"input_ids": Ragged.of(ids, np.int32), "labels": Ragged.of(labels, np.int32)},
            targets=np.array(right, dtype=np.float64),
            owner=np.array(owner, dtype=np.int64) if several else None,
            originals=Ragged.of(packed, np.uint8),
        )

    def about_lengths(self, data: TokenSplit, max_length: int, name: str) -> str:
        """How many examples were cut."""
        cut = sum(CUT in one for one in _originals(data))
        about = f"{cut} of {len(data)} {name} examples are longer than max_length {max_length}: their beginning is left"
        return f"{about} out, of plain texts their end" if cut else ""

    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """The model's own."""
        return {}

    def collate(self, tokenizer: Any) -> Collate:
        """Padded on the right to the longest of the batch, labels too."""
        import torch

        def padded(rows: list[dict[str, Any]], name: str, value: int) -> Tensor:
            longest = max(len(row[name]) for row in rows)
            return torch.tensor([list(row[name]) + [value] * (longest - len(row[name])) for row in rows])

        def collated(rows: list[dict[str, Any]]) -> Mapping[str, Any]:
            lengths = torch.tensor([len(row["input_ids"]) for row in rows])
            return {
                "input_ids": padded(rows, "input_ids", tokenizer.pad_token_id),
                "attention_mask": (torch.arange(int(lengths.max())) < lengths[:, None]).long(),
                "labels": padded(rows, "labels", IGNORED),
            }

        return collated

    def labels(self, data: TokenSplit, units: Units | None) -> list[list[int]]:
        """The completion's tokens, each at its own place."""
        return [row.tolist() for row in data.inputs["labels"]]

    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Of the next token's probabilities, averaged over the completions' tokens."""
        from noisytune.methods._divergence import symmetric_divergence

        predicted = inputs["labels"][:, 1:] != IGNORED
        return symmetric_divergence(one[:, :-1][predicted], other[:, :-1][predicted], regression=False)

    def answer(self, model: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """Of each row what `outputs` says, and the tokens of its answer where answers are generated."""
        found = self.outputs(model(**{name: one for name, one in inputs.items() if name != "labels"}), inputs)
        if self.limit is None:
            return found
        ids, labels = (inputs[name].cpu().numpy() for name in ("input_ids", "labels"))
        prompts = [row[: last_completion(mine)].tolist() for row, mine in zip(ids, labels, strict=True)]
        said = answers(model, prompts, self.limit, self.tokenizer.pad_token_id, self.ends)
        return [np.concatenate([row, np.array(tokens)]) for row, tokens in zip(found, said, strict=True)]

    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """Negative log-likelihood of each row's completion in nats, summed, and its tokens."""
        rows = []
        for logits, labels in zip(found.logits[:, :-1], inputs["labels"][:, 1:], strict=True):
            there = labels != IGNORED
            chances = logits[there].float().log_softmax(-1).gather(-1, labels[there][:, None].long())
            rows.append(np.array([-float(chances.cpu().double().sum()), float(there.sum())]))
        return rows

    def judge(self, outputs: list[Floats], data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """The items. Collapsed where all generated answers are the same, and should not be."""
        likely = np.array([row[:2] for row in outputs])
        if not np.isfinite(likely).all():
            return "diverged", np.empty(0)
        table, right = np.full((len(data), COLUMNS), math.nan), np.asarray(data.targets, dtype=np.int64)
        owner = np.arange(len(data)) if data.owner is None else np.asarray(data.owner)
        first = np.searchsorted(owner, np.arange(len(data)))
        table[:, [NLL, TOKENS]] = likely[first + np.maximum(right, 0)]
        for place in np.flatnonzero(right >= 0):
            table[place, CHOICE] = float(likely[owner == place, 0].argmin() == right[place])
        if self.limit is None:
            return "ok", table
        gold = [one[ANSWER] for one in _originals(data)]
        said = [self.tokenizer.decode(row[2:].astype(int).tolist(), skip_special_tokens=True) for row in outputs]
        table[:, F1] = answer_items(said, [[one] for one in gold])[:, 0]
        table[:, EXACT] = [same_answer(one, other) for one, other in zip(said, gold, strict=True)]
        for i, (one, other) in enumerate(zip(said, gold, strict=True)):
            table[i, JSON] = json_match(one, other)
            table[i, PATTERN] = math.nan if self.pattern is None else pattern_match(one, other, self.pattern)
        return ("collapsed" if len(set(said)) == 1 < len(set(gold)) else "ok"), table

    def references(self, data: TokenSplit) -> Floats:
        """The right choice's place, from 0; -1 of examples without choices."""
        return np.asarray(data.targets)

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """The predictions: see `noisytune._metrics.language`."""
        return predictions


def _originals(data: TokenSplit) -> list[dict[str, Any]]:
    return [json.loads(row.tobytes()) for row in data.originals or ()]
