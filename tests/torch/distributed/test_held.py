"""Which elements a rank holds, against torch's own way to cut tensors; no processes."""

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.placement_types import _StridedShard

from noisytune._noise import moments
from noisytune.torch._dtensor import Piece, held
from noisytune.torch._ranks import merged


@st.composite
def layouts(draw):
    """(shape of a tensor, shape of a mesh, one placement a mesh dimension)"""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=3))
    mesh = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    axis = st.integers(0, len(shape) - 1)
    strided = st.builds(lambda dim, split: _StridedShard(dim, split_factor=split), axis, st.integers(1, 4))
    placement = st.one_of(st.just(Replicate()), st.builds(Shard, axis), strided)
    return tuple(shape), mesh, [draw(placement) for _ in mesh]


def cut(full, mesh, placements, coordinate):
    """The local tensor, by torch's chunks."""

    def chunk(tensor, count, which, dim):
        parts = tensor.chunk(count, dim) if tensor.shape[dim] else (tensor,)
        return parts[which] if which < len(parts) else tensor.narrow(dim, 0, 0)

    for size, placement, which in zip(mesh, placements, coordinate, strict=True):
        if isinstance(placement, Replicate):
            continue
        groups = getattr(placement, "split_factor", 1)
        pieces = [chunk(full, groups, group, placement.dim) for group in range(groups)]
        full = torch.cat([chunk(piece, size, which, placement.dim) for piece in pieces], placement.dim)
    return full


def indices(piece, skipped=range(0)):
    found = np.full(piece.values.numel(), -1)
    for where, start in piece.runs(skipped):
        found[where] = np.arange(start, start + where.stop - where.start)
    return found


@given(layouts())
@settings(max_examples=400, deadline=None)
def test_indices_are_those_that_torch_would_give(layout):
    shape, mesh, placements = layout
    full = torch.arange(math.prod(shape)).view(shape)
    for coordinate in product(*map(range, mesh)):
        local = cut(full, mesh, placements, coordinate)
        piece = Piece(local, shape, held(shape, placements, mesh, coordinate))
        assert indices(piece).tolist() == local.flatten().tolist()
        assert not local.numel() or piece.first == int(local.flatten()[0])


@given(layouts(), st.data())
@settings(max_examples=200, deadline=None)
def test_skipped_indices_are_left_out_and_no_others(layout, data):
    shape, mesh, placements = layout
    full = torch.arange(math.prod(shape)).view(shape)
    start = data.draw(st.integers(0, full.numel()))
    skipped = range(start, data.draw(st.integers(start, full.numel())))
    coordinate = [data.draw(st.integers(0, size - 1)) for size in mesh]
    local = cut(full, mesh, placements, coordinate)
    expected = [-1 if index in skipped else index for index in local.flatten().tolist()]
    piece = Piece(local, shape, held(shape, placements, mesh, coordinate))
    assert indices(piece, skipped).tolist() == expected


def test_a_whole_tensor_is_one_run():
    for placements in ([Replicate()], [Shard(0)]):
        piece = Piece(torch.zeros(6, 4), (6, 4), held((6, 4), placements, [1], [0]))
        assert list(piece.runs(range(0))) == [(slice(0, 24), 0)]


@given(layouts(), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_merged_facts_are_those_of_the_whole_tensor(layout, seed):
    shape, mesh, placements = layout
    values = torch.from_numpy(np.random.default_rng(seed).normal(3, 0.1, shape))
    full, rows = torch.arange(math.prod(shape)).view(shape), []
    for coordinate in product(*map(range, mesh)):
        local = values.flatten()[cut(full, mesh, placements, coordinate)]
        first = Piece(local, shape, held(shape, placements, mesh, coordinate)).first
        rows.append((*moments.of(local.numpy()), 0, 7, first))
    (facts, copies_agree), expected = merged(np.array(rows, float)), moments.of(values.numpy())
    assert facts.moments.n == expected.n
    assert facts.moments.mean == pytest.approx(expected.mean, rel=1e-14)
    assert facts.moments.m2 == pytest.approx(expected.m2, rel=1e-11, abs=1e-25)
    assert copies_agree
    assert facts.largest == 7


def test_copies_that_differ_are_noticed_and_one_bad_copy_is_enough():
    row = [4, 1.0, 2.0, 0, 0, 0]
    assert merged(np.array([row, row])).copies_agree
    assert not merged(np.array([row, [4, 1.1, 2.0, 0, 0, 0]])).copies_agree
    assert not merged(np.array([row, [5, 1.0, 2.0, 0, 0, 0]])).copies_agree
    for bad in ([row, [4, np.nan, np.nan, 2, 0, 0]], [[4, np.nan, np.nan, 2, 0, 0], row]):
        facts = merged(np.array(bad)).facts
        assert not facts.moments.is_finite
        assert facts.non_finite == 2
