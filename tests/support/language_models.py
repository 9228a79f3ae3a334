"""Random causal language models of many architectures, with a tokenizer of their own and a chat template."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SHARED: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 64,
    "max_position_embeddings": 256,
}
MORE: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"head_dim": 16},
    "qwen3": {"head_dim": 16},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
    "gemma3_text": {"head_dim": 16, "sliding_window": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "mamba": {"state_size": 4},
}
"""Architecture -> its own settings."""
WORDS = ("what is", "the sum of", "one two three four five six seven eight nine ten", "say it", "user assistant system")


def save_language_model(kind: str, folder: Path, text: Iterable[str] = WORDS, template: str | None = TEMPLATE) -> Path:
    """Write one."""
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(text, 320, special_tokens=["<pad>", "<|start|>", "<|end|>"], show_progress=False)
    marks = {"pad_token": "<pad>", "bos_token": "<|start|>", "eos_token": "<|end|>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, chat_template=template, **marks)
    tokenizer.save_pretrained(folder)
    sizes = {} if kind == "gpt2" else SHARED
    config = CONFIG_MAPPING[kind](
        **sizes | MORE[kind], vocab_size=320, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
