"""Where jobs run: the machines of a Ray cluster, each job a task in which a worker process does what it does here.

A task starts the worker of `noisytune.lab.engines.LocalEngine` on its machine, with the processors and the part of a
GPU that Ray gave it. Ray tries nothing again by itself: the study decides. Records come back to this process, the only
one that writes.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self

from noisytune.errors import ConfigError, NoisyTuneError, TrialError, require
from noisytune.lab.engines import _ray_task
from noisytune.lab.engines.devices import JobQueue
from noisytune.lab.engines.local import LocalEngine
from noisytune.lab.engines.luggage import Trunk, packed
from noisytune.lab.engines.protocol import Cause, First, Job, JobFailed
from noisytune.lab.engines.shares import Machine, Share, shares_of
from noisytune.lab.trials.environment import versions
from noisytune.lab.trials.jobs import TrialJob

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTICED = 15.0
"""Seconds after which Ray knows at the latest that a machine is gone whose task broke off."""


class RayEngine:
    """Tasks on a Ray cluster: an `noisytune.lab.engines.protocol.Engine`."""

    def __init__(
        self,
        workers: int | None = None,
        address: str | None = None,
        trials_per_gpu: int | None = None,
        gpus_per_trial: int | None = None,
    ) -> None:
        """Nothing starts yet.

        Args:
            workers: tasks at a time, >= 1. None: one for each GPU of the cluster, or for each processor.
            address: of the cluster: ``auto`` is the one of this machine. None: the same, or a new one here.
            trials_per_gpu: tasks that share a GPU, >= 1. None: one.
            gpus_per_trial: GPUs of each task, >= 1. None: one.

        Raises:
            ConfigError: a number is not positive.
            MissingExtraError: Ray is not installed.
        """
        given = {"workers": workers, "trials_per_gpu": trials_per_gpu, "gpus_per_trial": gpus_per_trial}
        for name, value in given.items():
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        require("ray", extra="ray", needed_for="the engine ray")
        self._asked, self._address, self._each = workers, address, (trials_per_gpu, gpus_per_trial)
        self._mine = self._alone = False
        self._share: Share | None = None
        self._running: dict[Any, _Running] = {}
        self._trunks: dict[Any, Trunk] = {}
        self._home: str | None = None
        self._first: First | None = None
        self._started = 0
        self._starting: list[Any] = []
        self._beside = LocalEngine(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """Tasks at a time. Connects."""
        return len(self._connected().kinds)

    def start(self, at_most: int | None = None, first: First | None = None) -> None:
        """Connect, and start the workers without waiting for them.

        Args:
            at_most: start no more than this.
            first: what each does before its first job.

        Raises:
            ConfigError: there is no cluster, or not so much room in it.
        """
        self._first = first or self._first
        kinds = self._connected().kinds[:at_most]
        if len(kinds) > self._started:
            self._started = len(kinds)
            self._starting += [self._begun(_ray_task.Ready(), kind) for kind in kinds]

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None], *, alone: bool = False) -> None:
        """Carry out jobs, as `noisytune.lab.engines.protocol.Engine.run` says. What belongs to the run folder is done
        on this machine."""
        share = self._connected()
        if alone:
            time.sleep(_ray_task.IDLE + 1)  # until the workers of earlier trials are gone
        try:
            self._alone = alone
            self._run(JobQueue(jobs), on_message, share.kinds[:1] if alone else share.kinds)
        except BaseException:
            self.close()
            raise
        finally:
            self._beside.close()

    def close(self) -> None:
        """Give up whatever is running. A cluster that was there before stays; its workers go by themselves."""
        ray, running, self._running = _ray(), self._running, {}
        for task in (*running, *self._starting):
            with suppress(Exception):
                ray.cancel(task, force=True)
        if self._mine:
            ray.shutdown()
        self._mine, self._share, self._trunks = False, None, {}
        self._started, self._starting = 0, []

    def _connected(self) -> Share:
        if self._share is None:
            ray = _ray()
            if not ray.is_initialized():
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
                try:
                    with _own_signals():
                        quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
                        ray.init(_reached(self._address), **quiet)
                except (ConnectionError, ValueError, OSError) as error:
                    said = str(error).strip().splitlines()
                    raise ConfigError(f"no Ray cluster at {self._address or 'hand'}: {said[0]}") from error
                self._mine = True
            self._share = shares_of(_machines(), self._asked, *self._each)
            self._home = _home(self._share)
        return self._share

    def _run(self, jobs: JobQueue, on_message: Callable[[Any], None], kinds: tuple[str, ...]) -> None:
        ray, idle = _ray(), deque(kinds)
        while True:
            for _ in range(len(idle)):
                kind = idle.popleft()
                job = jobs.next_for(kind, others=len(kinds))
                while job and not self._has_place_for(job):
                    self._beside.start(first=self._first)
                    self._beside.run([job], on_message)
                    job = jobs.next_for(kind, others=len(kinds))
                if job is None:
                    idle.append(kind)
                else:
                    self._running[self._begun(job, kind)] = _Running(job, kind)
            if not self._running:
                return
            (task,), _ = ray.wait(list(self._running), num_returns=1)
            running = self._running[task]
            try:
                said: _ray_task.Said = ray.get(next(task))
            except (StopIteration, ray.exceptions.RayError) as error:
                del self._running[task]
                idle.append(running.kind)
                failure = _failure(running, error)
                if failure.cause == "lost":
                    idle = self._left(idle, kinds)
                on_message(failure)
                continue
            running.machine = said.machine
            if said.last:
                del self._running[task]
                idle.append(running.kind)
            for message in said.messages:
                on_message(_told(message, running.job))

    def _has_place_for(self, job: Job) -> bool:
        """Whether the cluster can do a job: one for this machine only where it has a place there."""
        return not _is_here(job) or self._home is not None

    def _begun(self, job: Job, kind: str) -> Any:
        share, ray = self._connected(), _ray()
        needs = job.needs() if hasattr(job, "needs") else {}
        trunks = {name: self._trunk(files) for name, files in needs.items()}
        options = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": 0, "num_returns": "streaming"}
        if _is_here(job):
            strategies = import_module("ray.util.scheduling_strategies")
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(self._home, soft=False)
        else:
            options["scheduling_strategy"] = "SPREAD"
            if len(set(share.kinds)) > 1 and kind:
                options["accelerator_type"] = kind
        if is_trial := isinstance(job, TrialJob):
            self._started = 0  # the workers go after their trials: whoever has more starts them again
        order = _ray_task.Order(
            job=pickle.dumps(job),
            label=job.label,
            paths=tuple(sys.path),
            threads=share.cpus,
            versions=versions(),
            trunks=trunks,
            stay=0.0 if self._alone else _ray_task.IDLE if is_trial else _ray_task.PATIENT,
            first=pickle.dumps(self._first),
        )
        return ray.remote(_ray_task.carry_out).options(**options, name=job.label).remote(order)

    def _trunk(self, files: Any) -> Trunk:
        """What is sent of files, put into Ray's store once, and only where there is another machine."""
        if files not in self._trunks:
            trunk, content = packed(files)
            several = len({node["NodeManagerHostname"] for node in _nodes()}) > 1
            self._trunks[files] = replace(trunk, content=_ray().put(content())) if several else trunk
        return self._trunks[files]

    def _left(self, idle: deque[str], kinds: tuple[str, ...]) -> deque[str]:
        """The idle places that a smaller cluster still has."""
        with suppress(ConfigError):
            room = Counter(shares_of(_machines(), None, *self._each).kinds) - Counter(
                running.kind for running in self._running.values()
            )
            found: deque[str] = deque()
            for kind in idle:
                if room[kind] > 0:
                    room[kind] -= 1
                    found.append(kind)
            if found or self._running:
                return found
        raise TrialError("no machine is left of the Ray cluster: the same command goes on once there is one")


