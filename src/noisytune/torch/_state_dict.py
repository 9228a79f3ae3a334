"""NoisyTune on a state dict, in place: weights of a torch model without the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import torch

from noisytune._perturb import names, refusals
from noisytune._perturb import steps as perturbation
from noisytune._perturb.quantised import refuse_codes
from noisytune._perturb.target import set_padding_rows
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import UnsupportedTensorError
from noisytune.manifest import Manifest, TensorEntry
from noisytune.torch._dtensor import is_dtensor
from noisytune.torch._layout import Traced
from noisytune.torch._refusals import CODES, refuse_tensors
from noisytune.torch._tensors import TensorTarget, identity


@torch.no_grad()
def perturb_state_dict(
    state_dict: Mapping[str, Any],
    config: NoisyTuneConfig | None = None,
    *,
    base_prefix: str | None = None,
    padding_rows: Mapping[str, int] | None = None,
    **settings: Unpack[NoiseSettings],
) -> Manifest:
    """Add noise to the tensors of a state dict, in place: the noise that `perturb_` gives their model, bit for bit.

    A state dict does not say which tensors are parameters, padding or new. So: running statistics and rotary
    frequencies are known by their names and left alone; padding rows are an argument; ``scope`` has no effect, every
    tensor counts as pretrained (exclude a new head by name). Names are taken as they are: where transformers renames or
    joins the files' tensors, `perturb_` goes by the files, and its noise differs. Nothing tells a state dict that was
    perturbed from a clean one: the manifest is the only record. Every tensor is checked before the first is written.

    Args:
        state_dict: name -> tensor, as ``module.state_dict()`` or ``torch.load`` gives it. What is no tensor is left
            alone. Tensors with the same memory are tied: perturbed once, under the first name inside the base model.
        config: the settings; or give them by name instead.
        base_prefix: of a Hugging Face model with a head, its ``base_model_prefix``, such as ``"bert"``: the noise does
            not depend on it, and what lies outside is named in the namespace ``head:``.
        padding_rows: name -> row that gets no noise: the ``padding_idx`` of embeddings.
        **settings: fields of `NoisyTuneConfig`.

    Returns:
        what was done to which tensor.

    Raises:
        ConfigError: a setting is out of range, or a glob or a padding row matches no tensor.
        UnsupportedTensorError: a tensor is quantised, sharded, on the meta device, or overlaps another; or the state
            dict is inside, as in a checkpoint with the epoch and an optimizer.
        NonFiniteError: a weight is NaN or infinite, or so large that noise could overflow its dtype.

    Example:
        >>> weights = torch.nn.Linear(8, 4).state_dict()
        >>> [entry.name for entry in perturb_state_dict(weights, noise_lambda=0.15, seed=1).perturbed]
        ['weight', 'bias']

    Source: Wu et al. 2022, equation (1).
    """
    config = perturbation.settled(config, settings)
    for name, value in state_dict.items():
        if _is_state_dict(value) and not name.endswith("_extra_state"):
            raise UnsupportedTensorError(f"{name!r} is itself a state dict: give that one")
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, torch.Tensor)}
    groups = names.tied({name: identity(tensor) for name, tensor in tensors.items()}, base_prefix)
    targets = [target for name, own_names in groups for target in _matrices(name, own_names, tensors[own_names[0]])]
    set_padding_rows(targets, padding_rows or {})
    for target in targets:
        target.left_alone = perturbation.why_no_parameter(target, CODES)
    perturbation.choose(targets, config)
    refusals.refuse_unsupported(
        targets, lambda t: "is sharded: perturb the module with perturb_ instead" if is_dtensor(t.tensor) else None
    )
    refuse_tensors(targets)
    refuse_codes(targets)
    manifest = perturbation.perturb_targets(targets, config, threads=torch.get_num_threads())
    others = (
        TensorEntry(name, (name,), (), type(value).__name__, left_alone=refusals.NOT_A_TENSOR)
        for name, value in state_dict.items()
        if name not in tensors
    )
    return Manifest(config, (*manifest.entries, *others), manifest.notices)


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and any(isinstance(each, torch.Tensor) for each in value.values())


def _matrices(name: str, own_names: list[str], tensor: torch.Tensor) -> Iterator[TensorTarget]:
    """A tensor; each of the experts where it stacks some."""
    whole = TensorTarget.of(name, own_names, tensor)
    if not names.is_stack(name, whole.shape):
        yield whole
        return
    for index, expert in enumerate(Traced.of(own_names[0], whole.shape).unbind(0)):
        share = TensorTarget.of(names.expert(name, index), list(own_names), tensor)
        share.shape, share.boxes = tuple(expert.shape), [(tensor, expert.boxes[0])]
        yield share
