"""The classes of a model type, and random weights that tell tensors, rows and experts apart by their size."""

from __future__ import annotations

import importlib
import zlib
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto


def classes(model_type: str, config: PreTrainedConfig) -> list[type[Any]]:
    """The model classes of a type, the base model first, then those with a head by name.

    Those of transformers' automatic classes, and whatever else its module offers for the same configuration.
    """
    mappings = [getattr(modeling_auto, name) for name in dir(modeling_auto) if name.endswith("_MAPPING_NAMES")]
    names: list[str] = []
    for mapping in (modeling_auto.MODEL_MAPPING_NAMES, *mappings):
        found = mapping.get(model_type, ()) if mapping is not modeling_auto.CONFIG_MAPPING_NAMES else ()
        names += [found] if isinstance(found, str) else list(found)
    module = importlib.import_module(type(config).__module__.replace(".configuration_", ".modeling_"))
    fitting: list[type[Any]] = []
    for offered in (dict.fromkeys((*names, *module.__all__)), vars(module)):
        listed = [(name, getattr(module, name)) for name in offered if hasattr(module, name)]
        fitting = fitting or [each for name, each in listed if _can_be_built(each, name, names, type(config))]
    if not fitting:
        raise ValueError(f"{model_type}: no model class for {type(config).__name__} in {module.__name__}")
    base = [each for each in fitting if each.__name__ == _first(modeling_auto.MODEL_MAPPING_NAMES.get(model_type))]
    return [*base, *sorted((each for each in fitting if each not in base), key=lambda each: each.__name__)]


def _first(names: Any) -> str | None:
    return names if isinstance(names, str) or names is None else names[0]


def _can_be_built(found: Any, name: str, registered: list[str], config_class: type) -> bool:
    if not (isinstance(found, type) and issubclass(found, PreTrainedModel)) or name.endswith("PreTrainedModel"):
        return False
    wanted = getattr(found, "config_class", None)
    return wanted is config_class or (name in registered and (wanted is None or issubclass(config_class, wanted)))


def build(model_class: type[Any], config: PreTrainedConfig, *, seed: int = 0) -> Any:
    """A model with weights of its own by seed, in float32 and for evaluation. No global random state is advanced."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class._from_config(config, dtype=torch.float32)
    fill(model, seed)
    return model.eval()


@torch.no_grad()
def fill(model: nn.Module, seed: int = 0) -> None:
    """Give each learnt tensor normal values of a size of its own, which grows along its rows and from expert to expert.

    Tables that the class keeps from training stay, and so do buffers, unless they are constant and saved: those get
    values too, so that noise on them would be seen.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.is_floating_point() and parameter.numel():
            parameter.copy_(_values(name, parameter, seed))
    for part in model.modules():  # as it is in trained models; some classes see to it whenever they are loaded
        if isinstance(part, nn.Embedding) and part.padding_idx is not None:
            part.weight[part.padding_idx] = 0
    saved = model.state_dict(keep_vars=True)
    for name, buffer in model.named_buffers():
        if (
            name in saved
            and buffer.is_floating_point()
            and buffer.numel() > 1
            and bool((buffer == buffer.flatten()[0]).all())
        ):
            buffer.add_(_values(name, buffer, seed).abs())


def _values(name: str, like: torch.Tensor, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    values = torch.randn(like.shape, generator=generator)
    values *= 0.02 * 8 ** float(torch.rand(1, generator=generator))
    for dim, length in enumerate(like.shape):
        size = 10.0 if dim == 0 and like.dim() > 2 else 3.0
        values *= (size ** (torch.arange(length) / max(length - 1, 1))).view(-1, *(1,) * (like.dim() - dim - 1))
    return values
