"""Weights that LoRA does not train, held in four bits: QLoRA (Dettmers et al. 2023). bitsandbytes does the work."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from noisytune.errors import ConfigError
from noisytune.lab.trials.settings import TrainingSettings


def quantise_(model: Any, settings: TrainingSettings) -> int:
    """Hold a model's linear layers in four bits, in place; noise is in them already. Embeddings, norms, the output
    layer, tied weights and a new head stay as they are.

    Args:
        model: of transformers.
        settings: ``quantize`` are the codes, ``precision`` says in which type is computed.

    Returns:
        How many weights are held so.

    Raises:
        ConfigError: no weight would be.
    """
    import bitsandbytes.nn
    from transformers.quantizers.base import get_keys_to_not_convert

    layers: Any = bitsandbytes.nn
    computed = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(settings.precision, torch.float32)
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    kept, body, weights = set(get_keys_to_not_convert(model)), f"{model.base_model_prefix}.", 0
    for name, part in list(model.named_modules()):
        if type(part) is not nn.Linear or name in kept or not name.startswith(body):
            continue
        codes = layers.Linear4bit(
            part.in_features,
            part.out_features,
            bias=part.bias is not None,
            compute_dtype=computed,
            quant_type=settings.quantize,
            device="meta",
        )
        codes.weight = layers.Params4bit(
            part.weight.detach(), requires_grad=False, quant_type=settings.quantize, module=codes
        ).to(device)
        codes.bias = part.bias
        # On some CPUs it would lay the codes out anew when a model answers, and compute in bfloat16.
        codes.support_avx512bf16_for_cpu = False
        model.set_submodule(name, codes)
        weights += part.weight.numel()
    if not weights:
        raise ConfigError(
            f"quantize {settings.quantize}: the model {type(model).__name__} has no torch.nn.Linear below its head "
            "that could be held in four bits (GPT-2 has Conv1D): leave quantize out"
        )
    model.is_loaded_in_4bit = True  # how PEFT knows
    return weights
