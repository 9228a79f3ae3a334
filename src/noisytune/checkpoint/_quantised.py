"""Signs that weights are quantised: noise on the codes, or on their scales, would destroy the model.

Quantisation is declared in config.json, at any depth, or in a file beside it; some tools declare it nowhere. The
tensors tell then: codes come with scales.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noisytune._perturb.quantised import Described, quantised_tensor
from noisytune._perturb.refusals import quantised
from noisytune.checkpoint._safetensors import TensorInfo, dtype_name
from noisytune.errors import UnsupportedTensorError

_SETTINGS = ("quantization_config", "compression_config", "quant_config", "quantize_config", "quantization")
_SIDE_FILES = (
    "hf_quant_config.json",  # ModelOpt
    "quantize_config.json",  # GPTQ
    "quant_config.json",  # AWQ
    "quantization_config.json",
    "quant_model_description.json",  # msModelSlim
)


def refuse_quantised(folder: Path, config: Mapping[str, Any], tensors: Sequence[TensorInfo]) -> None:
    """Refuse a checkpoint that anything says is quantised.

    Raises:
        UnsupportedTensorError: names the setting, the file or the tensor that says so.
    """
    found = quantised_tensor(Described(one.name, dtype_name(one.dtype), one.shape) for one in tensors)
    shown = f"tensor {found[0].name!r} ({found[0].dtype}) has {found[1]!r} beside it" if found else ""
    for path, method in _declared(folder, config):
        raise UnsupportedTensorError(f"{path}: the model {quantised('; '.join(filter(None, (method, shown))))}")
    if found:
        raise UnsupportedTensorError(f"{folder}: the model {quantised(shown)}")


def _declared(folder: Path, config: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """File and method."""
    for settings in _nested(config):
        yield folder / "config.json", _method(settings)
    for name in _SIDE_FILES:
        if (folder / name).is_file():
            try:
                settings = json.loads((folder / name).read_bytes())
            except (ValueError, RecursionError):
                settings = None
            if not _declares_nothing(settings):
                yield folder / name, _method(settings)


def _nested(config: Any) -> Iterator[Any]:
    """What is under a setting of quantisation, at any depth."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in _SETTINGS and inner and (key != "quantization" or isinstance(inner, dict)):
                    yield inner
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _declares_nothing(settings: Any) -> bool:
    """ModelOpt writes its file with an empty algorithm where only the cache of keys and values is quantised."""
    inner = settings.get("quantization") if isinstance(settings, dict) else None
    return isinstance(inner, dict) and "quant_algo" in inner and not inner["quant_algo"]


def _method(settings: Any) -> str:
    for value in (settings, *(settings.values() if isinstance(settings, dict) else ())):
        if isinstance(value, dict):
            for key in ("quant_method", "quant_algo", "bits", "w_bit"):
                if key in value:
                    return f"{key} {value[key]}" if "bit" in key else str(value[key])[:40]
    return "unknown method"
