"""How every trial of a study is trained: what decides its outcome besides model, task, arm and seed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self

from noisytune._settings import check, choice, common, keyed, later, number, seed, switch, whole, written
from noisytune.errors import ConfigError
from noisytune.lab.trials.lora import ALLOWED, Lora

if TYPE_CHECKING:
    from noisytune._pretrained import Model

SCHEDULES = ("linear", "cosine", "constant", "inverse_sqrt")
OPTIMIZERS = (
    *("AdamW", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "Adafactor"),
    *("ASGD", "RMSprop", "SGD"),
)
"""Those of torch.optim that take any parameters and a weight decay, and step on one backward pass."""
ATTENTIONS = ("eager", "sdpa", "flash_attention_2", "flex_attention")
MAY_BE_REFUSED = ("optimizer", "precision", "gradient_checkpointing", "attention", "compile", "lora", "quantize")
"""Settings that a machine, a model or a method may not allow."""


LORA_RATE = 2e-4
"""The usual learning rate of LoRA, whatever the model."""


def _lora(given: Any) -> str:
    """As it is written in keys."""
    return Lora.read(given).text


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How every trial of a study is trained.

    Raises:
        ConfigError: a value is out of range; says which and what is allowed.

    >>> TrainingSettings(epochs=3, learning_rate=1e-4).batch_size
    16
    """

    epochs: int = common(
        whole(3, "Pass this many times over the training examples.", "a whole number >= 1", lambda n: n >= 1)
    )
    learning_rate: float | None = common(
        number(None, "Train with this peak learning rate.", "a finite number > 0", lambda x: x > 0, "RATE")
    )
    """None: the model's usual one, put in by `for_model`."""
    batch_size: int = whole(16, "Train on this many examples a step.", "a whole number >= 1", lambda n: n >= 1)
    """The last batch of an epoch may be smaller."""
    max_length: int = whole(
        # Two more than the start and end marks that most tokenizers add.
        128,
        "Cut texts to this many tokens.",
        "a whole number >= 4",
        lambda n: n >= 4,
    )
    warmup: float = number(
        0.1,
        "Let the learning rate rise over this share of the steps.",
        "a share of the steps, 0 <= warmup < 1",
        lambda x: 0 <= x < 1,
        "SHARE",
    )
    weight_decay: float = number(
        0.01, "Decay the weights with this strength.", "a finite number >= 0", lambda x: x >= 0, "W"
    )
    """Biases and layer norms are exempt."""
    max_grad_norm: float = number(
        1.0, "Scale gradients down to this norm.", "a finite number > 0", lambda x: x > 0, "NORM"
    )
    max_steps: int | None = whole(
        None, "Stop after this many steps, whatever the epochs.", "a whole number >= 0", lambda n: n >= 0
    )
    """0: nothing is trained, and the model is scored as it is, noise included."""
    schedule: str = choice("linear", "Let the learning rate fall along this curve.", *SCHEDULES)
    """After the warm-up. ``inverse_sqrt`` falls as the root of the step."""
    select: Literal["last", "best"] = choice("last", "Score the last epoch, or the best.", "last", "best")
    """``best``: the one with the best primary score, the first of equal ones."""
    protocol: Literal["paper", "clean"] = choice(
        "paper", "Choose the best epoch on dev (paper) or on a tenth of train (clean).", "paper", "clean"
    )
    """Where ``select="best"`` looks, while dev is reported. ``paper``: on dev itself, which flatters. ``clean``: on a
    tenth of the training examples, which is not trained on. With ``select="last"`` nothing is chosen: both train on
    everything and come to the same."""

    keep_head: bool = later(switch("Keep the head of an earlier fine-tuning; its classes are mapped by name."))
    """Without it each trial's seed sets a new head."""
    head_seed: int | None = later(seed("Draw a new head from this seed, not from each trial's own.", "SEED"))
    """The same head in every trial: what is left of a pair's spread is the order of the data and dropout."""
    optimizer: str = later(choice("AdamW", "Train with this optimizer of torch.optim.", *OPTIMIZERS))
    """With torch's defaults besides learning rate and weight decay."""
    logging: int = later(
        whole(1, "Note the loss once in this many steps: their mean.", "a whole number >= 1", lambda n: n >= 1)
    )
    """A loss that is not finite is seen then too, and ends the trial. On a GPU each look waits for it."""
    precision: Literal["float32", "bf16", "fp16"] = later(
        choice("float32", "Multiply matrices in this precision; weights stay float32.", "float32", "bf16", "fp16")
    )
    """In training and in scoring. ``fp16`` needs a GPU; its loss is scaled."""
    gradient_accumulation: int = later(
        whole(1, "Take a step for this many batches, their gradients added.", "a whole number >= 1", lambda n: n >= 1)
    )
    """A step has ``batch_size`` times as many examples, and is the same as on one batch of them all."""
    gradient_checkpointing: bool = later(switch("Compute activations twice instead of keeping them: slower, smaller."))
    attention: str | None = later(
        choice(None, "Compute attention this way. Default: transformers chooses.", *ATTENTIONS)
    )
    lora: str | None = later(written("Train LoRA's matrices, not the weights themselves.", ALLOWED, _lora, "r=N,..."))
    """As `noisytune.lab.trials.lora.Lora` reads it. Noise goes on the weights below, before the matrices."""
    quantize: Literal["nf4"] | None = later(choice(None, "Hold what LoRA does not train in four bits: QLoRA.", "nf4"))
    """After the noise. Needs ``lora``, without ``pissa``."""
    compile: bool = later(switch("Compile the model by torch.compile: a slow start, then faster."))

    def __post_init__(self) -> None:
        check(self)
        if self.quantize and not self.lora:
            raise ConfigError("quantize holds weights in four bits, which cannot be trained: give lora too")
        if self.quantize and Lora.read(self.lora).pissa:
            raise ConfigError(
                f"quantize {self.quantize} with lora {self.lora}: pissa starts from singular values of the weights, "
                "which codes of four bits have not: leave pissa or quantize out"
            )

    def for_model(self, model: Model) -> Self:
        """The settings with what depends on the model: its usual learning rate where none is given, or LoRA's.

        Args:
            model: that is trained.
        """
        usual = LORA_RATE if self.lora else model.usual_learning_rate
        return self if self.learning_rate is not None else replace(self, learning_rate=usual)

    def seed_of_head(self, of_trial: int) -> int:
        """The seed of a new head.

        Args:
            of_trial: the trial's own, which counts without ``head_seed``.

        >>> TrainingSettings().seed_of_head(5), TrainingSettings(head_seed=0).seed_of_head(5)
        (5, 0)
        """
        return of_trial if self.head_seed is None else self.head_seed

    def steps(self, examples: int) -> int:
        """Optimizer steps of a training on so many examples.

        Args:
            examples: that are trained on, >= 1.

        >>> TrainingSettings(epochs=3, batch_size=16).steps(265)
        51
        """
        if self.max_steps is not None:
            return self.max_steps
        return self.epochs * math.ceil(examples / (self.batch_size * self.gradient_accumulation))

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain JSON values, as they are part of a trial's key: see `noisytune._settings.keyed`."""
        return keyed(self)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Args:
            settings: names and values; what is missing has its default.

        >>> TrainingSettings.from_dict(TrainingSettings(epochs=5).to_dict()).epochs
        5
        """
        return cls(**settings)
