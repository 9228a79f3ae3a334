"""Re-initialisation of the top layers: they are the most specific to pretraining, and are learnt anew.

Zhang et al. 2021, "Revisiting Few-sample BERT Fine-tuning", section 4: the pooler and the last N blocks are drawn again
as before pretraining: weights from N(0, initializer_range), biases 0, layer norms (1, 0). The rest stays. Where
transformers draws a new model otherwise (T5, GPT-2's projections, Gemma's norms), so does this.

What was drawn no longer counts as pretrained: NoisyTune leaves it alone, and nothing is pulled towards it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar

from noisytune._settings import whole
from noisytune.errors import ConfigError
from noisytune.methods._base import Method, Run, Stage
from noisytune.methods._blocks import base_of, blocks

if TYPE_CHECKING:
    from torch import nn


def reinit_(model: nn.Module, layers: int, seed: int = 0) -> list[str]:
    """Draw the pooler and the top blocks again, in place. The global random state stays as it is.

    Args:
        model: a Hugging Face model.
        layers: number of blocks from the top, 0 <= layers <= number of blocks. 0 does nothing at all.
        seed: of the draw, 0 <= seed < 2**64.

    Returns:
        the names of the parameters that were drawn.

    Raises:
        ConfigError: there are fewer blocks, one block serves several layers (ALBERT), or the model has no way to
            initialise its parts.

    Source: Zhang et al. 2021, ICLR, section 4.
    """
    import torch

    if layers == 0:
        return []
    every, base = blocks_for(model, layers), base_of(model)
    if not hasattr(model, "_init_weights"):
        raise ConfigError(f"reinit: {type(model).__name__} does not say how its weights are initialised")
    chosen = every[len(every) - layers :]
    chosen += [part for name, part in base.named_children() if "pooler" in name]
    drawn: set[int] = set()
    stream = _own_stream(seed)
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        if all(p.device.type in ("cpu", "cuda") for p in model.parameters()):
            torch.default_generator.manual_seed(stream)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(stream)
        else:  # whatever it is; this seeds every GPU there is, and nobody puts their state back
            torch.manual_seed(stream)
        for part in chosen:
            drawn |= _draw_(part, _initialiser(model, part), getattr(model.config, "initializer_range", None) or 0.02)
    return [name for name, parameter in model.named_parameters() if id(parameter) in drawn]


def blocks_for(model: nn.Module, layers: int) -> list[nn.Module]:
    """The model's blocks, of which the top ``layers`` can be drawn again.

    Raises:
        ConfigError: they cannot.
    """
    every = blocks(model)
    if layers > len(every):
        raise ConfigError(f"reinit: layers is {layers}, but the model has {len(every)} blocks")
    planned = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    if layers and isinstance(planned, int) and planned > len(every) == 1:
        raise ConfigError(
            f"reinit: one block serves all {planned} layers of {type(model).__name__}: to draw it again would be to "
            "start from nothing"
        )
    return every


def _initialiser(model: nn.Module, part: nn.Module) -> Any:
    """How transformers draws a part: PaliGemma's Gemma has norms that begin at 0, PaliGemma's other parts at 1."""
    holders: list[Any] = [each for each in model.modules() if hasattr(each, "_init_weights")]
    around = [each for each in holders if any(inner is part for inner in each.modules())]
    return around[-1]._init_weights  # modules come from the outside in


def _own_stream(seed: int) -> int:
    """A seed for this method alone: the seed itself draws the head, and would give both the same numbers."""
    return int.from_bytes(blake2b(f"reinit/{seed}".encode(), digest_size=8).digest(), "little") >> 1


def _draw_(part: nn.Module, initialise: Any, spread: float) -> set[int]:
    """Draw a part as transformers does; returns the ids of the parameters that were drawn.

    What its initialiser does not know is drawn as in the paper, matrices from N(0, spread^2) and biases 0 (OpenAI GPT's
    projections are drawn by their constructors only); the rest of that stays.
    """
    before = {name: parameter.clone() for name, parameter in part.named_parameters()}
    marked = {name for name, p in part.named_parameters() if getattr(p, "_is_hf_initialized", False)}
    # transformers' initialisers leave alone what carries the mark of a loaded parameter, and may set it again.
    _unmark(part)
    for parameter in part.parameters():
        parameter.fill_(math.nan)
    # Children before parents, as transformers does: a parent may draw its children's weights otherwise.
    part.apply(initialise)
    _unmark(part)
    drawn = set()
    for name, parameter in part.named_parameters():
        if not parameter.isnan().any():
            drawn.add(id(parameter))
        elif parameter.ndim > 1 or name.endswith("bias"):
            drawn.add(id(parameter))
            parameter.normal_(std=spread) if parameter.ndim > 1 else parameter.zero_()
        else:
            parameter.copy_(before[name])
            if name in marked:
                parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    return drawn


def _unmark(part: nn.Module) -> None:
    for holder in (*part.modules(), *part.parameters()):
        holder.__dict__.pop("_is_hf_initialized", None)


@dataclass(frozen=True)
class Reinit(Method):
    """Re-initialised top layers as an arm."""

    name: ClassVar = "reinit"
    summary: ClassVar = "Re-initialise the pooler and the top layers"
    cost: ClassVar = "none"
    source: ClassVar = "Zhang et al. 2021, ICLR"
    neutral: ClassVar = {"layers": 0}
    stage: ClassVar = Stage.REINITIALISE
    revision: ClassVar = 2  # parents were drawn before children, and in the head's own stream

    layers: int = whole(1, "blocks from the top; the authors try 1 to 6", "whole, >= 0", lambda n: n >= 0)

    def check(self, run: Run) -> None:
        """The model must have that many blocks."""
        if self.layers:
            blocks_for(run.model, self.layers)

    def initialise_(self, run: Run) -> dict[str, Any]:
        """Draw them."""
        return {"reinitialised": len(reinit_(run.model, self.layers, run.seed))}
