"""Forty model types that stand for all: what went wrong with each kind of model once, and the families most in use."""

from __future__ import annotations

SAMPLE: dict[str, str] = {
    "bert": "in most use",
    "roberta": "in most use; rows of padding",
    "deberta-v2": "in most use; relative positions",
    "t5": "in most use; three names for one table",
    "bart": "in most use; encoder and decoder",
    "gpt2": "in most use; projections that lie the other way",
    "llama": "in most use; a head that calls the base model by another name",
    "flaubert": "one activation object for all models of the process",
    "xlm": "one activation object for all models of the process; fixed sinusoids",
    "openai-gpt": "one activation object for all models of the process",
    "gemma3": "parts renamed for the files, and a head",
    "llava": "parts renamed for the files, and a head",
    "qwen2_5_vl": "parts renamed for the files, and a head",
    "paligemma": "parts renamed for the files, and a head",
    "mistral3": "parts renamed for the files, and a head",
    "nemotron_h": "parts renamed for the files, and a head",
    "beit": "backbones beside the base model",
    "swin": "backbones beside the base model",
    "dinov3_vit": "a base model that was taken for a head",
    "videomae": "a base model that was taken for a head",
    "gpt_neox": "a head with two names",
    "mixtral": "experts joined on loading",
    "qwen3_moe": "experts joined on loading",
    "deepseek_v3": "experts joined on loading; a buffer of scores",
    "gpt_oss": "experts joined in the files",
    "llama4_text": "experts joined in the files",
    "glm4_moe": "experts joined on loading; a buffer of scores",
    "granitemoe": "experts joined in the files",
    "nomic_bert": "query, key and value joined",
    "phi3": "query, key and value joined in the files",
    "mamba": "no attention; decay tables",
    "resnet": "running means",
    "wav2vec2": "weight norm",
    "vits": "weight norm",
    "encodec": "weight norm; codebooks",
    "sam": "a prompt encoder that is no adapter",
    "whisper": "fixed sinusoids",
    "distilbert": "sinusoids that may be fixed",
    "roformer": "fixed sinusoids",
    "qwen3": "among the newest; a head that calls the base model by another name",
}
"""Type -> what it stands for."""

QUICK = ("gpt_neox", "mixtral", "wav2vec2", "roformer", "qwen3")
"""Those of the sample that each run of the tests looks at."""
