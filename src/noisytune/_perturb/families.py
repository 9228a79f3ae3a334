"""What the classes of transformers know about a model type, for those who see only its files.

Where the base model sits, which tensors hold the token embeddings, which rows are padding, and which tensors are the
same ones. Each entry
is tested against the real classes; a model type that is not here gets a rule and a notice instead of a silent guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from noisytune.config import TOKEN_EMBEDDINGS

PAD = "pad_token_id"

_WORDS = "embeddings.word_embeddings.weight"
_POSITIONS = "embeddings.position_embeddings.weight"
_CLS = {"head:cls.predictions.decoder.weight": _WORDS, "head:cls.predictions.decoder.bias": "head:cls.predictions.bias"}
_LM_HEAD = {"head:lm_head.decoder.weight": _WORDS, "head:lm_head.decoder.bias": "head:lm_head.bias"}
_SHARED = {
    "encoder.embed_tokens.weight": "shared.weight",
    "decoder.embed_tokens.weight": "shared.weight",
    "head:lm_head.weight": "shared.weight",
}
_THREE = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")


@dataclass(frozen=True)
class Family:
    """The facts about one model type. Names are canonical."""

    prefixes: tuple[str, ...]
    """Attributes that hold the base model in a model with a head; usually one."""
    tokens: tuple[str, ...] = ()
    """The token embeddings: tables that the model, or a part of it, looks its input tokens up in."""
    padding: Mapping[str, str | int] = field(default_factory=dict)
    """Embeddings with a padding row: the name of the setting that says which, or the row."""
    pad: int | None = None
    """`PAD` where the configuration does not say."""
    ties: Mapping[str, str] = field(default_factory=dict)
    """Copy -> source, where ``tie_word_embeddings`` holds."""
    tied: bool = True
    """``tie_word_embeddings`` where the configuration does not say."""
    always_tied: bool = False
    """Ties hold whatever ``tie_word_embeddings`` says. T5 v1.1 sets it to false, for its head is separate; its three
    embeddings are one all the same."""

    def roles(self, name: str, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of `noisytune.config.ROLES` that a tensor has by its canonical name.

        >>> FAMILIES["gpt2"].roles("wte.weight", {}), FAMILIES["gpt2"].roles("wpe.weight", {})
        (('@token_embeddings',), ())
        """
        return (TOKEN_EMBEDDINGS,) if name in self.all_tokens(config) else ()

    def all_tokens(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """The token embeddings and the tensors that they are copies of."""
        return (*self.tokens, *(self.source(table, config) for table in self.tokens))

    def padding_row(self, name: str, rows: int, config: Mapping[str, Any]) -> int | None:
        """The row of an embedding that stays, as ``nn.Embedding(padding_idx)`` has it."""
        setting = self.padding.get(name)
        row = config.get(PAD, self.pad) if setting == PAD else setting
        if type(row) is not int:
            return None
        row += rows if row < 0 else 0
        return row if 0 <= row < rows else None

    def source(self, name: str, config: Mapping[str, Any]) -> str:
        """The canonical name of the tensor that this one is a copy of; its own name where it is none."""
        if self.always_tied:
            return self.ties.get(name, name)
        if not config.get("tie_word_embeddings", self.tied):
            return name
        if "decoder.embed_tokens.weight" in self.ties and is_causal_lm(config):  # the decoder alone shares nothing
            return "decoder.embed_tokens.weight" if name == "head:lm_head.weight" else name
        return self.ties.get(name, name)


def is_causal_lm(config: Mapping[str, Any]) -> bool:
    """Whether the checkpoint was saved from a ``...ForCausalLM``."""
    architectures = config.get("architectures") or [""]
    return isinstance(architectures, list) and str(architectures[0]).endswith("ForCausalLM")


def _bert(prefix: str, pad: int | None = 0, ties: Mapping[str, str] = _CLS) -> Family:
    return Family((prefix,), (_WORDS,), {_WORDS: PAD}, pad, ties)


def _roberta(prefix: str, pad: int | None = 1, ties: Mapping[str, str] = _LM_HEAD, row: str | int = PAD) -> Family:
    return Family((prefix,), (_WORDS,), {_WORDS: row, _POSITIONS: row}, pad, ties)


def _decoder(pad: int | None = None, tied: bool = False, *more_prefixes: str) -> Family:
    table = "embed_tokens.weight"
    return Family(("model", *more_prefixes), (table,), {table: PAD}, pad, {"head:lm_head.weight": table}, tied)


def _gpt(table: str, tied: bool = True, prefix: str = "transformer") -> Family:
    return Family((prefix,), (table,), ties={"head:lm_head.weight": table}, tied=tied)


def _bart(pad: int, prefix: str = "model", tokens: tuple[str, ...] = _THREE) -> Family:
    return Family((prefix,), tokens, dict.fromkeys(_THREE, PAD), pad, _SHARED)


_T5 = Family(("transformer",), _THREE, ties=_SHARED | {"lm_head.weight": "shared.weight"}, always_tied=True)
_MODERNBERT = Family(
    ("model",),
    ("embeddings.tok_embeddings.weight",),
    {"embeddings.tok_embeddings.weight": PAD},
    50283,
    {"head:decoder.weight": "embeddings.tok_embeddings.weight"},
)

FAMILIES: Mapping[str, Family] = {
    "albert": _bert(
        "albert",
        0,
        {"head:predictions.decoder.weight": _WORDS, "head:predictions.decoder.bias": "head:predictions.bias"},
    ),
    "bart": _bart(1),
    "beit": Family(("beit",)),
    "bert": _bert("bert"),
    "big_bird": _bert("bert"),
    "blenderbot": _bart(0),
    "bloom": _gpt("word_embeddings.weight"),
    "camembert": _roberta("roberta"),
    "clip": Family(("clip",), ("text_model.embeddings.token_embedding.weight",)),
    "codegen": _gpt("wte.weight", tied=False),
    "cohere": _decoder(0, True),
    "convbert": _bert("convbert", 1, {"head:generator_lm_head.weight": _WORDS}),
    "data2vec-text": _roberta("data2vec_text"),
    "deberta": _bert("deberta"),
    "deberta-v2": _bert("deberta"),
    "deit": Family(("deit",)),
    "dinov2": Family(("dinov2",)),
    "distilbert": _bert("distilbert", 0, {"head:vocab_projector.weight": _WORDS}),
    "electra": _bert("electra", 0, {"head:generator_lm_head.weight": _WORDS}),
    "ernie": _bert("ernie"),
    "esm": _roberta("esm", None, {"head:lm_head.decoder.weight": _WORDS}),
    "eurobert": _decoder(128001),
    "falcon": _gpt("word_embeddings.weight"),
    "gemma": _decoder(0, True),
    "gemma2": _decoder(0, True),
    "gemma3_text": _decoder(0, True),
    "gpt2": _gpt("wte.weight"),
    "gpt_neo": _gpt("wte.weight"),
    "gpt_neox": _gpt("embed_in.weight", tied=False, prefix="gpt_neox"),
    "gptj": _gpt("wte.weight", tied=False),
    "granite": _decoder(),
    "led": _bart(1, "led"),
    "llama": _decoder(None, False, "transformer"),
    "longformer": _roberta("longformer"),
    "m2m_100": _bart(1),
    "marian": _bart(58100, tokens=_THREE[1:]),  # with embeddings of two languages, it uses no third table
    "mbart": _bart(1),
    "megatron-bert": _bert("bert"),
    "mistral": _decoder(),
    "mixtral": _decoder(),
    "modernbert": _MODERNBERT,
    "modernbert-decoder": _MODERNBERT,
    "mpnet": _roberta("mpnet", row=1),
    "mt5": _T5,
    "nystromformer": _bert("nystromformer", 1),
    "olmo": _decoder(1),
    "olmo2": _decoder(1),
    "opt": Family(
        ("model",),
        ("decoder.embed_tokens.weight",),
        {"decoder.embed_tokens.weight": PAD},
        1,
        {"head:lm_head.weight": "decoder.embed_tokens.weight"},
    ),
    "pegasus": _bart(0),
    "phi": _decoder(),
    "phi3": _decoder(32000),
    "qwen2": _decoder(None, False, "transformer"),
    "qwen2_moe": _decoder(),
    "qwen3": _decoder(None, False, "transformer"),
    "rembert": _bert("rembert", 0, {}),
    "resnet": Family(("resnet",)),
    "roberta": _roberta("roberta"),
    "roformer": _bert("roformer"),
    "smollm3": _decoder(128004, True, "transformer"),
    "stablelm": _decoder(),
    "starcoder2": _decoder(None, True),
    "swin": Family(("swin",)),
    "t5": _T5,
    "umt5": _T5,
    "vit": Family(("vit",)),
    "xlm-roberta": _roberta("roberta"),
    "xlm-roberta-xl": _roberta("roberta"),
    "xlnet": Family(
        ("transformer",), ("word_embedding.weight",), ties={"head:lm_loss.weight": "word_embedding.weight"}
    ),
    "xmod": _roberta("roberta"),
}
"""By ``model_type`` of config.json."""

BUFFERS = (
    "*.running_mean",
    "*.running_var",
    "*.inv_freq",
    "*.position_ids",
    "*.masked_bias",
    "*.final_logits_bias",
    "final_logits_bias",
    "h.*.attn.bias",  # GPT-2's causal mask, in older files; its projections are c_attn and c_proj
    "h.*.attn.attention.bias",
    "layers.*.attention.bias",  # GPT-NeoX's
)
"""Globs of canonical names, without the namespace of heads: floating tensors of a file that are no parameters."""


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
    for prefix in dict.fromkeys((own, "model", "transformer", *(f.prefixes[0] for f in FAMILIES.values()))):
        if 2 * sum(name.startswith(prefix + ".") for name in names) > len(names):
            return Family((prefix,))
    return Family(())
