"""Training settings as the Trainer takes them, and those that a machine, a model or a method does not allow."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from noisytune.checkpoint._four_bits import refuse_bitsandbytes
from noisytune.errors import ConfigError
from noisytune.lab.trials.lora import refuse_methods_of_lora
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.soup import trainings_of
from noisytune.methods import Method
from noisytune.methods._divergence import refuse_checkpointing

_PACKAGES = {"flash_attention_2": "flash_attn"}
_SCHEDULES = {"constant": "constant_with_warmup"}


def arguments_of(settings: TrainingSettings, seed: int, name: str) -> TrainingArguments:
    """The Trainer's arguments.

    Args:
        settings: how is trained, the learning rate put in.
        seed: the trial's.
        name: of the run, for people.
    """
    arguments = TrainingArguments(
        # Nothing is saved; the Trainer wants a folder that exists.
        output_dir=tempfile.gettempdir(),
        save_strategy="no",
        seed=seed,
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,  # type: ignore[arg-type]  # for_model has put it in
        lr_scheduler_type=_SCHEDULES.get(settings.schedule, settings.schedule),
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=settings.precision == "bf16",
        fp16=settings.precision == "fp16",
        # Half precision, and several processes, are for the CPU only where that is said.
        use_cpu=not torch.accelerator.is_available(),
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_steps=settings.logging,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to="none",
        run_name=name,
    )
    if settings.precision == "float32":
        arguments.mixed_precision = "no"  # whatever the environment says
    if arguments.n_gpu > 1:  # the Trainer would spread a batch of batch_size over each
        arguments._n_gpu = 1
    return arguments


def optimizer_of(settings: TrainingSettings) -> tuple[type[torch.optim.Optimizer], dict[str, Any]] | None:
    """Class and settings of an optimizer that `arguments_of` does not name."""
    if settings.optimizer == "AdamW":
        return None
    return getattr(torch.optim, settings.optimizer), {"lr": settings.learning_rate}


def refuse_machine(settings: TrainingSettings) -> None:
    """Raise what this machine cannot do.

    Raises:
        ConfigError: it lacks a GPU, a library or a compiler; says what to do.
    """
    gpu = torch.cuda.is_available()
    if settings.precision == "fp16" and not gpu:
        raise ConfigError("precision fp16 needs a GPU, and this machine shows none: take bf16 or float32")
    if settings.precision == "bf16" and gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError("precision bf16 needs a newer GPU than this machine's: take fp16 or float32")
    if settings.attention in ("flash_attention_2", "flex_attention") and not gpu:
        raise ConfigError(
            f"attention {settings.attention} needs a GPU, and this machine shows none: take sdpa or eager"
        )
    package = _PACKAGES.get(settings.attention or "")
    if package and find_spec(package) is None:
        raise ConfigError(f"attention {settings.attention} needs the package {package}, which is not installed")
    if settings.attention == "flash_attention_2" and settings.precision == "float32":
        raise ConfigError("attention flash_attention_2 needs half precision: add precision bf16")
    if settings.quantize:
        refuse_bitsandbytes()
    if settings.compile and not _compiler(gpu):
        raise ConfigError(f"compile needs {'Triton' if gpu else 'a C++ compiler'}, and this machine has none")


def _compiler(gpu: bool) -> bool:
    if gpu:
        return find_spec("triton") is not None
    return shutil.which(os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")) is not None


def refuse_methods(settings: TrainingSettings, methods: Iterable[Method]) -> None:
    """Raise what the methods of an arm do not go with.

    Raises:
        ConfigError: says which.
    """
    methods = list(methods)
    for method in methods:
        if method.own_optimizer and settings.optimizer != "AdamW":
            raise ConfigError(
                f"{method.name} is an optimizer of its own: leave optimizer={settings.optimizer} out, or the method"
            )
    if settings.lora:
        refuse_methods_of_lora(method.name for method in methods)
        if trainings_of(methods) > 1:
            raise ConfigError(
                "soup with lora: the mean of LoRA's matrices is not that of the weights; leave one of them out"
            )
    if settings.gradient_checkpointing:
        refuse_checkpointing(method.name for method in methods)


def checkpoint_(model: Any) -> None:
    """Let a model compute its activations again in the backward pass, in place.

    Raises:
        ConfigError: the model cannot.
    """
    if not model.supports_gradient_checkpointing:
        raise ConfigError(f"gradient_checkpointing: {type(model).__name__} does not support it: leave it out")
    # transformers' name of today, and until 5.22.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
