"""A training of a tiny BERT in float64: by torch's AdamW, or by a rule in NumPy; a falling learning rate, clipping."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from .equations import Array

STEPS, RATE, DECAY, LABELS = 60, 5e-3, 0.01, 3
Batch = dict[str, torch.Tensor]


def model_of(folder: Path, dropout: float = 0.0) -> Any:
    """In float64, with a new head; the same for the same folder."""
    torch.manual_seed(0)
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS, **rates).double()


def rate_at(t: int) -> float:
    """Of step t = 1, 2, ..."""
    return RATE * (1 - (t - 1) / 100)


def gradients(model: Any, loss: torch.Tensor, mask: Callable[[int], None] | None, t: int) -> None:
    """Backward, mask, clip."""
    model.zero_grad()
    loss.backward()
    if mask:
        mask(t)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def plain_loss(model: Any) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: model(**batch).loss


def adamw(
    model: Any,
    data: list[Batch],
    loss_of: Callable[[Batch], torch.Tensor] | None = None,
    mask: Callable[[int], None] | None = None,
    factor: Callable[[str], float] = lambda name: 1.0,
    steps: int = STEPS,
) -> Any:
    """Train with torch's AdamW; ``factor`` of each parameter's learning rate. Weight decay on matrices."""
    loss_of = loss_of or plain_loss(model)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p], "lr": RATE * factor(name), "weight_decay": DECAY if p.ndim > 1 else 0.0}
            for name, p in model.named_parameters()
        ]
    )
    first = [group["lr"] for group in optimizer.param_groups]
    model.train()
    torch.manual_seed(1)
    for t in range(1, steps + 1):
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = rate * (1 - (t - 1) / 100)
        gradients(model, loss_of(data[(t - 1) % len(data)]), mask, t)
        optimizer.step()
    return model


def by_hand(model: Any, data: list[Batch], step: Callable[[str, Array, Array, int], Array]) -> Any:
    """Train with a rule in NumPy: (name, weights, gradient, t) -> new weights."""
    model.train()
    torch.manual_seed(1)
    for t in range(1, STEPS + 1):
        gradients(model, model(**data[(t - 1) % len(data)]).loss, None, t)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(torch.from_numpy(step(name, p.numpy().copy(), p.grad.numpy(), t)))
    return model


def moments(model: Any) -> dict[str, tuple[Array, Array]]:
    """Zeros for each parameter's two moments."""
    return {name: (np.zeros(p.shape), np.zeros(p.shape)) for name, p in model.named_parameters()}
