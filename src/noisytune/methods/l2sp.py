"""L2-SP: weight decay towards the pretrained weights instead of towards zero.

Li et al. 2018, "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", equation (2), decoupled
from the gradient as in AdamW. After each optimizer step, with the learning rate of that step:

    theta -= lr * strength * (theta - theta*)     pretrained parameters
    theta -= lr * head_strength * theta           the new head

Both replace the loop's own weight decay. Biases and layer norms are pulled as well (the authors' main mode pulls
weights only). Over a training the distance from theta* shrinks by exp(-strength * sum of the learning rates): at the
small rates of AdamW the strengths that the authors ran SGD with, ``l2sp(strength=0.1, head_strength=0.01)``, do next to
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from noisytune._settings import choice, later, number
from noisytune.errors import ConfigError
from noisytune.methods._anchors import in_place
from noisytune.methods._base import Groups, Method, Run
from noisytune.methods._steps import was_skipped


def attach_(
    optimizer: Optimizer, anchors: Mapping[Tensor, Tensor], strength: float, head_strength: float | None = None
) -> RemovableHandle:
    """Pull after every step of an optimizer.

    Args:
        optimizer: any; its own weight decay should be 0.
        anchors: parameter -> its pretrained value, same shape. Parameters without one are pulled towards 0.
        strength: >= 0; times the learning rate of the parameter's group.
        head_strength: the same for parameters without an anchor; None: as ``strength``.

    Returns:
        a handle whose ``remove()`` ends it.

    Example:
        >>> layer = torch.nn.Linear(2, 2)
        >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        >>> handle = attach_(optimizer, {p: p.detach().clone() for p in layer.parameters()}, strength=0.01)
    """

    anchors = {parameter: anchor.to(parameter.device) for parameter, anchor in anchors.items()}
    free_strength = strength if head_strength is None else head_strength

    @torch.no_grad()
    def pull(optimizer: Optimizer, *_: Any) -> None:
        if was_skipped(optimizer):
            return
        for group in optimizer.param_groups:
            share, of_head = float(group["lr"]) * strength, float(group["lr"]) * free_strength
            moved = [p for p in group["params"] if p.grad is not None]
            anchored = [p for p in moved if p in anchors]
            free = [p for p in moved if p not in anchors]
            if anchored:
                torch._foreach_lerp_(anchored, [anchors[p] for p in anchored], share)
            if free:
                torch._foreach_mul_(free, 1 - of_head)

    return optimizer.register_step_post_hook(pull)


@dataclass(frozen=True)
class L2SP(Method):
    """L2-SP as an arm."""

    name: ClassVar = "l2sp"
    summary: ClassVar = "Weight decay towards the pretrained weights; the head decays to zero"
    cost: ClassVar = "a copy of the weights; a few percent of a step"
    source: ClassVar = "Li et al. 2018, ICML"
    excludes: ClassVar = {"recadam": "both pull towards the pretrained weights; take one of them"}

    strength: float = number(0.01, "weight of the pull, times the learning rate", ">= 0", lambda s: s >= 0)
    anchor: str = choice("noised", "pull towards the weights before or after NoisyTune", "noised", "clean")
    head_strength: float | None = later(
        number(None, "the same of the new head; by itself as strength", ">= 0", lambda s: s >= 0)
    )

    def check(self, run: Run) -> None:
        """A step must not lengthen the distance."""
        most = max(self.strength, self.head_strength or 0.0)
        if run.learning_rate is not None and run.learning_rate * most > 2:
            raise ConfigError(
                f"l2sp diverges: learning rate x strength = {run.learning_rate:g}*{most:g} = "
                f"{run.learning_rate * most:g} is above 2; lower the strength below {2 / run.learning_rate:g}"
            )

    def notices(self, run: Run) -> list[str]:
        """A pull that is too small to matter."""
        if run.total_steps is None or run.learning_rate is None or self.strength == 0:
            return []
        # A learning rate that falls linearly to 0 is half of its largest on average.
        pulled = 1 - math.exp(-self.strength * run.learning_rate * run.total_steps / 2)
        if pulled < 0.001:
            enough = 0.5 / (run.learning_rate * run.total_steps / 2)
            return [
                f"{self.label}: the whole training takes back {pulled:.1e} of the way from the pretrained weights, "
                f"next to nothing; a strength of about {enough:.1g} would take back 40 %"
            ]
        return []

    def attach_(self, run: Run) -> dict[str, Any]:
        """Nothing but the record of what is pulled."""
        return {"anchor": self.anchor, "anchored": len(run.anchors[self.anchor])}

    def optimizer(self, run: Run, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """The loop's optimizer without weight decay, and the pull after each of its steps."""
        optimizer = build([group | {"weight_decay": 0.0} for group in groups])
        anchors = in_place(run.anchors[self.anchor], run.model)
        attach_(optimizer, anchors, self.strength, self.head_strength)
        return optimizer
