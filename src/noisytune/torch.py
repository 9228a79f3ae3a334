"""NoisyTune on a PyTorch module, in place: ``noisytune.torch.perturb_(model, noise_lambda=0.15, seed=1)``.

Call it on the pretrained weights, before anything else holds a copy of them: before the optimizer, EMA or reference
copies, ``prepare()``, ``fully_shard``, ``DistributedDataParallel`` and ``get_peft_model``. Every rank of a distributed
job that calls it gets the same noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from noisytune import kernels
from noisytune import moments as moments_module
from noisytune.config import NoisyTuneConfig
from noisytune.errors import (
    AlreadyPerturbedError,
    ConfigError,
    MissingExtraError,
    NonFiniteError,
)
from noisytune.manifest import Manifest

try:
    import torch
    from torch import nn
except ModuleNotFoundError as error:
    raise MissingExtraError("noisytune.torch needs PyTorch: run  pip install 'noisytune[torch]'") from error

from noisytune import _device
from noisytune._module import NUMPY_DTYPES, Target, config_of, find_targets, refuse_unsupported

_LARGEST_NOISE = {"uniform": 0.5, "gaussian": math.sqrt(2 * 24 * math.log(2) / 12)}

_RECEIPT = "_noisytune"


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
        module: any ``nn.Module``; float64, float32, float16, bfloat16 or float8 parameters on any device.
        config: the settings; or give them by name instead.
        again: perturb even though the module carries noise already. The receipt then records both.
        **settings: fields of `NoisyTuneConfig`: noise_lambda, seed, distribution, scale, scope, include, exclude.

    Returns:
        what was done to which tensor. A receipt of it stays on the module, and in ``module.config.noisytune`` where the
        module has a Hugging Face config, so that a saved checkpoint is recognised.

    Raises:
        ConfigError: a setting is out of range, or a glob matches no tensor.
        AlreadyPerturbedError: the module, a part of it, or the checkpoint that it was loaded from, carries noise.
        UnsupportedTensorError: a parameter is quantised, sharded, on the meta device, parametrised, or overlaps
        another. NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.

    Example:
        >>> layer = torch.nn.Linear(8, 4)
        >>> manifest = perturb_(layer, noise_lambda=0.15, seed=1)
        >>> [entry.name for entry in manifest.perturbed]
        ['weight', 'bias']

    Source: Wu et al. 2022, equation (1) and section 3.3.

    Deviations from the paper's snippet: it perturbs a new head (here ``scope="all"``), padding rows and both names of a
    tied tensor, and gives NaN for one-element parameters.
    """
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
    with _thread_pool() as pool:
        refuse_unsupported(module, chosen)
        for target in chosen:
            _measure(target, config, pool)
        _set_scales(chosen, config)
        if config.noise_lambda > 0:
            _put_receipt(module, config, earlier)
            for target in chosen:
                if target.left_alone is None:
                    _write(target, config, pool)
    return Manifest(config, tuple(target.entry(config.noise_lambda) for target in targets), tuple(notices))


def receipt(module: nn.Module) -> dict[str, Any] | None:
    """The settings of the noise that a module carries, or None.

    Looks at every submodule and at Hugging Face configs, so wrapped, partly perturbed and reloaded modules are
    recognised.
    """
    for part in module.modules():
        found = part.__dict__.get(_RECEIPT) or getattr(config_of(part), "noisytune", None)
        if found:
            return dict(found)
    return None


def _put_receipt(module: nn.Module, config: NoisyTuneConfig, earlier: dict[str, Any] | None) -> None:
    """Before the first write: an interrupted perturbation must not pass for a clean model."""
    content = config.to_dict() | ({"earlier": earlier} if earlier else {})
    for part in module.modules():
        part.__dict__[_RECEIPT] = content
        if (part_config := config_of(part)) is not None:
            part_config.noisytune = content


def _measure(target: Target, config: NoisyTuneConfig, pool: Executor | None) -> None:
    tensor = target.tensor
    if tensor.numel() <= 1:
        target.left_alone = "empty" if tensor.numel() == 0 else "one element"
        return
    flat = tensor.detach().reshape(-1)
    target.moments = kernels.moments(_as_numpy(flat), pool) if _on_cpu(tensor) else _device.moments(flat)
    if not target.moments.is_finite:
        wrong = int((~flat.float().isfinite()).sum())
        raise NonFiniteError(f"{target.where} has {wrong} values that are NaN or infinite: the checkpoint is damaged")
    if target.moments.is_constant:
        target.left_alone = "constant"


def _set_scales(targets: list[Target], config: NoisyTuneConfig) -> None:
    """The scale of each tensor's noise: its own standard deviation, or the one of all perturbed tensors together."""
    for target in targets:
        if config.noise_lambda == 0 and target.left_alone is None:
            target.left_alone = "lambda is 0"
    chosen = [target for target in targets if target.left_alone is None and target.moments]
    everything = moments_module.merge([t.moments for t in sorted(chosen, key=lambda t: t.name) if t.moments])
    for target in chosen:
        std = everything.std if config.scale == "global" else target.moments.std  # type: ignore[union-attr]
        target.noise_std = std
        _refuse_overflow(target, config.noise_lambda * std * _LARGEST_NOISE[config.distribution])


def _refuse_overflow(target: Target, largest_noise: float) -> None:
    limit = torch.finfo(target.tensor.dtype).max
    if limit < 1e5:
        largest = float(target.tensor.detach().float().abs().max())
        if largest + largest_noise > limit:
            raise NonFiniteError(
                f"{target.where} has values up to {largest:g}: noise of up to {largest_noise:g} could pass the dtype's "
                f"largest value {limit:g}; load the model in float32 or bfloat16, or exclude the tensor"
            )


def _write(target: Target, config: NoisyTuneConfig, pool: Executor | None) -> None:
    tensor, std = target.tensor.detach(), target.noise_std or 0.0
    flat = tensor.reshape(-1)
    parts = []
    for run in _runs(target):
        piece, settings = flat[run], (std, config.noise_lambda, config.distribution, config.seed, target.name)
        if _on_cpu(tensor):
            parts.append(kernels.add_noise_(_as_numpy(piece), *settings, start=run.start, pool=pool))
        else:
            parts.append(_device.add_noise_(piece, *settings, start=run.start))
    if not tensor.is_contiguous():
        tensor.copy_(flat.view(tensor.shape))
    target.realised = moments_module.merge(parts)
    torch.autograd.graph.increment_version(target.tensor)


def _runs(target: Target) -> Iterator[slice]:
    """Runs of flat indices that get noise: everything but the padding row."""
    size = target.tensor.numel()
    if target.padding_row is None:
        yield slice(0, size)
        return
    width = size // target.tensor.shape[0]
    for run in (slice(0, target.padding_row * width), slice((target.padding_row + 1) * width, size)):
        if run.start < run.stop:
            yield run


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
