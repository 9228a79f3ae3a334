"""RecAdam: Adam that recalls the pretrained weights, more at first than later.

Chen et al. 2020, "Recall and Learn: Fine-tuning Deep Pretrained Language Models with Less Forgetting", equations (9) to
(11) and algorithm 1. Step t = 1, 2, ... of a parameter with gradient g and pretrained value theta*:

    m = b1*m + (1-b1)*g                  v = b2*v + (1-b2)*g*g
    alpha = lr * sqrt(1-b2^t) / (1-b1^t)
    lam(t) = w / (1 + exp(-k*(t-t0)))    sigmoid
             w * min(1, t/t0)            linear
             w                           constant
    theta -= alpha * lam * m / (sqrt(v) + eps)
    theta -= lr * (w - lam) * gamma * (theta - theta*)
    theta -= lr * weight_decay * theta

Every pretrained parameter is pulled, biases and layer norms too; a new head is plain Adam: lam = 1, no pull. The pull
comes after the Adam step, is not clipped, and multiplies the distance from theta* by 1 - lr*(w-lam)*gamma: where that
product is above 2 the distance grows, which is refused.

t0 is the step at which half of the pull is left; under the linear rise none is left then, and half at t0/2. The
authors' script has 250; a training of fewer steps than that hardly leaves the pretrained weights. Left to itself (auto)
t0 is 250, but at most a third of the training.

The other defaults are those of the authors' script. The defaults of their class (k = 0) leave lam at w/2 for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from noisytune._settings import choice, number
from noisytune.errors import ConfigError
from noisytune.methods._anchors import in_place
from noisytune.methods._base import Groups, Method, Run
from noisytune.methods._steps import in_steps, steps

Anneal = Literal["sigmoid", "linear", "constant"]
USUAL_T0 = 250.0
"""The authors' script's."""


def recall_weight(t: int, *, anneal: str = "sigmoid", k: float = 0.5, t0: float = 250.0, w: float = 1.0) -> float:
    """lam(t), the weight of the task against recall, 0 <= lam <= w.

    Args:
        t: the step, from 1.
        anneal: "sigmoid", "linear" or "constant".
        k: steepness of the sigmoid, > 0.
        t0: the sigmoid's middle, or the end of the linear rise, steps, > 0.
        w: the final weight, > 0.

    >>> recall_weight(250), recall_weight(125, anneal="linear"), recall_weight(1, anneal="constant")
    (0.5, 0.5, 1.0)
    """
    if anneal == "constant":
        return w
    if anneal == "linear":
        return w * min(1.0, t / t0)
    exponent = -k * (t - t0)
    return w / (1.0 + math.exp(exponent)) if exponent < 700 else 0.0


def refuse_divergence(lr: float, gamma: float, recall: float, where: str = "") -> None:
    """Raise `ConfigError` where a step would lengthen the distance from the pretrained weights: lr*gamma*recall > 2.

    Args:
        lr: learning rate.
        gamma: strength of the pull.
        recall: w - lam(t); at most w.
        where: for the message.
    """
    if lr * gamma * recall > 2:
        raise ConfigError(
            f"RecAdam diverges: lr*gamma*(w-lam) = {lr:g}*{gamma:g}*{recall:g} = {lr * gamma * recall:g} is above 2"
            f"{where}; lower gamma below {2 / (lr * recall):g}, or the learning rate"
        )


class RecAdam(Optimizer):
    """RecAdam for anybody's loop.

    Args:
        params: parameters or parameter groups.
        anchors: parameter -> its pretrained value, same shape. Parameters without one are plain Adam's. Kept out of
            ``param_groups`` and of the saved state: give them again before ``load_state_dict``.
        lr: learning rate, >= 0. Schedulers may change it.
        betas: decay of the two moments, each 0 <= b < 1.
        eps: > 0.
        weight_decay: decoupled, >= 0; towards 0, after the pull.
        anneal: how lam rises: "sigmoid", "linear" or "constant" (no pull).
        k: the sigmoid's steepness, > 0.
        t0: steps, > 0.
        w: final weight of the task, > 0.
        gamma: strength of the pull, >= 0.

    Raises:
        ConfigError: a setting is out of range, an anchor has another shape or belongs to no parameter, or, in a step,
            lr*gamma*(w-lam) > 2: the distance would grow with every step.

    Example:
        >>> layer = torch.nn.Linear(4, 2)
        >>> anchors = {p: p.detach().clone() for p in layer.parameters()}
        >>> optimizer = RecAdam(layer.parameters(), anchors, lr=1e-4)
        >>> layer(torch.ones(1, 4)).sum().backward()
        >>> optimizer.step()

    Source: Chen et al. 2020, EMNLP, algorithm 1.

    Deviations from the authors' code: anchors are matched by parameter, not by a substring of the name, so that every
    architecture is pulled; settings are validated.
    """

    def __init__(
        self,
        params: Iterable[Any],
        anchors: Mapping[Tensor, Tensor],
        lr: float = 2e-5,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        anneal: str = "sigmoid",
        k: float = 0.5,
        t0: float = 250.0,
        w: float = 1.0,
        gamma: float = 5000.0,
    ) -> None:
        for name, value, holds, allowed in (
            ("lr", lr, lr >= 0, ">= 0"),
            ("betas", betas, all(0 <= b < 1 for b in betas) and len(betas) == 2, "two numbers, 0 <= b < 1"),
            ("eps", eps, eps > 0, "> 0"),
            ("weight_decay", weight_decay, weight_decay >= 0, ">= 0"),
            ("anneal", anneal, anneal in get_args(Anneal), ", ".join(get_args(Anneal))),
            ("k", k, k > 0, "> 0: at 0 the pull never ends"),
            ("t0", t0, t0 > 0, "> 0"),
            ("w", w, w > 0, "> 0"),
            ("gamma", gamma, gamma >= 0, ">= 0"),
        ):
            if not holds:
                raise ConfigError(f"RecAdam: {name} must be {allowed}, got {value!r}")
        recall = {"anneal": anneal, "k": k, "t0": t0, "w": w, "gamma": gamma}
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, **recall})
        self._anchors = {parameter: anchor.to(parameter.device) for parameter, anchor in anchors.items()}
        own = {p: tuple(p.shape) for group in self.param_groups for p in group["params"]}
        for parameter, anchor in self._anchors.items():
            if parameter not in own:
                raise ConfigError(
                    f"RecAdam: an anchor of shape {tuple(anchor.shape)} belongs to no parameter that is trained"
                )
            if own[parameter] != tuple(anchor.shape):
                raise ConfigError(
                    f"RecAdam: a parameter of shape {own[parameter]} has an anchor of shape {tuple(anchor.shape)}"
                )

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One step. Returns the closure's loss, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_step: dict[int, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    raise ConfigError("RecAdam: a gradient is sparse; build the embedding with sparse=False")
                state = self.state[parameter]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                    state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["step"] += 1
                by_step.setdefault(int(state["step"]), []).append(parameter)
            for t, parameters in by_step.items():
                self._update(group, t, parameters)
        return loss

    def _update(self, group: dict[str, Any], t: int, parameters: list[Tensor]) -> None:
        """All parameters of one group that are at step t, in few passes over the memory."""
        lr, (b1, b2), w = float(group["lr"]), group["betas"], group["w"]
        lam = recall_weight(t, anneal=group["anneal"], k=group["k"], t0=group["t0"], w=w)
        pull = lr * (w - lam) * group["gamma"]
        anchored = [p for p in parameters if p in self._anchors]
        if anchored:
            refuse_divergence(lr, group["gamma"], w - lam, f" at step {t}")
        free = [p for p in parameters if p not in self._anchors]
        for some, rate in [(each, lr * lam) for each in _alike(anchored)] + [(each, lr) for each in _alike(free)]:
            # torch's fused Adam divides sqrt(v) by sqrt(1 - b2^t) before it adds eps: eps is divided as well.
            torch._fused_adam_(
                some,
                [p.grad for p in some if p.grad is not None],
                [self.state[p]["exp_avg"] for p in some],
                [self.state[p]["exp_avg_sq"] for p in some],
                [],
                [torch.tensor(float(t), device=p.device) for p in some],
                lr=rate,
                beta1=b1,
                beta2=b2,
                eps=group["eps"] / math.sqrt(1 - b2**t),
                weight_decay=0.0,
                amsgrad=False,
                maximize=False,
            )
        if pull > 0 and anchored:
            torch._foreach_lerp_(anchored, [self._anchors[p] for p in anchored], pull)
        if group["weight_decay"] > 0:
            torch._foreach_mul_(parameters, 1 - lr * group["weight_decay"])


def _alike(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    """Parameters by device and dtype: torch's fused Adam takes one of each at a time."""
    found: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault((parameter.device, parameter.dtype), []).append(parameter)
    return list(found.values())


