"""Several methods at work on one training run, each hook called in the documented order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from noisytune.methods._anchors import snapshot
from noisytune.methods._base import Groups, Inputs, Method, Run, Stage

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class Stack:
    """The methods of one arm on one run.

    Args:
        methods: as `noisytune.methods.parse` orders them.
        run: the model, and what the methods share.

    Example:
        >>> from types import SimpleNamespace
        >>> import torch
        >>> from noisytune.methods import Run, Stack, parse
        >>> model = torch.nn.Linear(4, 1)
        >>> stack = Stack(parse("noisytune(0.15)+ema(decay=0.5)"), Run(model, seed=1, total_steps=4))
        >>> list(stack.begin_())
        ['noisytune', 'ema']
        >>> def compute(inputs):
        ...     return SimpleNamespace(loss=model(inputs["x"]).square().mean())
        >>> groups = [{"params": list(model.parameters()), "lr": 0.1, "weight_decay": 0.0}]
        >>> optimizer = stack.optimizer(groups, torch.optim.SGD)
        >>> for _ in range(4):
        ...     stack.loss({"x": torch.ones(2, 4)}, compute).backward()
        ...     stack.gradient_()
        ...     optimizer.step()
        ...     optimizer.zero_grad()
        ...     stack.run.step += 1
        >>> with stack.evaluated():  # in the middle of a training: the mean of the weights, here
        ...     score = compute({"x": torch.ones(2, 4)}).loss
        >>> stack.end_()
    """

    def __init__(self, methods: Sequence[Method], run: Run) -> None:
        self.methods, self.run = tuple(methods), run

    def begin_(self) -> dict[str, dict[str, Any]]:
        """Initialise, take the anchors, attach. Call it before a checkpoint is restored and the optimizer built.

        Returns:
            the facts of each method that has some, by its name; ``notices`` among them are for people.
        """
        facts: dict[str, dict[str, Any]] = {
            method.name: {"notices": told} if (told := method.notices(self.run)) else {} for method in self.methods
        }
        holders = [method for method in self.methods if hasattr(method, "anchor")]
        wanted = {method.anchor for method in holders}
        only = [parameter for method in holders for parameter in method.anchored(self.run)]
        for method in self.methods:
            if method.stage is Stage.REINITIALISE:
                facts[method.name] |= method.initialise_(self.run)
        if "clean" in wanted:
            self.run.anchors["clean"] = snapshot(self.run.model, only)
        for method in self.methods:
            if method.stage is not Stage.REINITIALISE:
                facts[method.name] |= method.initialise_(self.run)
        if "noised" in wanted:
            self.run.anchors["noised"] = snapshot(self.run.model, only)
        for method in self.methods:
            facts[method.name] |= method.attach_(self.run)
        return {name: told for name, told in facts.items() if told}

    def optimizer(self, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """The optimizer of the arm. ``build`` makes the plain one.

        Args:
            groups: parameter groups as ``torch.optim`` takes them, each with ``lr`` and ``weight_decay``.
            build: from groups to an optimizer.
        """
        for method in reversed(self.methods):
            build = partial(method.optimizer, self.run, build=build)
        return build(groups)

    @property
    def changes_loss(self) -> bool:
        """Whether a method has a loss of its own."""
        return any(type(method).loss is not Method.loss for method in self.methods)

    def loss(self, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """The loss of a batch, a scalar.

        Args:
            inputs: a batch as the model takes it, labels included.
            compute: runs the model on inputs and returns its outputs with ``loss``; may be called twice.
        """
        for method in self.methods:
            if type(method).loss is not Method.loss:
                return method.loss(self.run, inputs, compute)
        loss: Tensor = compute(inputs).loss
        return loss

    def gradient_(self) -> None:
        """Once for each optimizer step, when the gradients are accumulated and not yet clipped."""
        for method in self.methods:
            method.gradient_(self.run)

    @contextmanager
    def evaluated(self) -> Iterator[None]:
        """Within this context the model is what is to be evaluated, in the middle of a training."""
        with ExitStack() as stack:
            for method in self.methods:
                stack.enter_context(method.evaluated(self.run))
            yield

    def end_(self) -> None:
        """Detach, in the reverse order."""
        for method in reversed(self.methods):
            method.detach_(self.run)
