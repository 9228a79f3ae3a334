"""What the classes of a model type say about its files: where the base model sits, what is tied, padding, a buffer.

Asked of models on the meta device, which hold no numbers: when the table of `noisytune._perturb.families` is made, and
for a type that the table lacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from noisytune._perturb import names
from noisytune._perturb.families import PAD, Family, template
from noisytune.torch._canonical import base_of
from noisytune.torch._module import token_embeddings
from noisytune.torch._spellings import canonical_names, joined_and_apart, renames_of, saved_tensors


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
        canonical = canonical_names(model)
        ties = _ties(model) | ties  # the first class that ties a tensor says to which
        padding |= {canonical[name]: row for name, row in _padding(model) if name in canonical}
        buffers |= dict.fromkeys(template(canonical[name]) for name in _buffers(model) if name in canonical)
        tokens |= dict.fromkeys(name for name in _tables(model, canonical) if not name.startswith(names.HEAD))
    default = type(config)()
    pads = {setting for setting in padding.values() if isinstance(setting, str)}
    family = Family(
        prefixes,
        tuple(tokens),
        padding,
        next((_setting(default, setting) for setting in sorted(pads)), None),
        ties,
        bool(getattr(default, "tie_word_embeddings", False)),
        always=tuple(sorted(always)),
        buffers=tuple(buffers),
        renames=renames_of(tied, prefixes),
    )
    joined, apart = joined_and_apart(tied, family)
    return replace(family, joined=joined, apart=apart)


def _buffers(model: nn.Module) -> list[str]:
    """Saved floating buffers."""
    saved = dict(saved_tensors(model))
    return [
        name for name, each in model.named_buffers(remove_duplicate=False) if name in saved and each.is_floating_point()
    ]


def _ties(model: Any) -> dict[str, str]:
    """Copy -> owner, by canonical names."""
    canonical, copies = canonical_names(model), set(getattr(model, "all_tied_weights_keys", None) or ())
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
