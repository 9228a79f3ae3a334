"""Random models of five architectures, each with a tokenizer of its own kind, small enough for a test."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors, trainers
from tokenizers.processors import RobertaProcessing
from transformers import (
    AutoModel,
    BertConfig,
    ElectraConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    XLMRobertaConfig,
    XLNetConfig,
)

from noisytune._pretrained import default_model

ARCHITECTURES = ("bert", "electra", "roberta", "xlm-r", "xlnet")
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
}


def save_model(kind: str, folder: Path, text: Iterable[str]) -> Path:
    """Write one, its tokenizer trained on the text (BERT and ELECTRA: MiniLM's own)."""
    folder.mkdir(parents=True)
    if kind in ("bert", "electra"):
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            shutil.copy(default_model() / file, folder)
        config = BertConfig(**SIZES) if kind == "bert" else ElectraConfig(**SIZES, embedding_size=16)
    elif kind == "roberta":
        bpe = ByteLevelBPETokenizer()
        bpe.train_from_iterator(text, 400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        bpe._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
        size = _save(bpe._tokenizer, folder, cls_token="<s>", sep_token="</s>", model_input_names=TWO)
        config = RobertaConfig(**SIZES, vocab_size=size, type_vocab_size=1, pad_token_id=1)
    else:
        tokens = Tokenizer(models.Unigram())
        tokens.pre_tokenizer = pre_tokenizers.Metaspace()
        special = ["<s>", "<pad>", "</s>", "<unk>", "<cls>", "<sep>"]
        trainer = trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
        tokens.train_from_iterator(text, trainer)
        single, pair, marks = TEMPLATES[kind]
        tokens.post_processor = processors.TemplateProcessing(
            single, pair, [(mark, special.index(mark)) for mark in marks]
        )
        if kind == "xlnet":
            size = _save(tokens, folder, cls_token="<cls>", sep_token="<sep>", padding_side="left")
            config = XLNetConfig(vocab_size=size, d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=1)
        else:
            size = _save(tokens, folder, cls_token="<s>", sep_token="</s>")
            config = XLMRobertaConfig(**SIZES, vocab_size=size, type_vocab_size=1, pad_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return folder


TWO = ["input_ids", "attention_mask"]
TEMPLATES = {
    "xlnet": ("$A:0 <sep>:0 <cls>:2", "$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2", ("<sep>", "<cls>")),
    # As the tokenizer of a model without token types: it gives them all the same.
    "xlm-r": ("<s> $A </s>", "<s> $A </s> </s> $B:1 </s>:1", ("<s>", "</s>")),
}


def _save(tokens: Any, folder: Path, **settings: Any) -> int:
    shared = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, **shared | settings).save_pretrained(folder)
    return int(tokens.get_vocab_size())
