"""Weights that torch spreads over processes as DTensors: which elements this process holds.

A rank makes the noise of its own elements only, at their indices in the full tensor; no weight is gathered.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, product
from typing import Any

import torch
from torch import nn

from noisytune.torch._layout import Box, run_of


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


def within(piece: Piece, box: Box, shape: tuple[int, ...]) -> list[Piece]:
    """What a process holds of a box, as parts of a tensor of the files.

    Args:
        piece: what it holds of the tensor in memory.
        box: a part of that tensor.
        shape: of the tensor in the files.

    Raises:
        ValueError: the piece is a run of the flattened tensor, and the box is none.
    """
    if len(piece.held) != len(box.here):
        return _flat_within(piece, box, shape)
    overlaps = [list(_overlaps(*three)) for three in zip(piece.held, box.here, _by_axis(box), strict=True)]
    found = []
    for chosen in product(*overlaps):
        view = piece.values[tuple(slice(here.start, here.stop, here.step) for here, _ in chosen)]
        view = view.permute(*box.axes, *(axis for axis in range(view.ndim) if axis not in box.axes))
        values = view.reshape(view.shape[: len(box.axes)]) if view.ndim > len(box.axes) else view
        found.append(Piece(values, shape, [_steps(chosen[axis][1]) for axis in box.axes]))
    return found


def _by_axis(box: Box) -> list[range]:
    """The indices in the files for each dimension in memory; one index where the files have no such dimension."""
    there = dict(zip(box.axes, box.there, strict=True))
    return [there.get(axis, range(1)) for axis in range(len(box.here))]


def _overlaps(held: list[range], here: range, there: range) -> Iterator[tuple[range, range]]:
    """Which of a dimension's indices are held: (where in the local tensor, indices in the files)."""
    offset = 0
    for indices in held:
        first = max(0, -(-(indices.start - here.start) // here.step))
        last = max(first, min(len(here), -(-(indices.stop - here.start) // here.step)))
        if first < last:
            local = here[first:last]
            shift = offset - indices.start
            yield range(local.start + shift, local.stop + shift, local.step), there[first:last]
        offset += len(indices)


def _steps(indices: range) -> list[range]:
    return [indices] if indices.step == 1 else [range(i, i + 1) for i in indices]


def _flat_within(piece: Piece, box: Box, shape: tuple[int, ...]) -> list[Piece]:
    here, there = run_of(box.here, box.shape), run_of(box.there, shape)
    if here is None or there is None or list(box.axes) != sorted(box.axes):
        raise ValueError("the box is no run of the flattened tensor")
    (held,) = piece.held or [[]]
    found = []
    for at, indices in _overlaps(held, here, there):
        found.append(Piece(piece.values[at.start : at.stop], (math.prod(shape),), [[indices]]))
    return found


def reshard(module: nn.Module) -> None:
    """Free the gathered weights that FSDP2 keeps after a forward pass: what is written to them is lost."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    for part in module.modules() if fsdp is not None else ():
        if isinstance(part, fsdp.FSDPModule):  # type: ignore[union-attr]
            part.reshard()
