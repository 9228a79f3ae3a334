"""Mixout: in training, weights are replaced at random by the pretrained ones, as dropout replaces activations by zero.

Lee et al. 2020, "Mixout: Effective Regularization to Finetune Large-scale Pretrained Language Models", section
3. With pretrained weights u, mix probability p and a mask M ~ Bernoulli(1 - p) for each forward pass:

    W_mix = u + M * (W - u) / (1 - p)        in training, E[W_mix] = W
    W                                        in evaluation

Mixed are the weights of linear layers (also GPT-2's Conv1D, attention's in_proj_weight, XLNet's projections), not
biases, layer norms, embeddings, tied weights or the head. Dropout goes off in the body of the model, for Mixout takes
its place. The gradient is autograd's: the authors' function forgets its factor 1/(1 - p). (Their example
mixes the head too, with its dropout at 0.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from noisytune._settings import choice, number
from noisytune.errors import ConfigError
from noisytune.methods import _dropout
from noisytune.methods._anchors import in_place, pretrained
from noisytune.methods._base import Method, Run
from noisytune.methods._blocks import base_of

_STATE = "_noisytune_mixout"


class Mix(nn.Module):
    """The mixture as a parametrisation: W in, W_mix out while training.

    Args:
        anchor: u, of W's shape.
        p: mix probability, 0 < p < 1.
        mask_shape: of M, broadcast to W.
    """

    def __init__(self, anchor: Tensor, p: float, mask_shape: tuple[int, ...]) -> None:
        super().__init__()
        # No buffer: DDP would send it to every rank before each forward pass, and state dicts would hold it.
        self.anchor = anchor
        self.p, self.mask_shape = p, mask_shape
        self.kept: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Mix:
        """The anchor follows ``.to()`` as buffers do."""
        self.anchor = fn(self.anchor)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def draw(self) -> None:
        """A new mask, for one forward pass however often the weight is read in it."""
        kept = torch.rand(self.mask_shape, device=self.anchor.device) >= self.p
        self.kept = kept.to(self.anchor.dtype) / (1 - self.p)

    def forward(self, weight: Tensor) -> Tensor:
        """W_mix; W in evaluation, and before the first forward pass."""
        if not self.training or self.kept is None:
            return weight
        return self.anchor + self.kept * (weight - self.anchor)


@dataclass
class _Attached:
    layers: list[tuple[nn.Module, str, Mix]]
    handles: list[RemovableHandle]
    rates: _dropout.Rates


def attach_(
    model: nn.Module, p: float = 0.9, *, mask: str = "column", anchors: Mapping[Tensor, Tensor] | None = None
) -> int:
    """Mix the weights of a model's linear layers in training, and set its dropout to 0, in place.

    ``state_dict`` and ``load_state_dict`` keep the names of the plain model. Masks come from the device's default
    generator, as those of dropout do, so that checkpoints which hold its state resume exactly.

    Args:
        model: anything with linear layers; a Hugging Face model keeps its head as it is.
        p: mix probability, 0 <= p < 1. 0 does nothing at all.
        mask: one draw for each input "column" (as the authors' code), each "row" of outputs, or each "element".
        anchors: parameter -> pretrained value. None: the present weights of the layers that came from the checkpoint.

    Returns:
        the number of weights that are mixed.

    Raises:
        ConfigError: p or mask is not allowed, there is nothing to mix, or the model is mixed already.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 2))
        >>> attach_(model, p=0.9)
        2
        >>> sorted(model.state_dict())
        ['0.bias', '0.weight', '2.bias', '2.weight']
        >>> detach_(model)

    Source: Lee et al. 2020, ICLR, section 3.
    """
    if not 0 <= p < 1:
        raise ConfigError(f"mixout: p must be 0 <= p < 1, got {p!r}")
    if mask not in ("column", "row", "element"):
        raise ConfigError(f"mixout: mask must be column, row or element, got {mask!r}")
    if _STATE in model.__dict__:
        raise ConfigError("mixout is attached already: detach_ it first")
    if p == 0:
        return 0
    anchors = {p: p.detach().clone() for p in pretrained(model).values()} if anchors is None else anchors
    layers = []
    for module, name, inputs in mixable(model):
        parameter = getattr(module, name)
        if parameter in anchors:
            anchor = anchors[parameter].detach().to(parameter.device, parameter.dtype)
            layers.append((module, name, Mix(anchor, p, _mask_shape(parameter.shape, inputs, mask))))
    if not layers:
        raise ConfigError(f"mixout: {type(model).__name__} has no pretrained linear layer to mix")
    handles: list[RemovableHandle] = []
    for module, name, mix in layers:
        parametrize.register_parametrization(module, name, mix)
        handles += _keep_plain_name(module, name)

    def draw(called: nn.Module, _: Any) -> None:
        if called.training:
            for _, _, mix in layers:
                mix.draw()

    # The base model may be called on its own; inside the whole model its masks are drawn again before any is used.
    handles += [part.register_forward_pre_hook(draw) for part in dict.fromkeys((model, base_of(model)))]
    model.__dict__[_STATE] = _Attached(layers, handles, _dropout.off_(model))
    return len(layers)


def detach_(model: nn.Module) -> None:
    """Undo `attach_`: the weights stay as trained, dropout is on again. Nothing happens to a model without it."""
    attached: _Attached | None = model.__dict__.pop(_STATE, None)
    if attached is None:
        return
    for handle in attached.handles:
        handle.remove()
    _dropout.restore_(attached.rates)
    for module, name, _ in attached.layers:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)


def mixable(model: nn.Module) -> list[tuple[nn.Module, str, tuple[int, ...]]]:
    """The weights of a model's linear layers that came from the checkpoint and are not tied to another name.

    Returns:
        module, name of the weight in it, and those of its dimensions that are summed over: the inputs.
    """
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    known = {id(p) for p in pretrained(model).values()}
    found: list[tuple[nn.Module, str, tuple[int, ...]]] = []
    for module in base_of(model).modules():
        if isinstance(module, nn.Linear):
            found.append((module, "weight", (1,)))
        elif type(module).__name__ == "Conv1D" and getattr(module, "weight", None) is not None:
            found.append((module, "weight", (0,)))  # transformers' Conv1D multiplies from the other side
        elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            found.append((module, "in_proj_weight", (1,)))
        elif type(module).__name__ == "XLNetRelativeAttention":
            found += [(module, name, (0,)) for name in ("q", "k", "v", "r")] + [(module, "o", (1, 2))]
    return [one for one in found if id(weight := getattr(one[0], one[1])) in known and uses[id(weight)] == 1]


def _mask_shape(shape: torch.Size, inputs: tuple[int, ...], mask: str) -> tuple[int, ...]:
    if mask == "element":
        return tuple(shape)
    drawn = set(inputs) if mask == "column" else set(range(len(shape))) - set(inputs)
    return tuple(size if place in drawn else 1 for place, size in enumerate(shape))


def _keep_plain_name(module: Any, name: str) -> list[RemovableHandle]:
    """Give a mixed weight its plain name in state dicts."""
    mixed = f"parametrizations.{name}.original"

    def saved(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        if prefix + mixed in state:
            state[prefix + name] = state.pop(prefix + mixed)

    def loaded(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        if prefix + name in state:
            state[prefix + mixed] = state.pop(prefix + name)

    return [module.register_state_dict_post_hook(saved), module.register_load_state_dict_pre_hook(loaded)]


@dataclass(frozen=True)
class Mixout(Method):
    """Mixout as an arm."""

    name: ClassVar = "mixout"
    summary: ClassVar = "In training, weights are replaced at random by the pretrained ones; takes the place of dropout"
    cost: ClassVar = "a copy of the linear weights, and their mixture in each forward pass"
    source: ClassVar = "Lee et al. 2020, ICLR"
    neutral: ClassVar = {"p": 0.0}

    p: float = number(0.9, "mix probability; searched: 0.7, 0.8, 0.9", "0 <= p < 1", lambda p: 0 <= p < 1)
    mask: str = choice("column", "what one draw decides about", "column", "row", "element")
    anchor: str = choice("noised", "mix with the weights before or after NoisyTune", "noised", "clean")

    def check(self, run: Run) -> None:
        """There must be something to mix."""
        if not mixable(run.model):
            raise ConfigError(f"mixout: {type(run.model).__name__} has no pretrained linear layer to mix")

    def notices(self, run: Run) -> list[str]:
        """A model of which hardly anything is mixed loses its dropout all the same."""
        matrices = sum(p.numel() for p in base_of(run.model).parameters() if p.ndim > 1)
        tables = {id(p) for m in run.model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
        matrices -= sum(p.numel() for p in base_of(run.model).parameters() if id(p) in tables and p.ndim > 1)
        share = sum(p.numel() for p in self.anchored(run)) / max(matrices, 1)
        if self.p == 0 or share > 0.5:
            return []
        return [
            f"mixout: only {share:.0%} of the weights of {type(run.model).__name__}'s layers are mixed, and its "
            "dropout is off all the same"
        ]

    def anchored(self, run: Run) -> list[Tensor]:
        """The weights that are mixed."""
        return [getattr(module, name) for module, name, _ in mixable(run.model)]

    def attach_(self, run: Run) -> dict[str, Any]:
        """See `attach_`."""
        mixed = attach_(run.model, self.p, mask=self.mask, anchors=in_place(run.anchors[self.anchor], run.model))
        run.kept[self.name] = mixed > 0
        return {"anchor": self.anchor, "mixed": mixed}

    def detach_(self, run: Run) -> None:
        """See `detach_`."""
        detach_(run.model)
