"""One model, many splits: what it predicts of each, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from noisytune._metrics import Floats, score
from noisytune.lab.kinds import KINDS, Collate, Kind, TokenSplit
from noisytune.lab.kinds.units import Units
from noisytune.records import Status


@dataclass(frozen=True)
class Evaluation:
    """What a model gives on one split."""

    status: Status
    scores: dict[str, float]
    """Every metric that is defined; none of a diverged model."""
    outputs: dict[str, npt.NDArray[Any]]
    """``predictions``, ``references`` and, where these two do not tell them, ``items``: what is kept of each example;
    its number in ``groups`` where examples belong together; nothing of a diverged model."""
    chosen: dict[str, Any] = field(default_factory=dict)
    """What the kind chose for it, as plain JSON: the layer that answers, say."""


DIVERGED = Evaluation("diverged", {}, {})
"""Of a model that gives nothing."""


@dataclass(frozen=True)
class Evaluator:
    """Scores a model on splits. The model and its units are those of a trial."""

    kind: Kind
    labels: tuple[str, ...]
    """Class names in id order."""
    units: Units | None
    collate: Collate
    batch_size: int

    def of(self, task: Mapping[str, Any], tokenizer: Any) -> Evaluator:
        """The one for another task of the same model.

        Args:
            task: as in a trial's settings.
            tokenizer: the model's.
        """
        kind = KINDS[task["kind"]].read_by(task.get("reading", {})).for_tokenizer(tokenizer)
        return replace(self, kind=kind, labels=tuple(task["labels"]), collate=kind.collate(tokenizer))

    def __call__(self, model: Any, splits: Mapping[str, TokenSplit]) -> dict[str, Evaluation]:
        """Predict and score splits, by name."""
        mine = replace(self, kind=self.kind.for_model(model.config))
        judged = {name: mine.judged(model, data) for name, data in splits.items()}
        answers = {name: answer for name, (status, answer) in judged.items() if status != "diverged"}
        settled = mine.kind.settle(answers, splits)
        return {
            name: self.score(status, splits[name], *settled[name]) if name in settled else DIVERGED
            for name, (status, _) in judged.items()
        }

    def judged(self, model: Any, data: TokenSplit) -> tuple[Status, Floats]:
        """What a model predicts of a split, and whether that is worth anything."""
        mine = replace(self, kind=self.kind.for_split(data))
        return mine.kind.judge(mine.outputs(model, data), data, self.units)

    def score(self, status: Status, data: TokenSplit, predictions: Floats, chosen: dict[str, Any]) -> Evaluation:
        """What predictions of a split are worth."""
        items = self.kind.items(predictions, data, self.labels)
        outputs: dict[str, npt.NDArray[Any]] = {"predictions": predictions, "references": self.kind.references(data)}
        outputs |= {"items": items} if self.kind.keeps_items else {}
        outputs |= {} if data.groups is None else {"groups": data.groups}
        return Evaluation(status, score(self.kind.name, items), outputs, chosen)

    @torch.inference_mode()
    def outputs(self, model: Any, data: TokenSplit) -> Any:
        """What the kind reads of each row, in the data's order. Batches hold rows of like length."""
        model.eval()
        order = np.argsort(data.lengths, kind="stable")
        found: Any = None
        for start in range(0, len(order), self.batch_size):
            rows = [int(i) for i in order[start : start + self.batch_size]]
            batch = self.collate([data.row(i) for i in rows])
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            read = self.kind.answer(model, inputs)
            found = self.kind.keep(data.rows, read[0]) if found is None else found
            for row, output in zip(rows, read, strict=True):
                found[row] = output
        return found


def mean_scores(evaluations: Mapping[str, Evaluation], primary: tuple[str, ...]) -> dict[str, float]:
    """Each metric's mean over the primary splits; absent where one of them lacks it."""
    parts = [evaluations[name].scores for name in primary]
    shared = [key for key in parts[0] if all(key in part for part in parts)]
    return {key: float(np.mean([part[key] for part in parts])) if len(parts) > 1 else parts[0][key] for key in shared}


def trial_status(evaluations: Mapping[str, Evaluation], primary: tuple[str, ...], moved: bool) -> Status:
    """Diverged where the model is so on any primary split, else untrained, else collapsed where it is so on any.

    Args:
        evaluations: by split.
        primary: the splits that count.
        moved: whether training changed a weight.
    """
    found = {evaluations[name].status for name in primary}
    if "diverged" in found:
        return "diverged"
    if not moved:
        return "untrained"
    return "collapsed" if "collapsed" in found else "ok"
