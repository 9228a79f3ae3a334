"""What the classes of transformers know about a model type, for those who see only its files.

Where the base model sits, which tensors hold the token embeddings, which rows are padding, which tensors are the same
ones, which are buffers, and how their names are spelt. The table is made from those classes (`tools/families.py`); a
model type that is not in it gets a rule and a notice instead of a silent guess.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from noisytune._perturb.names import canonical, without_index, without_wrappers
from noisytune.config import TOKEN_EMBEDDINGS

PAD = "pad_token_id"

Renames = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Family:
    """The facts about one model type. Names are canonical."""

    prefixes: tuple[str, ...]
    """Attributes that hold the base model in a model with a head; usually one."""
    tokens: tuple[str, ...] = ()
    """The token embeddings: tables that the model, or a part of it, looks its input tokens up in."""
    padding: Mapping[str, str | int] = field(default_factory=dict)
    """Embeddings with a padding row: the name of the setting that says which, such as ``text_config.pad_token_id``, or
    the row."""
    pad: int | None = None
    """`PAD` where the configuration does not say."""
    ties: Mapping[str, str] = field(default_factory=dict)
    """Copy -> source, where ``tie_word_embeddings`` holds."""
    tied: bool = True
    """``tie_word_embeddings`` where the configuration does not say."""
    always: tuple[str, ...] = ()
    """Copies whose ties hold whatever ``tie_word_embeddings`` says. T5 v1.1 sets it to false, for its head is separate;
    its three embeddings are one all the same."""
    buffers: tuple[str, ...] = ()
    """Floating tensors of the files that are no parameters; ``*`` stands for a number between dots."""
    inner_buffers: tuple[str, ...] = ()
    """Of the types of the models inside, without the path to them."""
    renames: Mapping[str, Renames] = field(default_factory=dict)
    """Where the prefix alone does not give the canonical name: beginnings of names in the files -> of canonical names,
    the longest first, by the prefix that the files have ("" for none)."""

    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What transformers joins when it loads usual files, for files that hold it joined, as memory does: canonical
    names, in order, of the equal parts. Numbers are ``*``; one more of them counts the experts."""
    apart: tuple[str, ...] = ()
    """Of files with the names of memory: what usual files hold as a part of another tensor, or in another order."""

    def canonical(self, name: str, prefix: str | None) -> str:
        """The canonical name of a tensor of the files.

        Args:
            name: in the files.
            prefix: the one of `prefixes` that the files have; None where they have none.

        >>> Family(("model",), renames={"": (("lm_head.", "head:lm_head."),)}).canonical("lm_head.weight", None)
        'head:lm_head.weight'
        """
        return renamed(without_wrappers(name), prefix or "", self.renames.get(prefix or "", ()))

    def parts_of(self, name: str, shape: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
        """Canonical names and shapes of the tensors that usual files hold instead of one; none where they hold it.

        >>> family = Family((), joined={"layers.*.wi": ("layers.*.experts.*.gate", "layers.*.experts.*.up")})
        >>> [name for name, shape in family.parts_of("layers.7.wi", (2, 6, 4))]
        ['layers.7.experts.0.gate', 'layers.7.experts.0.up', 'layers.7.experts.1.gate', 'layers.7.experts.1.up']
        >>> family.parts_of("layers.7.wi", (2, 6, 4))[0][1]
        (3, 4)
        """
        templates = () if 0 in shape else self.joined.get(template(name), ())
        numbers = [part for part in name.split(".") if part.isdecimal()]
        is_stack = any(each.count("*") > len(numbers) for each in templates)
        experts, rows = (shape[0], shape[1:]) if is_stack and shape else (1, shape)
        if not templates or not rows or rows[0] % len(templates):
            return []
        part = (rows[0] // len(templates), *rows[1:])
        return [(_filled(each, [*numbers, str(i)]), part) for i in range(experts) for each in templates]

    def is_apart(self, name: str) -> bool:
        """Whether usual files hold a tensor otherwise than as one, or as parts that are known."""
        found = template(without_index(name))
        return found in self.apart or found in self.joined

    def is_buffer(self, name: str) -> bool:
        """Whether a floating tensor is no parameter, by its canonical name.

        >>> Family((), buffers=("layers.*.gate.bias",)).is_buffer("layers.3.gate.bias")
        True
        """
        found = template(name)
        return found in self.buffers or any(found.endswith("." + inside) for inside in self.inner_buffers)

    def roles(self, name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of `noisytune.config.ROLES` that a tensor has by its canonical name.

        >>> gpt2 = generated()["gpt2"]
        >>> gpt2.roles("wte.weight", {}), gpt2.roles("wpe.weight", {})
        (('@token_embeddings',), ())
        """
        return (TOKEN_EMBEDDINGS,) if name in self.all_tokens(config) else ()

    def all_tokens(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The token embeddings and the tensors that they are copies of."""
        return (*self.tokens, *(self.source(table, config) for table in self.tokens))

    def padding_row(self, name: str, rows: int, config: Mapping[str, Any]) -> int | None:
        """The row of an embedding that stays, as ``nn.Embedding(padding_idx)`` has it."""
        setting = self.padding.get(name)
        row = _looked_up(config, setting, self.pad) if isinstance(setting, str) else setting
        if type(row) is not int:
            return None
        row += rows if row < 0 else 0
        return row if 0 <= row < rows else None

    def source(self, name: str, config: Mapping[str, Any]) -> str:
        """The canonical name of the tensor that this one is a copy of; its own name where it is none."""
        if name in self.always:
            return self.ties.get(name, name)
        if not config.get("tie_word_embeddings", self.tied):
            return name
        if "decoder.embed_tokens.weight" in self.ties and is_causal_lm(config):  # the decoder alone shares nothing
            return "decoder.embed_tokens.weight" if name == "head:lm_head.weight" else name
        return self.ties.get(name, name)


def _looked_up(config: Mapping[str, Any], path: str, default: Any) -> Any:
    """A setting, which may be one of a configuration inside."""
    *outer, name = path.split(".")
    for part in outer:
        inside = config.get(part)
        config = inside if isinstance(inside, dict) else {}
    return config.get(name, default)


def template(name: str) -> str:
    """The name with ``*`` for each number between dots.

    >>> template("layers.11.mlp.fc1.weight")
    'layers.*.mlp.fc1.weight'
    """
    return ".".join("*" if part.isdecimal() else part for part in name.split("."))


def renamed(name: str, prefix: str, renames: Renames) -> str:
    """A canonical name: by the first renaming of a beginning that fits, else by the prefix.

    >>> renamed("visual.blocks.3.weight", "model", (("visual.blocks.*.", "tower.*."),))
    'tower.3.weight'
    """
    for start, end in renames:
        if found := _beginning(start).match(name):
            return _filled(end, found.groups()) + name[found.end() :]
    return canonical(name, prefix or None)


def _filled(name: str, numbers: Iterable[str]) -> str:
    """A template's ``*`` replaced by numbers, as far as it has some."""
    following = iter(numbers)
    return "".join(next(following) if part == "*" else part for part in re.split(r"(\*)", name))


def prefix_of(names: Iterable[str], prefixes: Iterable[str]) -> str:
    """The prefix of the base model that files have; none where they have none.

    >>> prefix_of(["bert.pooler.bias", "classifier.bias"], ["roberta", "bert"])
    'bert'
    """
    names = list(names)
    return next((prefix for prefix in prefixes if any(name.startswith(prefix + ".") for name in names)), "")


@cache
def _beginning(start: str) -> re.Pattern[str]:
    return re.compile(re.escape(start).replace(r"\*", r"(\d+|\*)"))


def is_causal_lm(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was saved from a ``...ForCausalLM``."""
    architectures = config.get("architectures") or [""]
    return isinstance(architectures, list) and str(architectures[0]).endswith("ForCausalLM")


@cache
def generated() -> Mapping[str, Family]:
    """What ``make families`` found out about the model types of transformers, by ``model_type``."""
    return {model_type: _from_json(facts) for model_type, facts in _table()["families"].items()}


@cache
def release() -> str:
    """The release of transformers from whose code the table was made."""
    return str(_table()["transformers"])


def _table() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((files("noisytune") / "_perturb" / "families.json").read_text("utf-8"))
    return found


def _from_json(facts: Mapping[str, Any]) -> Family:
    changed: dict[str, Any] = dict(facts)
    changed |= {name: tuple(facts.get(name, ())) for name in ("prefixes", "tokens", "always", "buffers", "apart")}
    changed["joined"] = {name: tuple(parts) for name, parts in facts.get("joined", {}).items()}
    changed["renames"] = {prefix: tuple(map(tuple, found)) for prefix, found in facts.get("renames", {}).items()}
    return Family(**changed)


def known(model_type: str) -> Family | None:
    """What is known of a model type; None for nothing.

    >>> known("bert").prefixes
    ('bert',)
    """
    return generated().get(model_type)


BUFFERS = (
    "*.running_mean",
    "*.running_var",
    "*.inv_freq",
    "*.position_ids",
    "*.masked_bias",
    "*.final_logits_bias",
    "final_logits_bias",
)
"""Globs of canonical names, without the namespace of heads: floating tensors of a file that are no parameters."""
MASKS = ("h.*.attn.bias", "h.*.attn.attention.bias", "layers.*.attention.bias")
"""Causal masks of shape (1, 1, n, n) in older files of GPT-2, GPT-Neo and GPT-NeoX. With fewer axes it is a bias."""


def guess(model_type: str, names: Iterable[str]) -> Family:
    """The rule for a model type without an entry: the base model is under the first of the well-known prefixes that
    most of the tensors share; no padding rows, no ties.

    >>> guess("new", ["model.a", "model.b", "lm_head.weight"]).prefixes
    ('model',)
    >>> guess("new", ["a", "b"]).prefixes
    ()
    """
    names = list(names)
    own = model_type.replace("-", "_")
    begins = {name.partition(".")[0] for name in names}
    usual = dict.fromkeys(prefix for family in generated().values() for prefix in family.prefixes)
    for prefix in (own, "model", "transformer", *usual):
        if prefix.partition(".")[0] in begins and 2 * sum(n.startswith(prefix + ".") for n in names) > len(names):
            return Family((prefix,))
    return Family(())
