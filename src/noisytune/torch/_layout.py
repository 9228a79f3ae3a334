"""Where the elements of a module's tensors lie in the files: transformers joins and splits tensors when it loads them.

transformers' own code, which undoes its conversions when it saves, is run on stand-ins that hold no numbers and note
what is done to them: chunks, stacks, concatenations, transpositions. So nothing here lists model types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Self

import numpy as np
import torch


@dataclass(frozen=True)
class Box:
    """A part of a tensor in memory that is a part of a tensor in the files."""

    tensor: str
    """Name of the tensor in memory."""
    shape: tuple[int, ...]
    """Of the tensor in memory."""
    here: tuple[range, ...]
    """Indices in each of its dimensions."""
    axes: tuple[int, ...]
    """For each dimension of the tensor in the files: which one it is in memory. The others have one index each."""
    there: tuple[range, ...]
    """Indices in each dimension of the tensor in the files, in the order of those in memory."""

    @property
    def elements(self) -> int:
        """How many."""
        return math.prod(map(len, self.here))

    def only(self, dim: int, start: int, stop: int) -> Self | None:
        """What lies between two indices of a dimension in the files, which are counted from the first of them."""
        indices = self.there[dim]
        kept = [k for k, index in enumerate(indices) if start <= index < stop] if indices.step != 1 else None
        first, last = (kept[0], kept[-1] + 1) if kept else (max(start - indices.start, 0), stop - indices.start)
        picked = indices[first : max(last, 0)] if kept is None or kept else range(0)
        if not picked:
            return None
        here = list(self.here)
        here[self.axes[dim]] = here[self.axes[dim]][first : max(last, 0)]
        moved = range(picked.start - start, picked.stop - start, picked.step)
        return self._with(tuple(here), self.axes, _put(self.there, dim, moved))

    def moved(self, dim: int, old: range, new: range) -> Self | None:
        """What lies at some indices of a dimension in the files, at others; None where nothing does.

        Raises:
            ValueError: the indices were moved before.
        """
        indices = self.there[dim]
        if indices.step != 1:
            raise ValueError("a dimension is reordered twice")
        first = max(0, -(-(indices.start - old.start) // old.step))
        last = min(len(old), -(-(indices.stop - old.start) // old.step))
        if first >= last:
            return None
        picked = old[first:last]
        here = self.here[self.axes[dim]]
        chosen = here[picked.start - indices.start : picked[-1] - indices.start + 1 : picked.step]
        return self._with(_put(self.here, self.axes[dim], chosen), self.axes, _put(self.there, dim, new[first:last]))

    def at(self, dim: int, indices: range) -> Self:
        """The same elements at other indices of a dimension."""
        return self._with(self.here, self.axes, _put(self.there, dim, indices))

    def without(self, dim: int) -> Self:
        """Without a dimension of one index."""
        return self._with(self.here, _drop(self.axes, dim), _drop(self.there, dim))

    def swapped(self, one: int, other: int) -> Self:
        """With two dimensions in each other's place."""
        return self._with(self.here, _swap(self.axes, one, other), _swap(self.there, one, other))

    def _with(self, here: tuple[range, ...], axes: tuple[int, ...], there: tuple[range, ...]) -> Self:
        return type(self)(self.tensor, self.shape, here, axes, there)


def run_of(indices: Sequence[range], shape: Sequence[int]) -> range | None:
    """The flat indices of a box, where they are neighbours in row-major order.

    >>> run_of([range(2, 3), range(0, 4)], (5, 4)), run_of([range(0, 2), range(0, 3)], (5, 4))
    (range(8, 12), None)
    """
    cut = next((dim for dim, each in enumerate(indices) if len(each) > 1), len(indices))
    if any(len(each) != length for each, length in zip(indices[cut + 1 :], shape[cut + 1 :], strict=True)):
        return None
    if cut < len(indices) and indices[cut].step != 1:
        return None
    strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
    start = sum(each.start * stride for each, stride in zip(indices, strides, strict=True))
    return range(start, start + math.prod(map(len, indices)))


