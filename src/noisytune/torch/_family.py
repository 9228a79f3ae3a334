"""What the classes of a model type say about its files: where the base model sits, what is tied, padding, a buffer.

Asked of models on the meta device, which hold no numbers: when the table of `noisytune._perturb.families` is made, and
for a type that the table lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from noisytune._perturb import names
from noisytune._perturb.families import PAD, Family, Renames, renamed, template
from noisytune.torch._canonical import base_of, parts_in_files
from noisytune.torch._layout import in_files
from noisytune.torch._module import token_embeddings

Pairs = dict[str, str]
"""Name in the files -> canonical name."""


def family_of(tied: Sequence[Any], untied: Sequence[Any] = ()) -> Family:
    """The facts about a model type.

    Args:
        tied: its models, the base model first, of one configuration with ``tie_word_embeddings``.
        untied: the same without it; none where nobody knows.

    Raises:
        Exception: whatever the code of a model raises.
    """
    prefixes = tuple(dict.fromkeys(prefix.rstrip(".") for model in tied if (prefix := base_of(model)[1])))
    always = {copy for model in untied for copy in _ties(model)}
    config = tied[0].config
    ties, padding, buffers, tokens = dict[str, str](), dict[str, Any](), dict[str, None](), dict[str, None]()
    for model in tied:
        canonical = _canonical(model)
        ties = _ties(model) | ties  # the first class that ties a tensor says to which
        padding |= {canonical[name]: row for name, row in _padding(model) if name in canonical}
        buffers |= dict.fromkeys(template(canonical[name]) for name in _buffers(model) if name in canonical)
        tokens |= dict.fromkeys(name for name in _tables(model, canonical) if not name.startswith(names.HEAD))
    default = type(config)()
    pads = {setting for setting in padding.values() if isinstance(setting, str)}
    return Family(
        prefixes,
        tuple(tokens),
        padding,
        next((_setting(default, setting) for setting in sorted(pads)), None),
        ties,
        bool(getattr(default, "tie_word_embeddings", False)),
        always=tuple(sorted(always)),
        buffers=tuple(buffers),
        renames=_renames(tied, prefixes),
    )


def _canonical(model: Any) -> dict[str, str]:
    """Name in memory -> canonical name, of the parameters and saved buffers that are one tensor of the files."""
    shapes = {name: tuple(tensor.shape) for name, tensor in _saved(model)}
    parts, _ = parts_in_files({"": model}, shapes)
    return {name: names.without_index(found[0].name) for name, found in parts.items() if _is_one(found)}


def _is_one(found: Sequence[Any]) -> bool:
    """Whether a tensor in memory is one of the files, or a stack that the files have too."""
    return len({names.without_index(part.name) for part in found}) == 1 and (
        found[0].box is None or found[0].name.endswith("]")
    )


def _saved(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """What a state dict holds, copies of tied tensors too."""
    state = model.state_dict(keep_vars=True)
    return ((name, tensor) for name, tensor in state.items() if hasattr(tensor, "is_floating_point"))


def _buffers(model: nn.Module) -> list[str]:
    """Saved floating buffers."""
    saved = dict(_saved(model))
    return [
        name for name, each in model.named_buffers(remove_duplicate=False) if name in saved and each.is_floating_point()
    ]


def _ties(model: Any) -> dict[str, str]:
    """Copy -> owner, by canonical names."""
    canonical, copies = _canonical(model), set(getattr(model, "all_tied_weights_keys", None) or ())
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    found: dict[str, str] = {}
    for group in groups.values():
        owner = min(group, key=lambda name: (names.HEAD in canonical.get(name, ""), name in copies))
        found |= {
            canonical[name]: canonical[owner] for name in group if {name, owner} <= canonical.keys() and name != owner
        }
    return {copy: owner for copy, owner in found.items() if copy != owner}


def _padding(model: nn.Module) -> Iterator[tuple[str, str | int]]:
    """Embeddings with a padding row: name in memory, and the setting that says which row, or the row."""
    settings = {_setting(model.config, path): path for path in reversed(_pad_settings(model.config))}
    for path, part in model.named_modules(remove_duplicate=False):
        row = getattr(part, "padding_idx", None)
        if isinstance(part, nn.Embedding | nn.EmbeddingBag) and row is not None:
            yield f"{path}.weight", settings.get(row, row)


def _pad_settings(config: Any, path: str = "") -> list[str]:
    """Where a configuration, and those inside it, say which token is padding."""
    found = [path + PAD] if hasattr(config, PAD) else []
    for name, value in vars(config).items():
        if hasattr(value, "model_type") and hasattr(value, "to_dict"):
            found += _pad_settings(value, f"{path}{name}.")
    return found


def _setting(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = getattr(config, name, None)
    return config


def _tables(model: Any, canonical: Mapping[str, str]) -> Iterator[str]:
    """The token embeddings, under each name of the embedding that looks up."""
    tables = {id(weight) for weight in token_embeddings(model)}
    for path, part in model.named_modules(remove_duplicate=False):
        name = f"{path}.weight"
        if isinstance(part, nn.Embedding) and id(part.weight) in tables and name in canonical:
            yield canonical[name]


# --- names in the files ---


def _renames(models: Iterable[Any], prefixes: Sequence[str]) -> Mapping[str, Renames]:
    """What the rule of prefixes gets wrong, by the prefix that the files have ("": none)."""
    pairs: dict[str, Pairs] = {}
    for model in models:
        for found in _pairs(model):
            prefix = next((p for p in prefixes if any(name.startswith(p + ".") for name in found)), "")
            known = pairs.setdefault(prefix, {})
            known |= {name: canonical for name, canonical in found.items() if name not in known}
    wrong = {prefix: _compressed(found, prefix) for prefix, found in pairs.items()}
    return {prefix: renames for prefix, renames in wrong.items() if renames}


def _pairs(model: Any) -> Iterator[Pairs]:
    """The names of the files that transformers may write of a model: as if it were new; with the prefixes of its type's
    older files; and with a new head, whose conversions nobody used.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in _saved(model)}
    parts, _ = parts_in_files({"": model}, shapes)
    meant = {_where(name, part): names.without_index(part.name) for name, found in parts.items() for part in found}
    body = base_of(model)[1]
    for with_prefixes in (False, True):
        try:
            traced = in_files(model, shapes, with_prefixes=with_prefixes)
        except Exception:  # a conversion that cannot be followed: in memory the user is told
            continue
        begins = {file: each.boxes[0] for file, each in traced.items() if each.boxes}
        found = {file: _meant(box, meant) for file, box in begins.items()}
        files = {file: canonical for file, canonical in found.items() if canonical is not None}
        yield files
        head = {name for name in shapes if body and not name.startswith(body)}
        spelt = {name: canonical for name, canonical in _canonical(model).items() if name in head}
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
