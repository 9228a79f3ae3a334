"""Canonical tensor names: the same tensor has the same name on disk, in memory, wrapped and unwrapped.

The canonical name is the parameter's name in the base model as ``save_pretrained`` writes it. Parameters that lie
outside the base model (a head) are named in a namespace of their own, ``head:``, which no parameter's name can collide
with. Pure functions of strings; what the model looks like is for `noisytune.torch` to find out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from fnmatch import translate
from functools import lru_cache

from noisytune.config import BIASES, NORMS, POSITIONS, ROLES, ROUTERS, TOKEN_EMBEDDINGS
from noisytune.errors import ConfigError

WRAPPERS = (
    "module",  # DataParallel, DistributedDataParallel
    "_orig_mod",  # torch.compile
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "base_layer",  # PEFT: the wrapped layer
    "original_module",  # PEFT: modules_to_save keeps the original
)
_WRAPPER = re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(WRAPPERS)})\.")
_MODULES_TO_SAVE = re.compile(r"\.modules_to_save\.[^.]+(?=\.)")
"""PEFT's trained copies of a module, by adapter."""
_PEFT_ROOT = "base_model.model."

_ADAPTER = re.compile(
    r"(?:^|\.)(?:lora_|ia3_|vera_|oft_|hada_|lokr_|adalora_)"
    r"|(?:^|\.)\w+_lora_[abAB]$"  # qwix
    r"|^prompt_encoder\.[^.]+\.(?:embedding|mlp_head|lstm_head|transform)\.|^prompt_embeddings$"  # not SAM's prompts
)

_OLD_ENDINGS = {
    "LayerNorm.gamma": "LayerNorm.weight",
    "LayerNorm.beta": "LayerNorm.bias",
    ".weight_g": ".parametrizations.weight.original0",
    ".weight_v": ".parametrizations.weight.original1",
}
"""Of names in older files, and what transformers makes of them."""

_STACK = re.compile(r"(?:^|\.)\w*(?:experts|moe)(?:\.(?!\d+(?:\.|$))\w+)+$")
"""Names of what several experts share; a number behind them is one expert's own."""

HEAD = "head:"
"""Namespace of the parameters outside the base model."""

NAMES_ALONE = "tensors by name do not say which of them the token embeddings are"
"""Why a mapping from names to tensors knows no roles."""

ROLE_PATTERNS: tuple[tuple[str, str], ...] = (
    ("head", r"^head:"),
    ("layer norm", r"norm|ln_\d|ln_f|\bln\b"),
    ("embeddings", r"embed|\bwte\b|\bwpe\b|^shared\.|mask_emb|cls_token"),
    ("query, key, value together", r"c_attn|qkv|query_key_value"),
    ("query", r"quer|q_proj|q_lin|\bq\b|_q\b"),
    ("key", r"key|k_proj|k_lin|\bk\b|_k\b"),
    ("value", r"value|v_proj|v_lin|\bv\b|_v\b"),
    ("attention output", r"(attention|attn|rel_attn|self).*(output|out|o_proj|c_proj|dense)|\bo\b|o_proj"),
    ("feed-forward", r"intermediate|output\.dense|mlp|ffn|ff\b|fc\d|fc_|lin\d|dense_|\bwi|\bwo\b|_proj|block_sparse"),
    ("pooler", r"pooler"),
)
"""Role and pattern of canonical names, the first that fits; the rest is "other". For tables: no noise depends on it."""


_ROLES_BY_NAME = (
    (
        POSITIONS,
        9,
        r"(^|[._])pos(ition)?(al)?s?_?emb|embed_pos|\bwpe\b|(^|[._])rel(ative)?_(pos|emb|attention_bias)"
        r"|position_(enc|bias)|distance_embedding|pos_embed",
    ),
    (NORMS, 1, r"norm|(^|\.)(\w+_)?ln(_?\d+|_f|_\w+)?\.|(^|\.)bn\d*\."),
    (BIASES, 9, r"(^|[._])bias$"),
    (ROUTERS, 9, r"(^|[._])router([._]|$)|(^|\.)(\w*expert_)?gate\.(wg\.|layer\.|\w+$)"),
)
"""Role, the most dimensions that its tensors have, and the pattern of their canonical names."""


