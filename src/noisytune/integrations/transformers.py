"""NoisyTune in transformers' Trainer and everything derived from it: ``trainer = attach(trainer, noise_lambda=0.15)``.

The noise goes in at the start of ``train()``, before anything is restored or wrapped, at every process start: it is a
pure function of the pretrained weights and the seed. A full checkpoint is then restored over it; an adapter's
checkpoint needs it, since it does not hold the base model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast

from noisytune._perturb.receipt import describe, none_added, settings_in
from noisytune.config import NoiseSettings, NoisyTuneConfig
from noisytune.errors import ConfigError, MissingExtraError, UnsupportedTensorError
from noisytune.integrations._adapters import check_adapter, load_adapter, noise_below
from noisytune.integrations._announce import NONE_ASKED, VISIBLE, added, only_in_training
from noisytune.integrations._modules import Found, find_noise, refuse_averages
from noisytune.integrations._record import carried, remove_record, with_training_section, write_record
from noisytune.integrations._settings import Asked
from noisytune.manifest import Manifest
from noisytune.torch import mark, perturb_, receipt
from noisytune.torch._adapters import adapter_tensors

try:
    from transformers import Trainer
    from transformers.trainer_utils import get_last_checkpoint
except ImportError as error:
    raise MissingExtraError(
        "noisytune.integrations.transformers needs transformers and accelerate: run  pip install 'noisytune[lab]'"
    ) from error

from torch import Tensor, nn

__all__ = ["NoisyTuneMixin", "NoisyTuneTrainer", "attach", "check_adapter", "load_adapter"]

logger = logging.getLogger(__name__)

SomeTrainer = TypeVar("SomeTrainer", bound=Trainer)

# the mixin stands before a trainer in the order of its bases; for the type checker it is one
_Host: Any = Trainer if TYPE_CHECKING else object


class NoisyTuneMixin(_Host):  # type: ignore[misc]
    """Adds the noise when training starts. For classes of your own: ``class MyTrainer(NoisyTuneMixin, Trainer)``.

    Args:
        *args: for the trainer.
        noisytune_config: the settings, the seed among them; if not given, `NoisyTuneConfig`'s defaults with the seed of
            the trainer's arguments.
        **kwargs: for the trainer.

    Example:
        >>> class MyTrainer(NoisyTuneMixin, Trainer):
        ...     pass  # whatever yours does
        >>> import tempfile
        >>> from transformers import TrainingArguments
        >>> settings = TrainingArguments(tempfile.mkdtemp(), use_cpu=True)
        >>> trainer = MyTrainer(nn.Linear(4, 2), settings, noisytune_config=NoisyTuneConfig(noise_lambda=0.1, seed=1))
        >>> trainer.noisytune_config.noise_lambda, trainer.noisytune_manifest  # nothing has happened yet
        (0.1, None)

    Source: Wu et al. 2022, equation (1).
    """

    noisytune_manifest: Manifest | None = None
    """What was done to which tensor, once training has started."""
    _noisytune_asked: Asked
    _resumed_from: str | None = None
    _has_said_when: bool = False
    _noisytune_instead: Mapping[str, Callable[..., Any]] = MappingProxyType({})
    """Methods that somebody had put on the trainer itself before it was attached to (Unsloth does so)."""

    def __init__(self, *args: Any, noisytune_config: NoisyTuneConfig | None = None, **kwargs: Any) -> None:
        self._noisytune_asked = Asked.of(noisytune_config, {})
        super().__init__(*args, **kwargs)

    @property
    def noisytune_config(self) -> NoisyTuneConfig:
        """What to add. Unless a seed was given, it is the one that the trainer's arguments have now."""
        return self._noisytune_asked.with_seed_of(self.args.seed)

    @noisytune_config.setter
    def noisytune_config(self, config: NoisyTuneConfig) -> None:
        self._noisytune_asked = Asked.of(config, {})

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own, on weights with noise. Weights that carry noise already get none.

        Args:
            resume_from_checkpoint: a folder, or True for the last one in ``output_dir``: of a training on this noise.
            *args: for the trainer.
            **kwargs: for the trainer.

        Raises:
            ConfigError: the checkpoint to resume from was trained on other noise, or on none.
            UnsupportedTensorError: an optimizer or an average of the weights holds copies of the clean ones; or as
                `noisytune.torch.perturb_`. The model is left as it was.
        """
        self._resumed_from = _folder(resume_from_checkpoint, self.args.output_dir)
        if self.model_init is None:
            self._add_noise(self.model)
        return self._noisytune_instead.get("train", super().train)(resume_from_checkpoint, *args, **kwargs)

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As the trainer's own; the models of ``train()`` and of each trial get noise, one to evaluate does not."""
        model: nn.Module = self._noisytune_instead.get("call_model_init", super().call_model_init)(trial)
        if getattr(self, "is_in_train", False):
            if trial is not None:
                self._hp_search_setup(trial)  # the host does so later: the seed may be one of the trial's settings
            self._add_noise(model)
        return model

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own: adds no noise."""
        self._say_when("evaluate()")
        return self._noisytune_instead.get("evaluate", super().evaluate)(*args, **kwargs)

    def predict(self, *args: Any, **kwargs: Any) -> Any:
        """As the trainer's own: adds no noise."""
        self._say_when("predict()")
        return self._noisytune_instead.get("predict", super().predict)(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, *args: Any, **kwargs: Any) -> None:
        """As the trainer's own, with noisytune.json beside the weights; an adapter's card gets a section about it."""
        found = settings_in(receipt(self.model)) if self.args.should_save else None
        folder = output_dir or self.args.output_dir
        if self.args.should_save:
            for each in {folder, *([self.args.output_dir] if self.args.push_to_hub else [])}:
                self._keep_record(each, found)
        self._noisytune_instead.get("save_model", super().save_model)(output_dir, *args, **kwargs)
        if found and hasattr(self.model, "peft_config"):
            self._tell_card(folder, found)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """As the trainer's own, with a section about the noise."""
        self._noisytune_instead.get("create_model_card", super().create_model_card)(*args, **kwargs)
        if self.is_world_process_zero() and (found := settings_in(receipt(self.model))):
            self._tell_card(self.args.output_dir, found)

    def _load_from_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """As the trainer's own, below an adapter the noise stays."""
        with _frozen_kept(self.model):
            super()._load_from_checkpoint(*args, **kwargs)

    def _load_best_model(self) -> None:
        """Likewise."""
        with _frozen_kept(self.model):
            super()._load_best_model()

    def _keep_record(self, folder: str, found: NoisyTuneConfig | None) -> None:
        if found is None:
            remove_record(folder)
            return
        manifest = self.noisytune_manifest
        record = manifest if manifest and manifest.config == found else carried(found)
        # PEFT gives an adapter with a name of its own a folder of its own.
        for name in ("", *(name for name in getattr(self.model, "peft_config", ()) if name != "default")):
            write_record(Path(folder) / name, record)

    def _tell_card(self, folder: str, found: NoisyTuneConfig) -> None:
        card = Path(folder) / "README.md"
        if card.is_file():
            text = with_training_section(card.read_text(encoding="utf-8"), found, hasattr(self.model, "peft_config"))
            card.write_text(text, encoding="utf-8")

    def _add_noise(self, model: nn.Module) -> None:
        config = self.noisytune_config
        is_placeholder = self._gets_weights_from_another_rank()
        found = Found(settings_in(receipt(model))) if is_placeholder else find_noise(model, config)
        _refuse_other_noise(self._resumed_from, model, found.config or (config if config.noise_lambda > 0 else None))
        if found.config:
            self._say(none_added(found.config) + found.remark)
            return
        if config.noise_lambda == 0:  # a plain run, on whatever model and with whatever copies of it
            with suppress(UnsupportedTensorError):
                self.noisytune_manifest = perturb_(model, config)
            self._say(NONE_ASKED)
            return
        if self.model_init is None:
            _refuse_copies(model, self.optimizer)
            instead = "call noisytune.torch.perturb_ on the model before the copy is made"
            refuse_averages([self, *self.callback_handler.callbacks], instead)
        if is_placeholder:
            mark(model, config)
            return
        self.noisytune_manifest = manifest = perturb_(model, config)
        origin = self._noisytune_asked.origin(self.args.seed, "TrainingArguments.seed")
        restored = f"; {self._resumed_from} is restored over it" if self._resumed_from else found.remark
        self._say(added(manifest, origin, restored))
        for notice in manifest.notices:
            self._say(f"NoisyTune: {notice}")

    def _gets_weights_from_another_rank(self) -> bool:
        """FSDP's RAM-efficient loading: all ranks but the first hold placeholders until it broadcasts its weights."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        return bool(plugin and plugin.cpu_ram_efficient_loading and not self.accelerator.is_main_process)

    def _say_when(self, what: str) -> None:
        """Once, for a trainer that evaluates a model without noise."""
        is_yet_to_come = self.noisytune_manifest is None and self.noisytune_config.noise_lambda > 0
        if self.is_in_train or self._has_said_when or not is_yet_to_come or receipt(self.model):
            return
        self._has_said_when = True
        self._say(only_in_training(what))

    def _say(self, line: str) -> None:
        if self.is_world_process_zero():
            logger.log(VISIBLE, line)


class NoisyTuneTrainer(NoisyTuneMixin, Trainer):
    """transformers' Trainer with NoisyTune. Arguments are those of `NoisyTuneMixin`.

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))
        >>> settings = TrainingArguments(tempfile.mkdtemp(), use_cpu=True, max_steps=1, save_strategy="no")
        >>> rows = [{"input_ids": [1, 2, 3], "labels": 1}] * 8
        >>> trainer = NoisyTuneTrainer(model, settings, train_dataset=rows, noisytune_config=NoisyTuneConfig(seed=1))
        >>> trainer.train()  # doctest: +ELLIPSIS
        {'train_runtime': ...
        TrainOutput(global_step=1, ...
        >>> trainer.noisytune_manifest.headline()[:65]
        'NoisyTune: 11 of 25 tensors (4,648 of 4,754 elements) perturbed, '
    """


def attach(
    trainer: SomeTrainer, config: NoisyTuneConfig | None = None, **settings: Unpack[NoiseSettings]
) -> SomeTrainer:
    """Make a trainer add noise to its model when training starts; nothing is changed before.

    Args:
        trainer: a ``transformers.Trainer``, or an instance of a class derived from it: ``Seq2SeqTrainer``, TRL's
            ``SFTTrainer``, sentence-transformers' ``SentenceTransformerTrainer`` ... It has not trained yet.
        config: the settings; or give them by name instead.
        **settings: fields of `NoisyTuneConfig`: noise_lambda, seed (that of the trainer's arguments if not given),
            distribution, scale, scope, include, exclude.

    Returns:
        the same object, whose class is now derived from `NoisyTuneMixin` and from its own.

    Raises:
        ConfigError: it is no trainer, it has trained already, or it has other settings of NoisyTune already.

    Example:
        >>> import tempfile
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        >>> model = BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))
        >>> arguments = TrainingArguments(tempfile.mkdtemp(), use_cpu=True)
        >>> trainer = attach(Trainer(model, arguments), noise_lambda=0.15, seed=1)
        >>> type(trainer).__name__, trainer.noisytune_config.noise_lambda  # nothing has happened yet
        ('NoisyTuneTrainer', 0.15)
    """
    asked = Asked.of(config, settings)
    if not isinstance(trainer, Trainer):
        raise ConfigError(f"attach takes a transformers Trainer, got {type(trainer).__name__}")
    if isinstance(trainer, NoisyTuneMixin):
        wanted = asked.with_seed_of(trainer.args.seed)
        if trainer.noisytune_config != wanted:
            raise ConfigError(
                f"the trainer adds {describe(trainer.noisytune_config)} already, and {describe(wanted)} was asked for: "
                "set trainer.noisytune_config before training starts"
            )
        return trainer
    begun = trainer.is_in_train or trainer.state.global_step > 0 or trainer.model_wrapped is not trainer.model
    if begun and trainer.model_init is None:
        raise ConfigError(
            f"the trainer has trained already (step {trainer.state.global_step}): attach before train(), on the "
            "pretrained weights"
        )
    host: Any = type(trainer)
    trainer.__class__ = _with_noise(host)
    attached = cast(NoisyTuneMixin, trainer)
    attached._noisytune_asked = asked
    if own := {name: vars(trainer).pop(name) for name in _METHODS if name in vars(trainer)}:
        attached._noisytune_instead = own
    return trainer


_METHODS = ("train", "call_model_init", "evaluate", "predict", "save_model", "create_model_card")
"""Of a trainer, that the mixin does something before or after."""


@contextmanager
def _frozen_kept(model: nn.Module) -> Iterator[None]:
    """Within the context frozen weights may change. sentence-transformers reads an adapter's checkpoint into a second
    model, whose base is a clean one, and copies all of that."""
    frozen: list[tuple[Any, Any]] = []
    if any(each.__module__.startswith("sentence_transformers.") for each in type(model).__mro__) and receipt(model):
        adapters = adapter_tensors(model)
        weights = [p for p in model.parameters() if not p.requires_grad and id(p) not in adapters]
        frozen = [(parameter, parameter.detach().to("cpu", copy=True)) for parameter in weights] if adapters else []
    yield
    for parameter, value in frozen:
        parameter.data.copy_(value)


@cache
def _with_noise(host: Any) -> Any:
    """The class derived from `NoisyTuneMixin` and a trainer's; always the same one for the same trainer."""

    def reduce(self: Any, protocol: int) -> tuple[Any, ...]:
        """Pickle finds a class by its name, and this one has none that can be imported."""
        found: Any = object.__reduce_ex__(self, 2)
        return _unpickled, (host,), *found[2:]

    return type(f"NoisyTune{host.__name__}", (NoisyTuneMixin, host), {"__reduce_ex__": reduce, "__module__": __name__})


def _unpickled(host: Any) -> Any:
    derived = _with_noise(host)
    return derived.__new__(derived)


def _folder(resume_from_checkpoint: str | bool | None, output_dir: str) -> str | None:
    """The checkpoint that the trainer will resume from."""
    if isinstance(resume_from_checkpoint, bool):
        last: str | None = get_last_checkpoint(output_dir) if resume_from_checkpoint else None  # type: ignore[no-untyped-call]
        return last
    return resume_from_checkpoint


def _refuse_other_noise(checkpoint: str | None, model: nn.Module, ours: NoisyTuneConfig | None) -> None:
    if checkpoint is not None and (theirs := noise_below(checkpoint, model)) != ours:
        raise ConfigError(
            f"{checkpoint} was trained on weights with {describe(theirs)}, this trainer starts from {describe(ours)}: "
            "resume with the same settings, or start anew"
        )


def _refuse_copies(model: nn.Module, optimizer: Any) -> None:
    """Copies of the clean weights that would find their way into the trained ones."""
    if optimizer is not None:
        if optimizer.state:
            raise UnsupportedTensorError(
                f"the optimizer ({type(optimizer).__name__}) has taken steps already: "
                "noise belongs before training, so give the trainer the pretrained model and a new optimizer"
            )
        held = [tensor for group in optimizer.param_groups for tensor in group["params"]]
        if other := next(_copies(model, held), None):
            raise UnsupportedTensorError(
                f"the optimizer ({type(optimizer).__name__}) holds a copy of {other} instead of the weight itself: "
                "call noisytune.torch.perturb_ before the optimizer is made"
            )


def _copies(model: nn.Module, held: list[Tensor]) -> Iterator[str]:
    """Names of trainable weights that an optimizer lacks while it holds a foreign tensor of their shape."""
    ids, own = set(map(id, held)), {id(parameter) for parameter in model.parameters()}
    foreign = {tensor.shape for tensor in held if id(tensor) not in own}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and id(parameter) not in ids and parameter.shape in foreign:
            yield name