@dataclass(frozen=True)
class RecAdamMethod(Method):
    """RecAdam as an arm: its optimizer in place of AdamW, with the loop's learning rate and schedule."""

    name: ClassVar = "recadam"
    summary: ClassVar = "Adam that recalls the pretrained weights, more at first than later"
    cost: ClassVar = "a copy of the weights; an optimizer step takes half as long again"
    source: ClassVar = "Chen et al. 2020, EMNLP"
    revision: ClassVar = 2  # the head was multiplied by lam(t) as the body is
    own_optimizer: ClassVar = True

    anneal: str = choice("sigmoid", "how the pull fades", *get_args(Anneal))
    k: float = number(0.5, "steepness of the sigmoid; searched: 0.05 to 1", "> 0", lambda k: k > 0)
    t0: float | None = steps("step at which half of the pull is left (linear: none); searched: 100 to 1000")
    w: float = number(1.0, "final weight of the task", "> 0", lambda w: w > 0)
    gamma: float = number(5000.0, "strength of the pull", ">= 0", lambda g: g >= 0)
    anchor: str = choice("noised", "pull towards the weights before or after NoisyTune", "noised", "clean")

    def t0_of(self, run: Run) -> float:
        """The step that ``t0`` means in this training."""
        return in_steps(self.t0, run.total_steps, usual=USUAL_T0)

    def check(self, run: Run) -> None:
        """The pull must not diverge at the largest learning rate."""
        if run.learning_rate is not None and self.anneal != "constant":
            refuse_divergence(run.learning_rate, self.gamma, self.w)

    def notices(self, run: Run) -> list[str]:
        """A training that mostly recalls."""
        if run.total_steps is None or self.anneal == "constant":
            return []
        told, total = [], run.total_steps
        half = self.t0_of(run) / (2 if self.anneal == "linear" else 1)
        if half > total / 2:
            told.append(
                f"{self.label}: half of the pull is left at step {half:g} of {total}: the model hardly leaves the "
                "pretrained weights; give t0 as a share of the training, for example t0=0.3"
            )
        if run.learning_rate is not None and run.learning_rate * self.gamma * self.w > 0.5:
            share = run.learning_rate * self.gamma * self.w
            told.append(
                f"{self.label}: each early step takes back {min(share, 1):.0%} of the way from the pretrained weights "
                f"(learning rate x gamma = {share:.2g}; the authors' script: 0.1); lower gamma"
            )
        return told

    def attach_(self, run: Run) -> dict[str, Any]:
        """Nothing but the record of what is pulled, and until when."""
        return {"anchor": self.anchor, "anchored": len(run.anchors[self.anchor]), "t0": self.t0_of(run)}

    def optimizer(self, run: Run, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """RecAdam on the same groups, each with its learning rate, the largest of the training, and weight decay."""
        if self.anneal != "constant":
            refuse_divergence(max((float(group["lr"]) for group in groups), default=0.0), self.gamma, self.w)
        trained = {parameter for group in groups for parameter in group["params"]}
        anchors = {p: star for p, star in in_place(run.anchors[self.anchor], run.model).items() if p in trained}
        settings = {name: value for name, value in self.settings.items() if name != "anchor"}
        return RecAdam(groups, anchors, **settings | {"t0": self.t0_of(run)})
