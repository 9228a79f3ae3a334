"""What a study needs to have its jobs done, wherever that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from noisytune.errors import NoisyTuneError

Cause = Literal["error", "memory", "died", "time", "lost"]
"""Why a job failed: an exception; want of memory, said or supposed; its worker died; its time was up; the machine that
it ran on is gone."""

First = Callable[[], object]
"""What a worker does first: picklable, and without consequence where it fails, for the job that needs it says so."""


class Job(Protocol):
    """Something to do in a worker: picklable, and all data."""

    @property
    def label(self) -> str:
        """What it is, for error messages."""
        ...

    @property
    def limit(self) -> float | None:
        """Seconds after which it is given up; None: never."""
        ...

    @property
    def together(self) -> str:
        """Jobs with the same name run on the same kind of device; empty: on any."""
        ...

    def __call__(self, report: Callable[[object], None]) -> object:
        """Do it.

        Args:
            report: sends a message to the main process.

        Returns:
            the last message.
        """
        ...


@dataclass(frozen=True)
class JobFailed:
    """A job was begun, and has no result."""

    job: Job
    error: NoisyTuneError
    """What a job raised on purpose, as it is; else one line with the job's label. A traceback, or the last words of a
    worker, are its notes."""
    cause: Cause


class Engine(Protocol):
    """Workers that carry out jobs. `tests/lab/engines/test_contract.py` holds every engine to what is said here.

    When something goes wrong:

    - A job fails, its worker dies, or its time is up: ``on_message`` gets a `JobFailed`, and the other jobs go on. An
      engine tries nothing twice: whoever gave the job decides.
    - The caller's ``on_message`` raises, or Ctrl-C comes: every running job is given up, and the exception goes on.
      The engine can be used again.
    - The process of the engine's owner dies: its workers go too, whatever they are doing, with all that they started.
    """

    @property
    def workers(self) -> int:
        """Jobs that run at a time, >= 1."""
        ...

    def start(self, at_most: int | None = None, first: First | None = None) -> None:
        """Get ready for jobs, without waiting for it. May be called again, for more workers.

        Args:
            at_most: get no more workers ready than this.
            first: what each worker that is started from now on does before its first job, such as imports.
        """
        ...

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None], *, alone: bool = False) -> None:
        """Carry out jobs. The next one is asked for only when a worker is free, so that what came of the others counts.

        Args:
            jobs: what to do, in order. Whoever gives no more jobs lets the running ones finish.
            on_message: called in this thread with what a job reports, in its order, and last with what it returns, or
                with `JobFailed`.
            alone: one job at a time, with no other worker of this engine in the memory of its machine.
        """
        ...

    def close(self) -> None:
        """Give up whatever is running, and let the workers go. A closed engine can be started again."""
        ...
