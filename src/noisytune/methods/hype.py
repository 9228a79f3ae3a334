"""HyPe: noise on the hidden states that enter each layer, in training.

Yuan et al. 2023, "HyPe: Better Pre-trained Language Model Fine-tuning with Hidden Representation Perturbation": the
input h of each transformer block becomes h + e, e ~ U(-sigma, sigma) or N(0, sigma^2). Dropout goes off in the body of
the model, for the noise takes its place.

The authors' code draws the uniform noise from U(0, sigma). It sets ``hidden_dropout_prob`` to 0, with it the head's
dropout, and leaves the attention's on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from noisytune._settings import choice, number
from noisytune.errors import ConfigError
from noisytune.methods import _dropout
from noisytune.methods._base import Method, Run
from noisytune.methods._blocks import blocks, called


def noise_like(tensor: Tensor, sigma: float, distribution: str) -> Tensor:
    """U(-sigma, sigma) or N(0, sigma^2) of a tensor's shape, from its device's default generator."""
    if distribution == "uniform":
        return (2 * torch.rand_like(tensor) - 1) * sigma
    return torch.randn_like(tensor) * sigma


def rounded_away(method: str, size: float, run: Run) -> list[str]:
    """A notice where noise of this size on numbers around 1 is lost in the rounding of what the model computes in."""
    dtype = next((p.dtype for p in run.model.parameters() if p.is_floating_point()), torch.float32)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(run.precision or "", dtype)
    if 0 < size < torch.finfo(dtype).eps / 4:
        return [f"{method}: noise of size {size:g} is lost in the rounding of {str(dtype).removeprefix('torch.')}"]
    return []


def attach_(model: nn.Module, sigma: float = 1e-5, distribution: str = "uniform") -> list[RemovableHandle]:
    """Add noise to the input of every block while the block trains, in place.

    Args:
        model: a transformer.
        sigma: half the width of the uniform noise, or the standard deviation of the gaussian, > 0.
        distribution: "uniform" or "gaussian".

    Returns:
        handles; ``remove()`` each to end it.

    Raises:
        ConfigError: the model has no list of transformer blocks.

    Example:
        >>> model = nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, batch_first=True), 2)
        >>> len(attach_(model))
        2
    """

    def noised(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any] | None:
        if not block.training:
            return None
        if args:
            return (args[0] + noise_like(args[0], sigma, distribution), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
        return args, kwargs | {name: kwargs[name] + noise_like(kwargs[name], sigma, distribution)}

    return [block.register_forward_pre_hook(noised, with_kwargs=True) for block in blocks(model)]


@dataclass(frozen=True)
class HyPe(Method):
    """HyPe as an arm."""

    name: ClassVar = "hype"
    summary: ClassVar = "Noise on the hidden states that enter each layer; takes the place of dropout"
    cost: ClassVar = "one draw for each hidden state"
    source: ClassVar = "Yuan et al. 2023, ACL"
    neutral: ClassVar = {"sigma": 0.0}

    sigma: float = number(1e-5, "size of the noise; 0 changes nothing", ">= 0", lambda s: s >= 0)
    distribution: str = choice("uniform", "of the noise", "uniform", "gaussian")

    def check(self, run: Run) -> None:
        """The model must have blocks, and call them: on text not all, where some are for images."""
        every = blocks(run.model)
        if self.sigma > 0 and (seen := called(run.model, every)) is not None and not any(seen):
            raise ConfigError(
                f"hype: {type(run.model).__name__} does not call its blocks as modules, so no noise would enter them"
            )

    def notices(self, run: Run) -> list[str]:
        """Noise that the dtype rounds away."""
        return rounded_away(self.name, self.sigma, run)

    def attach_(self, run: Run) -> dict[str, Any]:
        """See `attach_`."""
        if self.sigma == 0:
            return {}
        handles = attach_(run.model, self.sigma, self.distribution)
        run.kept[self.name] = handles, _dropout.off_(run.model)
        return {"blocks": len(handles)}

    def detach_(self, run: Run) -> None:
        """Noise off, dropout on."""
        handles, rates = run.kept.pop(self.name, ([], []))
        for handle in handles:
            handle.remove()
        _dropout.restore_(rates)
