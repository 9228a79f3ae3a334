"""Weights that DeepSpeed ZeRO-3 cuts into flat partitions, one a process, when it makes or loads a model.

DeepSpeed is not imported: it marks its parameters with attributes of its own. A partition is a run of the flattened
tensor, padded at the end; the parameter itself is empty until DeepSpeed gathers it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from noisytune._perturb.refusals import quantised
from noisytune.errors import UnsupportedTensorError
from noisytune.torch._dtensor import Piece


def is_partitioned(tensor: torch.Tensor) -> bool:
    """Whether DeepSpeed holds the values of a parameter elsewhere."""
    return hasattr(tensor, "ds_id")


def shape_of(tensor: Any) -> tuple[int, ...]:
    """Of the full tensor."""
    return tuple(tensor.ds_shape)


def piece_of(tensor: Any) -> Piece:
    """This process's partition: a tensor of one dimension, whose indices are those of the flattened full tensor."""
    length, numel = tensor.ds_tensor.numel(), tensor.ds_numel
    start = min(length * dist.get_rank(tensor.ds_process_group), numel)
    stop = min(start + length, numel)
    return Piece(tensor.ds_tensor.detach()[: stop - start], (numel,), [[range(start, stop)] if start < stop else []])


def problem(tensor: Any) -> str | None:
    """Why a parameter that DeepSpeed has touched takes no noise, or None."""
    if getattr(tensor, "_z3_optimizer", None) is not None or getattr(tensor, "_hp_mapping", None) is not None:
        return (
            "belongs to a DeepSpeed engine, whose float32 copy would undo the noise at the first step: "
            "perturb before deepspeed.initialize"
        )
    if not is_partitioned(tensor):
        return None
    partition = getattr(tensor, "ds_tensor", None)
    if partition is None or tensor.ds_status.name != "NOT_AVAILABLE":
        return "is gathered by DeepSpeed: perturb outside zero.GatheredParameters, or outside zero.Init"
    location = getattr(partition, "final_location", None)
    if getattr(location, "name", location) == "nvme":
        return "is offloaded to NVMe by DeepSpeed: perturb the checkpoint instead, with noisytune perturb"
    if getattr(tensor, "ds_secondary_tensor", None) is not None:
        return "has a second partition (DeepSpeed hpZ): perturb the checkpoint instead, with noisytune perturb"
    if hasattr(partition, "ds_quant_scale"):
        return quantised("by DeepSpeed")
    return None


@dataclass(frozen=True)
class Group:
    """A process group in the place of a device mesh of one dimension."""

    group: Any
    device_type: str
    ndim: int = 1

    def size(self) -> int:
        """Number of processes."""
        return dist.get_world_size(self.group)

    def get_group(self, axis: int) -> Any:
        """The group itself."""
        return self.group


def group_of(module: nn.Module) -> Group | None:
    """The processes that share a module's partitions; None if nothing is partitioned.

    Raises:
        UnsupportedTensorError: the parameters are shared by different groups of processes.
    """
    parameters: list[Any] = list(module.parameters())
    partitioned = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not partitioned:
        return None
    groups = {tuple(dist.get_process_group_ranks(parameter.ds_process_group)) for parameter in partitioned}
    if len(groups) > 1:
        raise UnsupportedTensorError(
            f"DeepSpeed shares the parameters between different groups of ranks ({sorted(groups)}): "
            "perturb the checkpoint instead, with noisytune perturb"
        )
    first = partitioned[0]
    return Group(first.ds_process_group, first.device.type)
