"""NoisyTune on a PyTorch module, in place: ``noisytune.torch.perturb_(model, noise_lambda=0.15, seed=1)``.

Call it on the pretrained weights, before anything else holds a copy of them: before the optimizer, EMA or reference
copies, ``prepare()``, ``DistributedDataParallel`` and ``get_peft_model``; before or after ``fully_shard`` and tensor
parallelism. Every rank of a distributed job that calls it gets the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from noisytune import kernels
from noisytune import moments as moments_module
from noisytune.config import NoisyTuneConfig
from noisytune.errors import (
    AlreadyPerturbedError,
    ConfigError,
    MissingExtraError,
    NonFiniteError,
    UnsupportedTensorError,
)
from noisytune.manifest import Manifest

try:
    import torch
    from torch import nn
except ModuleNotFoundError as error:
    raise MissingExtraError("noisytune.torch needs PyTorch: run  pip install 'noisytune[torch]'") from error

from noisytune import _device, _dtensor
from noisytune._dtensor import Facts
from noisytune._module import NUMPY_DTYPES, Target, config_of, find_targets, refuse_unsupported

_LARGEST_NOISE = {"uniform": 0.5, "gaussian": math.sqrt(2 * 24 * math.log(2) / 12)}

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
            sharded (DTensor), call it on every rank that holds a part, with the root of the sharded model.
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
            partitioned by DeepSpeed, or overlaps another.
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
    ranks = _dtensor.ranks_of(module)
    with _thread_pool() as pool:
        with _dtensor.failure_told(ranks):
            plan = _prepare(module, config, settings, again, pool)
        config, chosen = plan.config, plan.chosen
        if ranks is not None:
            pieces = [(target.facts or _NOTHING, target.piece.first) for target in chosen]
            for target, facts in zip(chosen, ranks.share(plan.digest, pieces), strict=True):
                target.facts = facts
        for target in chosen:
            _judge(target)
        _set_scales(chosen, config)
        if config.noise_lambda > 0:
            _put_receipt(module, config, plan.earlier)
            with _dtensor.failure_told(ranks):
                for target in chosen:
                    if target.left_alone is None:
                        _write(target, config, pool)
            if ranks is not None:
                pieces = [(target.realised or _NOTHING, target.piece.first) for target in chosen]
                for target, facts in zip(chosen, ranks.share(plan.digest, pieces), strict=True):
                    target.realised = facts if target.realised else None
    entries = tuple(target.entry(config.noise_lambda) for target in plan.targets)
    return Manifest(config, entries, tuple(plan.notices))


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
    targets: list[Target]
    notices: list[str]

    @property
    def chosen(self) -> list[Target]:
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
    if config is not None and settings:
        raise ConfigError(f"give a config or settings, not both: got a config and {', '.join(settings)}")
    config = config or NoisyTuneConfig.from_dict(settings)
    earlier = receipt(module)
    if earlier and not again:
        raise AlreadyPerturbedError(
            f"the weights carry noise already (lambda {earlier['noise_lambda']:g}, seed {earlier['seed']}): "
            "load them afresh, or pass again=True to add noise to noise or if other weights were loaded since"
        )
    targets, notices = find_targets(module, config)
    chosen = [target for target in targets if target.left_alone is None]
    refuse_unsupported(module, chosen)
    for target in chosen:
        _measure(target, pool)
    return _Plan(config, earlier, targets, notices)


def _measure(target: Target, pool: Executor | None) -> None:
    if target.tensor.numel() <= 1:
        target.left_alone = "empty" if target.tensor.numel() == 0 else "one element"
        return
    flat = target.piece.values.reshape(-1)
    moments = kernels.moments(_as_numpy(flat), pool) if _on_cpu(flat) else _device.moments(flat)
    non_finite = 0 if moments.is_finite else int((~_at_least_float32(flat).isfinite()).sum())
    is_narrow = torch.finfo(flat.dtype).max < 1e5
    largest = (
        max((float(chunk.float().abs().max()) for chunk in torch.split(flat, 1 << 20)), default=0.0)
        if is_narrow
        else 0.0
    )
    target.facts = Facts(moments, non_finite, largest if moments.n else 0.0)


def _judge(target: Target) -> None:
    """Every rank comes to the same judgement: it rests on the facts of the full tensor."""
    moments, non_finite, _, copies_agree = target.facts or _NOTHING
    if not moments.is_finite and not non_finite:
        raise NonFiniteError(f"{target.where} has values so large that their standard deviation overflows; exclude it")
    if not moments.is_finite:
        raise NonFiniteError(
            f"{target.where} has {non_finite} values that are NaN or infinite: the checkpoint is damaged"
        )
    if not copies_agree:
        raise UnsupportedTensorError(
            f"{target.where} has other values on ranks that should hold copies: load the same weights on all of them"
        )
    if moments.is_constant:
        target.left_alone = "constant"


def _set_scales(targets: list[Target], config: NoisyTuneConfig) -> None:
    """The scale of each tensor's noise: its own standard deviation, or the one of all perturbed tensors together."""
    for target in targets:
        if config.noise_lambda == 0 and target.left_alone is None:
            target.left_alone = "lambda is 0"
    chosen = [(target, target.facts) for target in targets if target.left_alone is None and target.facts]
    everything = moments_module.merge([facts.moments for _, facts in sorted(chosen, key=lambda pair: pair[0].name)])
    for target, facts in chosen:
        target.noise_std = everything.std if config.scale == "global" else facts.moments.std
        largest_noise = config.noise_lambda * target.noise_std * _LARGEST_NOISE[config.distribution]
        _refuse_overflow(target, facts.largest, largest_noise)


