"""LoRA on a model that is loaded: PEFT's layers in the place of linear ones, everything else but a new head frozen."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from transformers import set_seed

from noisytune.errors import ConfigError, require
from noisytune.lab.trials.lora import Lora
from noisytune.lab.trials.quantised import quantise_
from noisytune.lab.trials.settings import TrainingSettings


def adapt_(model: Any, settings: TrainingSettings, seed: int, *, with_head: bool) -> dict[str, int]:
    """Put on a model what its settings ask for: LoRA's matrices, over four bits where ``quantize`` is set.

    Args:
        model: as for `put_on_`.
        settings: with ``lora``.
        seed: the trial's.
        with_head: as for `put_on_`.

    Returns:
        As `put_on_`, and how many parameters are held in four bits, if any are.

    Raises:
        ConfigError: as `put_on_`, or no weight would be held in four bits.
    """
    held = {"quantised": quantise_(model, settings)} if settings.quantize else {}
    return put_on_(model, Lora.read(settings.lora), seed, with_head=with_head) | held


def put_on_(model: Any, lora: Lora, seed: int, *, with_head: bool) -> dict[str, int]:
    """Put LoRA's matrices on a model, in place; the weights below keep their values (but PiSSA's rest) and are frozen.

    The seed sets the matrices: two arms of one seed start from the same ones.

    Args:
        model: of transformers; noise is in it already.
        lora: the settings.
        seed: the trial's.
        with_head: whether the head is new, so that it is trained as a whole.

    Returns:
        How many parameters are trained, and how many there are.

    Raises:
        MissingExtraError: PEFT is not installed.
        ConfigError: no layer has such a name, or the model's layers cannot take them; says which.
    """
    require("peft", extra="peft", needed_for="lora")
    from peft import LoraConfig, inject_adapter_in_model

    body = f"{model.base_model_prefix}."
    head = [name for name, _ in model.named_parameters() if not name.startswith(body)] if with_head else []
    without = [name for name, part in model.named_modules() if with_head and name and not f"{name}.".startswith(body)]
    without += _unfit(model)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # PEFT divides by it; fractions are as good
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets) or "all-linear",
        exclude_modules=without or None,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        init_lora_weights="pissa" if lora.pissa else True,
        # Of layers whose weights lie the other way round, as GPT-2's.
        fan_in_fan_out=any(type(part).__name__ == "Conv1D" for part in model.modules()),
    )
    set_seed(seed)
    try:
        with warnings.catch_warnings():
            # Of mixtures of experts PEFT has patterns of its own, for layers that nobody asked for.
            warnings.filterwarnings("ignore", r"The following \w+_pattern keys", RuntimeWarning)
            inject_adapter_in_model(config, model)
    except (ValueError, NotImplementedError) as error:
        raise ConfigError(f"lora {lora.text}: {str(error).splitlines()[0]}") from error
    for name in head:
        model.get_parameter(name).requires_grad_(True)
    counts = [(_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    return {"trainable": sum(n for n, trained in counts if trained), "total": sum(n for n, _ in counts)}


def _size(parameter: Any) -> int:
    """Weights of a parameter: codes of four bits lie two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if state is None else state.shape.numel())


def _unfit(model: Any) -> list[str]:
    """Linear layers whose weights a model reads past their call, so that nothing may take their place: Mamba's."""
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear) and "mamba" in model.config.model_type and name.endswith("out_proj")
    ]
