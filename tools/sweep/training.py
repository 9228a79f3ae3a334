"""A Trainer with `attach` on a tiny classifier: two steps of no size leave the pretrained weights with their noise."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainingArguments

from noisytune.integrations.transformers import attach
from noisytune.torch import perturb_
from sweep.configs import fit_for_training
from sweep.inputs import BATCH, LENGTH


def train_two_steps(model_class: Any, clean: Path, noise: Mapping[str, Any]) -> tuple[str, str]:
    """The result of two steps at a learning rate of 0, and what is wrong with it."""
    try:
        trained = _trained(model_class, clean, noise)
    except Exception:  # whatever a model's code raises
        try:
            _trained(model_class, clean, {})
        except Exception as error:  # without noise, too: no fault of ours
            return "cannot be built", f"cannot be trained: {type(error).__name__}: {error}"
        raise
    wanted = _loaded(model_class, clean)
    perturb_(wanted, **noise)
    parameters = dict(wanted.named_parameters())
    differ = [name for name, tensor in parameters.items() if not torch.equal(tensor, trained[name])]
    if not all(bool(trained[name].isfinite().all()) for name in differ):
        return "cannot be built", "cannot be trained: its gradients are not finite"
    return ("equal", "") if not differ else ("differs silently", f"{len(differ)} tensors: {', '.join(differ[:3])}")


def _trained(model_class: Any, clean: Path, noise: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The weights after two steps; nothing is attached where no noise is asked for."""
    model = _loaded(model_class, clean)
    fit_for_training(model.config)
    words = torch.arange(3, 3 + LENGTH)
    rows = [
        {"input_ids": words + row, "attention_mask": torch.ones_like(words), "labels": row % 2} for row in range(BATCH)
    ]
    if isinstance(
        end := getattr(model.config.get_text_config(), "eos_token_id", None), int
    ):  # some look for the one end of each text
        for row in rows:
            ids = row["input_ids"]
            row["input_ids"] = torch.cat([torch.where(ids == end, ids + LENGTH + BATCH, ids)[:-1], torch.tensor([end])])
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
        trainer = Trainer(model, settings, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        (attach(trainer, **noise) if noise else trainer).train()
    trained: dict[str, torch.Tensor] = model.state_dict()
    return trained


def _loaded(model_class: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    return model_class.from_pretrained(folder)
