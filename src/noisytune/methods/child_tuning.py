"""Child-Tuning: only a part of the pretrained weights learns.

Xu et al. 2021, "Raise a Child in Large Language Model: Towards Effective and Generalizable Fine-tuning", section 3. The
gradient g of each pretrained parameter is masked before it is clipped:

    F (task-free):    g * M / p,  M ~ Bernoulli(p) anew at every step
    D (task-driven):  g * M,      M fixed: the share p of the blocks' weights with the largest Fisher information

The Fisher information is the mean of squared gradients over training batches, with dropout off, before training.

The authors' trainer clips before it masks, and measures the Fisher information with dropout on. Where it is zero for so
many weights that the share cannot be filled, only the others learn.

The head learns as a whole; under D embeddings and pooler do as well, as in the authors' code. (Under F that code masks
the head too.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from noisytune._settings import choice, number, whole
from noisytune.errors import ConfigError
from noisytune.methods._anchors import cut_like, in_place, of_names, pretrained
from noisytune.methods._base import Inputs, Method, Run
from noisytune.methods._blocks import blocks


@torch.no_grad()
def mask_gradients_(parameters: Mapping[str, nn.Parameter], p: float, seed: int, step: int) -> None:
    """Child-Tuning F: g * Bernoulli(p) / p, in place.

    The masks are a function of seed, step and name: the same on every rank, and again after a resume.

    Args:
        parameters: by name; those without a gradient are left out.
        p: share of the weights that learns, 0 < p <= 1.
        seed: 0 <= seed < 2**64.
        step: optimizer steps done.

    Source: Xu et al. 2021, EMNLP, equation (3).
    """
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            key = blake2b(f"{seed}/{step}/{name}".encode(), digest_size=8).digest()
            generator = torch.Generator(parameter.device).manual_seed(int.from_bytes(key, "little") >> 1)
            drawn = torch.rand(parameter.shape, generator=generator, device=parameter.device)
            parameter.grad.mul_(cut_like((drawn < p).to(parameter.dtype) / p, parameter))


def fisher(model: nn.Module, batches: Iterable[Inputs], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The diagonal of the empirical Fisher information: the mean of squared gradients over batches.

    Dropout is off. Gradients, training mode and random state are afterwards as before.

    Args:
        model: called as ``model(**batch).loss``.
        batches: at least one, on the model's device.
        parameters: those of interest.

    Returns:
        for each parameter a tensor of its shape, >= 0.

    Raises:
        ConfigError: no batch.
    """
    # In half precision squares of small gradients are 0, and sums soon stand still.
    total = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters]
    before, training, count = [p.grad for p in model.parameters()], model.training, 0
    model.eval()
    try:
        for batch in batches:
            model.zero_grad(set_to_none=True)
            model(**batch).loss.backward()
            count += 1
            for parameter, sum_ in zip(parameters, total, strict=True):
                if parameter.grad is not None:
                    exact = parameter.grad.to(sum_.dtype)
                    sum_.addcmul_(exact, exact)
    finally:
        model.train(training)
        for parameter, gradient in zip(model.parameters(), before, strict=True):
            parameter.grad = gradient
    if not count:
        raise ConfigError("child_tuning: the Fisher information needs at least one training batch")
    torch._foreach_div_(total, count)
    if not all(bool(sum_.isfinite().all()) for sum_ in total):
        raise ConfigError(
            "child_tuning: the Fisher information is not finite: the gradient of a batch is NaN, or too large to be "
            "squared; look for a loss that is not finite"
        )
    return total


def largest(values: Sequence[Tensor], share: float) -> list[Tensor]:
    """Masks of the largest values over all tensors together, never of zeros.

    The threshold is found exactly by bisection over the bits of float32, whose order is that of the numbers: without a
    sort, and without a copy of everything.

    Args:
        values: each >= 0.
        share: 0 < share <= 1.

    >>> [mask.tolist() for mask in largest([torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0])], 0.5)]
    [[True, False], [True, False]]
    """
    wanted = math.ceil(share * sum(value.numel() for value in values))
    bits = [value.float().view(torch.int32) for value in values]
    low, high = 1, 0x7F800000  # the smallest number above 0, and infinity
    while low < high:  # the largest threshold that still keeps as many as wanted
        middle = (low + high + 1) // 2
        enough = sum(int((value >= middle).sum()) for value in bits) >= wanted
        low, high = (middle, high) if enough else (low, middle - 1)
    return [value >= low for value in bits]


@dataclass(frozen=True)
class ChildTuning(Method):
    """Child-Tuning as an arm."""

    name: ClassVar = "child_tuning"
    summary: ClassVar = "Only a part of the pretrained weights learns: a random one, or the one that matters most"
    cost: ClassVar = "F: a draw for each weight and step; D: a mask, and a pass over the data first"
    source: ClassVar = "Xu et al. 2021, EMNLP"
    neutral: ClassVar = {"p": 1.0}

    mode: str = choice("D", "task-driven (D) or task-free (F)", "D", "F")
    p: float = number(0.3, "share that learns; D: 0.1 to 0.3, F: 0.2 to 0.4", "0 < p <= 1", lambda p: 0 < p <= 1)
    fisher_batches: int = whole(0, "batches for D's Fisher information; 0: all", "whole, >= 0", lambda n: n >= 0)

    def passes(self, epochs: float, batches: int) -> float:
        """D looks at the data once more."""
        looked_at = min(self.fisher_batches or batches, batches) if self.mode == "D" and self.p < 1 else 0
        return 1 + looked_at / (batches * epochs)

    def check(self, run: Run) -> None:
        """D needs blocks."""
        if self.mode == "D":
            blocks(run.model)

    def attach_(self, run: Run) -> dict[str, Any]:
        """Choose the child network of D."""
        known = pretrained(run.model)
        if self.mode == "F" or self.p == 1:
            run.kept[self.name] = list(known)
            return {}
        inside = {id(parameter) for block in blocks(run.model) for parameter in block.parameters()}
        known = {name: parameter for name, parameter in known.items() if id(parameter) in inside}
        if run.batches is None:
            raise ConfigError("child_tuning: mode D looks at the training data; give Run(batches=...)")
        batches = islice(run.batches(), self.fisher_batches or None)
        masks = largest(fisher(run.model, batches, list(known.values())), self.p)
        run.kept[self.name] = dict(zip(known, masks, strict=True))
        return {"learning": sum(int(mask.sum()) for mask in masks)}

    @torch.no_grad()
    def gradient_(self, run: Run) -> None:
        """Mask the gradients. By name: sharding puts other parameters in the place of those that were attached to."""
        chosen = run.kept[self.name]
        if self.p == 1:
            return
        if self.mode == "F":
            mask_gradients_(of_names(chosen, run.model), self.p, run.seed, run.step)
            return
        for parameter, mask in in_place(chosen, run.model).items():
            if parameter.grad is not None:
                parameter.grad.mul_(mask)
