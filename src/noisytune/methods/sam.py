"""SAM: each step goes by the gradient that the weights have a little uphill, where the loss is worst nearby.

Foret et al. 2021, "Sharpness-Aware Minimization for Efficiently Improving Generalization", equations (2) and (3). With
the gradient g of a batch's loss L at the weights w, all parameters together,

    e = rho * g / |g|          the step is the optimizer's, by the gradient of L at w + e

The two passes have the same dropout, and what is drawn later is what plain training draws. The loss that is noted is
that at w. What climbs is what is trained: with LoRA its matrices. With accumulated gradients each batch climbs by
itself, and on several processes each process by its share of the batch: the authors' m-sharpness (their section 4.1),
which they found the better the smaller m is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from noisytune._settings import number
from noisytune.errors import ConfigError
from noisytune.methods._base import Inputs, Method, Run
from noisytune.methods._divergence import TWO_PASSES


@torch.no_grad()
def climb_(parameters: Sequence[Tensor], gradients: Sequence[Tensor], rho: float) -> list[Tensor]:
    """Go uphill by a distance of rho over all parameters together, in place.

    Args:
        parameters: what is changed.
        gradients: of the loss, one for each parameter. Where all are zero nothing is changed.
        rho: >= 0, in units of the weights.

    Returns:
        copies of the parameters as they were.

    >>> weight = torch.zeros(2)
    >>> before = climb_([weight], [torch.tensor([3.0, 4.0])], 0.5)
    >>> [round(x, 6) for x in weight.tolist()]
    [0.3, 0.4]

    Source: Foret et al. 2021, ICLR, equation (2), for p = 2.
    """
    before = [parameter.clone() for parameter in parameters]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(one) for one in gradients]))
    # Two steps: the factor alone could overflow where gradients are tiny.
    units = torch._foreach_div(list(gradients), norm.clamp_min(torch.finfo(norm.dtype).tiny))
    torch._foreach_add_(list(parameters), units, alpha=rho)
    return before


@dataclass(frozen=True)
class SAM(Method):
    """Sharpness-aware minimisation as an arm."""

    name: ClassVar = "sam"
    summary: ClassVar = "Each step by the gradient at the worst weights nearby"
    cost: ClassVar = "twice the time; a copy of the weights, and of their gradients for a moment"
    source: ClassVar = "Foret et al. 2021, ICLR"
    neutral: ClassVar = {"rho": 0.0}
    excludes: ClassVar = dict.fromkeys(("rdrop", "r3f", "symnoise"), TWO_PASSES)

    rho: float = number(0.05, "how far to climb; the authors try 0.01 to 0.5", ">= 0", lambda rho: rho >= 0)

    def passes(self, epochs: float, batches: int) -> float:
        """Each batch twice."""
        return 1.0 if self.rho == 0 else 2.0

    def check(self, run: Run) -> None:
        """The first pass's gradients are not those of a scaled loss."""
        if self.rho > 0 and run.precision == "fp16":
            raise ConfigError(
                "sam takes a gradient before the loss is scaled, and fp16 would round much of it to zero: take bf16 "
                "or float32"
            )

    def loss(self, run: Run, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """The loss at the weights, with the gradient that it has uphill; the weights stay there until `gradient_`."""
        self._descend_(run)
        if self.rho == 0:
            plain: Tensor = compute(inputs).loss
            return plain
        self.check(run)
        parameters = _trained(run.model)
        device = parameters[0].device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            first: Tensor = compute(inputs).loss
        found = torch.autograd.grad(first, parameters, allow_unused=True)
        reached = [(p, gradient) for p, gradient in zip(parameters, found, strict=True) if gradient is not None]
        climbing = [p for p, _ in reached]
        run.kept[self.name] = climbing, climb_(climbing, [gradient for _, gradient in reached], self.rho)
        # Under autocast the weights' copies in half precision are those of before.
        torch.clear_autocast_cache()
        uphill: Tensor = compute(inputs).loss
        return uphill + (first - uphill).detach()

    def gradient_(self, run: Run) -> None:
        """The weights are where they were."""
        self._descend_(run)

    def detach_(self, run: Run) -> None:
        """Likewise."""
        self._descend_(run)

    @torch.no_grad()
    def _descend_(self, run: Run) -> None:
        for parameter, value in zip(*run.kept.pop(self.name, ((), ())), strict=True):
            parameter.copy_(value)


def _trained(model: nn.Module) -> list[nn.Parameter]:
    """What climbs.

    Raises:
        ConfigError: the weights are sharded: their gradients are then there only once a step's backward pass is over.
    """
    from noisytune.torch._dtensor import is_dtensor

    found = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if any(is_dtensor(p) or "_flat_param" in name for name, p in found):
        raise ConfigError("sam does not go with sharded weights (FSDP): leave it out, or train without sharding")
    return [p for _, p in found]
