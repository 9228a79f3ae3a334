"""What watches a training of transformers' Trainer: the loss of every step, and the best epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback

from noisytune.methods import Stack

Report = Callable[[int, int, float | None], None]
"""Called after each step with the step (from 1), the number of steps, and the loss (None where it is not finite)."""


@dataclass
class Steps(TrainerCallback):
    """Keeps the loss of every step, a mean for each of its steps, passes it on, and stops where it is not finite."""

    report: Report | None
    losses: list[float]

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loss = kwargs["logs"].get("loss")
        if loss is None:
            return
        self.losses += [loss] * (state.global_step - len(self.losses))
        if self.report:
            self.report(state.global_step, state.max_steps, loss if math.isfinite(loss) else None)
        if not math.isfinite(loss):
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= state.max_steps:
            control.should_log = True


class BestEpoch(TrainerCallback):
    """Scores the model after each epoch, and keeps the weights of the best one in main memory.

    Args:
        model: as it will be trained; its parameters stay the same objects.
        stack: the methods that may put other weights in their place while it is evaluated.
        score: its score now; None where it is undefined.
        better: -1 where a lower score is better, else 1.
    """

    def __init__(self, model: Any, stack: Stack, score: Callable[[], float | None], better: int = 1) -> None:
        self.scores: list[float | None] = []
        self._better, self._stack = better, stack
        self._model, self._parameters, self._score = model, list(model.parameters()), score
        self._kept: list[torch.Tensor] = []

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        highest = max((self._better * score for score in self.scores if score is not None), default=-math.inf)
        with self._stack.evaluated():
            value = self._score()
            if not self._kept or (value is not None and self._better * value > highest):
                self._kept = [tensor.detach().to("cpu", copy=True) for tensor in self._tensors()]
        self.scores.append(value)

    @torch.no_grad()
    def restore_(self) -> None:
        """Put the best epoch's weights back; the model stays as it is where no epoch was finished."""
        for tensor, kept in zip(self._tensors(), self._kept, strict=False):
            tensor.copy_(kept)

    def _tensors(self) -> list[torch.Tensor]:
        """Buffers are those of now: a model that moves to a GPU has others than before."""
        return [*self._parameters, *self._model.buffers()]