@dataclass
class _Running:
    job: Job
    kind: str
    machine: str = ""
    """Ray's name of it; empty until the task has begun."""


def _reached(address: str | None) -> str | None:
    """The address with a port, if something answers there: Ray itself would try for minutes."""
    if address in (None, "auto") or "://" in str(address):
        return address
    host, _, port = str(address).partition(":")
    with socket.create_connection((host, int(port or 6379)), timeout=10):
        return f"{host}:{port or 6379}"


def _ray() -> Any:
    return import_module("ray")


def _nodes() -> list[Any]:
    return [node for node in _ray().nodes() if node["Alive"]]


def _machines() -> list[Machine]:
    found = []
    for node in _nodes():
        has = node["Resources"]
        kind = next((name.partition(":")[2] for name in has if name.startswith("accelerator_type:")), "")
        found.append(Machine(int(has.get("CPU", 0)), int(has.get("GPU", 0)), kind))
    return found


def _home(share: Share) -> str | None:
    """Ray's name of this machine, if a task has room on it."""
    mine = _ray().get_runtime_context().get_node_id()
    for node in _nodes():
        if node["NodeID"] == mine and node["NodeManagerHostname"] == socket.gethostname():
            has = node["Resources"]
            return mine if has.get("CPU", 0) >= share.cpus and has.get("GPU", 0) >= share.gpus else None
    return None


def _is_here(job: Job) -> bool:
    return getattr(job, "here", False)


def _told(message: Any, job: Job) -> Any:
    """A message as its sender meant it: about the job as it is known here."""
    if isinstance(message, NoisyTuneError):
        return JobFailed(job, message, "error")
    return replace(message, job=job) if isinstance(message, JobFailed) else message


def _failure(running: _Running, error: Exception) -> JobFailed:
    """Why a task has no result."""
    errors, label = _ray().exceptions, running.job.label
    cause: Cause = "died"
    if isinstance(error, errors.OutOfMemoryError):
        cause, reason = "memory", "was ended by Ray for want of memory: try fewer workers or a smaller batch_size"
    elif isinstance(error, errors.RayTaskError):
        cause, reason = "error", f"could not begin: {str(error).strip().splitlines()[-1]}"
    elif _is_gone(running.machine):
        cause, reason = "lost", "went with its machine"
    else:
        reason = f"broke off: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    failed = TrialError(f"{label}: its worker {reason}")
    failed.add_note(str(error))
    return JobFailed(running.job, failed, cause)


def _is_gone(machine: str) -> bool:
    """Whether a machine is, as far as Ray knows soon."""
    until = time.monotonic() + NOTICED
    while machine in {node["NodeID"] for node in _nodes()}:
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return bool(machine)


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray replaces when it connects."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
