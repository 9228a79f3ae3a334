"""A Trainer with `attach` on a tiny classifier: two steps of no size leave the pretrained weights with their noise."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from noisytune.integrations.transformers import attach
from noisytune.torch import perturb_
from sweep.inputs import BATCH, LENGTH


def train_two_steps(model_class: Any, clean: Path, noise: Mapping[str, Any]) -> tuple[str, str]:
    """The result of two steps at a learning rate of 0, and what is wrong with it."""
    wanted = _loaded(model_class, clean)
    perturb_(wanted, **noise)
    model = _loaded(model_class, clean)
    words = torch.arange(3, 3 + LENGTH)
    if model.config.get_text_config().pad_token_id is None:
        model.config.get_text_config().pad_token_id = model.config.pad_token_id = 0
    if model.config.is_encoder_decoder and getattr(model.config, "decoder_start_token_id", None) is None:
        model.config.decoder_start_token_id = 0
    rows = [
        {"input_ids": words + row, "attention_mask": torch.ones_like(words), "labels": row % 2} for row in range(BATCH)
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = TrainingArguments(
            folder,
            max_steps=2,
            learning_rate=0.0,
            weight_decay=0.0,
            per_device_train_batch_size=BATCH,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            logging_strategy="no",
        )
        attach(Trainer(model, settings, train_dataset=rows), **noise).train()
    trained = model.state_dict()
    parameters = dict(wanted.named_parameters())
    differ = [name for name, tensor in parameters.items() if not torch.equal(tensor, trained[name])]
    return ("equal", "") if not differ else ("differs silently", f"{len(differ)} tensors: {', '.join(differ[:3])}")


def _loaded(model_class: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    return model_class.from_pretrained(folder)
