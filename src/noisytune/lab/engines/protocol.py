"""What a study needs to have its jobs done, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Job(Protocol):
    """Something to do in a worker: picklable, and all data."""

    @property
    def label(self) -> str:
        """What it is, for error messages."""
        ...

    def __call__(self, report: Callable[[object], None]) -> object:
        """Do it.

        Args:
            report: sends a message to the main process.

        Returns:
            the last message.
        """
        ...


class Engine(Protocol):
    """Workers that carry out jobs. `tests/lab/engines/test_contract.py` holds every engine to what is said here.

    When something goes wrong:

    - A job fails, or its worker dies: the running jobs are finished, no new ones are begun, `TrialFailed` is reported,
      and the first failure is raised. The engine can be used again.
    - The caller's ``on_message`` raises, or Ctrl-C comes: every running job is given up, and the exception goes on.
    - The process of the engine's owner dies: its workers go too, whatever they are doing.
    """

    @property
    def workers(self) -> int:
        """Jobs that run at a time, >= 1."""
        ...

    def start(self, at_most: int | None = None) -> None:
        """Get ready for jobs, without waiting for it. May be called again, for more workers.

        Args:
            at_most: get no more workers ready than this.
        """
        ...

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None]) -> None:
        """Carry out jobs. The next one is asked for only when a worker is free, so that what came of the others counts.

        Args:
            jobs: what to do, in order.
            on_message: called in this thread with what a job reports, in its order, and last with what it returns.

        Raises:
            NoisyTuneError: what a job raised on purpose, as it is.
            TrialError: a job failed in another way, or its worker died: one line with the job's label.
        """
        ...

    def close(self) -> None:
        """Give up whatever is running, and let the workers go. A closed engine can be started again."""
        ...
