"""What a fine-tuning method is: typed settings, and hooks that a training loop calls in a fixed order.

::

    check         raise what would go wrong on this model                  before any run
    initialise_   change the weights, before anything else holds them      by stage: re-initialise, then perturb
                  (anchors, copies of the pretrained weights, are taken before and after the noise)
    attach_       forward hooks and parametrisations
    optimizer     wrap or replace the optimizer that the loop would build
    loss          wrap the loss that the loop would compute                every forward pass
    gradient_     change the gradients, before they are clipped            every optimizer step
    evaluated     put what is to be scored in the place of the weights     while the model is evaluated in between
    detach_       undo attach_, in the reverse order

A method overrides what it needs. Its equations live in plain functions beside it, for use in anybody's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

from noisytune._settings import check, keyed

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Inputs = Mapping[str, Any]
"""A batch as the model takes it, labels included."""
Divergence = Callable[[Any, Any, Inputs], Any]
"""How far apart two logits for a batch are: (one, other, batch) -> a scalar tensor, >= 0; gradients reach both.

Of a model that answers by spans they are those of starts and ends, shape (rows, 2, tokens)."""
Groups = list[dict[str, Any]]
"""Parameter groups as ``torch.optim`` takes them; each has its ``params``, ``lr`` and ``weight_decay``."""


class Stage(IntEnum):
    """When a method first touches the weights. Methods are written and applied in this order.

    >>> Stage.PERTURB < Stage.TRAIN
    True
    """

    REINITIALISE = 0
    PERTURB = 1
    TRAIN = 2


@dataclass
class Run:
    """What the hooks of one training run know and share.

    >>> Run(model=None, seed=1).step
    0
    """

    model: nn.Module
    seed: int = 0
    """The trial's seed, 0 <= seed < 2**64."""
    regression: bool = False
    """Whether the model predicts a value, not a class."""
    batches: Callable[[], Iterable[Inputs]] | None = None
    """Gives training batches, labels included, on the model's device, in a fixed order; for methods that look at the
    data before they train."""
    step: int = 0
    """Optimizer steps finished."""
    total_steps: int | None = None
    """Optimizer steps of the whole training, for settings that are shares of it; None where the loop does not say."""
    learning_rate: float | None = None
    """The largest learning rate of the training; None where the loop does not say."""
    precision: str | None = None
    """In which matrices are multiplied: "float32", "bf16" or "fp16"; None: in that of the weights."""
    anchors: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """"clean" and "noised": name of a pretrained parameter in the plain model -> its value then; those that some method
    asked for."""
    divergence: Divergence | None = None
    """For models whose outputs are neither one class nor one value an example."""
    kept: dict[str, Any] = field(default_factory=dict)
    """What a method needs from one hook to the next, under the method's name. Rebuilt on resume, never saved."""
    member: int = 0
    """Which training of a trial it is, where there are several: from 0."""


@dataclass(frozen=True)
class Method:
    """A fine-tuning method. Subclasses are frozen dataclasses whose fields come from `noisytune._settings`.

    Every hook gets the run (`Run`): the model, its seed, and what the methods share.

    Raises:
        ConfigError: a setting is out of range.

    >>> from noisytune.methods import parse
    >>> (method,) = parse("mixout(0.8)")
    >>> method.name, method.settings["p"], method.label
    ('mixout', 0.8, 'mixout(p=0.8)')
    >>> method.trainings, method.passes(epochs=3, batches=10), method.source
    (1, 1.0, 'Lee et al. 2020, ICLR')

    One of your own overrides a hook or two; `Stack` has a loop for it:

    >>> class Halved(Method):
    ...     name = "halved"
    ...     def gradient_(self, run):
    ...         for parameter in run.model.parameters():
    ...             parameter.grad /= 2
    >>> Halved().label, Halved().settings
    ('halved', {})
    """

    name: ClassVar[str]
    """As in `noisytune.methods.METHODS`."""
    summary: ClassVar[str]
    """What it is, one line for a table."""
    cost: ClassVar[str]
    """Extra time and memory, a few words."""
    source: ClassVar[str]
    """Authors and year, venue."""
    revision: ClassVar[int] = 1
    """Goes up when a mistake is mended that changed what is trained: trials from before are then other trials."""
    neutral: ClassVar[Mapping[str, Any] | None] = None
    """Settings under which training is bit for bit the plain one; None: there are none."""
    stage: ClassVar[Stage] = Stage.TRAIN
    own_optimizer: ClassVar[bool] = False
    """Whether it replaces the optimizer, instead of changing its groups or its steps."""
    excludes: ClassVar[Mapping[str, str]] = {}
    """Methods that it cannot be combined with, each with the reason. One side says so."""

    def __post_init__(self) -> None:
        check(self, f"{self.name}: ")

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting as a plain JSON value; a later one only where it is not the default."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in keyed(self).items()}

    @property
    def label(self) -> str:
        """For people, and accepted by `parse`: the name, and in parentheses the settings that are not the defaults."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        parts = [
            f"{name}={'|'.join(v) if isinstance(v, tuple) else str(v).removesuffix('.0')}" for name, v in own.items()
        ]
        return f"{self.name}({', '.join(parts)})" if parts else self.name

    @property
    def trainings(self) -> int:
        """Of how many trainings, alike but for `Run.member`, the mean of the weights is scored."""
        return 1

    def passes(self, epochs: float, batches: int) -> float:
        """How often a training with it reads the training's tokens, forwards and backwards; plain training: once.

        Args:
            epochs: of the training.
            batches: of an epoch.
        """
        return 1.0

    def check(self, run: Run) -> None:
        """Raise what would go wrong on this model, before any trial is run. Leaves the weights as they are.

        Args:
            run: with the model, as for every hook.

        Raises:
            NoisyTuneError: the method cannot work on the model.
        """

    def notices(self, run: Run) -> list[str]:
        """What the user should know before a run with these settings on this model: one line each, mostly none."""
        return []

    def anchored(self, run: Run) -> Iterable[Tensor]:
        """The parameters whose pretrained values it needs, where it has a setting ``anchor``; all by default."""
        return run.model.parameters()

    def initialise_(self, run: Run) -> dict[str, Any]:
        """Change weights in place. Returns facts for the trial's record."""
        return {}

    def attach_(self, run: Run) -> dict[str, Any]:
        """Prepare the model for training, with `Run.anchors` in place. Returns facts for the trial's record."""
        return {}

    def optimizer(self, run: Run, groups: Groups, build: Callable[[Groups], Optimizer]) -> Optimizer:
        """The optimizer. ``build`` makes the one that would be used without this method.

        Args:
            run: with the model whose parameters are in the groups.
            groups: as ``torch.optim`` takes them.
            build: from groups to an optimizer.
        """
        return build(groups)

    def loss(self, run: Run, inputs: Inputs, compute: Callable[[Inputs], Any]) -> Tensor:
        """The loss of a batch, a scalar. ``compute`` runs the model: its result has ``loss`` and logits.

        Args:
            run: that the batch is of.
            inputs: a batch as the model takes it, labels included.
            compute: from a batch to the model's outputs.
        """
        result: Tensor = compute(inputs).loss
        return result

    def gradient_(self, run: Run) -> None:
        """Change the accumulated gradients in place: the same on every rank, before clipping."""

    def evaluated(self, run: Run) -> AbstractContextManager[None]:
        """Within this context the model is what is to be evaluated, in the middle of a training."""
        return nullcontext()

    def detach_(self, run: Run) -> None:
        """Undo `attach_`: the model trains, evaluates and saves as a plain one afterwards."""
