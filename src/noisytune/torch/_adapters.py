"""Adapters that PEFT has put on a model: which tensors are their own, and which of them know the clean weights.

Found by the classes of PEFT that hold them, so that nothing here lists names of tensors, and PEFT is never imported.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from noisytune.errors import UnsupportedTensorError

_DOORS = ("base_model", "model", "base_layer", "original_module", "modules_to_save")
"""Attributes by which PEFT's modules hold the model below. Whatever else they hold is the adapter's own."""

_RANDOM_STARTS: tuple[Any, ...] = (True, False, None, "gaussian", "orthogonal", "eva", "mica")
"""Values of LoRA's ``init_lora_weights`` that leave the base weights as they are."""

# fmt: off
_INDEPENDENT = frozenset((
    "LORA", "ADALORA", "XLORA", "LOHA", "LOKR", "IA3", "OFT", "BOFT", "HRA", "VERA", "PVERA", "RANDLORA",
    "VBLORA", "UNILORA", "FOURIERFT", "WAVEFT", "C3A", "ROAD", "MISS", "SHIRA", "GRALORA", "GLORA", "HIRA",
    "LILY", "PEANUT", "POLY", "BEFT", "PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING",
    "ADAPTION_PROMPT",
))
# fmt: on
"""Types of adapters that start from random numbers or constants. The others copy, rank, or decompose the clean weights
(DeLoRA, OSF, PSOFT, LN tuning, trainable tokens ...), or are too new to be known here."""


def adapter_tensors(module: nn.Module) -> set[int]:
    """The ids of the parameters that are an adapter's own: those that no door of PEFT's leads to."""
    own: set[int] = set()
    below: set[int] = set()

    def walk(part: nn.Module, is_own: bool) -> None:
        is_own = is_own or _is_of_peft(part)
        (own if is_own else below).update(id(p) for p in part._parameters.values() if p is not None)
        for name, child in part._modules.items():
            if child is not None:
                walk(child, is_own and name not in _DOORS)

    walk(module, False)
    return own - below


def refuse_adapters_that_know_the_weights(module: nn.Module) -> None:
    """Refuse adapters that were computed from the clean weights, or changed them, when they were put on.

    Raises:
        UnsupportedTensorError: the base would get noise that such an adapter does not know of.
    """
    for name, part in module.named_modules():
        where = f"{name or 'the model'} ({type(part).__name__})"
        if len(part._modules.get("lora_magnitude_vector") or ()):
            raise UnsupportedTensorError(
                f"{where} has DoRA magnitudes of the clean weights: perturb before get_peft_model"
            )
        if _is_of_peft(part) and type(part).__name__.startswith("TrainableTokens"):
            raise UnsupportedTensorError(f"{where} has copies of the clean embeddings: perturb before get_peft_model")
        if getattr(part, "merged", False) is True:
            raise UnsupportedTensorError(f"{where} has an adapter merged into its weights: unmerge it first")
        adapters = getattr(part, "peft_config", None)
        for adapter in adapters.values() if isinstance(adapters, dict) else ():
            if reason := _knowledge(adapter):
                raise UnsupportedTensorError(f"{where} has an adapter {reason}: perturb before get_peft_model")


def _knowledge(adapter: Any) -> str | None:
    """What an adapter with these settings of PEFT's took from the clean weights; None for nothing."""
    kind = str(getattr(adapter.peft_type, "value", adapter.peft_type))
    start = getattr(adapter, "init_lora_weights", None)
    if start not in _RANDOM_STARTS:
        return f"with init_lora_weights={start!r}, which changes the base weights"
    prompt = getattr(adapter, "prompt_tuning_init", None)
    if getattr(prompt, "value", prompt) in ("TEXT", "SAMPLE_VOCAB"):
        return "whose prompt is made of clean embeddings"
    if getattr(adapter, "mask_type", "random") != "random":
        return f"with mask_type={adapter.mask_type!r}, which may look at the clean weights"
    return None if kind in _INDEPENDENT else f"of type {kind}, which is computed from the clean weights, or may be"


def _is_of_peft(part: nn.Module) -> bool:
    """Also once FSDP has derived a class of its own from PEFT's."""
    return any(each.__module__.partition(".")[0] == "peft" for each in type(part).__mro__)
