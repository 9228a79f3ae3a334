"""R-Drop: two passes with different dropout must agree.

Liang et al. 2021, "R-Drop: Regularized Dropout for Neural Networks", equations (1) to (3). With the predictions p and q
of two forward passes of the same batch:

    loss = (CE(p) + CE(q)) / 2 + alpha * (KL(p, q) + KL(q, p)) / 2

The task's part is averaged over the passes, where the paper adds them: so it keeps the size that the learning rate and
the clipping are chosen for, and ours is half of the paper's alpha and of that of the authors' fairseq code (.3, .5, .7,
1 and 5, by task). Their BERT code sums the divergence over the batch, with a weight that is ours at alpha = batch size
/ 4. Regression: KL(p, q) = KL(q, p) = (p - q)^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from noisytune._settings import number
from noisytune.errors import ConfigError
from noisytune.methods import _dropout
from noisytune.methods._base import Divergence, Inputs, Method, Run
from noisytune.methods._divergence import TWO_PASSES, divergence_of, logits_of, refuse_other_masks


def rdrop_loss(
    inputs: Inputs,
    compute: Callable[[Inputs], Any],
    alpha: float = 1.0,
    *,
    regression: bool = False,
    divergence: Divergence | None = None,
) -> Tensor:
    """The loss of a batch by two forward passes.

    Args:
        inputs: a batch, labels included.
        compute: runs the model in training mode; its result has ``loss`` and ``logits`` (examples, classes), or
            ``start_logits`` and ``end_logits``.
        alpha: weight of the divergence, >= 0. 0 is one plain pass.
        regression: the model predicts a value.
        divergence: for other outputs than one class or one value an example: how far apart two of them are.

    Source: Liang et al. 2021, NeurIPS, equation (3).
    """
    first = compute(inputs)
    if alpha == 0:
        plain: Tensor = first.loss
        return plain
    second = compute(inputs)
    apart = divergence_of(first, second, inputs, divergence, regression) / 2
    loss: Tensor = (first.loss + second.loss) / 2 + alpha * apart
    return loss


@dataclass(frozen=True)
class RDrop(Method):
    """R-Drop as an arm."""

    name: ClassVar = "rdrop"
    summary: ClassVar = "Two forward passes with different dropout must agree"
    cost: ClassVar = "twice the time and activations"
    source: ClassVar = "Liang et al. 2021, NeurIPS"
    neutral: ClassVar = {"alpha": 0.0}
    excludes: ClassVar = {
        "r3f": TWO_PASSES,
        "hype": "it turns dropout off, by which the two passes of rdrop differ",
    }

    alpha: float = number(1.0, "weight of the agreement; half of the paper's 0.3 to 5", ">= 0", lambda a: a >= 0)

    def passes(self, epochs: float, batches: int) -> float:
        """Each batch twice."""
        return 1.0 if self.alpha == 0 else 2.0

    def check(self, run: Run) -> None:
        """Some dropout must be active, by which the two passes differ."""
        if self.alpha > 0 and not _dropout.active(run.model):
            raise ConfigError(
                f"rdrop: {type(run.model).__name__} has no active dropout, so its two passes would be the same: set "
                "dropout in its config.json, or leave rdrop out"
            )

    def loss(self, run: Run, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """See `rdrop_loss`. The first step makes sure that the two passes differ: some models never use their rates."""
        refuse_other_masks(self.name, run)
        logits: list[Tensor] = []

        def watched(inputs: Inputs) -> Any:
            output = compute(inputs)
            logits.append(logits_of(output).detach())
            return output

        loss = rdrop_loss(inputs, watched, self.alpha, regression=run.regression, divergence=run.divergence)
        if run.step == 0 and len(logits) == 2 and torch.equal(*logits):
            raise ConfigError(
                f"rdrop: the two passes of {type(run.model).__name__} are the same, whatever its dropout rates say: "
                "leave rdrop out"
            )
        return loss
