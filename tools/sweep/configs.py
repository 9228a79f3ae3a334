"""A tiny configuration of any model type that transformers registers, made from its defaults by rule.

Widths are divided by one power of two everywhere, so that whatever has to fit still fits: heads times their width, the
channels of the stages, what one part of a model hands to the next. Layers, experts and vocabularies become few.
What the rules cannot guess is in `STUBBORN`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

VOCABULARY = 128
LAYERS = 2
EXPERTS = 4
DIVISORS = (32, 16, 64, 8, 4, 2, 1)
"""What widths are divided by: the first of them with which a model can be built, and is small."""
LARGEST = 4_000_000
"""Parameters that a tiny model may have, where a divisor offers it."""

_OF_ALL = frozenset(field.name for field in fields(PreTrainedConfig))
"""Settings of every configuration, which have nothing to do with sizes."""
_IDS = re.compile(r"(_id|_ids|_token|_index|_token_ids|token_id_.*|_idx)$")
_FEW = (
    (re.compile(r"^(vocab_size|.*_vocab_size|vocab_size_.*|num_embeds|.*num_embeddings|codebook_size)$"), VOCABULARY),
    (re.compile(r"^(max_.*position.*|n_positions|n_ctx|.*max_position_embeddings|max_seq_len|seq_length)$"), 64),
    (re.compile(r"^(num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_expert.*_total)$"), EXPERTS),
    (re.compile(r"^(num_experts_per_tok|moe_k|moe_top_?k|num_selected_experts|top_k_experts|moe_topk)$"), 2),
    (re.compile(r"^(n_group|num_expert_group)$"), 2),
    (re.compile(r"^(topk_group|first_k_dense_replace|moe_layer_start_index|num_dense_layers)$"), 1),
    (re.compile(r"^(decoder_sparse_step|encoder_sparse_step|interleave_moe_layer_step|moe_layer_interval)$"), 1),
    (re.compile(r"^(num_queries|num_query_tokens|num_latents|resampler_n_latents|num_denoising)$"), 8),
)
_LAYERS = re.compile(
    r"^(layers|depths?|num_blocks|n_layers?|num_hidden_layers|num_layers|.*_layers|num_.*_layers|.*_depth)$"
)
_BY_LAYER = re.compile(r"type|pattern|per_layer|no_rope_layers")
_NO_LAYERS = re.compile(r"conv|feat|shared|no_rope|window|residual|adapter|max_")
_WIDTH = re.compile(
    r"hidden|dim|embed|d_model|channels|width|inner|ffn|d_ff|d_kv|rank|units|proj|filters|_size$|_sizes$|d_head|depths?_in"
    r"|n_embd|d_state|attention_head_size|query_pre_attn_scalar|chan|node_size|c_"
)
_NO_WIDTH = re.compile(
    r"vocab|patch|image|window|kernel|stride|^max_|^num_|position|chunk|sampling|rate|codebook_size|bins|buckets|group|"
    r"scale|input_size|tokens|length|layers|heads|levels|queries|batch|crop|merge|temporal|ratio|factor|type_|state_size|grid|"
    r"frame|downsample|split|hop|n_fft|pool|block|out_features|feature_size|sample|memory"
)


def model_types() -> list[str]:
    """All that this release registers."""
    return sorted(CONFIG_MAPPING_NAMES)


def tiny_config(model_type: str, divisor: int | None = None) -> PreTrainedConfig:
    """The configuration of a tiny model.

    Args:
        model_type: such as "bert".
        divisor: of widths; None takes the first of `DIVISORS` that gives a model which can be built, and is small.

    Raises:
        Exception: whatever transformers raises when none can be built.
    """
    if divisor is not None:
        return _Shrunk(divisor).config(_default(model_type), STUBBORN.get(model_type, {}))
    from sweep.models import classes

    failed: Exception | None = None
    found: dict[int, PreTrainedConfig] = {}
    for each in DIVISORS:
        try:
            config = tiny_config(model_type, each)
            with torch.device("meta"):
                size = sum(p.numel() for p in classes(model_type, config)[0]._from_config(config).parameters())
        except Exception as error:  # whatever a model's code raises on sizes that do not fit
            failed = failed or error
            continue
        if size <= LARGEST:
            return config
        found[size] = config
    if found:
        return found[min(found)]
    raise failed or ValueError(f"{model_type}: no divisor")


def fit_for_training(config: PreTrainedConfig) -> None:
    """Set what defaults leave open and training needs: a padding token, and what a decoder starts with."""
    text = config.get_text_config()
    if getattr(text, "pad_token_id", 0) is None:
        text.pad_token_id = config.pad_token_id = 0
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0


def _default(model_type: str) -> PreTrainedConfig:
    parts = COMPOSED.get(model_type)
    if parts is None:
        return CONFIG_MAPPING[model_type](**DEFAULTS.get(model_type, {}))
    return CONFIG_MAPPING[model_type](**{name: CONFIG_MAPPING[part]().to_dict() for name, part in parts.items()})


class _Shrunk:
    """One pass through a configuration and those inside it; token ids that are equal stay equal."""

    def __init__(self, divisor: int) -> None:
        self.divisor = divisor
        self.ids: dict[int, int] = {}

    def config(self, config: PreTrainedConfig, stubborn: Mapping[str, Any] = {}) -> PreTrainedConfig:
        """A new configuration of the same class."""
        values = {name: value for name, value in vars(config).items() if not name.startswith("_")}
        layers = {value for name, value in values.items() if _is_layers(name) and type(value) is int}
        kinds = values.get("layer_types")
        count = max(LAYERS, len(set(kinds))) if isinstance(kinds, list | tuple) else LAYERS
        own = {field.name for field in fields(type(config))} - _OF_ALL
        changes: dict[str, Any] = {name: value for name, value in values.items() if name in own and value is not None}
        for name, value in values.items():
            if isinstance(value, PreTrainedConfig):
                inside = {key.partition(".")[2]: v for key, v in stubborn.items() if key.startswith(name + ".")}
                changes[name] = self.config(value, inside)
            elif (small := self.value(name, value, layers, count)) != value:
                changes[name] = small
        if vars(config).get("_out_features"):
            is_by_layer = len(config.stage_names) - 1 in layers
            changes["out_features"] = [f"stage{count}"] if is_by_layer else list(config.out_features)
        changes |= {name: value for name, value in stubborn.items() if "." not in name}
        _fit_rotary(values, changes)
        return type(config)(**changes)

    def value(self, name: str, value: Any, layers: set[int], count: int) -> Any:
        """A setting made small; itself where it has nothing to do with sizes."""
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, list | tuple) and value:
            if len(value) in layers and len(value) > count and (_BY_LAYER.search(name) or len(value) > 5):
                return _each_kind(list(value), count)
            return [self.value(name, each, layers, count) for each in value]  # as they come back from a file
        if type(value) is not int:
            return value
        if _IDS.search(name):
            return self.token(value)
        if _is_layers(name):
            return min(value, count)
        for pattern, few in _FEW:
            if pattern.match(name):
                return min(value, few)
        if name == "image_size":
            return value // 4 if value > 256 and value % 4 == 0 else value
        if ((_WIDTH.search(name) and not _NO_WIDTH.search(name)) or name in _WIDTHS) and value >= 16:
            return max(1, value // self.divisor)
        return value

    def token(self, value: int) -> int:
        """A token's number in the small vocabulary."""
        if value < VOCABULARY // 2:
            return value
        return self.ids.setdefault(value, VOCABULARY - 1 - len(self.ids))


