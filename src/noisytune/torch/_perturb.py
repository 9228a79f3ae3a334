"""The module route: find, check, measure, and write the parameters of an ``nn.Module``."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from torch import nn

from noisytune._noise import moments as moments_module
from noisytune._perturb import steps as perturbation
from noisytune._perturb.steps import thread_pool
from noisytune.config import NoisyTuneConfig
from noisytune.errors import (
    AlreadyPerturbedError,
    UnsupportedTensorError,
)
from noisytune.manifest import Manifest
from noisytune.torch import _deepspeed, _dtensor
from noisytune.torch._dtensor import Facts
from noisytune.torch._module import config_of, find_targets, refuse_unsupported
from noisytune.torch._tensors import TensorTarget

_RECEIPT = "_noisytune"

_NOTHING = Facts(moments_module.EMPTY)


@torch.no_grad()
def perturb_(
    module: nn.Module, config: NoisyTuneConfig | None = None, *, again: bool = False, **settings: Any
) -> Manifest:
    r"""Add noise to a module's parameters, in place: W + U(-lambda/2, lambda/2) * std(W), equation (1) of the paper.

    The noise is a function of the seed, each tensor's canonical name and the element's index: the same on every rank,
    device and number of threads. No global random state is read or advanced. Every tensor is checked before the first
    is written, so an error leaves the module as it was. ``requires_grad`` is not looked at: freezing is a decision
    about training.

    Left alone, with the reason in the manifest: constant and one-element tensors, rows at an embedding's
    ``padding_idx``, integer parameters, adapters (LoRA ...), tensors that ``include``/``exclude`` leave out and, with
    ``scope="pretrained"``, parameters of a Hugging Face model that its checkpoint did not hold, such as a new
    classification head.

    Args:
        module: any ``nn.Module``; float64, float32, float16, bfloat16 or float8 parameters on any device. If they are
            sharded (DTensor, DeepSpeed ZeRO-3), call it on every rank that holds a part, with the root of the sharded
            model.
        config: the settings; or give them by name instead.
        again: perturb even though the module carries noise already. The receipt then records both.
        **settings: fields of `NoisyTuneConfig`: noise_lambda, seed, distribution, scale, scope, include, exclude.

    Returns:
        what was done to which tensor. A receipt of it stays on the module, and in ``module.config.noisytune`` where the
        module has a Hugging Face config, so that a saved checkpoint is recognised.

    Raises:
        ConfigError: a setting is out of range, or a glob matches no tensor.
        AlreadyPerturbedError: the module, a part of it, or the checkpoint that it was loaded from, carries noise.
        UnsupportedTensorError: a parameter is quantised, on the meta device, parametrised, flattened by FSDP1,
            held by a DeepSpeed engine, or overlaps another.
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype. On every rank.
        NoisyTuneError: another rank failed.

    Example:
        >>> layer = torch.nn.Linear(8, 4)
        >>> manifest = perturb_(layer, noise_lambda=0.15, seed=1)
        >>> [entry.name for entry in manifest.perturbed]
        ['weight', 'bias']

    Source: Wu et al. 2022, equation (1) and section 3.3.

    Deviations from the paper's snippet: it perturbs a new head (here ``scope="all"``), padding rows and both names of a
    tied tensor, and gives NaN for one-element parameters.
    """
    _dtensor.reshard(module)
    ranks = _deepspeed.ranks_of(module) or _dtensor.ranks_of(module)
    with thread_pool(torch.get_num_threads()) as pool:
        with _dtensor.failure_told(ranks):
            plan = _prepare(module, config, settings, again, pool)
        config, chosen = plan.config, plan.chosen
        if ranks is not None:
            pieces = [(target.facts or _NOTHING, target.piece.first) for target in chosen]
            for target, facts in zip(chosen, ranks.share(plan.digest, pieces), strict=True):
                target.facts, target.moments = facts, facts.moments
                _refuse_other_copies(target, facts)
        perturbation.set_scales(plan.targets, config)
        if config.noise_lambda > 0:
            _put_receipt(module, config, plan.earlier)
            with _dtensor.failure_told(ranks):
                perturbation.write(chosen, config, pool)
            if ranks is not None:
                pieces = [(Facts(target.realised or moments_module.EMPTY), target.piece.first) for target in chosen]
                for target, facts in zip(chosen, ranks.share(plan.digest, pieces), strict=True):
                    target.realised = facts.moments if target.realised else None
    return perturbation.account(plan.targets, config, plan.notices)


def receipt(module: nn.Module) -> dict[str, Any] | None:
    """The settings of the noise that a module carries, or None.

    Looks at every submodule and at Hugging Face configs, so wrapped, partly perturbed and reloaded modules are
    recognised.
    """
    for part in module.modules():
        on_config = getattr(config_of(part), "noisytune", None)
        found = part.__dict__.get(_RECEIPT) or (None if isinstance(on_config, _Receipt) else on_config)
        if found:
            return dict(found)
    return None


def mark(module: nn.Module, config: NoisyTuneConfig) -> None:
    """Put the receipt on a module without adding noise: for weights that get theirs elsewhere.

    Such are a copy that ``load_state_dict`` fills, and the placeholders of a rank that another one broadcasts to.

    Args:
        module: `receipt` finds the settings on it, and on each of its parts, from now on.
        config: the settings of the noise that the weights carry, or soon will.

    Example:
        >>> copy = torch.nn.Linear(8, 4)
        >>> mark(copy, NoisyTuneConfig(seed=3))
        >>> receipt(copy)["seed"]
        3
    """
    if config.noise_lambda > 0:
        _put_receipt(module, config, None)


class _Receipt(dict[str, Any]):
    """A receipt written in this process. On a config it proves nothing, since other models may share the config: the
    marked modules do. Read back from a checkpoint's config.json it is a plain dict, and proves that the weights carry
    noise."""


def _put_receipt(module: nn.Module, config: NoisyTuneConfig, earlier: dict[str, Any] | None) -> None:
    """Before the first write: an interrupted perturbation must not pass for a clean model."""
    content = _Receipt(config.to_dict() | ({"earlier": earlier} if earlier else {}))
    for part in module.modules():
        part.__dict__[_RECEIPT] = content
        if (part_config := config_of(part)) is not None:
            part_config.noisytune = content


@dataclass(frozen=True)
class _Plan:
    """What one process decided before any weight is written, without knowing the other ranks' values."""

    config: NoisyTuneConfig
    earlier: dict[str, Any] | None
    targets: list[TensorTarget]
    notices: list[str]

    @property
    def chosen(self) -> list[TensorTarget]:
        """The tensors that were measured."""
        return [target for target in self.targets if target.facts is not None]

    @property
    def digest(self) -> int:
        """Equal on two ranks, but for chance, only if they do the same to the same tensors. Below 2**48."""
        tensors = [(t.name, tuple(t.tensor.shape), t.dtype, t.padding_row, t.left_alone) for t in self.targets]
        content = repr((sorted(self.config.to_dict().items()), tensors))
        return int.from_bytes(blake2b(content.encode(), digest_size=6).digest(), "little")


def _prepare(
    module: nn.Module, config: NoisyTuneConfig | None, settings: dict[str, Any], again: bool, pool: Executor | None
) -> _Plan:
    config = perturbation.settled(config, settings)
    earlier = receipt(module)
    if earlier and not again:
        raise AlreadyPerturbedError(
            f"the weights carry noise already (lambda {earlier['noise_lambda']:g}, seed {earlier['seed']}): "
            "load them afresh, or pass again=True to add noise to noise or if other weights were loaded since"
        )
    targets, notices = find_targets(module, config)
    chosen = [target for target in targets if target.left_alone is None]
    refuse_unsupported(module, chosen)
    perturbation.measure(chosen, pool)
    return _Plan(config, earlier, targets, notices)


def _refuse_other_copies(target: TensorTarget, facts: Facts) -> None:
    """Every rank comes to the same judgement: it rests on the facts of the full tensor."""
    if facts.moments.is_finite and not facts.copies_agree:
        raise UnsupportedTensorError(
            f"{target.where} has other values on ranks that should hold copies: load the same weights on all of them"
        )
