"""What the ranks of a distributed job know together: the facts of full tensors, and whether all of them can go on.

First the ranks tell each other that they can take part, and in what; then six numbers a tensor and rank are gathered.
Whether to go on is decided by every rank from the same numbers, so that all of them raise or none does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from noisytune._noise import moments as reference
from noisytune._noise.facts import Facts
from noisytune._noise.moments import Moments
from noisytune.errors import ConfigError, NoisyTuneError, UnsupportedTensorError
from noisytune.torch import _deepspeed
from noisytune.torch._dtensor import is_dtensor

Array = npt.NDArray[Any]


class Shared(NamedTuple):
    """What the ranks know of a full tensor."""

    facts: Facts
    copies_agree: bool
    """Ranks that hold the same elements hold the same values."""


def merged(rows: Array) -> Shared:
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
    return Shared(Facts(moments, int(sum(wrong for _, wrong in pieces.values())), largest), copies_agree)


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
    """

    def __init__(self, mesh: Any) -> None:
        self._mesh = mesh

    def share(self, agreement: int, pieces: list[tuple[Facts, int]]) -> list[Shared]:
        """The facts of the full tensors, on every rank.

        Args:
            agreement: a number below 2**53 that must be equal on all ranks, and with it the number of pieces.
            pieces: for each tensor, the facts of this rank's piece and the flat index of its first element.

        Raises:
            NoisyTuneError: another rank could not take part.
            ConfigError: another rank has other settings or another model.
        """
        failed, theirs, rank = self._gather(np.array([0.0, agreement, dist.get_rank()])).T
        if failed.any():
            names = ", ".join(str(int(r)) for r in sorted(rank[failed > 0]))
            raise NoisyTuneError(f"rank {names} could not perturb its part of the weights: its own error says why")
        if (theirs != theirs[0]).any():
            names = ", ".join(str(int(r)) for r in sorted(rank[theirs != theirs[0]]))
            raise ConfigError(
                f"rank {names} has other settings or other tensors than rank {int(rank[0])}: "
                "give every rank the same settings, seed included, and the same model"
            )
        tables = self._gather(np.array([(*f.moments, f.non_finite, f.largest, first) for f, first in pieces]))
        return [merged(tables[:, i]) for i in range(len(pieces))]

    def say_failed(self) -> None:
        """Take the place of `share` in the other ranks' exchange: they raise instead of waiting."""
        self._gather(np.array([1.0, 0.0, dist.get_rank()]))

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
        UnsupportedTensorError: this rank holds no part of the module, or its parameters are shared by groups of ranks
            that only overlap.
    """
    mesh = _deepspeed.group_of(module) or _largest_mesh(module)
    return None if mesh is None else Ranks(mesh)


def _largest_mesh(module: nn.Module) -> Any:
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
    return largest
