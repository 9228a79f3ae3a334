"""The transformers Trainer with a stack of methods at work in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import RNGType, synchronize_rng_states
from torch.utils.data import DataLoader
from transformers import Trainer

from noisytune.methods import Groups, Inputs, Stack


class StackTrainer(Trainer):
    """A Trainer that calls the hooks of a stack which has begun. Without methods it does what a Trainer does.

    On several processes each step is that of one process: every batch is shared out among them.

    Args:
        stack: the methods of the arm; its run holds the same model.
        *args: as for ``Trainer``.
        **settings: as for ``Trainer``.
    """

    def __init__(self, stack: Stack, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._stack = stack
        self._weights = deque[float]()
        """Of the losses of the step's batches, in their order."""

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The Trainer's schedule; the learning rate rises over fewer steps than there are, however it is rounded."""
        self.args.warmup_steps = min(self.args.get_warmup_steps(num_training_steps), num_training_steps - 1)
        return super().create_scheduler(num_training_steps, optimizer)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The stack's optimizer, for the parameter groups that the Trainer makes."""
        if self.optimizer is None:
            plain = super().create_optimizer(model)
            shared = ("params", "lr", "weight_decay")
            groups: Groups = [{key: group[key] for key in shared} for group in plain.param_groups]
            kind, options = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args)
            self.optimizer = self._stack.optimizer(groups, lambda groups: kind(groups, **options))
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The Trainer's batches; on several processes each gets all of them, and takes its part later."""
        if self.args.world_size == 1:
            return super().get_train_dataloader()
        data: Any = self.train_dataset
        size, sampler = self.args.train_batch_size, self._get_train_sampler()
        return _SameOrder(data, size, sampler=sampler, collate_fn=self.data_collator)

    def get_batch_samples(self, *args: Any) -> tuple[list[Any], Any]:
        """The batches of a step, or this process's rows of them.

        Where there are several the Trainer's count of their items is kept from the model: not every one divides its
        loss by it, and then their sum would be too large. Each loss is weighted by its share of the items instead.
        """
        batches, items = super().get_batch_samples(*args)
        if self.args.gradient_accumulation_steps == self.args.world_size == 1 or not batches:
            return batches, items
        mean = sum(map(_items, batches)) / len(batches)
        parts = [_rows(batch, self.args.process_index, self.args.world_size) for batch in batches]
        self._weights.extend(_items(part) * ranks / mean for part, ranks in parts)
        return [part for part, _ in parts], None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The stack's loss while training, weighted where it is a part of a step's."""
        plain = super().compute_loss
        if return_outputs or not model.training:
            return plain(model, inputs, return_outputs, num_items_in_batch)

        def compute(inputs: Inputs) -> Any:
            loss, outputs = plain(model, dict(inputs), True, num_items_in_batch)
            return SimpleNamespace(**dict(outputs) | {"loss": loss})

        weight = self._weights.popleft() if self._weights else 1
        changed = self._stack.changes_loss
        loss: Any = self._stack.loss(inputs, compute) if changed else plain(model, inputs, False, num_items_in_batch)
        return loss if weight == 1 else loss * weight

    def training_step(self, *args: Any, **settings: Any) -> torch.Tensor:
        """A step of the Trainer; the stack sees the gradients once they are accumulated."""
        self._stack.run.step = self.state.global_step
        loss = super().training_step(*args, **settings)
        if self.accelerator.sync_gradients:
            self._stack.gradient_()
        return loss


def _items(inputs: Inputs) -> int:
    """How many terms the loss of a batch is the mean of: labelled words, or examples."""
    labels = inputs.get("labels")
    return len(inputs["input_ids"]) if labels is None else int(labels.ne(-100).sum())


def _rows(batch: Inputs, rank: int, ranks: int) -> tuple[Inputs, int]:
    """A process's rows of a batch, and the number of processes that share it. One too small to share is everybody's."""
    if len(batch["input_ids"]) < ranks:
        return batch, 1
    return {name: tensor[rank::ranks] for name, tensor in batch.items()}, ranks


class _SameOrder(DataLoader[Any]):
    """Batches that are the same on every process, whatever each has drawn meanwhile."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        synchronize_rng_states([RNGType.TORCH])
        return super().__iter__()
