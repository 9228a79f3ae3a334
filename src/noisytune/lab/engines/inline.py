"""Jobs done in this process, one after the other: to look at a trial in a debugger, and for tests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Self

from noisytune.errors import ConfigError
from noisytune.lab.engines._worker import carry_out
from noisytune.lab.engines.protocol import First, Job, JobFailed


class InlineEngine:
    """An engine without processes. Takes as many jobs as it has workers, then carries out the first.

    So a study sees what it would see of several workers: trials that are begun and not finished yet. With three
    workers, the fourth job is asked for when the first is done.

    >>> with InlineEngine() as engine:
    ...     engine.run([], print)
    """

    def __init__(self, workers: int = 1) -> None:
        """Nothing starts.

        Args:
            workers: jobs that are begun before the first one is carried out, >= 1.

        Raises:
            ConfigError: the number is not positive.
        """
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self.workers = workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, at_most: int | None = None, first: First | None = None) -> None:
        """Do nothing: the worker is this process.

        Args:
            at_most: counts for nothing here.
            first: as `at_most`.
        """

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None], *, alone: bool = False) -> None:
        """Carry out jobs, as `noisytune.lab.engines.protocol.Engine.run` says; limits of time are not kept.

        Args:
            jobs: each asked for when there is room for it.
            on_message: told of everything that jobs report, their results and `JobFailed` among it.
            alone: one job at a time, whatever the number of workers.
        """
        waiting, begun = iter(jobs), deque[Job]()
        most = 1 if alone else self.workers
        while True:
            while len(begun) < most and (job := next(waiting, None)) is not None:
                begun.append(job)
            if not begun:
                return
            job = begun.popleft()
            outcome, content = _carried_out(job, on_message)
            if outcome == "done":
                on_message(content)
            else:
                on_message(JobFailed(job, content, "memory" if outcome == "memory" else "error"))

    def close(self) -> None:
        """Do nothing: nothing runs between calls."""


class _CallbackError(BaseException):
    """Carries an exception of the caller's ``on_message`` past the job, which did not fail."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _carried_out(job: Job, on_message: Callable[[Any], None]) -> tuple[str, Any]:
    def report(message: object) -> None:
        try:
            on_message(message)
        except Exception as error:
            raise _CallbackError(error) from error

    try:
        return carry_out(job, report)
    except _CallbackError as stopped:
        raise stopped.error from None
