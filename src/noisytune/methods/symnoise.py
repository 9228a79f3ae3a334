"""SymNoise: each batch twice, with noise of one size on the token embeddings, and with the same noise turned round.

Yadav & Singh 2023, "SymNoise: Advancing Language Model Fine-tuning with Symmetric Noise", algorithm 1. The embeddings E
of a sequence of L tokens (padding included) and width d become

    E + s * alpha / sqrt(L * d)      and      E - s * alpha / sqrt(L * d),      each element of s is -1 or 1 by chance

and the loss is the mean over both. The paper has the two in one batch of twice the size; here they are two passes,
which is the same but for the dropout that each draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from noisytune._settings import number
from noisytune.methods._base import Inputs, Method, Run
from noisytune.methods._blocks import token_embeddings
from noisytune.methods._divergence import TWO_PASSES, refuse_other_masks


class SymmetricNoise:
    """Noise on a model's token embeddings: none, drawn, or the last one turned round.

    Args:
        model: a transformers model.
        alpha: size of the noise, >= 0.

    Raises:
        ConfigError: the model does not say where its embeddings are.
    """

    def __init__(self, model: nn.Module, alpha: float) -> None:
        self.sign, self._alpha = 0, alpha
        self._drawn: list[Tensor] = []
        # Hooked once: a compiled model does not see a hook that comes later.
        self._handles = [part.register_forward_hook(self._add) for part in token_embeddings(model)]

    def _add(self, _: nn.Module, __: Any, found: Tensor) -> Tensor:
        if self.sign == 0:
            return found
        if self.sign < 0:
            return found - self._drawn.pop(0)
        size = self._alpha / math.sqrt(found.shape[1] * found.shape[2])
        noise = (2 * torch.empty_like(found).bernoulli_(0.5) - 1) * size
        self._drawn.append(noise.detach())
        return found + noise.detach()

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()


def symnoise_loss(inputs: Inputs, compute: Callable[[Inputs], Any], noise: SymmetricNoise) -> Tensor:
    """The loss of a batch by two passes with opposite noise.

    Args:
        inputs: a batch, labels included.
        compute: runs the model; its result has ``loss``, a mean over the batch.
        noise: on the embeddings of the same model.

    Source: Yadav & Singh 2023, algorithm 1.
    """
    losses = []
    try:
        for noise.sign in (1, -1):
            losses.append(compute(inputs).loss)
    finally:
        noise.sign = 0
    loss: Tensor = (losses[0] + losses[1]) / 2
    return loss


@dataclass(frozen=True)
class SymNoise(Method):
    """SymNoise as an arm."""

    name: ClassVar = "symnoise"
    summary: ClassVar = "Each batch with noise on the token embeddings and with its opposite"
    cost: ClassVar = "twice the time and activations"
    source: ClassVar = "Yadav & Singh 2023, arXiv 2312.01523"
    neutral: ClassVar = {"alpha": 0.0}
    excludes: ClassVar = {
        "rdrop": TWO_PASSES,
        "r3f": TWO_PASSES,
        "neftune": "both add noise of the same size to the token embeddings; take one of them",
    }

    alpha: float = number(5.0, "size of the noise, as NEFTune's", ">= 0", lambda alpha: alpha >= 0)

    def passes(self, epochs: float, batches: int) -> float:
        """Each batch twice."""
        return 1.0 if self.alpha == 0 else 2.0

    def check(self, run: Run) -> None:
        """The model must say where its embeddings are."""
        token_embeddings(run.model)

    def attach_(self, run: Run) -> dict[str, Any]:
        """Hook the token embeddings."""
        run.kept[self.name] = SymmetricNoise(run.model, self.alpha)
        return {}

    def loss(self, run: Run, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """See `symnoise_loss`."""
        if self.alpha == 0:
            plain: Tensor = compute(inputs).loss
            return plain
        refuse_other_masks(self.name, run)
        return symnoise_loss(inputs, compute, run.kept[self.name])

    def detach_(self, run: Run) -> None:
        """Remove the hooks."""
        run.kept.pop(self.name).remove()