def _refuse_overflow(target: Target, largest: float, largest_noise: float) -> None:
    limit = torch.finfo(target.tensor.dtype).max
    if limit < 1e5 and largest + largest_noise > limit:
        raise NonFiniteError(
            f"{target.where} has values up to {largest:g}: noise of up to {largest_noise:g} could pass the dtype's "
            f"largest value {limit:g}; load the model in float32 or bfloat16, or exclude the tensor"
        )


def _write(target: Target, config: NoisyTuneConfig, pool: Executor | None) -> None:
    values, std = target.piece.values, target.noise_std or 0.0
    settings = (std, config.noise_lambda, config.distribution, config.seed, target.name)
    flat = values.reshape(-1)
    parts = []
    if _on_cpu(flat):
        array = _as_numpy(flat)
        for run, start in target.piece.runs(target.padding):
            parts.append(kernels.add_noise_(array[run], *settings, start=start, pool=pool))
    else:
        for run, start in target.piece.runs(target.padding):
            parts.append(_device.add_noise_(flat[run], *settings, start=start))
    if not values.is_contiguous():
        values.copy_(flat.view(values.shape))
    target.realised = Facts(moments_module.merge(parts))
    torch.autograd.graph.increment_version(target.tensor)


def _at_least_float32(tensor: torch.Tensor) -> torch.Tensor:
    """float8 has no arithmetic of its own."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


def _on_cpu(tensor: torch.Tensor) -> bool:
    return tensor.device.type == "cpu"


def _as_numpy(flat: torch.Tensor) -> kernels.Array:
    """The memory of a contiguous CPU tensor as an array of the same dtype, without a copy."""
    words = {1: torch.uint8, 2: torch.uint16}.get(flat.element_size())
    return (flat.view(words) if words else flat).numpy().view(NUMPY_DTYPES[flat.dtype])


@contextmanager
def _thread_pool() -> Iterator[Executor | None]:
    """As many threads as torch uses; None for one."""
    threads = torch.get_num_threads()
    if threads == 1:
        yield None
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="noisytune") as pool:
        yield pool