def original_of(name: str) -> str:
    """The name of the parameter that a trained copy of PEFT's modules_to_save was made of; the name itself of others.

    >>> original_of("model.lm_head.modules_to_save.default.weight")
    'model.lm_head.original_module.weight'
    """
    return _MODULES_TO_SAVE.sub(".original_module", name)


@lru_cache(maxsize=1 << 17)  # several rooms ask for each tensor of a model
def without_wrappers(name: str) -> str:
    """The name without what DDP, FSDP, torch.compile, activation checkpointing and PEFT put into it.

    >>> without_wrappers("module._orig_mod.base_model.model.encoder.query.base_layer.weight")
    'encoder.query.weight'
    """
    previous = None
    while name != previous:
        previous = name
        name = _WRAPPER.sub("", name)
        name = _MODULES_TO_SAVE.sub("", name).removeprefix(_PEFT_ROOT)
    return name


def is_adapter(name: str) -> bool:
    """Whether the tensor belongs to an adapter (LoRA and its relatives) rather than to the pretrained model.

    >>> is_adapter("encoder.query.lora_A.default.weight"), is_adapter("encoder.query.base_layer.weight")
    (True, False)
    """
    return _ADAPTER.search(name) is not None


def canonical(name: str, base_prefix: str | None) -> str:
    """The canonical name of a parameter. Layer norms of BERT's first files (``gamma``, ``beta``) and weight norm of old
    ones (``weight_g``, ``weight_v``) have today's names.

    Args:
        name: as ``named_parameters`` gives it, wrappers included, relative to the pretrained model.
        base_prefix: attribute that holds the base model, such as ``"bert"``; None where the model itself is the base
        model.

    >>> canonical("bert.embeddings.word_embeddings.weight", "bert")
    'embeddings.word_embeddings.weight'
    >>> canonical("classifier.weight", "bert")
    'head:classifier.weight'
    >>> canonical("bert.encoder.LayerNorm.gamma", "bert")
    'encoder.LayerNorm.weight'
    """
    bare = without_wrappers(name)
    for ending, today in _OLD_ENDINGS.items():
        bare = bare.removesuffix(ending) + today if bare.endswith(ending) else bare
    if base_prefix is None:
        return bare
    prefix = base_prefix + "."
    return bare.removeprefix(prefix) if bare.startswith(prefix) else HEAD + bare


def is_stack(name: str, shape: Sequence[int]) -> bool:
    """Whether a tensor stacks a matrix, or a bias, for each expert along its first dimension.

    >>> is_stack("layers.0.mlp.experts.down_proj", (8, 32, 16)), is_stack("layers.0.mlp.experts.7.weight", (32, 16))
    (True, False)
    >>> is_stack("layers.0.mlp.experts.down_proj_bias", (8, 32)), is_stack("layers.0.conv.weight", (8, 32, 3))
    (True, False)
    """
    bias = name.rpartition(".")[2].endswith("bias")
    return len(shape) > 2 - bias and _STACK.search(name) is not None


def expert(name: str, index: int) -> str:
    """The name of one expert's share of a stack.

    >>> expert("mlp.experts.down_proj", 3)
    'mlp.experts.down_proj[3]'
    """
    return f"{name}[{index}]"


def without_index(name: str) -> str:
    """The name of the stack that one expert's share is of.

    >>> without_index("mlp.experts.down_proj[3]"), without_index("wte.weight")
    ('mlp.experts.down_proj', 'wte.weight')
    """
    return name.partition("[")[0]


