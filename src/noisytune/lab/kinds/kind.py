"""What a kind of task answers. Everything else in the lab is the same for all kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from noisytune._metrics import METRICS, Items
from noisytune.errors import ConfigError
from noisytune.lab.kinds.columns import Floats, Ragged, TokenSplit
from noisytune.lab.kinds.split import Split, Target
from noisytune.lab.kinds.units import Units
from noisytune.records import Status

if TYPE_CHECKING:
    from torch import Tensor

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]
"""Rows -> a padded batch of tensors."""


class Kind(ABC):
    """One kind of task. Its objects do not change; `noisytune.lab.kinds.KINDS` has one of each.

    Targets are numbers of an example: a `Split` has them as tuples, a `TokenSplit` as arrays. Methods take either.
    """

    name: ClassVar[str]
    """As in records."""
    model_class: ClassVar[str]
    """The class of transformers that has the head."""
    is_trained: ClassVar[bool] = True
    """Whether a model is trained on its examples; if not, the model of another task is scored."""
    has_classes: ClassVar[bool] = True
    """Whether targets are ids of named classes."""
    keeps_items: ClassVar[bool] = False
    """Whether a record must hold the items: its predictions and references alone do not tell them."""
    watched: ClassVar[str] = ""
    """The split, where there is one, that is scored before training too: what was known already."""
    answers_untrained: ClassVar[bool] = False
    """Whether a pretrained model's answers mean something before it is trained: it has no new head."""
    undefined_on_train: ClassVar[tuple[str, ...]] = ()
    """Metrics that examples have no items for once they are made to be learnt from: nothing is chosen by them there."""
    has_marks: ClassVar[bool] = False
    """Whether an example's text may hold marks of the model, as templates of chats do."""
    evaluation_batches: ClassVar[int] = 4
    """Examples scored at a time, in training batches: without gradients there is room for more."""
    call: ClassVar[Mapping[str, Any]] = {}
    """Further arguments of the model's call, where `outputs` reads more than its usual answer."""

    def read_by(self, reading: Mapping[str, Any]) -> Kind:
        """This kind with a task's settings for reading answers.

        Args:
            reading: `noisytune.lab.tasks.TaskData.reading`; empty where nothing was asked for.

        Raises:
            ConfigError: the kind has no such setting.
        """
        if reading:
            raise ConfigError(f"a task of the kind {self.name} has no setting {', '.join(reading)}")
        return self

    def for_model(self, config: Any) -> Kind:
        """This kind with what it must know of the model.

        Args:
            config: the model's configuration, of transformers.

        Raises:
            ConfigError: a setting that does not fit the model.
        """
        return self

    def for_tokenizer(self, tokenizer: Any) -> Kind:
        """This kind with what it must have to read what a model writes."""
        return self

    def for_split(self, data: TokenSplit) -> Kind:
        """This kind with what it must know of a split that is scored."""
        return self

    def ready_(self, name: str, model: Any, fresh: Sequence[str]) -> None:  # noqa: B027
        """See that a model can learn the kind, and set what training needs.

        Args:
            name: of the model, for messages.
            model: of transformers, just loaded.
            fresh: names of its parameters that the checkpoint does not hold.

        Raises:
            DataError: it cannot.
        """

    def metrics(self, labels: Sequence[str]) -> list[str]:
        """The keys of the metrics that fit a task with these classes; the first is the default."""
        return [key for key, metric in METRICS[self.name].items() if len(labels) == 2 or not metric.binary]

    # Examples

    def check(self, where: str, targets: Sequence[Target]) -> None:  # noqa: B027
        """Refuse training targets that nothing can be learnt from.

        Raises:
            DataError: names ``where`` and what to do.
        """

    @abstractmethod
    def strata(self, targets: Sequence[Target]) -> Sequence[float]:
        """A number for each example. Examples with the same number are alike.

        A sample of them keeps the shares of the numbers, and at least one example of each.
        """

    def spread(self, targets: Any) -> Sequence[float] | Floats:
        """A number for each example. Examples that are held out are drawn evenly over them."""
        found: Sequence[float] = self.strata(targets)
        return found

    def counts(self, targets: Sequence[Target], classes: int) -> list[int]:
        """How often each class occurs."""
        return []

    def values(self, targets: Sequence[Target]) -> dict[str, float]:
        """What the values to predict are like; empty where targets are no values."""
        return {}

    def majority(self, targets: Sequence[Target]) -> float | None:
        """What guessing the most frequent class would score, 0 to 1; None where that says nothing."""
        return None

    # Tokens

    @abstractmethod
    def encode(self, tokenizer: Any, split: Split, max_length: int, types: bool | None, where: str) -> TokenSplit:
        """Texts to token ids.

        Args:
            tokenizer: of transformers.
            split: at least one example.
            max_length: tokens of a row, marks of start and end included.
            types: whether the model tells token types apart; None: the tokenizer decides.
            where: for messages.

        Raises:
            DataError: an example that the kind cannot read.
        """

    @abstractmethod
    def about_lengths(self, data: TokenSplit, max_length: int, name: str) -> str:
        """What ``max_length`` did to the split of this name, in words; empty where it did nothing."""

    # Training

    @abstractmethod
    def head(self, labels: Sequence[str]) -> dict[str, Any]:
        """Settings of the model's configuration that give it the head for these classes."""

    @abstractmethod
    def collate(self, tokenizer: Any) -> Collate:
        """Makes a batch of rows, with or without ``labels``."""

    def units(self, targets: Floats | Ragged) -> Units | None:
        """The units that a model learns these training targets in; None: their own."""
        return None

    @abstractmethod
    def labels(self, data: TokenSplit, units: Units | None) -> Sequence[Any]:
        """What the loss wants, one a row."""

    @abstractmethod
    def divergence(self, one: Tensor, other: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """How far apart two outputs for a batch are: KL(p, q) + KL(q, p), averaged over what is predicted.

        Args:
            one: the model's logits.
            other: the same shape.
            inputs: the batch, labels included.

        Returns:
            a scalar, >= 0; gradients reach both.
        """

    # Answers

    def answer(self, model: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """What a model says of each row of a batch, without padding.

        Args:
            model: in evaluation mode.
            inputs: the batch.
        """
        return self.outputs(model(**inputs, **self.call), inputs)

    @abstractmethod
    def outputs(self, found: Any, inputs: Mapping[str, Any]) -> list[Floats]:
        """What the model says of each row of a batch, without padding.

        Args:
            found: what the model returned.
            inputs: the batch.
        """

    def keep(self, rows: int, output: Any) -> Any:
        """Where the outputs of so many rows are kept, to be filled by row.

        Args:
            rows: how many.
            output: one of them.
        """
        return [output] * rows

    @abstractmethod
    def judge(self, outputs: list[Floats], data: TokenSplit, units: Units | None) -> tuple[Status, Floats]:
        """Status and predictions, as many as `references`; none of a diverged model.

        Args:
            outputs: one a row.
            data: what they are of.
            units: those that the model has learnt in.
        """

    def settle(
        self, answers: Mapping[str, Floats], splits: Mapping[str, TokenSplit]
    ) -> dict[str, tuple[Floats, dict[str, Any]]]:
        """Choose what is chosen over several splits: which layer answers, say.

        Args:
            answers: what `judge` gave of each split that did not diverge.
            splits: what they are of.

        Returns:
            Predictions of each split, and what was chosen, as plain JSON.
        """
        return {name: (predictions, {}) for name, predictions in answers.items()}

    @abstractmethod
    def references(self, data: TokenSplit) -> Floats:
        """What the predictions should be."""

    def items(self, predictions: Floats, data: TokenSplit, labels: Sequence[str]) -> Items:
        """What the metrics reduce, shape (examples, k)."""
        return np.column_stack([predictions, self.references(data)])
