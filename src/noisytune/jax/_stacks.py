"""Which leaves of a tree stack the weights of several experts, or of several layers, along their first dimensions.

The paper's unit is the matrix. Flax's ``nn.scan`` and its like keep the layers of a model in one leaf each, as large as
all of them together; a mixture of experts does so with experts. Nothing but names and shapes says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import product

from noisytune._perturb import names

_LAYERS = re.compile(r"(?:^|\.)(?:\w*(?:layers?|blocks?|cells?)|scan\w*|h)\.(?!\d)", re.IGNORECASE)
"""Ends where the name of one part of a layer begins; unstacked layers have a number there."""


def matrices(shapes: Mapping[str, Sequence[int]]) -> dict[str, list[tuple[int, ...]]]:
    """The first indices of each matrix, or bias, that a leaf stacks; one without any where it is a single tensor.

    Args:
        shapes: of all leaves by name, tied ones once.

    >>> matrices({"layers.norm.scale": (2, 8), "layers.mlp.kernel": (2, 8, 4), "head.kernel": (8, 3)})
    {'layers.norm.scale': [(0,), (1,)], 'layers.mlp.kernel': [(0,), (1,)], 'head.kernel': [()]}
    >>> matrices({"moe.experts.w": (3, 8, 4)})
    {'moe.experts.w': [(0,), (1,), (2,)]}
    """
    layers = _of_layers(shapes)
    found = {}
    for name, shape in shapes.items():
        stacked = [shape[0]] if name in layers else []
        if names.is_stack(name, shape[len(stacked) :]):
            stacked.append(shape[len(stacked)])
        found[name] = list(product(*map(range, stacked)))
    return found


def spelt(name: str, indices: Sequence[int]) -> str:
    """The name of one matrix.

    >>> spelt("layers.mlp.kernel", (3,)), spelt("head.kernel", ())
    ('layers.mlp.kernel[3]', 'head.kernel')
    """
    for index in indices:
        name = names.expert(name, index)
    return name


def _of_layers(shapes: Mapping[str, Sequence[int]]) -> set[str]:
    """Leaves under a part that is called after layers, all of the same first length, with no vectors among them.

    A layer by itself has vectors: its biases and norms. In a stack they have two dimensions, and the matrices three.
    """
    groups: dict[str, list[str]] = {}
    for name in shapes:
        if part := _LAYERS.search(name):
            groups.setdefault(name[: part.end()], []).append(name)
    return {name for members in groups.values() if _is_stacked([shapes[each] for each in members]) for name in members}


def _is_stacked(shapes: Sequence[Sequence[int]]) -> bool:
    ranks = {len(shape) for shape in shapes}
    return min(ranks) == 2 and max(ranks) > 2 and len({shape[0] for shape in shapes}) == 1 and shapes[0][0] > 1