def tied(identities: Mapping[str, Hashable], base_prefix: str | None = None) -> list[tuple[str, list[str]]]:
    """The canonical name and the own names, the owner's first, of each group of names that mean the same weights.

    The owner is the first name inside the base model, else the first.

    Args:
        identities: own name -> a value that is equal for two names of the same weights.
        base_prefix: as for `canonical`.

    >>> tied({"cls.decoder.weight": 0, "bert.embeddings.weight": 0}, "bert")
    [('embeddings.weight', ['bert.embeddings.weight', 'cls.decoder.weight'])]
    """
    groups: dict[Hashable, list[str]] = {}
    for name, identity in identities.items():
        groups.setdefault(identity, []).append(name)
    found = []
    for group in groups.values():
        by_own_name = {name: canonical(name, base_prefix) for name in group}
        owner = next((name for name in group if not by_own_name[name].startswith(HEAD)), group[0])
        found.append((by_own_name[owner], [owner, *(name for name in group if name != owner)]))
    return found


def roles_by_name(name: str, dimensions: int) -> tuple[str, ...]:
    """Those of `noisytune.config.ROLES` that the canonical name of a tensor tells.

    >>> roles_by_name("encoder.layer.0.output.LayerNorm.bias", 1)
    ('@norms', '@biases')
    >>> roles_by_name("layers.0.mlp.gate.weight", 2), roles_by_name("layers.0.mlp.gate_proj.weight", 2)
    (('@routers',), ())
    >>> roles_by_name("block.0.layer.0.SelfAttention.relative_attention_bias.weight", 2)
    ('@positions',)
    """
    return tuple(
        role for role, most, pattern in _ROLES_BY_NAME if dimensions <= most and re.search(pattern, name, re.IGNORECASE)
    )


def match(names: Iterable[str], globs: tuple[str, ...], roles: Iterable[str] = ()) -> bool:
    """Whether any glob matches any of a tensor's names, or is one of its roles. Case-sensitive; ``*`` matches dots too.

    >>> match(["encoder.layer.0.attention.self.query.weight"], ("*attention*", "*.bias"))
    True
    >>> match(["wte.weight"], ("@token_embeddings",), ["@token_embeddings"]), match(["wte.weight"], ("*embed*",))
    (True, False)
    """
    matches = _compiled(globs).match
    return any(matches(name) for name in names) or any(role in globs for role in roles)


@lru_cache(maxsize=64)
def _compiled(globs: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all: twenty thousand tensors are asked for each."""
    return re.compile("|".join(map(translate, globs)) if globs else r"(?!)")


def check_globs(
    names: Iterable[str],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    roles: Collection[str] = (),
    unknown: str = NAMES_ALONE,
) -> None:
    """Refuse a glob that matches no tensor: most likely a typing error that would change the experiment silently.

    Args:
        names: of all tensors.
        include: globs and roles.
        exclude: globs and roles.
        roles: those that a tensor has.
        unknown: why no tensor has a role.

    Raises:
        ConfigError: names the glob or the role, and some of the tensors that there are.
    """
    names = list(dict.fromkeys(names))
    some = ", ".join(names[:3])
    for option, globs in (("include", include), ("exclude", exclude)):
        for glob in globs:
            if glob in ROLES:
                if glob not in roles:
                    why = unknown if glob == TOKEN_EMBEDDINGS else "no tensor has a name that tells of it"
                    raise ConfigError(f"{option}: {glob}: {why}: give the tensor's name instead ({some} ...)")
            elif not match(names, (glob,)):
                raise ConfigError(f"{option}: {glob!r} matches none of the {len(names)} tensor names ({some} ...)")


def role_of(name: str) -> str:
    """The role of the parameter that a canonical name stands for.

    >>> role_of("encoder.layer.0.attention.self.query.weight"), role_of("h.3.mlp.c_fc.weight"), role_of("head:x")
    ('query', 'feed-forward', 'head')
    """
    return next((role for role, pattern in ROLE_PATTERNS if re.search(pattern, name, re.IGNORECASE)), "other")
