"""The receipt on a module: which noise its weights carry, for wrapped, partly perturbed and reloaded modules too."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from noisytune._perturb.receipt import KEY, receipt_of
from noisytune.config import NoisyTuneConfig

_RECEIPT = "_noisytune"


def config_of(module: nn.Module) -> Any:
    """The Hugging Face config of a pretrained model; None for other modules."""
    return module.__dict__.get("config") if hasattr(type(module), "base_model_prefix") else None


def receipt(module: nn.Module) -> dict[str, Any] | None:
    """The settings of the noise that a module carries, or None.

    Looks at every submodule and at Hugging Face configs, so wrapped, partly perturbed and reloaded modules are
    recognised.

    Args:
        module: any module, wrapped or not.

    Example:
        >>> from noisytune.torch import perturb_
        >>> layer = nn.Linear(8, 4)
        >>> receipt(layer) is None
        True
        >>> _ = perturb_(layer, noise_lambda=0.15, seed=7)
        >>> receipt(nn.Sequential(layer))["seed"]
        7
    """
    for part in module.modules():
        on_config = getattr(config_of(part), KEY, None)
        mark = part.__dict__.get(_RECEIPT) if _owns_parameters(part) else None
        if found := mark or (None if isinstance(on_config, _Receipt) else on_config):
            return dict(found)
    return None


def unmarked(module: nn.Module) -> set[str]:
    """Names of the parameters beside marked ones that have no mark themselves: layers that came in after the noise.

    Empty where nothing is marked: weights that were loaded with their noise are known by their configuration.
    """
    owners = [(f"{path}." if path else "", part) for path, part in module.named_modules() if _owns_parameters(part)]
    marked = [part for _, part in owners if _RECEIPT in part.__dict__]
    without = owners if marked else []
    return {path + name for path, part in without if _RECEIPT not in part.__dict__ for name in part._parameters}


def _owns_parameters(part: nn.Module) -> bool:
    """Whether a mark on it says something. Several models may share a part that owns none, such as an activation."""
    return any(parameter is not None for parameter in part._parameters.values())


def mark(module: nn.Module, config: NoisyTuneConfig) -> None:
    """Put the receipt on a module without adding noise: for weights that get theirs elsewhere.

    Such are a copy that ``load_state_dict`` fills, and the placeholders of a rank that another one broadcasts to.

    Args:
        module: `receipt` finds the settings on it, and on each of its parts that has parameters, from now on.
        config: the settings of the noise that the weights carry, or soon will.

    Example:
        >>> copy = nn.Linear(8, 4)
        >>> mark(copy, NoisyTuneConfig(seed=3))
        >>> receipt(copy)["seed"]
        3
    """
    if config.noise_lambda > 0:
        put_receipt(module, config, None)


class _Receipt(dict[str, Any]):
    """A receipt written in this process. On a config it proves nothing, since other models may share the config: the
    marked modules do. Read back from a checkpoint's config.json it is a plain dict, and proves that the weights carry
    noise; so it is in a pickle, which then loads without noisytune. A copy of a config still proves nothing."""

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Receipt:
        return _Receipt(deepcopy(dict(self), memo))


def put_receipt(module: nn.Module, config: NoisyTuneConfig, earlier: dict[str, Any] | None) -> None:
    """Before the first write: an interrupted perturbation must not pass for a clean model."""
    content = _Receipt(receipt_of(config, earlier))
    for part in module.modules():
        if _owns_parameters(part):
            part.__dict__[_RECEIPT] = content
        if (part_config := config_of(part)) is not None:
            setattr(part_config, KEY, content)
