"""How far apart are two predictions for the same examples?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from noisytune.errors import ConfigError
from noisytune.methods._base import Divergence, Inputs, Run

TWO_PASSES = "both replace the loss by that of two passes; take one of them"
"""Why two methods that do so exclude each other."""


def refuse_other_masks(method: str, run: Run) -> None:
    """Under gradient checkpointing Mixout's layers are computed again with the masks of the last pass: of two passes
    before one backward pass, the first would get wrong gradients.

    Raises:
        ConfigError: this is such a run.
    """
    names = ("is_activation_checkpointing", "is_gradient_checkpointing")  # transformers' today, and until 5.22
    name = next((name for name in names if hasattr(type(run.model), name)), None)
    if run.kept.get("mixout") and name and getattr(run.model, name):
        refuse_checkpointing(("mixout", method))


def refuse_checkpointing(methods: Iterable[str]) -> None:
    """See that methods, by their names, go together under gradient checkpointing: see `refuse_other_masks`.

    Raises:
        ConfigError: they do not.
    """
    names = set(methods)
    for method in ("rdrop", "r3f", "symnoise"):
        if names >= {"mixout", method}:
            raise ConfigError(
                f"mixout+{method} under gradient checkpointing would compute wrong gradients: switch checkpointing "
                "off, or leave one of the two out"
            )


def symmetric_divergence(one: Tensor, other: Tensor, *, regression: bool) -> Tensor:
    """KL(p, q) + KL(q, p) of the predicted classes, averaged over the examples; gradients reach both.

    Args:
        one: logits, shape (examples, classes), or predicted values, shape (examples, 1).
        other: the same shape.
        regression: the outputs are values: twice the squared difference, which is the same divergence of two normal
            distributions of variance 1/2 around them.

    Returns:
        a scalar, >= 0.
    """
    one, other = (logits if logits.dtype == torch.float64 else logits.float() for logits in (one, other))
    if regression:
        return 2 * functional.mse_loss(one, other)
    p, q = one.log_softmax(-1), other.log_softmax(-1)
    forth = functional.kl_div(q, p, reduction="batchmean", log_target=True)
    back = functional.kl_div(p, q, reduction="batchmean", log_target=True)
    return forth + back


def divergence_of(one: Any, other: Any, inputs: Inputs, divergence: Divergence | None, regression: bool) -> Tensor:
    """How far apart two outputs for a batch are.

    Args:
        one: has what `logits_of` reads.
        other: likewise.
        inputs: the batch.
        divergence: says how. None: `symmetric_divergence`.
        regression: of `symmetric_divergence`.
    """
    if divergence is None:
        return symmetric_divergence(logits_of(one), logits_of(other), regression=regression)
    apart: Tensor = divergence(logits_of(one), logits_of(other), inputs)
    return apart


def logits_of(output: Any) -> Tensor:
    """The logits of an output; of a model that answers by spans those of starts and ends, shape (rows, 2, tokens)."""
    if hasattr(output, "start_logits"):
        return torch.stack([output.start_logits, output.end_logits], dim=1)
    logits: Tensor = output.logits
    return logits