class Traced:
    """Stands for a tensor in conversions.

    Args:
        shape: of the tensor as it is now.
        boxes: where its elements come from.
    """

    def __init__(self, shape: Sequence[int], boxes: Iterable[Box]) -> None:
        self.shape, self.boxes = torch.Size(shape), tuple(boxes)

    @classmethod
    def of(cls, name: str, shape: Sequence[int]) -> Self:
        """A tensor in memory, as it is."""
        whole = tuple(map(range, shape))
        return cls(shape, [Box(name, tuple(shape), whole, tuple(range(len(whole))), whole)])

    @property
    def is_plain(self) -> bool:
        """The tensor is one of those in memory, element for element."""
        whole = tuple(map(range, self.shape))
        (box, *more) = self.boxes or (None,)
        if box is None or more or box.shape != tuple(self.shape):
            return False  # the first of several chunks has its indices too
        return box.here == box.there == whole and box.axes == tuple(range(self.ndim))

    # --- what conversions ask of a tensor ---

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def dim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def numel(self) -> int:
        """Number of elements."""
        return self.shape.numel()

    def size(self, dim: int | None = None) -> Any:
        """As a tensor's."""
        return self.shape if dim is None else self.shape[dim]

    def contiguous(self) -> Self:
        """Itself: nothing is copied."""
        return self

    def chunk(self, chunks: int, dim: int = 0) -> list[Self]:
        """Parts of a dimension, as ``torch.chunk`` makes them."""
        length = self.shape[dim]
        each = -(-length // chunks)
        return self.cut([min(each, length - start) for start in range(0, length, each)], dim)

    def cut(self, sizes: Sequence[int], dim: int) -> list[Self]:
        """Consecutive parts of a dimension."""
        dim %= self.ndim
        bounds = pairwise(accumulate(sizes, initial=0))
        return [
            type(self)(
                _put(self.shape, dim, stop - start),
                (part for box in self.boxes if (part := box.only(dim, start, stop))),
            )
            for start, stop in bounds
        ]

    def reshape(self, *shape: int) -> Self | _Split:
        """With one dimension cut into several. Where dimensions become one, nothing changes: the order stays."""
        wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        more = len(wanted) - self.ndim
        if more < 0 or wanted == tuple(self.shape):
            return self
        for dim in range(self.ndim):
            factors = wanted[dim : dim + more + 1]
            if (
                wanted == (*self.shape[:dim], *factors, *self.shape[dim + 1 :])
                and math.prod(factors) == self.shape[dim]
            ):
                return _Split(self, dim, factors)
        raise ValueError(f"a tensor of shape {tuple(self.shape)} is given the shape {wanted}")

    view = reshape

    def reordered(self, dim: int, runs: Iterable[tuple[range, range]]) -> Self:
        """With the indices of a dimension in another order: old ones, and where they are now."""
        moves = [box.moved(dim, old, new) for old, new in runs for box in self.boxes]
        return type(self)(self.shape, filter(None, moves))

    def squeeze(self, dim: int | None = None) -> Self:
        """Without a dimension of length 1; without all of them where none is named."""
        if dim is None:
            alone = [each for each in range(self.ndim) if self.shape[each] == 1]
            return self.squeeze(alone[-1]).squeeze() if alone else self
        dim %= self.ndim
        if self.shape[dim] != 1:
            return self
        return type(self)(_drop(tuple(self.shape), dim), (box.without(dim) for box in self.boxes))

    def transpose(self, dim0: int, dim1: int) -> Self:
        """With two dimensions in each other's place."""
        one, other = dim0 % self.ndim, dim1 % self.ndim
        return type(self)(_swap(tuple(self.shape), one, other), (box.swapped(one, other) for box in self.boxes))

    def unbind(self, dim: int = 0) -> list[Self]:
        """What lies at each index of a dimension."""
        return [each.squeeze(dim) for each in self.cut([1] * self.shape[dim], dim)]

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What torch's functions do with stand-ins."""
        known: dict[Any, Any] = {
            torch.chunk: cls.chunk,
            torch.split: cls.cut,
            torch.transpose: cls.transpose,
            torch.cat: _cat,
            torch.unbind: cls.unbind,
        }
        return known[function](*args, **kwargs or {}) if function in known else NotImplemented


class _Split:
    """A tensor one of whose dimensions is cut into several, on its way to another order of that one's indices."""

    def __init__(self, whole: Traced, dim: int, factors: Sequence[int], order: Sequence[int] = ()) -> None:
        self.whole, self._dim, self._factors = whole, dim, tuple(factors)
        self._order = tuple(order) or tuple(range(len(factors)))

    @property
    def shape(self) -> tuple[int, ...]:
        """As it is now."""
        now = tuple(self._factors[each] for each in self._order)
        return (*self.whole.shape[: self._dim], *now, *self.whole.shape[self._dim + 1 :])

    def contiguous(self) -> _Split:
        """Itself: nothing is copied."""
        return self

    def transpose(self, dim0: int, dim1: int) -> _Split:
        """With two of the new dimensions in each other's place."""
        return _Split(self.whole, self._dim, self._factors, _swap(self._order, dim0 - self._dim, dim1 - self._dim))

    def reshape(self, *shape: int) -> Traced:
        """The dimension in one again."""
        wanted = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        if wanted != tuple(self.whole.shape):
            raise ValueError(f"a tensor of shape {self.shape} is given the shape {wanted}")
        length = self.whole.shape[self._dim]
        old = np.arange(length).reshape(self._factors).transpose(self._order).reshape(-1)
        new = np.argsort(old)
        return self.whole.reordered(self._dim, _runs(new.tolist()))


def _runs(new: Sequence[int]) -> Iterator[tuple[range, range]]:
    """Neighbouring indices that go to places one step apart: (the indices, the places)."""
    start = 0
    while start < len(new):
        stop = start + 1
        step = max(new[stop] - new[start], 1) if stop < len(new) else 1
        while stop < len(new) and new[stop] - new[stop - 1] == step:
            stop += 1
        yield range(start, stop), range(new[start], new[stop - 1] + step, step)
        start = stop


def _cat(tensors: Sequence[Traced], dim: int = 0) -> Traced:
    dim %= tensors[0].ndim
    boxes, length = [], 0
    for each in tensors:
        for box in each.boxes:
            indices = box.there[dim]
            boxes.append(box.at(dim, range(indices.start + length, indices.stop + length, indices.step)))
        length += each.shape[dim]
    return Traced(_put(tensors[0].shape, dim, length), boxes)


def _put(values: Sequence[Any], place: int, value: Any) -> tuple[Any, ...]:
    return (*values[:place], value, *values[place + 1 :])


def _drop(values: Sequence[Any], place: int) -> tuple[Any, ...]:
    return (*values[:place], *values[place + 1 :])


def _swap(values: Sequence[Any], one: int, other: int) -> tuple[Any, ...]:
    swapped = list(values)
    swapped[one], swapped[other] = swapped[other], swapped[one]
    return tuple(swapped)


# --- the conversions of a model ---


def in_files(model: Any, shapes: Mapping[str, Sequence[int]], *, with_prefixes: bool = False) -> dict[str, Traced]:
    """Name in the files -> what the tensor is made of: what ``save_pretrained`` writes of a model made from scratch.

    How the model was loaded has no say: files may hold the names of memory, and keep them.

    Args:
        model: of transformers.
        shapes: of its tensors, or of some of them, by their names without wrappers.
        with_prefixes: as of a model whose files had prefixes that transformers takes away when it loads them.

    Raises:
        Exception: a conversion does what no stand-in can do; or it loses or doubles elements.
    """
    from transformers.core_model_loading import revert_weight_conversion

    reverted: dict[str, Any] = revert_weight_conversion(
        _AsIfNew(model, with_prefixes),  # type: ignore[arg-type]
        {name: Traced.of(name, shape) for name, shape in shapes.items()},  # type: ignore[misc]
    )
    found: dict[str, Traced] = {name: getattr(each, "whole", each) for name, each in reverted.items()}
    held = dict.fromkeys(shapes, 0)
    for box in (box for traced in found.values() for box in traced.boxes):
        held[box.tensor] += box.elements
    if lost := [name for name, shape in shapes.items() if held[name] != torch.Size(shape).numel()]:
        raise ValueError(f"the conversions of {type(model).__name__} lose or double elements of {lost[0]}")
    return found


class _AsIfNew:
    """A model that nobody has loaded; or one whose loading has used every conversion of its type."""

    def __init__(self, model: Any, with_prefixes: bool) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping

        self._model = model
        self._weight_conversions = get_model_conversion_mapping(model, add_legacy=False) if with_prefixes else None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
