"""Parameters that the code of a model keeps from training: tables of sines, and counts that a rule adjusts.

``from_pretrained`` sets ``requires_grad`` on every parameter, so that it is no sign. The names are those of the classes
in transformers, and are compared with them in the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from noisytune._perturb import names
from noisytune._perturb.target import Target


class Fixed(NamedTuple):
    """Tensors of one model type that are never learnt."""

    globs: tuple[str, ...]
    """Of canonical names, without the namespace of heads."""
    where: tuple[str, Any] | None = None
    """The setting and its value on which it depends; None where it is always so."""


_ROWS = Fixed(("*embed_positions.weight",))
_ENCODER = Fixed(("*encoder.embed_positions.weight",))
_SCORES = Fixed(("*.e_score_correction_bias",))

FIXED: Mapping[str, Fixed] = {
    "afmoe": Fixed(("*.expert_bias",)),
    "audioflamingo3_encoder": _ROWS,
    "autoformer": _ROWS,
    "distilbert": Fixed(("*position_embeddings.weight",), ("sinusoidal_pos_embds", True)),
    "ernie4_5_moe": _SCORES,
    "ernie4_5_vl_moe_text": _SCORES,
    "flaubert": Fixed(("*position_embeddings.weight",), ("sinusoidal_embeddings", True)),
    "fsmt": _ROWS,
    "hrm_text": Fixed(("*z_L_init",)),
    "informer": _ROWS,
    "laguna": _SCORES,
    "marian": _ROWS,
    "moss_transcribe_diarize_audio": _ROWS,
    "patchtsmixer": Fixed(("*position_enc",), ("positional_encoding_type", "sincos")),
    "patchtst": Fixed(("*position_enc",), ("positional_encoding_type", "sincos")),
    "pegasus": _ROWS,
    "qwen2_audio_encoder": _ROWS,
    "roformer": _ROWS,
    "time_series_transformer": _ROWS,
    "vit_mae": Fixed(("*embeddings.position_embeddings", "*decoder_pos_embed")),
    "voxtral_encoder": _ROWS,
    "whisper": _ENCODER,
    "xlm": Fixed(("*position_embeddings.weight",), ("sinusoidal_embeddings", True)),
}
"""By ``model_type``, also of the parts of a model."""


def mark(targets: Iterable[Target], configs: Iterable[Mapping[str, Any]]) -> None:
    """Note which targets are never learnt.

    Args:
        targets: with their canonical names.
        configs: of the pretrained models that they belong to, as in config.json.
    """
    if globs := tuple(glob for config in configs for glob in fixed_globs(config)):
        for target in targets:
            target.is_fixed = names.match([target.name.removeprefix(names.HEAD)], globs)


def fixed_globs(config: Mapping[str, Any]) -> Iterator[str]:
    """The names of tensors that a model with this configuration never learns.

    >>> list(fixed_globs({"model_type": "whisper"})), list(fixed_globs({"model_type": "distilbert"}))
    (['*encoder.embed_positions.weight'], [])
    >>> list(fixed_globs({"model_type": "speech-encoder-decoder", "encoder": {"model_type": "roformer"}}))
    ['*embed_positions.weight']
    """
    found = FIXED.get(str(config.get("model_type", "")))
    if found and (found.where is None or config.get(found.where[0]) == found.where[1]):
        yield from found.globs
    for value in config.values():
        if isinstance(value, Mapping):
            yield from fixed_globs(value)
