"""Signs among tensors that they are quantised: codes come with scales. Noise on either would destroy the model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from noisytune._perturb.refusals import quantised
from noisytune._perturb.target import Target
from noisytune.errors import UnsupportedTensorError

_CODES = re.compile(r"(?:float8|u?int(?:8|16|32)\b|uint64)")
"""Data types of codes. Position indices, the usual integers of a file, are int64."""
_SCALE = re.compile(r"(?:^|_)(?:scales?|scaling_factor|absmax|SCB|codebooks?|qzeros)(?:_|$)")
"""Last parts of the names of what turns codes into weights."""
_ALONE = re.compile(
    r"\.(?:weight_packed|weight_scale|weight_scale_inv|weight_scale_2|absmax|nested_absmax|quant_map|SCB)$"
    r"|\.quant_state\."
)
"""Names that no other tensors have."""


class Described(NamedTuple):
    """What is known of a tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def quantised_tensor(tensors: Iterable[Described]) -> tuple[Described, str] | None:
    """A tensor of codes, and the tensor beside it that gives it away.

    >>> codes = Described("q_proj.qweight", "int32", (2, 16))
    >>> quantised_tensor([codes, Described("q_proj.scales", "float16", (1, 16))])[1]
    'q_proj.scales'
    """
    tensors = list(tensors)
    beside: dict[str, list[Described]] = {}
    for tensor in tensors:
        beside.setdefault(tensor.name.rpartition(".")[0], []).append(tensor)
    for tensor in tensors:
        parent = tensor.name.rpartition(".")[0]
        if _ALONE.search(tensor.name):
            others = [*beside[parent], *beside.get(parent.rpartition(".")[0], [])]
            return next((other for other in others if _may_be_codes(other)), tensor), tensor.name
        if _may_be_codes(tensor):
            for other in (*beside[parent], *beside.get(tensor.name, [])):
                if _is_scale(other.name):
                    return tensor, other.name
    return None


def _may_be_codes(tensor: Described) -> bool:
    """Vectors are no codes: a norm of Flax has its weight, ``scale``, beside its bias, in float8 as well."""
    return _CODES.match(tensor.dtype) is not None and not _is_scale(tensor.name) and len(tensor.shape) > 1


def _is_scale(name: str) -> bool:
    leaf = name.rpartition(".")[2]
    return leaf != "logit_scale" and _SCALE.search(leaf) is not None


def refuse_codes(targets: Sequence[Target]) -> None:
    """Refuse tensors among which some are codes, though each by itself could take noise.

    Raises:
        UnsupportedTensorError: names one, and what gives it away.
    """
    tensors = [Described(name, target.dtype, target.shape) for target in targets for name in target.own_names]
    if found := quantised_tensor(tensors):
        codes, beside = found
        raise UnsupportedTensorError(f"{codes.name} {quantised(f'{codes.dtype}, with {beside} beside it')}")
