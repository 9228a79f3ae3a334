"""Tiny configurations of the families in the table, and the classes that put a head on them."""

import torch
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

_TYPES = """
albert bart beit bert big_bird blenderbot bloom camembert clip codegen cohere convbert data2vec-text deberta
deberta-v2 deit dinov2 distilbert electra ernie esm eurobert falcon gemma gemma2 gemma3_text gpt2 gpt_neo
gpt_neox gptj granite led llama longformer m2m_100 marian mbart megatron-bert mistral mixtral modernbert
modernbert-decoder mpnet mt5 nystromformer olmo olmo2 opt pegasus phi phi3 qwen2 qwen2_moe qwen3 rembert
resnet roberta roformer smollm3 stablelm starcoder2 swin t5 umt5 vit xlm-roberta xlm-roberta-xl xlnet xmod
"""
TYPES = tuple(_TYPES.split())
"""Of texts and images, of all sorts of prefixes, ties and padding."""

SIZES = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "num_key_value_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "d_inner", "d_ff", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    "embedding_size": 32,
    "image_size": 32,
    "patch_size": 16,
    "vocab_size": 99,
    "max_position_embeddings": 70,
    "n_positions": 70,
    "attention_window": 4,
    "rotary_dim": 8,
    "num_experts": 2,
    "num_local_experts": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
SPECIAL = {
    "falcon": {"head_dim": None},
    "xlnet": {"max_position_embeddings": None},
    "gpt_neo": {"attention_types": [[["global"], 2]]},
    "resnet": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
    "swin": {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "patch_size": 4}
    | dict.fromkeys(("num_attention_heads", "num_hidden_layers", "num_layers", "hidden_size", "intermediate_size")),
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 48},
    "xlm-roberta-xl": {"num_attention_heads": 2},
    "big_bird": {"attention_type": "original_full"},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
}
HEADS = [
    getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING")
    for task in ("MASKED_LM", "CAUSAL_LM", "SEQ_TO_SEQ_CAUSAL_LM", "SEQUENCE_CLASSIFICATION", "IMAGE_CLASSIFICATION")
]


def config_of(family, **more):
    known = AutoConfig.for_model(family)
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)} | SPECIAL.get(family, {})
    sizes = {key: value for key, value in sizes.items() if value is not None}
    if hasattr(known, "pad_token_id"):
        sizes["pad_token_id"] = 3
    return AutoConfig.for_model(family, **sizes | more)


def head_classes(config):
    found = []
    for mapping in HEADS:
        if type(config) in mapping:
            classes = mapping[type(config)]
            found += classes if isinstance(classes, tuple) else [classes]
    return list(dict.fromkeys(found))


def scatter(model):
    """Constant biases and norms take no noise: give every parameter different values."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape) * 0.1 + 0.01)
    return model
