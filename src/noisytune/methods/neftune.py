"""NEFTune: noise on the token embeddings, in training.

Jain et al. 2024, "NEFTune: Noisy Embeddings Improve Instruction Finetuning", algorithm 1. The embeddings of a sequence
of L tokens (padding included) and width d become

    E + U(-1, 1) * alpha / sqrt(L * d)

by transformers' own hook function. ``TrainingArguments(neftune_noise_alpha=...)`` attaches it to one module only, which
T5's encoder and decoder do not use: there it does nothing. (The authors' experiments took the true lengths, and left
padding alone.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from noisytune._settings import number
from noisytune.methods._base import Method, Run
from noisytune.methods._blocks import token_embeddings


@dataclass(frozen=True)
class NEFTune(Method):
    """NEFTune as an arm."""

    name: ClassVar = "neftune"
    summary: ClassVar = "Noise on the token embeddings while training"
    cost: ClassVar = "one draw for each embedding"
    source: ClassVar = "Jain et al. 2024, ICLR"
    neutral: ClassVar = {"alpha": 0.0}

    alpha: float = number(5.0, "size of the noise; the authors use 5, 10, 15", ">= 0", lambda a: a >= 0)

    def check(self, run: Run) -> None:
        """The model must say where its embeddings are."""
        token_embeddings(run.model)

    def attach_(self, run: Run) -> dict[str, Any]:
        """Hook the token embeddings."""
        from transformers.integrations.neftune import neftune_post_forward_hook

        if self.alpha > 0:
            parts: list[Any] = token_embeddings(run.model)
            for part in parts:
                part.neftune_noise_alpha = self.alpha
            run.kept[self.name] = [(part, part.register_forward_hook(neftune_post_forward_hook)) for part in parts]
        return {}

    def detach_(self, run: Run) -> None:
        """Remove the hooks."""
        for part, handle in run.kept.pop(self.name, []):
            handle.remove()
            del part.neftune_noise_alpha
