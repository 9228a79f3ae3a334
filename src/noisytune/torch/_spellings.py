"""How files may spell the tensors of a model type: what each of their names means, and what they hold joined or apart.

transformers writes the names of a model's usual files, which older releases may have given other prefixes; and, where
somebody asks for it or saves a state dict, the names and the shapes that memory has.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from noisytune._perturb import names
from noisytune._perturb.families import Family, Renames, prefix_of, renamed, template
from noisytune.torch._canonical import Part, base_of, parts_in_files
from noisytune.torch._layout import in_files, run_of

Pairs = dict[str, str]
"""Name in the files -> canonical name."""


def saved_tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a state dict holds, copies of tied tensors too."""
    state = model.state_dict(keep_vars=True)
    return ((name, tensor) for name, tensor in state.items() if hasattr(tensor, "is_floating_point"))


def canonical_names(model: Any) -> Pairs:
    """Name in memory -> canonical name, of the parameters and saved buffers that are one tensor of the files."""
    return {name: names.without_index(found[0].name) for name, found in _parts(model)[1].items() if _is_one(found)}


def _parts(model: Any) -> tuple[dict[str, tuple[int, ...]], dict[str, list[Part]]]:
    """Shapes of the saved tensors, and what each holds of the files', by name in memory."""
    shapes = {name: tuple(tensor.shape) for name, tensor in saved_tensors(model)}
    return shapes, parts_in_files({"": model}, shapes)[0]


def _is_one(parts: Sequence[Part]) -> bool:
    """Whether a tensor in memory is one of the files, or a stack that the files have too, in the same order."""
    first = parts[0]
    if first.box is None:
        return len(parts) == 1
    stack, size = names.without_index(first.name), math.prod(first.shape)
    return all(
        part.name == names.expert(stack, i)
        and _is_whole(part)
        and run_of(part.box.here, part.box.shape) == range(i * size, (i + 1) * size)
        for i, part in enumerate(parts)
        if part.box is not None
    )


def renames_of(models: Sequence[Any], prefixes: Sequence[str]) -> Mapping[str, Renames]:
    """What the rule of prefixes gets wrong, by the prefix that the files have ("": none).

    A name of memory that usual files have too means what it does in those.
    """
    pairs: dict[str, Pairs] = {}
    for model in models:
        for found in _pairs(model):
            known = pairs.setdefault(prefix_of(found, prefixes), {})
            known |= {name: canonical for name, canonical in found.items() if name not in known}
    usual = {prefix: set(map(template, known)) for prefix, known in pairs.items()}
    for found in map(canonical_names, models):
        prefix = prefix_of(found, prefixes)
        new = {name: canonical for name, canonical in found.items() if template(name) not in usual.get(prefix, ())}
        pairs[prefix] = new | pairs.get(prefix, {})
    wrong = {prefix: _compressed(found, prefix) for prefix, found in pairs.items()}
    return {prefix: renames for prefix, renames in wrong.items() if renames}


def _pairs(model: Any) -> Iterator[Pairs]:
    """The names of the files that transformers may write of a model: as if it were new; with the prefixes of its type's
    older files; and with a new head, whose conversions nobody used.
    """
    shapes, parts = _parts(model)
    meant = {_where(name, part): names.without_index(part.name) for name, found in parts.items() for part in found}
    body = base_of(model)[1]
    spelt = {
        name: names.without_index(found[0].name)
        for name, found in parts.items()
        if body and not name.startswith(body) and _is_one(found)
    }
    for with_prefixes in (False, True):
        try:
            traced = in_files(model, shapes, with_prefixes=with_prefixes)
        except Exception:  # a conversion that cannot be followed: in memory the user is told
            continue
        begins = {file: each.boxes[0] for file, each in traced.items() if each.boxes}
        found = {file: _meant(box, meant) for file, box in begins.items()}
        files = {file: canonical for file, canonical in found.items() if canonical is not None}
        yield files
        yield {file: canonical for file, canonical in files.items() if canonical not in spelt.values()} | spelt


def _where(name: str, part: Any) -> tuple[str, tuple[int, ...]]:
    """Which elements a part begins with."""
    return name, tuple(indices.start for indices in part.box.here) if part.box else ()