def _is_layers(name: str) -> bool:
    return bool(_LAYERS.match(name)) and not _NO_LAYERS.search(name)


def _each_kind(values: list[Any], count: int) -> list[Any]:
    """So many of the values, in their order, with as many different ones as can be."""
    chosen: list[int] = []
    for index, value in enumerate(values):
        if len(chosen) < count and value not in [values[i] for i in chosen]:
            chosen.append(index)
    rest: Iterator[int] = (index for index in range(len(values)) if index not in chosen)
    return [values[index] for index in sorted([*chosen, *(next(rest) for _ in range(count - len(chosen)))])]


def _fit_rotary(values: Mapping[str, Any], changes: dict[str, Any]) -> None:
    """Sections of rotary positions add up to half a head's width."""

    def now(name: str) -> Any:
        return changes.get(name, values.get(name))

    hidden, heads = now("hidden_size"), now("num_attention_heads")
    width = now("head_dim") or (hidden // heads if type(hidden) is int and type(heads) is int else 0)
    for name in ("rope_parameters", "rope_scaling"):
        found = now(name)
        if isinstance(found, dict) and isinstance(found.get("mrope_section"), list) and width:
            half = int(width * found.get("partial_rotary_factor", 1.0)) // 2
            third = max(1, half // 3)
            changes[name] = found | {"mrope_section": [half - 2 * third, third, third]}


_WIDTHS = ("num_filters", "n_filters", "base_channels", "ngf", "adapter_input_size", "num_pos_feats")

COMPOSED: Mapping[str, Mapping[str, str]] = {
    "encoder-decoder": {"encoder": "bert", "decoder": "bert"},
    "vision-encoder-decoder": {"encoder": "vit", "decoder": "bert"},
    "speech-encoder-decoder": {"encoder": "wav2vec2", "decoder": "bert"},
    "vision-text-dual-encoder": {"text_config": "bert", "vision_config": "vit"},
}
"""Types that have no default: the types of their parts."""

_RESNET = {"backbone_config": {"model_type": "resnet", "out_features": ["stage2", "stage3", "stage4"]}}
_LAST_STAGE = {"backbone_config": {"model_type": "resnet", "out_features": ["stage4"]}}
_HEAD_DIM = {"head_dim": 128}
_ERNIE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0, "mrope_section": [22, 22, 20]}}
_SECTIONS = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
_SERIES = {"prediction_length": 8, "context_length": 16}
_MOE = {"num_experts": 8, "top_k_experts": 2, "moe_intermediate_size": 1024}

DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "autoformer": _SERIES,
    "informer": _SERIES,
    "time_series_transformer": _SERIES,
    "chameleon": {"vocabulary_map": {"<image>": 8, "IMGIMGA": 9}},
    "conditional_detr": _LAST_STAGE,
    "dab-detr": _LAST_STAGE,
    "dbrx": {"ffn_config": {"hidden_size": 2048}},
    "detr": _LAST_STAGE,
    "table-transformer": _LAST_STAGE,
    "deformable_detr": _RESNET,
    "deepseek_ocr2": {"text_config": {"mlp_layer_types": ["dense", "sparse"] * 6, "num_experts_per_tok": 2}},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse"] * 6, "num_experts_per_tok": 2},
    "diffusion_gemma_text": _MOE,
    "diffusion_gemma": {"text_config": _MOE},
    "dots1": {"n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "emu3": {"vocabulary_map": {"<image>": 8, "<|visual token 000000|>": 9}},
    "ernie4_5_vl_moe": {"text_config": _ERNIE},
    "ernie4_5_vl_moe_text": _ERNIE,
    "esm": {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1},
    "granite4_vision": {"deepstack_layer_map": [[-1, 0]]},
    "hunyuan_v1_dense": _HEAD_DIM,
    "hunyuan_v1_moe": _HEAD_DIM,
    "hunyuan_vl_text": _HEAD_DIM,
    "hunyuan_vl": {"text_config": _HEAD_DIM},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    "ministral": _HEAD_DIM,
    "nemotron": {"num_key_value_heads": 8},
    "qwen2_5_vl": {"text_config": _SECTIONS},
}
"""What the class itself has to be given."""

_DOTS = (
    "num_attention_heads",
    "num_key_value_heads",
    "swa_num_attention_heads",
    "swa_num_key_value_heads",
    "index_n_heads",
)
STUBBORN: Mapping[str, Mapping[str, Any]] = {
    "aya_vision": {"vision_config.num_attention_heads": 4},
    "blt": {"encoder_hash_byte_group_vocab": 64},
    "cvt": {"depth": [1, 2, 3]},
    "dbrx": {"attn_config.rope_theta": 10000.0, "attn_config.clip_qkv": 8},
    "depth_pro": {"patch_size": 96},
    "dots3_note": {f"text_config.{name}": 4 for name in _DOTS}
    | {
        "text_config.swa_q_lora_rank": 32,
        "text_config.swa_kv_lora_rank": 16,
        "audio_config.downsample_hidden_size": 32,
    },
    "emu3": {"vq_config.base_channels": 32},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gemma4_unified_assistant": {"text_config.num_kv_shared_layers": 0},
    "gpt_oss": {"hidden_size": 96, "intermediate_size": 96},
    "janus": {"vq_config.base_channels": 32},
    "kimi_k25": {"vision_config.hidden_size": 64},
    "molmo2": {"adapter_config.vision_feature_layer": [1, 0]},
    "moonshine_streaming": {"num_key_value_heads": 8},
    "muse_spark": {"audio_config.num_hidden_layers": 4},
    "muse_spark_audio": {"num_hidden_layers": 4},
    "perceiver": {
        "d_latents": 64,
        "num_self_attends_per_block": 2,
        "num_cross_attention_heads": 1,
        "train_size": [16, 16],
        "image_size": 16,
        "num_frames": 2,
        "audio_samples_per_frame": 32,
        "output_shape": [1, 2, 16, 16],
    },
    "phi3": {"hidden_size": 128},
    "pix2struct_text_model": {"initializer_range": 0.02},
    "qwen2_5_omni": {"token2wav_config.bigvgan_config.upsample_initial_channel": 192},
    "qwen3_omni_moe": {
        "talker_config.text_config.shared_expert_intermediate_size": 32,
        "talker_config.spatial_merge_size": 2,
    },
    "qwen3_omni_moe_talker_text": {"shared_expert_intermediate_size": 32},
    "step3p5_vision": {"hidden_size": 64},
    "step3p7": {"vision_config.hidden_size": 64},
    "t5gemma2_decoder": {"dropout_rate": 0.0},
    "t5gemma2_encoder": {"text_config.dropout_rate": 0.0},
    "t5gemma2_text": {"dropout_rate": 0.0},
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["mamba", "hybrid"] * 2},
}
"""Settings that the rules get wrong, by type; ``part.name`` for one of a configuration inside."""
