"""R3F: predictions must not change when a little noise is added to the embeddings.

Aghajanyan et al. 2021, "Better Fine-Tuning by Reducing Representational Collapse", equation (4). With the predictions p
of the batch and q of the batch with z ~ U(-eps, eps) or N(0, eps^2) added to its token embeddings:

    loss = CE(p) + lam * (KL(p, q) + KL(q, p))

Regression: twice the squared difference; the authors have none. They detach the embeddings in the noised pass, which
here passes its gradient on to them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from noisytune._settings import choice, number
from noisytune.methods._base import Divergence, Inputs, Method, Run
from noisytune.methods._blocks import token_embeddings
from noisytune.methods._divergence import divergence_of, refuse_other_masks
from noisytune.methods.hype import noise_like, rounded_away


class EmbeddingNoise:
    """Noise on a model's token embeddings, while it is switched on.

    Args:
        model: a transformers model.
        eps: size of the noise, >= 0.
        distribution: "uniform" or "gaussian".

    Raises:
        ConfigError: the model does not say where its embeddings are.
    """

    def __init__(self, model: nn.Module, eps: float = 1e-5, distribution: str = "uniform") -> None:
        self.on, self._eps, self._distribution = False, eps, distribution
        # Hooked once: a compiled model does not see a hook that comes later.
        self._handles = [part.register_forward_hook(self._add) for part in token_embeddings(model)]

    def _add(self, _: nn.Module, __: Any, found: Tensor) -> Tensor:
        return found + noise_like(found, self._eps, self._distribution) if self.on else found

    def remove(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()


def r3f_loss(
    inputs: Inputs,
    compute: Callable[[Inputs], Any],
    noise: EmbeddingNoise,
    lam: float = 1.0,
    *,
    regression: bool = False,
    divergence: Divergence | None = None,
) -> Tensor:
    """The loss of a batch by a plain pass and one with noise on the embeddings.

    Args:
        inputs: a batch, labels included.
        compute: runs the model; its result has ``loss`` and ``logits`` (examples, classes), or ``start_logits`` and
            ``end_logits``.
        noise: on the embeddings of the same model.
        lam: weight of the divergence, >= 0. 0 is one plain pass.
        regression: the model predicts a value.
        divergence: for other outputs than one class or one value an example: how far apart two of them are.

    Source: Aghajanyan et al. 2021, ICLR, equation (4).
    """
    clean = compute(inputs)
    loss: Tensor = clean.loss
    if lam == 0:
        return loss
    noise.on = True
    try:
        noised = compute(inputs)
    finally:
        noise.on = False
    return loss + lam * divergence_of(clean, noised, inputs, divergence, regression)


@dataclass(frozen=True)
class R3F(Method):
    """R3F as an arm."""

    name: ClassVar = "r3f"
    summary: ClassVar = "Predictions must not change under a little noise on the embeddings"
    cost: ClassVar = "twice the time and activations"
    source: ClassVar = "Aghajanyan et al. 2021, ICLR"
    neutral: ClassVar = {"lam": 0.0}

    lam: float = number(1.0, "weight of the agreement", ">= 0", lambda x: x >= 0)
    eps: float = number(1e-5, "size of the noise", ">= 0", lambda e: e >= 0)
    distribution: str = choice("uniform", "of the noise", "uniform", "gaussian")

    def passes(self, epochs: float, batches: int) -> float:
        """Each batch twice."""
        return 1.0 if self.lam == 0 else 2.0

    def check(self, run: Run) -> None:
        """The model must say where its embeddings are."""
        token_embeddings(run.model)

    def notices(self, run: Run) -> list[str]:
        """Noise that the dtype rounds away."""
        return rounded_away(self.name, self.eps, run)

    def attach_(self, run: Run) -> dict[str, Any]:
        """Hook the token embeddings."""
        run.kept[self.name] = EmbeddingNoise(run.model, self.eps, self.distribution)
        return {}

    def loss(self, run: Run, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """See `r3f_loss`."""
        refuse_other_masks(self.name, run)
        noise: EmbeddingNoise = run.kept[self.name]
        return r3f_loss(inputs, compute, noise, self.lam, regression=run.regression, divergence=run.divergence)

    def detach_(self, run: Run) -> None:
        """Remove the hooks."""
        run.kept.pop(self.name).remove()
