"""The options of the command line, each declared once: settings in their tables, the others here."""

from __future__ import annotations

import inspect
from dataclasses import Field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from noisytune._settings import setting_of, settings_of
from noisytune.cli._help import Rare
from noisytune.cli._running import Running
from noisytune.config import NoisyTuneConfig
from noisytune.lab.studies.compare import Noises
from noisytune.lab.studies.search import Space
from noisytune.lab.tasks import LANGUAGE_MODELS, XTREME_ONLY, TaskOptions
from noisytune.lab.trials.command import Command
from noisytune.lab.trials.scores import Scoring
from noisytune.lab.trials.settings import TrainingSettings

WHAT, OWN, NOISE, NOISES, SPACE, TRAINING, MEMORY, LANGUAGES, FILE, COMPLETIONS, RUN = (
    "What to compare",
    "Your own training",
    "Noise",
    "Noise: an arm for each combination of values",
    "Values to try, with commas between them",
    "Training",
    "Memory and speed",
    "XTREME",
    "Your own file",
    "Your own file, for a language model",
    "Run",
)
"""Headings of the help pages."""

_HEADINGS = {
    "data_dir": WHAT,
    "language": WHAT,
    "metric": WHAT,
    "train_size": TRAINING,
    "dev_size": TRAINING,
    "split_seed": TRAINING,
    **dict.fromkeys(XTREME_ONLY, LANGUAGES),
    **dict.fromkeys(LANGUAGE_MODELS, COMPLETIONS),
}
"""Of those options of a task that do not stand under `FILE`."""
_LARGE = dict.fromkeys(("precision", "gradient_accumulation", "gradient_checkpointing", "attention", "compile"), MEMORY)
"""Headings of the settings of the training that large models need."""


def option(
    panel: str, help_text: str, metavar: str | None = None, *names: str, common: bool = True, **more: Any
) -> Any:
    """An option under a heading of the help page; one that is not ``common`` is on the page of --help-all only."""
    heading = panel if common else Rare(panel)
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=heading, **more)


class Settings:
    """Stands for the options of a dataclass of settings: ``Annotated[dict[str, Any], Settings(Space, SPACE)]``.

    The command gets a dictionary with the settings that have a value.

    Args:
        owner: the dataclass.
        heading: on the help page; of fields that are not in ``headings``.
        names: which of its fields; default: all.
        headings: of some fields, by name.
        without: fields that are no options of the command.
        unset: these have no default, so that the command knows whether they were given; True: none has.
        more: to say of some fields, by name.
        shown: whether the help page says the defaults that the command leaves to somebody else.
    """

    def __init__(
        self,
        owner: type,
        heading: str,
        *names: str,
        headings: dict[str, str] | None = None,
        without: tuple[str, ...] = (),
        unset: tuple[str, ...] | bool = (),
        more: dict[str, str] | None = None,
        shown: bool = False,
    ) -> None:
        self._fields = {name: field for name, field in settings_of(owner).items() if name not in without}
        self._fields = {name: self._fields[name] for name in names} if names else self._fields
        self._headings = {name: (headings or {}).get(name, heading) for name in self._fields}
        self._more = more or {}
        self._shown = shown
        self._unset = frozenset(self._fields if unset is True else unset or ())

    @property
    def names(self) -> list[str]:
        """Of the settings."""
        return list(self._fields)

    def parameters(self) -> list[inspect.Parameter]:
        """One for each option, annotated for typer."""
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if name in self._unset else _default(field),
                annotation=Annotated[_type(field), self._option(name)],
            )
            for name, field in self._fields.items()
        ]

    def _option(self, name: str) -> Any:
        """How an option is declared."""
        field = self._fields[name]
        shown = _default(field) if self._shown and field.default is not False else None
        return _option(field, self._headings[name], self._more.get(name, ""), shown)

    def take(self, values: dict[str, Any]) -> dict[str, Any]:
        """The settings among the values of a command's options, as far as they have one."""
        return {name: values[name] for name in self._fields if values[name] not in (None, [])}


def _option(field: Field[Any], heading: str, more: str, shown: Any) -> Any:
    setting = setting_of(field)
    choices, metavar = setting.metavar.split("|"), setting.metavar
    said = [setting.about]
    if len(metavar) > 14 and len(choices) > 1:  # would be broken in mid-word on a narrow terminal
        said, metavar = [*said, f"One of {', '.join(choices)}."], "NAME"
    said += ["May be repeated."] if setting.separator == "|" else []
    # A name of its own: typer would give a boolean two, and shorten others.
    told = {} if shown is None else {"show_default": str(shown)}
    name = f"--{field.name.replace('_', '-')}"
    return option(heading, " ".join(filter(None, [*said, more])), metavar, name, common=setting.common, **told)


