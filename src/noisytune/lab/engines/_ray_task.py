"""What a task of `noisytune.lab.engines.ray.RayEngine` does: one job, by a worker of the local engine."""

from __future__ import annotations

import os
import pickle
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from noisytune.errors import ConfigError, NoisyTuneError, TrialError
from noisytune.lab.engines.local import LocalEngine
from noisytune.lab.engines.luggage import Trunk, unpacked
from noisytune.lab.engines.protocol import Job
from noisytune.lab.trials.environment import versions

IDLE = 3.0
"""Seconds without a job after which a worker goes that has done a trial, with what it holds of memory and of a GPU."""
PATIENT = 60.0
"""The same for one that has done none: trials will come, once arms are checked and texts are tokens."""
TAKEN = 0.5
"""Seconds for which one that is ready already keeps its place, so that Ray gives the next `Ready` to another."""
EVERY = 0.1
"""Seconds for which messages are gathered."""


class Said(NamedTuple):
    """What a task tells."""

    machine: str
    """Ray's name of it."""
    messages: list[Any]
    """As an engine passes them on; an error is that of a job which could not begin."""
    last: bool
    """Whether the job is over."""


@dataclass(frozen=True)
class Order:
    """What a task is to do."""

    job: bytes
    """Pickled: it may come from a module that has to be looked for."""
    label: str
    """The job's."""
    paths: tuple[str, ...]
    """Where the main process looks for modules."""
    threads: int
    """Of the worker."""
    versions: Mapping[str, str | None]
    """Of the libraries that the main process has."""
    trunks: Mapping[str, Trunk]
    """The files that the job needs, by what it calls them."""
    stay: float
    """Seconds for which the worker waits for another job."""
    first: bytes
    """What it does before all others, pickled."""


@dataclass(frozen=True)
class Ready:
    """A job that is done when its worker is ready for others."""

    label: str = "getting ready"
    limit: float | None = None
    together: str = ""

    def __call__(self, report: object) -> None:
        """Nothing is left to do."""


def carry_out(order: Order) -> Iterator[Said]:
    """Do a job, telling what it reports."""
    machine = import_module("ray").get_runtime_context().get_node_id()
    yield Said(machine, [], last=False)
    heard: SimpleQueue[Any] = SimpleQueue()
    over = object()

    def do() -> None:
        try:
            _refuse_others(order.versions)
            sys.path += [path for path in order.paths if path not in sys.path]
            job = pickle.loads(order.job)
            places = {name: unpacked(trunk, _fetched) for name, trunk in order.trunks.items()}
            _WORKERS.carry_out(job.at(places) if places else job, order, heard)
        except Exception as error:
            known = error if isinstance(error, NoisyTuneError) else TrialError(f"{order.label} failed: {error!r}")
            known.add_note(traceback.format_exc())
            heard.put(known)
        heard.put(over)

    threading.Thread(target=do, daemon=True).start()
    while True:
        batch = [heard.get()]
        until = time.monotonic() + EVERY
        while batch[-1] is not over:
            try:
                batch.append(heard.get(timeout=max(0.0, until - time.monotonic())))
            except Empty:
                break
        if batch[-1] is over:
            yield Said(machine, batch[:-1], last=True)
            return
        yield Said(machine, batch, last=False)


class _Workers:
    """The worker of this process of Ray's, kept from task to task for a while."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: tuple[str, int] | None = None
        self._engine: LocalEngine | None = None
        self._leaving: threading.Timer | None = None

    def carry_out(self, job: Job, order: Order, heard: SimpleQueue[Any]) -> None:
        with self._lock:
            if self._leaving:
                self._leaving.cancel()
            ids = import_module("ray").get_gpu_ids()
            gpus = ",".join(map(str, ids))
            if self._of != (gpus, order.threads):
                self._go()
            if self._engine is None:
                # Said, not left open: without a GPU of its own a job would see all of the machine's.
                os.environ["CUDA_VISIBLE_DEVICES"] = gpus
                together = len(ids) if len(ids) > 1 else None
                self._of, self._engine = (gpus, order.threads), LocalEngine(1, order.threads, gpus_per_trial=together)
                self._engine.start(first=pickle.loads(order.first))
            elif isinstance(job, Ready):
                time.sleep(TAKEN)
            self._engine.run([job], heard.put)
            if not order.stay:
                self._go()
                return
            self._leaving = threading.Timer(order.stay, self._leave)
            self._leaving.daemon = True
            self._leaving.start()

    def _leave(self) -> None:
        with self._lock:
            if threading.current_thread() is self._leaving:
                self._go()

    def _go(self) -> None:
        if self._engine:
            self._engine.close()
        self._of = self._engine = None


_WORKERS = _Workers()


def _refuse_others(expected: Mapping[str, str | None]) -> None:
    """See that this machine has the libraries of the main process.

    Raises:
        ConfigError: it has others; the first is named.
    """
    for name, version in versions().items():
        if expected[name] != version:
            raise ConfigError(
                f"the machine {platform.node()} of the Ray cluster has {name} {version or '-'}, this one has "
                f"{expected[name] or '-'}: results would not be comparable; install the same on both"
            )


def _fetched(reference: Any) -> Any:
    return import_module("ray").get(reference)
