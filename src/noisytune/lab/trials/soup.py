"""The mean of several models' weights, one after the other, in the memory of one.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing
inference time", section 2: the uniform soup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from noisytune.methods import Method


def trainings_of(methods: Iterable[Method]) -> int:
    """How many trainings a trial with these methods has."""
    return max((method.trainings for method in methods), default=1)


class Soup:
    """A running mean of weights.

    >>> soup, layer = Soup(), nn.Linear(1, 1, bias=False)
    >>> for weight in (1.0, 2.0, 6.0):
    ...     _ = nn.init.constant_(layer.weight, weight)
    ...     soup.add(layer)
    >>> soup.put_in_(layer)
    >>> layer.weight.item()
    3.0
    """

    def __init__(self) -> None:
        self.models = 0
        self._mean: list[Tensor] = []

    @torch.no_grad()
    def add(self, model: nn.Module) -> None:
        """Count a model's weights in. Buffers of whole numbers stay those of the first."""
        self.models += 1
        if self.models == 1:
            self._mean = [tensor.clone() for tensor in _tensors(model)]
            return
        for mean, tensor in zip(self._mean, _tensors(model), strict=True):
            mean.lerp_(tensor, 1 / self.models)

    @torch.no_grad()
    def put_in_(self, model: nn.Module) -> None:
        """Give a model the mean, in place."""
        for tensor, mean in zip(_tensors(model), self._mean, strict=True):
            tensor.copy_(mean)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [one.detach() for one in (*model.parameters(), *model.buffers()) if one.is_floating_point()]


def mean_losses(curves: Sequence[Sequence[float]]) -> list[float]:
    """Of each step, over trainings; as far as the shortest came.

    >>> mean_losses([[1.0, 2.0], [3.0, 4.0]])
    [2.0, 3.0]
    """
    return list(curves[0]) if len(curves) == 1 else [sum(losses) / len(losses) for losses in zip(*curves, strict=False)]


def as_part(
    report: Callable[[int, int, float | None], None] | None, member: int, members: int
) -> Callable[[int, int, float | None], None] | None:
    """Tell the steps of one training as those of all of them together.

    Args:
        report: told of a step (from 1), the number of steps, and the loss.
        member: which training, from 0.
        members: how many there are.
    """
    if report is None:
        return None
    return lambda step, steps, loss: report(member * steps + step, members * steps, loss)
