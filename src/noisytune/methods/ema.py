"""EMA: the model that is scored has the mean of the weights over the last steps, not those of the last one.

Kingma & Ba 2015, "Adam: A Method for Stochastic Optimization", section 7.2 (temporal averaging): with the weights
theta_t after step t = 1, 2, ... and a decay d,

    mean_t = d * mean_(t-1) + (1 - d) * theta_t        mean_0 = 0
    scored: mean_t / (1 - d^t)

Training itself goes on as without it. What is averaged is what is trained: with LoRA its matrices. About the last
1 / (1 - d) steps count; a d near 1 gives the plain mean over the whole training. Left to itself (auto) d is 0.999, and
in a short training such that its last tenth counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from noisytune._settings import number
from noisytune.methods._base import Groups, Method, Run
from noisytune.methods._steps import was_skipped

_SAVED = "noisytune_mean"
"""Where an optimizer's saved state has the mean."""


class Mean:
    """The exponential moving mean of the weights that an optimizer trains, taken after each of its steps.

    The optimizer's saved state has it too, so that a resumed training goes on with it.

    Args:
        optimizer: any. Its other hooks on a step come before this one if they were registered before.
        decay: 0 <= decay < 1. 0: the mean is what the last step left.

    Example:
        >>> layer = torch.nn.Linear(1, 1, bias=False)
        >>> mean = Mean(torch.optim.SGD(layer.parameters(), lr=1.0), decay=0.5)
        >>> for gradient in (1.0, 1.0):
        ...     layer.weight.grad = torch.tensor([[gradient]])
        ...     mean.optimizer.step()
        >>> last = layer.weight.item()
        >>> with mean.in_place():
        ...     round(layer.weight.item() - last, 4)
        0.3333

    Source: Kingma & Ba 2015, ICLR, section 7.2.
    """

    def __init__(self, optimizer: Optimizer, decay: float) -> None:
        self.optimizer, self.decay, self.steps = optimizer, decay, 0
        self._values: list[Tensor] = []
        optimizer.register_step_post_hook(self._take)
        optimizer.register_state_dict_post_hook(self._save)
        optimizer.register_load_state_dict_pre_hook(self._load)

    def _trained(self) -> list[Tensor]:
        return [parameter.detach() for group in self.optimizer.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def _take(self, *_: Any) -> None:
        if was_skipped(self.optimizer):
            return
        self.steps += 1
        if not self._values:
            self._values = [_exact(parameter) for parameter in self._trained()]
        else:
            # The corrected mean moves towards the new weights by this share of the way.
            share = (1 - self.decay) / (1 - self.decay**self.steps)
            alike, narrow = self._by_precision()
            if alike:
                torch._foreach_lerp_([value for _, value in alike], [parameter for parameter, _ in alike], share)
            for parameter, value in narrow:
                value.lerp_(parameter.to(value.dtype), share)

    def _save(self, _: Optimizer, state: dict[str, Any]) -> None:
        state[_SAVED] = {"steps": self.steps, "values": self._values}

    def _load(self, _: Optimizer, state: dict[str, Any]) -> None:
        if saved := state.pop(_SAVED, None):
            self.steps = saved["steps"]
            places = zip(saved["values"], self._trained(), strict=False)
            self._values = [_exact(value.detach()).to(parameter.device) for value, parameter in places]

    @torch.no_grad()
    def swap_(self) -> None:
        """Exchange the weights and their mean. Nothing happens before the first step."""
        _exchange_(zip(self._trained(), self._values, strict=False))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within the context the weights are their mean."""
        alike, narrow = self._by_precision()
        kept = [parameter.clone() for parameter, _ in narrow]  # the mean itself would be rounded in their place
        for parameter, value in narrow:
            parameter.copy_(value)
        _exchange_(alike)
        try:
            yield
        finally:
            _exchange_(alike)
            for (parameter, _), weights in zip(narrow, kept, strict=True):
                parameter.copy_(weights)

    def _by_precision(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """Weights and their means: those of one dtype, and those whose mean has a wider one."""
        both = list(zip(self._trained(), self._values, strict=False))
        alike = [(parameter, value) for parameter, value in both if parameter.dtype == value.dtype]
        return alike, [(parameter, value) for parameter, value in both if parameter.dtype != value.dtype]


@torch.no_grad()
def _exchange_(pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    for one, other in pairs:
        kept = one.clone()
        one.copy_(other)
        other.copy_(kept)


def _exact(values: Tensor) -> Tensor:
    """A copy, in float32 at least: in half precision small moves of a mean would be rounded to none."""
    return values.to(torch.promote_types(values.dtype, torch.float32), copy=True)


@dataclass(frozen=True)
class EMA(Method):
    """EMA as an arm."""

    name: ClassVar = "ema"
    summary: ClassVar = "The mean of the weights over the last steps is scored"
    cost: ClassVar = "a copy of the weights, in float32; a few percent of a step"
    source: ClassVar = "Kingma & Ba 2015, ICLR"
    neutral: ClassVar = {"decay": 0.0}

    decay: float | None = number(
        None, "weight of the mean so far in each step", "0 <= decay < 1", lambda decay: 0 <= decay < 1
    )

    def attach_(self, run: Run) -> dict[str, Any]:
        """Nothing but the record of the decay."""
        return {"decay": self._decay(run)}

    def optimizer(self, run: Run, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """The loop's optimizer, and the mean after each of its steps."""
        optimizer = build(groups)
        run.kept[self.name] = Mean(optimizer, self._decay(run))
        return optimizer

    def evaluated(self, run: Run) -> AbstractContextManager[None]:
        """With the mean of the weights."""
        mean: Mean | None = run.kept.get(self.name)
        return mean.in_place() if mean else nullcontext()

    def detach_(self, run: Run) -> None:
        """The weights are their mean from now on."""
        mean: Mean | None = run.kept.pop(self.name, None)
        if mean:
            mean.swap_()

    def _decay(self, run: Run) -> float:
        if self.decay is not None:
            return self.decay
        return 1 - 1 / min(1000.0, max(1.0, (run.total_steps or 10_000) / 10))
