"""Experiment trackers that trials are logged to as well (``report_to``). One that fails costs a warning, no trial.

A study is one experiment (MLflow) or project (Weights & Biases, Trackio), or a folder of TensorBoard's; a trial is one
run, with its arm, task, seed and model as tags and its settings as parameters. Losses come as they are trained, scores
at the end. No part of a trial's key.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

from noisytune.errors import ConfigError, MissingExtraError
from noisytune.lab.store import file_name, refuse_links
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Name of each, which is also that of its library."""


def _unheard(warning: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Tracker:
    """Where the trials of a study are logged.

    Raises:
        ConfigError: no such tracker.
        MissingExtraError: its library is not installed.
    """

    name: str
    logs: Path
    """Where tensorboard's files go. The others have settings of their own, mostly in the environment."""
    study: str
    """Name of the experiment."""
    warn: Callable[[str], None] = _unheard
    """Told in one line when the tracker fails."""

    def __post_init__(self) -> None:
        if self.name not in TRACKERS:
            raise ConfigError(f"no tracker {self.name!r}: choose one of {', '.join(TRACKERS)}")
        if find_spec(self.name) is None:
            raise MissingExtraError(
                f"report_to {self.name} needs the library {self.name!r}, which is not installed: "
                f"run  pip install {self.name}"
            )

    def reached(self) -> bool:
        """Whether it can be reached; a warning where not. Before workers start: an empty database is filled by one."""
        try:
            if self.name == "mlflow":
                _experiment(_mlflow(), self.study)
        except Exception as error:
            self.failed(error)
            return False
        return True

    def failed(self, error: Exception) -> None:
        """Say so."""
        reason = str(error).strip().splitlines() or [""]
        self.warn(
            f"{self.name} failed ({type(error).__name__}: {reason[0]}): what it misses is in the trials' records all "
            "the same"
        )


class Followed:
    """The run of one training in a tracker, if there is one. After its first failure nothing more is tried."""

    def __init__(self, tracker: Tracker | None, training: Trial) -> None:
        self._tracker, self._training = tracker, training
        self._run: _Run | None = None

    def __enter__(self) -> Self:
        self._try(self._begin)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._run:
            self._try(self._run.end, kind is None)

    def loss(self, step: int, loss: float | None) -> None:
        """Log the loss of a step; one that is not finite is left out."""
        if self._run and loss is not None:
            self._try(self._run.log, {"train/loss": loss}, step)

    def scores(self, record: TrialRecord) -> None:
        """Log what a trial came to; of one on another task than it was trained on, under the task's name."""
        if self._run:
            before = "" if record.task == self._training.task else f"{record.task}/"
            scores = {f"{before}{name}": value for name, value in record.scores.items()}
            self._try(self._run.log, scores | {"seconds": record.timing["total"]}, len(record.loss_curve))

    def _begin(self) -> None:
        if self._tracker:
            self._run = _RUNS[self._tracker.name](self._tracker, self._training)

    def _try(self, action: Callable[..., None], *arguments: Any) -> None:
        try:
            action(*arguments)
        except Exception as error:
            self._run = None
            if self._tracker:
                self._tracker.failed(error)


class _Run(Protocol):
    """A run of one tracker; its methods may raise anything."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def end(self, well: bool) -> None: ...  # whether the trial has a record


def _tags(training: Trial) -> dict[str, str]:
    model = training.settings["model"]["name"]
    return {"arm": training.arm, "task": training.task, "seed": str(training.seed), "model": model, "key": training.key}


class _TensorBoard:
    def __init__(self, tracker: Tracker, training: Trial) -> None:
        # Not at the top: only a worker that trains has torch at hand.
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = tracker.logs / file_name(tracker.study) / file_name(training.label)
        refuse_links(tracker.logs, folder.parent)
        refuse_links(folder.parent, folder)
        self._writer: Any = SummaryWriter(log_dir=str(folder))
        for name, value in _tags(training).items():
            self._writer.add_text(name, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def end(self, well: bool) -> None:
        self._writer.close()


class _MLflow:
    """Through the client, which has no state of the process: a run that is left open is nobody else's."""

    def __init__(self, tracker: Tracker, training: Trial) -> None:
        self._client, self._entities = _mlflow(), import_module("mlflow").entities
        experiment = _experiment(self._client, tracker.study)
        run = self._client.create_run(experiment, run_name=training.label, tags=_tags(training))
        self._run = run.info.run_id
        self._metrics: list[Any] = []
        self._sent = time.monotonic()
        parameters = [self._entities.Param(name, str(value)) for name, value in training.settings["training"].items()]
        self._client.log_batch(self._run, params=parameters)

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        for name, value in values.items():
            metric = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)  # what it allows in a name
            self._metrics.append(self._entities.Metric(metric, value, now, step))
        if time.monotonic() - self._sent > 1:  # a request a step would take longer than small steps do
            self._send()

    def end(self, well: bool) -> None:
        self._send()
        self._client.set_terminated(self._run, "FINISHED" if well else "FAILED")

    def _send(self) -> None:
        for start in range(0, len(self._metrics), 1000):
            self._client.log_batch(self._run, metrics=self._metrics[start : start + 1000])
        self._metrics, self._sent = [], time.monotonic()


def _mlflow() -> Any:
    """A client that notices within a minute that its server is gone."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    return import_module("mlflow").MlflowClient()


def _experiment(client: Any, name: str) -> str:
    """Its id; it is created unless it is there."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


class _WandB:
    def __init__(self, tracker: Tracker, training: Trial) -> None:
        tags = _tags(training)
        self._run = import_module("wandb").init(
            project=file_name(tracker.study)[:128],
            name=training.label,
            group=training.task,
            tags=[f"{name}:{tags[name]}"[:64] for name in ("arm", "task", "seed")],
            config=tags | training.settings["training"],
            reinit="finish_previous",
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def end(self, well: bool) -> None:
        self._run.finish(exit_code=0 if well else 1)


class _Trackio:
    def __init__(self, tracker: Tracker, training: Trial) -> None:
        self._library = import_module("trackio")
        self._library.init(
            project=file_name(tracker.study),
            name=training.label,
            group=training.task,
            config=_tags(training) | training.settings["training"],
            embed=False,
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._library.log(dict(values), step=step)

    def end(self, well: bool) -> None:
        self._library.finish()


_RUNS: dict[str, Callable[[Tracker, Trial], _Run]] = {
    "tensorboard": _TensorBoard,
    "mlflow": _MLflow,
    "wandb": _WandB,
    "trackio": _Trackio,
}