def _meant(box: Any, meant: Mapping[Any, str]) -> str | None:
    starts = tuple(indices.start for indices in box.here)
    return meant.get((box.tensor, starts), meant.get((box.tensor, ())))


def _compressed(pairs: Mapping[str, str], prefix: str) -> Renames:
    """Few renamings of beginnings from which all pairs follow that the prefix alone gets wrong."""
    wanted = _templates(pairs)
    found: list[tuple[str, str]] = []

    def look(start: str, group: dict[str, str]) -> None:
        if all(renamed(file, prefix, ()) == canonical for file, canonical in group.items()):
            return
        first, meant = next(iter(group.items()))
        rest = first[len(start) :]
        if meant.endswith(rest):
            end = meant[: len(meant) - len(rest)]
            fits = all(canonical == end + file[len(start) :] for file, canonical in group.items())
            if fits and start.count("*") == end.count("*"):
                found.append((start, end))
                return
        children: dict[str, dict[str, str]] = {}
        for file, canonical in group.items():
            following = re.match(r"[^.]*\.?", file[len(start) :])
            step = following.group() if following else ""
            children.setdefault(start + step if step else file, {})[file] = canonical
        for child, members in children.items():
            if child != start:
                look(child, members)

    look("", wanted)
    return tuple(sorted(found, key=lambda rename: -len(rename[0])))


def _templates(pairs: Mapping[str, str]) -> dict[str, str]:
    """The pairs with ``*`` for numbers, where the number is only which of several like ones it is.

    >>> _templates({"mlp.0.bias": "norm.bias", "mlp.1.bias": "linear.bias", "h.0.bias": "h.0.b", "h.1.bias": "h.1.b"})
    {'mlp.0.bias': 'norm.bias', 'mlp.1.bias': 'linear.bias', 'h.*.bias': 'h.*.b'}
    """
    meant: dict[str, set[str]] = {}
    for file, canonical in pairs.items():
        meant.setdefault(template(file), set()).add(template(canonical))
    return {
        template(file) if is_same else file: template(canonical) if is_same else canonical
        for file, canonical in pairs.items()
        for is_same in (
            len(meant[template(file)]) == 1 and template(file).count("*") == template(canonical).count("*"),
        )
    }


# --- joined and apart ---


def joined_and_apart(models: Iterable[Any], family: Family) -> tuple[Mapping[str, tuple[str, ...]], tuple[str, ...]]:
    """What memory holds joined of usual files' tensors, and what it holds apart or in another order.

    Both as `noisytune._perturb.families.Family` has them.

    Args:
        models: of one type.
        family: what else is known of the type.
    """
    joined: dict[str, tuple[str, ...]] = {}
    apart: dict[str, None] = {}
    for model in models:
        shapes, parts = _parts(model)
        prefix = prefix_of(shapes, family.prefixes)
        for name, found in parts.items():
            if not _is_one(found):
                spelt = family.canonical(name, prefix)
                templates = _equal_parts(spelt, shapes[name], found)
                if templates and joined.setdefault(template(spelt), templates) == templates:
                    continue
                apart[template(spelt)] = None
    return {name: templates for name, templates in joined.items() if name not in apart}, tuple(apart)


def _equal_parts(name: str, shape: tuple[int, ...], parts: Sequence[Part]) -> tuple[str, ...]:
    """The templates of the parts' names; none where they are no equal parts in the order of the elements."""
    runs = [(run_of(part.box.here, part.box.shape) if part.box else None, part) for part in parts]
    held = sorted((run.start, run.stop, part) for run, part in runs if run is not None and _is_whole(part))
    each = tuple(dict.fromkeys(template(part.name) for _, _, part in held))
    size = math.prod(shape) // len(parts)
    is_equal = [run[:2] for run in held] == [(i * size, (i + 1) * size) for i in range(len(parts))]
    expected = Family((), joined={template(name): each}).parts_of(name, shape)
    return each if is_equal and expected == [(part.name, part.shape) for _, _, part in held] else ()


def _is_whole(part: Part) -> bool:
    """Whether a tensor of the files lies in one of memory with all its elements, in their order."""
    box = part.box
    return box is not None and box.there == tuple(map(range, part.shape)) and list(box.axes) == sorted(box.axes)
