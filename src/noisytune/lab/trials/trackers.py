"""Experiment trackers that a trial may log to as well (``--report-to``)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noisytune.errors import ConfigError, MissingExtraError

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Name of each, which is also that of its library."""


@dataclass(frozen=True)
class Tracker:
    """Where trials log their steps. No part of a trial's key.

    Raises:
        ConfigError: no such tracker.
        MissingExtraError: its library is not installed.
    """

    name: str
    logs: Path
    """Where tensorboard's files go, one folder a trial. The others have settings of their own."""

    def __post_init__(self) -> None:
        if self.name not in TRACKERS:
            raise ConfigError(f"no tracker {self.name!r}: choose one of {', '.join(TRACKERS)}")
        if find_spec(self.name) is None:
            raise MissingExtraError(
                f"--report-to {self.name} needs the library {self.name!r}, which is not installed: "
                f"run  pip install {self.name}"
            )

    @property
    def report_to(self) -> str:
        """For ``TrainingArguments``."""
        return "none" if self.name == "tensorboard" else self.name

    def callbacks(self, run_name: str) -> list[Any]:
        """Callbacks for the Trainer that ``report_to`` does not bring."""
        if self.name != "tensorboard":
            return []
        # transformers takes the folder from the environment, which trials in one process would share.
        from torch.utils.tensorboard.writer import SummaryWriter
        from transformers.integrations.integration_utils import TensorBoardCallback

        writer: Any = SummaryWriter(log_dir=str(self.logs / run_name.replace("/", "_")))
        return [TensorBoardCallback(writer)]  # type: ignore[no-untyped-call]

    def finish(self) -> None:
        """End the run, so that the next trial of the same process begins another."""
        if self.name == "wandb":
            import_module("wandb").finish()
