"""Experiment trackers that a trial may log to as well (``report_to``). One that fails costs a warning, no trial."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from noisytune.errors import ConfigError, MissingExtraError
from noisytune.lab.store import refuse_links

TRACKERS = ("tensorboard", "mlflow", "wandb", "trackio")
"""Name of each, which is also that of its library."""


def _unheard(warning: str) -> None:
    """Nobody listens."""


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

    report_to = "none"
    """For ``TrainingArguments``: the callbacks below do it, so that a failure of theirs is not the trial's."""

    def callbacks(self, run_name: str) -> list[Any]:
        """Callbacks for the Trainer; none where the tracker cannot be reached."""
        try:
            return [_Guarded(self._callback(run_name), self._failed)]
        except Exception as error:
            self._failed(error)
            return []

    def finish(self) -> None:
        """End the run, so that the next trial of the same process begins another."""
        if self.name == "wandb":
            try:
                import_module("wandb").finish()
            except Exception as error:
                self._failed(error)

    def _callback(self, run_name: str) -> Any:
        from transformers.integrations import integration_utils

        if self.name != "tensorboard":
            (callback,) = integration_utils.get_reporting_integration_callbacks([self.name])  # type: ignore[no-untyped-call]
            return callback()
        # transformers takes the folder from the environment, which trials in one process would share.
        from torch.utils.tensorboard.writer import SummaryWriter

        folder = self.logs / run_name.replace("/", "_")
        refuse_links(self.logs, folder)
        writer: Any = SummaryWriter(log_dir=str(folder))
        return integration_utils.TensorBoardCallback(writer)  # type: ignore[no-untyped-call]

    def _failed(self, error: Exception) -> None:
        reason = str(error).strip().splitlines() or [""]
        self.warn(
            f"{self.name} failed ({type(error).__name__}: {reason[0]}): what it misses is in the trials' records all "
            "the same"
        )


class _Guarded:
    """A callback of the Trainer that is left out after its first failure."""

    def __init__(self, callback: Any, failed: Callable[[Exception], None]) -> None:
        self._callback = callback
        self._failed: Callable[[Exception], None] | None = failed

    def __getattr__(self, event: str) -> Any:
        method = getattr(self._callback, event)

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if self._failed is None:
                return None
            try:
                return method(*args, **kwargs)
            except Exception as error:
                failed, self._failed = self._failed, None
                failed(error)
                return None

        return guarded if event.startswith("on_") else method
