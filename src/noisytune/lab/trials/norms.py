"""How far does training move the parameters of each role? The L1 norms of the paper's Figure 5."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from noisytune._perturb.names import canonical, role_of

if TYPE_CHECKING:
    from torch import Tensor

Weights = Mapping[str, "Tensor"]
"""By canonical name."""

_SUMS = ("before", "after", "moved")


def weights_of(model: Any) -> Weights:
    """The parameters of a transformers model that are trained, under their canonical names, tied ones once."""
    base = None if model.base_model is model else model.base_model_prefix
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            usual = canonical(name, base)
            # PEFT nests matrices for several tensors of one layer: below its wrappers they have the same name.
            found[name if usual in found else usual] = parameter
    return found


def copies(weights: Weights) -> Weights:
    """The values of now, in main memory."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}


def l1_norms(before: Weights, after: Weights) -> dict[str, dict[str, float]]:
    """Sums over the parameters of each role, as in `noisytune.records.TrialRecord.norms`; none where one is not finite.

    >>> import torch
    >>> one, two = torch.ones(2, 3), torch.tensor([[0.5, 1.0, -1.0], [1.0, 1.0, 1.0]])
    >>> l1_norms({"encoder.layer.0.attention.self.key.weight": one}, {"encoder.layer.0.attention.self.key.weight": two})
    {'key': {'elements': 6.0, 'before': 6.0, 'after': 5.5, 'moved': 2.5}}
    """
    import torch

    sums: dict[str, dict[str, float]] = {}
    for name, start in before.items():
        end = _whole(after[name].detach()).cpu()
        role = sums.setdefault(role_of(name), dict.fromkeys(("elements", *_SUMS), 0.0))
        role["elements"] += start.numel()
        for what, tensor in zip(_SUMS, (start, end, end - start), strict=True):
            # Rows in single precision, their sums in double: eight digits, in a quarter of the time of all in double.
            rows = torch.linalg.vector_norm(tensor, 1, dim=-1 if tensor.dim() else None)
            role[what] += float(rows.double().sum())
    return sums if all(math.isfinite(value) for role in sums.values() for value in role.values()) else {}


def _whole(tensor: Tensor) -> Tensor:
    """All of a tensor of which every process holds a shard."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


NOTHING = 1e-9
"""A share of the weights' size that float32 cannot tell from no change: biases that start at 0 can move by less."""


def have_moved(norms: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether training changed the weights at all. Norms that are not finite are not kept: such weights have moved.

    >>> have_moved({"query": {"before": 10.0, "moved": 0.1}}), have_moved({"query": {"before": 10.0, "moved": 1e-27}})
    (True, False)
    """
    moved, before = (sum(role[what] for role in norms.values()) for what in ("moved", "before"))
    return not norms or moved > NOTHING * before
