"""The module route: find the parameters of an ``nn.Module``, measure them, agree with the other ranks, write.

Each step is a file: `_module` knows a module's tensors and their names, `_refusals` what cannot take noise, `_tensors`
how one tensor is read and written, `_ranks` what the processes of a distributed job know together, `_receipt` what
stays on the module. The steps of all frameworks are in `noisytune._perturb.steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Unpack

import torch
from torch import nn

from noisytune._machine import thread_pool
from noisytune._noise import moments as moments_module
from noisytune._noise.facts import Facts, merge
from noisytune._perturb import steps as perturbation
from noisytune._perturb.receipt import carries
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import AlreadyPerturbedError, UnsupportedTensorError
from noisytune.manifest import Manifest
from noisytune.torch._dtensor import reshard
from noisytune.torch._module import find_targets
from noisytune.torch._ranks import Ranks, failure_told, ranks_of
from noisytune.torch._receipt import put_receipt, receipt
from noisytune.torch._refusals import refuse_unsupported
from noisytune.torch._tensors import TensorTarget

_NOTHING = Facts(moments_module.EMPTY)


@torch.no_grad()
def perturb_(
    module: nn.Module, config: NoisyTuneConfig | None = None, *, again: bool = False, **settings: Unpack[NoiseSettings]
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
    reshard(module)
    ranks = ranks_of(module)
    with thread_pool(torch.get_num_threads()) as pool:
        with failure_told(ranks):
            config = perturbation.settled(config, settings)
            earlier = _earlier(module, again)
            targets, notices = find_targets(module, config)
            refuse_unsupported(module, targets)
            perturbation.measure(targets, pool)
        if ranks is not None:
            _share_facts(ranks, targets, config)
        perturbation.set_scales(targets, config)
        if any(target.left_alone is None for target in targets):
            put_receipt(module, config, earlier)
            with failure_told(ranks):
                perturbation.write(targets, config, pool)
            if ranks is not None:
                _share_realised(ranks, targets, config)
    return perturbation.account(targets, config, notices)


def _earlier(module: nn.Module, again: bool) -> dict[str, Any] | None:
    """The receipt of noise that the module carries, where more may be added."""
    earlier = receipt(module)
    if earlier and not again:
        raise AlreadyPerturbedError(
            f"{carries(earlier)}: load them afresh, or pass again=True to add noise to noise or if other weights were "
            "loaded since"
        )
    return earlier


def _share_facts(ranks: Ranks, targets: Sequence[TensorTarget], config: NoisyTuneConfig) -> None:
    """Every rank comes to the same judgement: it rests on the facts of the full tensors."""
    boxes = [target.shares or [_NOTHING] * len(target.tensors) for target in targets]
    rows = [
        (facts, first if facts.moments.n else 0)
        for target, shares in zip(targets, boxes, strict=True)
        for facts, first in zip(shares, target.firsts if target.shares else [0] * len(shares), strict=True)
    ]
    shared = iter(ranks.share(_digest(targets, config), rows))
    for target, shares in zip(targets, boxes, strict=True):
        found = list(islice(shared, len(shares)))
        facts = merge([each.facts for each in found])
        if facts.moments.n:
            target.facts = facts
        if facts.moments.is_finite and not all(f.copies_agree for f in found) and target.left_alone is None:
            raise UnsupportedTensorError(
                f"{target.where} has other values on ranks that should hold copies: "
                "load the same weights on all of them"
            )


def _share_realised(ranks: Ranks, targets: Sequence[TensorTarget], config: NoisyTuneConfig) -> None:
    pieces = [
        (Facts(target.realised or moments_module.EMPTY), min(target.firsts) if target.realised else 0)
        for target in targets
    ]
    for target, (facts, _) in zip(targets, ranks.share(_digest(targets, config), pieces), strict=True):
        target.realised = facts.moments if target.realised else None


def _digest(targets: Sequence[TensorTarget], config: NoisyTuneConfig) -> int:
    """Equal on two ranks, but for chance, only if they do the same to the same tensors. Below 2**48."""
    tensors = [(t.name, tuple(t.tensor.shape), t.dtype, t.padding_row, t.left_alone) for t in targets]
    content = repr((sorted(config.to_dict().items()), tensors))
    return int.from_bytes(blake2b(content.encode(), digest_size=6).digest(), "little")
