"""Weights that torch spreads over processes: which elements this process holds, and what all of them know together.

A rank makes the noise of its own elements only, at their indices in the full tensor; nothing is gathered but six
numbers a tensor and rank. Whether to go on is decided after that, by every rank from the same numbers, so that all of
them raise or none does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from noisytune._noise import moments as reference
from noisytune._noise.moments import Moments
from noisytune.errors import ConfigError, NoisyTuneError, UnsupportedTensorError

Array = npt.NDArray[Any]


class Facts(NamedTuple):
    """What is known of a tensor's values."""

    moments: Moments
    non_finite: int = 0
    """How many values are NaN or infinite."""
    largest: float = 0.0
    """Largest absolute value, where the dtype's range is small; 0 elsewhere."""
    copies_agree: bool = True
    """Ranks that hold the same elements hold the same values."""


# --- which elements a rank holds ---


def _chunk(ranges: list[range], chunks: int, which: int) -> list[range]:
    """The indices of one of ``chunks`` parts, cut as ``torch.chunk`` does: the last parts may be shorter or empty."""
    size = -(-sum(map(len, ranges)) // chunks)
    start, stop = which * size, (which + 1) * size
    found = []
    for indices in ranges:
        found.append(indices[max(start, 0) : max(stop, 0)])
        start, stop = start - len(indices), stop - len(indices)
    return found


def _joined(ranges: list[range]) -> list[range]:
    """The same indices in as few ranges as can be."""
    found: list[range] = []
    for indices in filter(len, ranges):
        if found and found[-1].stop == indices.start:
            found[-1] = range(found[-1].start, indices.stop)
        else:
            found.append(indices)
    return found


def held(
    shape: Sequence[int],
    placements: Sequence[Any],
    mesh_shape: Sequence[int],
    coordinate: Sequence[int],
    order: Sequence[int] | None = None,
) -> list[list[range]]:
    """The indices that a rank holds, for each dimension of the tensor.

    Args:
        shape: of the full tensor.
        placements: one a mesh dimension: ``Replicate``, ``Shard`` or ``_StridedShard``.
        mesh_shape: number of ranks along each mesh dimension.
        coordinate: of the rank in the mesh.
        order: of the mesh dimensions, in which they cut the tensor; left to right if not given.

    Example:
        >>> from torch.distributed.tensor import Shard
        >>> held((5, 3), [Shard(0)], [2], [1])
        [[range(3, 5)], [range(0, 3)]]
    """
    parts = [[range(length)] for length in shape]
    for axis in range(len(placements)) if order is None else order:
        placement = placements[axis]
        if (groups := _groups(placement)) is not None:
            whole = parts[placement.dim]
            parts[placement.dim] = [
                indices
                for group in range(groups)
                for indices in _chunk(_chunk(whole, groups, group), mesh_shape[axis], coordinate[axis])
            ]
    return [_joined(ranges) for ranges in parts]


def _groups(placement: Any) -> int | None:
    """How many groups a placement cuts a dimension into before it deals each out to the ranks; None if it does not."""
    kind = type(placement).__name__  # torch's classes have changed their bases between versions
    return {"Shard": 1, "_StridedShard": getattr(placement, "split_factor", 1)}.get(kind)


@dataclass(frozen=True)
class Piece:
    """The part of a tensor that this process holds; the whole of it where nothing is sharded."""

    values: torch.Tensor
    """A plain tensor: shares the parameter's memory."""
    shape: tuple[int, ...]
    """Of the full tensor."""
    held: list[list[range]]
    """The indices in each dimension of the full tensor."""

    @cached_property
    def first(self) -> int:
        """Flat index of the first element, in the full tensor: ranks that have the same one hold copies."""
        return next((start for _, start, _ in self._runs()), 0)

    def runs(self, skipped: range) -> Iterator[tuple[slice, int]]:
        """Neighbours in the full tensor: (where they are in the flattened piece, flat index of the first of them).

        Args:
            skipped: flat indices in the full tensor to leave out.
        """
        for offset, start, length in self._runs():
            for a, b in ((start, min(start + length, skipped.start)), (max(start, skipped.stop), start + length)):
                if a < b:
                    yield slice(a - start + offset, b - start + offset), a

    def _runs(self) -> Iterator[tuple[int, int, int]]:
        """Flat index in the piece, flat index in the full tensor, length."""
        if not all(self.held):
            return
        cut = [axis for axis, ranges in enumerate(self.held) if ranges != [range(self.shape[axis])]]
        if not cut:
            yield 0, 0, math.prod(self.shape)
            return
        strides = [math.prod(self.shape[axis + 1 :]) for axis in range(len(self.shape))]
        last, offset = cut[-1], 0
        for outer in product(*(chain(*ranges) for ranges in self.held[:last])):
            base = sum(index * stride for index, stride in zip(outer, strides, strict=False))
            for indices in self.held[last]:
                length = len(indices) * strides[last]
                yield offset, base + indices.start * strides[last], length
                offset += length


def is_dtensor(tensor: torch.Tensor) -> bool:
    """Whether torch spreads the tensor over processes. Where the class was never imported, nothing can be one."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def piece_of(tensor: torch.Tensor) -> Piece:
    """What this process holds of a tensor, sharded or not."""
    shape = tuple(tensor.shape)
    if not is_dtensor(tensor):
        return Piece(tensor.detach(), shape, [[range(length)] for length in shape])
    sharded: Any = tensor
    mesh, coordinate = sharded.device_mesh, sharded.device_mesh.get_coordinate()
    if coordinate is None:
        return Piece(sharded.to_local(), shape, [[] for _ in shape])
    order = [axis for entry in getattr(sharded._spec, "shard_order", None) or () for axis in entry.mesh_dims]
    return Piece(sharded.to_local(), shape, held(shape, sharded.placements, mesh.shape, coordinate, order or None))


def problem(tensor: torch.Tensor) -> str | None:
    """Why the piece of a DTensor cannot be told, or None."""
    sharded: Any = tensor
    for placement in sharded.placements:
        if _groups(placement) is None and type(placement).__name__ != "Replicate":
            return f"has the placement {placement!r}: redistribute it to Shard or Replicate first"
    piece = piece_of(tensor)
    expected = tuple(sum(map(len, ranges)) for ranges in piece.held)
    if math.prod(expected) != piece.values.numel() or (piece.values.numel() and expected != piece.values.shape):
        return f"has a local shard of shape {tuple(piece.values.shape)} where its placements say {expected}"
    return None


def reshard(module: nn.Module) -> None:
    """Free the gathered weights that FSDP2 keeps after a forward pass: what is written to them is lost."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for part in module.modules() if fsdp is not None else ():
        if isinstance(part, fsdp.FSDPModule):  # type: ignore[union-attr]
            part.reshard()


# --- what all ranks know together ---


def merged(rows: Array) -> Facts:
    """The facts of a full tensor from those of its pieces. A piece that several ranks hold counts once.

    Args:
        rows: float64, shape (ranks, 6): n, mean, M2, non-finite values, largest value, flat index of the first element.
    """
    pieces: dict[float, tuple[Moments, float]] = {}
    largest, copies_agree = 0.0, True
    for n, mean, m2, non_finite, large, first in sorted(rows.tolist(), key=lambda row: (row[5], -row[3])):
        if n:
            found = Moments(int(n), mean, m2)
            kept, _ = pieces.setdefault(first, (found, non_finite))
            copies_agree &= _same(kept, found)
            largest = max(largest, large)
    moments = reference.merge([piece for piece, _ in pieces.values()])
    return Facts(moments, int(sum(wrong for _, wrong in pieces.values())), largest, copies_agree)


def _same(a: Moments, b: Moments) -> bool:
    """Moments of the same values: two kinds of device may add them in another order."""
    if not (a.is_finite and b.is_finite):
        return True
    spread = math.sqrt(max(a.m2, b.m2) / a.n)
    close = math.isclose(a.mean, b.mean, rel_tol=1e-9, abs_tol=1e-6 * spread) and math.isclose(a.m2, b.m2, rel_tol=1e-6)
    return a.n == b.n and close


class Ranks:
    """The processes that hold the pieces of a module. All of them must take the same steps.

    Args:
        mesh: the device mesh that contains every other mesh of the module.
        tensors: number of the module's tensors: each rank sends as many rows, whatever it found.
    """

    def __init__(self, mesh: Any, tensors: int) -> None:
        self._mesh, self._tensors = mesh, tensors

    def share(self, agreement: int, pieces: list[tuple[Facts, int]]) -> list[Facts]:
        """The facts of the full tensors, on every rank.

        Args:
            agreement: a number below 2**53 that must be equal on all ranks.
            pieces: for each tensor, the facts of this rank's piece and the flat index of its first element.

        Raises:
            NoisyTuneError: another rank could not take part.
            ConfigError: another rank has other settings or another model.
        """
        tables = self._gather(self._table(agreement, pieces))
        failed, theirs, rank = tables[:, 0, :3].T
        if failed.any():
            names = ", ".join(str(int(r)) for r in sorted(rank[failed > 0]))
            raise NoisyTuneError(f"rank {names} could not perturb its part of the weights: its own error says why")
        if (theirs != theirs[0]).any():
            names = ", ".join(str(int(r)) for r in sorted(rank[theirs != theirs[0]]))
            raise ConfigError(
                f"rank {names} has other settings or other tensors than rank {int(rank[0])}: "
                "give every rank the same settings, seed included, and the same model"
            )
        return [merged(tables[:, 1 + i]) for i in range(len(pieces))]

    def say_failed(self) -> None:
        """Take the place of `share` in the other ranks' exchange: they raise instead of waiting."""
        table = self._table(0, [])
        table[0, 0] = 1
        self._gather(table)

    def _table(self, agreement: int, pieces: list[tuple[Facts, int]]) -> Array:
        table = np.zeros((1 + self._tensors, 6))
        table[0, 1:3] = agreement, dist.get_rank()
        for row, (facts, first) in zip(table[1:], pieces, strict=False):
            row[:] = *facts.moments, facts.non_finite, facts.largest, first
        return table

    def _gather(self, table: Array) -> Array:
        """Every rank's table, shape (ranks, ...): one collective, or one a mesh dimension if other ranks stay out."""
        mesh = self._mesh
        everyone = mesh.size() == dist.get_world_size()
        words = torch.from_numpy(table).view(torch.int64)[None].to(mesh.device_type)  # not every device has float64
        for group in [None] if everyone else [mesh.get_group(axis) for axis in range(mesh.ndim)]:
            found = [torch.empty_like(words) for _ in range(dist.get_world_size(group))]
            dist.all_gather(found, words, group=group)
            words = torch.cat(found)
        gathered: Array = words.cpu().view(torch.float64).numpy()
        return gathered


@contextmanager
def failure_told(ranks: Ranks | None) -> Iterator[None]:
    """For what must end before the ranks share: an error inside is told to the others, which wait for this rank."""
    try:
        yield
    except Exception:
        if ranks is not None:
            ranks.say_failed()
        raise


def ranks_of(module: nn.Module) -> Ranks | None:
    """The processes that share a module's parameters; None if no parameter is sharded.

    Raises:
        UnsupportedTensorError: this rank holds no part of the module, or the meshes of its parameters only overlap.
    """
    parameters: list[Any] = list(module.parameters())
    meshes = [parameter.device_mesh for parameter in parameters if is_dtensor(parameter)]
    if not meshes:
        return None
    largest = max(meshes, key=lambda mesh: int(mesh.size()))
    ranks = set(largest.mesh.flatten().tolist())
    if dist.get_rank() not in ranks:
        raise UnsupportedTensorError(
            f"rank {dist.get_rank()} holds no part of the model: perturb on ranks {ranks} only"
        )
    if any(not ranks.issuperset(mesh.mesh.flatten().tolist()) for mesh in meshes):
        raise UnsupportedTensorError("the parameters' device meshes do not contain each other: perturb before sharding")
    return Ranks(largest, len(parameters))
