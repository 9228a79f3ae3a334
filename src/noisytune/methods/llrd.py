"""Layer-wise learning-rate decay: the lower a layer lies, the smaller its learning rate.

Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification", section 3.2 (discriminative
fine-tuning); in this form Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 5. Counted from the top:

    head and pooler: lr      block i = 1, 2, ...: lr * decay^i      embeddings: lr * decay^(blocks + 1)

Weight decay stays as the loop has it. (Zhang et al.'s script has none on head and pooler.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from noisytune._settings import number
from noisytune.methods._base import Groups, Method, Run
from noisytune.methods._blocks import depth_of

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer


def layer_groups(model: nn.Module, groups: Groups, decay: float) -> Groups:
    """Parameter groups split by layer, each with its own learning rate.

    Args:
        model: a transformer.
        groups: as for an optimizer, each with ``lr``; everything else is kept.
        decay: factor from a layer to the one below, 0 < decay <= 1.

    Raises:
        ConfigError: the model has no list of transformer blocks.

    Example:
        >>> import torch
        >>> stack = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(4, 2, batch_first=True), 2)
        >>> groups = layer_groups(stack, [{"params": list(stack.parameters()), "lr": 1.0}], decay=0.5)
        >>> sorted(group["lr"] for group in groups)
        [0.25, 0.5]
    """
    depth = depth_of(model)
    split: Groups = []
    for group in groups:
        for level in sorted({depth[parameter] for parameter in group["params"]}):
            members = [parameter for parameter in group["params"] if depth[parameter] == level]
            split.append(group | {"params": members, "lr": group["lr"] * decay**level})
    return split


@dataclass(frozen=True)
class LayerwiseDecay(Method):
    """Layer-wise learning-rate decay as an arm."""

    name: ClassVar = "llrd"
    summary: ClassVar = "Layer-wise learning-rate decay: smaller learning rates for lower layers"
    cost: ClassVar = "none"
    source: ClassVar = "Howard & Ruder 2018, ACL; Zhang et al. 2021, ICLR"
    revision: ClassVar = 2  # tables of relative positions had the head's rate
    neutral: ClassVar = {"decay": 1.0}

    decay: float = number(0.95, "factor from a layer to the one below", "0 < decay <= 1", lambda d: 0 < d <= 1)

    def check(self, run: Run) -> None:
        """The model must have blocks."""
        depth_of(run.model)

    def optimizer(self, run: Run, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """The loop's optimizer on smaller groups; with decay 1 on the groups as they are."""
        return build(groups if self.decay == 1 else layer_groups(run.model, groups, self.decay))