def _type(field: Field[Any]) -> Any:
    setting = setting_of(field)
    if setting.separator:
        return list[str] | None if setting.separator == "|" else str | None
    return setting.type | None


def _default(field: Field[Any]) -> Any:
    """As the command line writes it.

    >>> _default(settings_of(Space)["learning_rate"])
    '7e-6,1e-5,2e-5,3e-5'
    """
    if not isinstance(field.default, tuple):
        return field.default
    texts = [f"{value:g}".replace("e-0", "e-") if isinstance(value, float) else str(value) for value in field.default]
    return ",".join(texts) or None


class Tracker(StrEnum):
    """Trackers that transformers can log to."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"
    trackio = "trackio"


Model = Annotated[
    str | None, option(WHAT, "Fine-tune these weights. Default: all-MiniLM-L6-v2, needs no network.", "DIR|HUB_ID")
]
Task = Annotated[
    str,
    option(
        WHAT,
        "Fine-tune on this: topics, replies, glue, glue/NAME, xtreme, xtreme/NAME or a FILE "
        "(CSV, TSV, JSONL, Parquet).",
        "TASK",
        "--task",
    ),
]
Arms = Annotated[
    list[str] | None,
    option(WHAT, "Compare this arm with plain fine-tuning. May be repeated. See noisytune methods.", "ARM", "--arm"),
]
Seeds = Annotated[int, option(WHAT, "Run this many pairs: seeds 0, 1, 2 ...", "N", min=1)]


def finite(value: float | None) -> float | None:
    """The value of an option, which must be a number that can be drawn."""
    if value is not None and not abs(value) <= LARGEST:
        raise typer.BadParameter(f"{value} is not a number up to {LARGEST:,}.")
    return value


LARGEST = 1_000_000
"""Points."""
Margin = Annotated[
    float,
    option(WHAT, "Count differences within this many points as equivalent.", "POINTS", min=0, callback=finite),
]
Noise = Annotated[
    dict[str, Any],
    Settings(Noises, NOISES, unset=("noise_lambda",), more={"noise_lambda": "Default, without --arm: 0.15."}),
]
CheckpointNoise = Annotated[dict[str, Any], Settings(NoisyTuneConfig, NOISE, without=("scope",))]
Measure = Annotated[dict[str, Any], Settings(NoisyTuneConfig, NOISE, "noise_lambda", "scale", "include", "exclude")]
OwnTraining = Annotated[dict[str, Any], Settings(Command, OWN, unset=True, shown=True)]
OwnScore = Annotated[dict[str, Any], Settings(Scoring, OWN, unset=True)]
Data = Annotated[dict[str, Any], Settings(TaskOptions, FILE, headings=_HEADINGS)]
Training = Annotated[
    dict[str, Any],
    Settings(
        TrainingSettings,
        TRAINING,
        headings=_LARGE,
        unset=True,
        more={"learning_rate": "Default: 2e-4 for the default model, 2e-5 for others."},
        shown=True,
    ),
]
OtherData = Annotated[dict[str, Any], Settings(TaskOptions, FILE, headings=_HEADINGS, unset=True)]
OtherTraining = Annotated[dict[str, Any], Settings(TrainingSettings, TRAINING, headings=_LARGE, unset=True)]
TuneTraining = Annotated[
    dict[str, Any],
    Settings(
        TrainingSettings,
        TRAINING,
        *(
            "max_length",
            "warmup",
            "weight_decay",
            "max_grad_norm",
            "schedule",
            "optimizer",
            "logging",
            *_LARGE,
            "lora",
            "quantize",
        ),
        headings=_LARGE,
        unset=True,
        shown=True,
    ),
]
ExploreTraining = Annotated[
    dict[str, Any],
    Settings(
        TrainingSettings,
        TRAINING,
        headings=_LARGE,
        without=("select", "protocol"),
        unset=True,
        more={"learning_rate": "Default: 2e-4 for the default model, 2e-5 for others."},
        shown=True,
    ),
]
Values = Annotated[dict[str, Any], Settings(Space, SPACE)]
Out = Annotated[
    Path | None, option(RUN, "Keep everything in this run folder. Default: one of its own in runs/.", "DIR")
]
HowToRun = Annotated[dict[str, Any], Settings(Running, RUN)]
ReportTo = Annotated[
    Tracker | None,
    option(RUN, "Log each trial there as well: tensorboard, mlflow, wandb or trackio.", "TRACKER", common=False),
]
DryRun = Annotated[bool, option(RUN, "Show trials, tokens, FLOPs and time; run none.", "", "--dry-run")]
Json = Annotated[bool, option(RUN, "Print one JSON object and nothing else.", "", "--json")]
Debug = Annotated[bool, option(RUN, "Show the whole traceback of an error.", "", "--debug")]
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A directory of weights, or a model's id on the Hub.", show_default=False)
]
