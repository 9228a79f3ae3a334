"""Where jobs run: worker processes on this machine that live from job to job."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Self

from noisytune._machine import available_cores, has_apple_gpu
from noisytune.errors import ConfigError, NoisyTuneError, TrialError
from noisytune.lab.engines._process import Inbox, WorkerProcess
from noisytune.lab.engines.devices import JobQueue, shared_out, visible_devices
from noisytune.lab.engines.protocol import Cause, First, Job, JobFailed


class LocalEngine:
    """Worker processes on this machine.

    Each is a fresh interpreter that imports once what its trials need. It lives as long as its stdin is open, so it
    goes when the engine closes or the main process dies, even by SIGKILL. Ctrl-C reaches the main process only.

    >>> with LocalEngine(workers=2) as engine:
    ...     engine.run([], print)
    """

    def __init__(
        self,
        workers: int | None = None,
        threads_per_worker: int | None = None,
        trials_per_gpu: int | None = None,
        gpus_per_trial: int | None = None,
    ) -> None:
        """Nothing starts yet.

        Args:
            workers: processes, >= 1. None: one for each GPU (Apple's too), or one for each core where there is none.
            threads_per_worker: >= 1. None: the cores, shared out.
            trials_per_gpu: workers that share a GPU, >= 1. None: one, or as many as ``workers`` asks for.
            gpus_per_trial: GPUs that each worker sees, >= 1. None: one.

        Raises:
            ConfigError: a number is not positive, or there are not so many GPUs.
        """
        given = {
            "workers": workers,
            "threads_per_worker": threads_per_worker,
            "trials_per_gpu": trials_per_gpu,
            "gpus_per_trial": gpus_per_trial,
        }
        for name, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        room = 1 if has_apple_gpu() else available_cores()
        self._devices = shared_out(visible_devices(), room, workers, trials_per_gpu, gpus_per_trial)
        self.workers = len(self._devices)
        self.threads_per_worker = threads_per_worker or max(1, available_cores() // self.workers)
        self._first: First | None = None
        self._team: list[WorkerProcess] = []
        self._inbox: Inbox = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, at_most: int | None = None, first: First | None = None) -> None:
        """Start the workers that are not running yet, without waiting for them.

        Args:
            at_most: start no more than this, for a study with few trials left.
            first: what those do before their first job, and those that take their places.
        """
        self._first = first or self._first
        wanted = self.workers if at_most is None else min(self.workers, at_most)
        for device in self._devices[len(self._team) : wanted]:
            self._team.append(WorkerProcess(device, self.threads_per_worker, self._inbox, self._first))

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None], *, alone: bool = False) -> None:
        """Carry out jobs, as `noisytune.lab.engines.protocol.Engine.run` says.

        Args:
            jobs: each asked for when a worker is free.
            on_message: told, in this thread, of everything that jobs report, their results and `JobFailed` among it.
            alone: one job at a time, with nothing beside it.
        """
        if alone:
            self.close()
        if not self._team:
            self.start(1 if alone else None)
        try:
            self._run(JobQueue(jobs), on_message)
        except BaseException:
            self.close()
            raise
        if alone:
            self.close()

    def close(self) -> None:
        """Stop all workers, whatever they are doing."""
        team, self._team = self._team, []
        for worker in team:
            worker.dismiss()
        for worker in team:
            worker.wait()
        self._inbox = SimpleQueue()

    def _run(self, jobs: JobQueue, on_message: Callable[[Any], None]) -> None:
        idle, busy = deque(self._team), dict[WorkerProcess, _Running]()
        while True:
            self._hand_out(jobs, idle, busy)
            if not busy:
                return
            worker, kind, content = self._heard(busy)
            if worker not in self._team:  # what a worker said before it was killed
                continue
            if kind == "message":
                on_message(content)
                continue
            if kind == "begun":
                busy[worker] = _Running(busy[worker].job, time.monotonic())
                continue
            running = busy.pop(worker, None)
            if kind in ("done", "failed"):
                idle.append(worker)
            else:
                if running:
                    kind, content = _failure(worker, running.job, kind, content)
                else:  # it died while it had nothing to do
                    idle.remove(worker)
                idle.append(self._replaced(worker))
            if running:
                cause: Cause = "error" if kind == "failed" else kind  # type: ignore[assignment]
                on_message(content if kind == "done" else JobFailed(running.job, content, cause))

    def _hand_out(self, jobs: JobQueue, idle: deque[WorkerProcess], busy: dict[WorkerProcess, _Running]) -> None:
        """Give every idle worker a job, if there is one for it."""
        for _ in range(len(idle)):
            worker = idle.popleft()
            job = jobs.next_for(worker.device.kind, others=len(self._team))
            if job is None:
                idle.append(worker)
                continue
            busy[worker] = _Running(job)
            worker.give(job)

    def _heard(self, busy: dict[WorkerProcess, _Running]) -> tuple[WorkerProcess, str, Any]:
        """What comes next: what a worker says, that it died, or that the time of one is up."""
        # A new worker takes its time to start: that is not the job's.
        late = min(busy, key=lambda worker: busy[worker].deadline)
        left = busy[late].deadline - time.monotonic()
        try:
            return self._inbox.get(timeout=None if left == math.inf else max(left, 0.0))
        except Empty:
            return late, "time", None

    def _replaced(self, worker: WorkerProcess) -> WorkerProcess:
        """Another worker in the place of one, of which nothing is left."""
        worker.kill()
        worker.dismiss()
        worker.wait()
        another = WorkerProcess(worker.device, self.threads_per_worker, self._inbox, self._first)
        self._team[self._team.index(worker)] = another
        return another


class _Running(NamedTuple):
    """What a worker is doing."""

    job: Job
    begun: float = math.inf
    """When, by the clock that nobody sets."""

    @property
    def deadline(self) -> float:
        """When its time is up."""
        return self.begun + (math.inf if self.job.limit is None else self.job.limit)


def _failure(worker: WorkerProcess, job: Job, kind: str, said: Any) -> tuple[Cause, NoisyTuneError]:
    """Why a job failed whose worker is gone, or better gone."""
    if kind == "memory":
        return "memory", said
    if kind == "broken":
        return "error", said
    if kind == "died":
        return worker.obituary(job.label)
    worker.kill()
    error = TrialError(f"{job.label}: given up after {job.limit:g} s, the most that a trial may take")
    return "time", worker.with_last_words(error)
