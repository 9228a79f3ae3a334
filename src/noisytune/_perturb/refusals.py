"""What is said of a tensor that gets no noise: why it is left alone, or why it is refused. Each sentence once.

A tensor that is left alone is listed with its reason. A refusal is an error, raised before the first tensor is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeVar

from noisytune._noise.facts import limit
from noisytune._perturb.target import Target
from noisytune.errors import NonFiniteError, UnsupportedTensorError

SomeTarget = TypeVar("SomeTarget", bound=Target)

# --- why a tensor is left alone ---

ADAPTER = "adapter"
BUFFER = "buffer"
NOT_INCLUDED = "not included"
EXCLUDED = "excluded"
"""By a glob. `excluded_by` a role."""
FIXED = "never learnt"
NEW = "freshly initialised"
OUTSIDE = "outside the pretrained model"
NOT_IN_PARAMS = "not in params"
NOT_A_PARAM = "not an nnx.Param"
NOT_AN_ARRAY = "not an array"
NOT_A_TENSOR = "not a tensor"
EMPTY = "empty"
ONE_ELEMENT = "one element"
CONSTANT = "constant"
NO_NOISE = "lambda is 0"


def excluded_by(role: str) -> str:
    """Left out for what the tensor is, not for its name.

    >>> excluded_by("@token_embeddings")
    'excluded: @token_embeddings'
    """
    return f"{EXCLUDED}: {role}"


def not_floating(dtype: str) -> str:
    """The tensor holds numbers that are no weights: positions, masks, codes."""
    return f"not floating point: {dtype}"


# --- why a tensor is refused: each completes "encoder.weight (float32, shape (4, 2)) ..." ---

NO_DTYPE = "has a dtype that takes no noise: convert it to float32, bfloat16 or float16, or exclude it"


def quantised(how: str) -> str:
    """Codes, not weights.

    >>> quantised("uint8")
    'is quantised (uint8): perturb the model before quantising'
    """
    return f"is quantised ({how}): perturb the model before quantising"


def refuse_unsupported(targets: Sequence[SomeTarget], problem: Callable[[SomeTarget], str | None]) -> None:
    """Refuse each target that is not left alone and has a problem.

    Args:
        targets: after `noisytune._perturb.steps.choose`.
        problem: what is wrong with a target, such as `NO_DTYPE`; None if nothing.

    Raises:
        UnsupportedTensorError: names the tensor and the problem.
    """
    for target in targets:
        if target.left_alone is None and (found := problem(target)):
            raise UnsupportedTensorError(f"{target.where} {found}")


def refuse_collisions(targets: Sequence[Target]) -> None:
    """Refuse two tensors of one canonical name: both would get the same noise.

    PEFT's modules_to_save keeps two copies of a layer; there the same noise on both is right.
    """
    seen: dict[str, Target] = {}
    for target in targets:
        other = seen.setdefault(target.name, target)
        if other is not target and not _is_kept_twice(other) and not _is_kept_twice(target):
            advice = "rename one, or perturb the two parts one by one"
            if target.file:
                advice = "load the model and use noisytune.torch.perturb_, which tells them apart by their place in it"
            raise UnsupportedTensorError(
                f"{other.where} and {target.own_names[0]} have the same canonical name {target.name!r}: {advice}"
            )


def _is_kept_twice(target: Target) -> bool:
    return any(".modules_to_save." in name or ".original_module." in name for name in target.own_names)


class Span(NamedTuple):
    """The memory from a target's first to behind its last byte."""

    storage: int
    """Addresses are compared within one storage only."""
    start: int
    stop: int
    target: Target


def refuse_overlaps(spans: Sequence[Span]) -> None:
    """Refuse two tensors that share a part of their memory, but not all of it."""
    for one, other in pairwise(sorted(spans, key=lambda span: span[:3])):
        if one.storage == other.storage and other.start < one.stop:
            raise UnsupportedTensorError(
                f"{one.target.where} and {other.target.where} share part of their memory: "
                "noise on one would change the other; exclude one"
            )


def refuse_non_finite(target: Target) -> None:
    """Refuse NaN and infinity, and values whose standard deviation is infinite. Says where they come from, if known."""
    facts = target.facts
    if facts is None or facts.moments.is_finite:
        return
    if not facts.non_finite:
        raise NonFiniteError(f"{target.where} has values so large that their standard deviation overflows; exclude it")
    raise non_finite(target.where, facts.non_finite, target.is_new)


def non_finite(where: str, values: int, is_new: bool | None) -> NonFiniteError:
    """The error for NaN and infinity, with the cause that the tensor's origin speaks for.

    Args:
        where: which tensor.
        values: how many of its values are NaN or infinite.
        is_new: as `noisytune._perturb.target.Target.is_new`.

    >>> print(non_finite("pooler.weight", 3, is_new=False))
    pooler.weight has 3 values that are NaN or infinite: the checkpoint is damaged
    """
    cause = {
        True: "a bad initialisation, not the checkpoint, since it is new, as a head is: "
        "initialise it again, for instance in float32, or exclude it",
        False: "the checkpoint is damaged",
        None: "the checkpoint is damaged or, if it is new, its initialisation is bad",
    }[is_new]
    return NonFiniteError(f"{where} has {values} values that are NaN or infinite: {cause}")


def refuse_overflow(target: Target, largest_noise: float) -> None:
    """Refuse noise that could pass the largest value of its dtype.

    Args:
        target: measured.
        largest_noise: the largest absolute value that the noise can have, >= 0.
    """
    if target.facts is None:
        return
    highest, largest = limit(target.dtype), target.facts.largest
    if largest + largest_noise > highest:
        raise NonFiniteError(
            f"{target.where} has values up to {largest:g}: noise of up to {largest_noise:g} could pass the dtype's "
            f"largest value {highest:g}; convert it to a dtype of wider range, or exclude the tensor"
        )
