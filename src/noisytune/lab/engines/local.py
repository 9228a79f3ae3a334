"""Where jobs run: worker processes on this machine that live from job to job."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any, Self

from noisytune._machine import available_cores, visible_gpus
from noisytune.errors import ConfigError, TrialError
from noisytune.lab.engines.protocol import Job
from noisytune.lab.trials.events import TrialFailed


class LocalEngine:
    """Worker processes on this machine.

    Each is a fresh interpreter that imports torch and transformers once. It lives as long as its stdin is open, so it
    goes when the engine closes or the main process dies, even by SIGKILL. Ctrl-C reaches the main process only.

    >>> with LocalEngine(workers=2) as engine:
    ...     engine.run([], print)
    """

    def __init__(self, workers: int | None = None, threads_per_worker: int | None = None) -> None:
        """Nothing starts yet.

        Args:
            workers: processes, >= 1. None: one for each GPU, or one for each core where there is none.
            threads_per_worker: >= 1. None: the cores, shared out.

        Raises:
            ConfigError: a number is not positive.
        """
        for name, value in (("workers", workers), ("threads_per_worker", threads_per_worker)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")
        self.gpus = visible_gpus()
        self.workers = workers or len(self.gpus) or available_cores()
        self.threads_per_worker = threads_per_worker or max(1, available_cores() // self.workers)
        self._team: list[_Worker] = []
        self._inbox: SimpleQueue[tuple[_Worker, str, Any]] = SimpleQueue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, at_most: int | None = None) -> None:
        """Start the workers that are not running yet, without waiting for them.

        Args:
            at_most: start no more than this, for a study with few trials left.
        """
        wanted = self.workers if at_most is None else min(self.workers, at_most)
        while len(self._team) < wanted:
            gpu = self.gpus[len(self._team) % len(self.gpus)] if self.gpus else None
            self._team.append(_Worker(worker_environment(self.threads_per_worker, gpu), self._inbox))

    def run(self, jobs: Iterable[Job], on_message: Callable[[Any], None]) -> None:
        """Carry out jobs, as `noisytune.lab.engines.protocol.Engine.run` says."""
        if not self._team:
            self.start()
        try:
            self._run(iter(jobs), on_message)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop all workers, whatever they are doing."""
        team, self._team = self._team, []
        for worker in team:
            worker.dismiss()
        for worker in team:
            worker.wait()
        self._inbox = SimpleQueue()

    def _run(self, jobs: Any, on_message: Callable[[Any], None]) -> None:
        idle, busy = deque(self._team), {}
        failure: Exception | None = None
        more = True
        while True:
            while idle and more and failure is None:
                job = next(jobs, None)
                more = job is not None
                if job is not None:
                    worker = idle.popleft()
                    busy[worker] = job.label
                    worker.give(job)
            if not busy:
                break
            worker, kind, content = self._inbox.get()
            if kind == "message":
                on_message(content)
                continue
            label = busy.pop(worker, "a worker")
            if kind == "done":
                on_message(content)
                idle.append(worker)
                continue
            if kind == "failed":
                error = content
                idle.append(worker)
            else:
                error = worker.obituary(label)
            on_message(TrialFailed(label, str(error)))
            failure = failure or error
        if failure:
            raise failure


class _Worker:
    """One worker process and the thread that listens to it."""

    def __init__(self, environment: dict[str, str], inbox: SimpleQueue[tuple[_Worker, str, Any]]) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker lives)
        # The same modules as here, from the same places; the user's own script is not run again.
        program = f"import sys; sys.path[:] = {sys.path!r}; from noisytune.lab.engines._worker import main; main()"
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, args=(inbox,), daemon=True).start()

    def give(self, job: Job) -> None:
        """Send a job. A worker that has died meanwhile says so through the inbox."""
        with suppress(BrokenPipeError):
            pickle.dump(job, self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def dismiss(self) -> None:
        """Tell it to go."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]

    def wait(self) -> None:
        """Wait until it has gone."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def obituary(self, label: str) -> TrialError:
        """What to tell about a worker that died."""
        code = self._process.wait()
        self._errors.seek(0)
        last_words = self._errors.read().decode(errors="replace").strip()
        if code == -signal.SIGKILL:
            reason = "was killed, most likely for want of memory: try fewer workers or a smaller batch_size"
        elif code < 0:
            reason = f"died of {signal.Signals(-code).name}"
        else:
            reason = f"ended with code {code}"
        error = TrialError(f"{label}: its worker {reason}")
        if last_words:
            error.add_note(last_words)
        return error

    def _listen(self, inbox: SimpleQueue[tuple[_Worker, str, Any]]) -> None:
        with self._process.stdout as answers:  # type: ignore[union-attr]
            while True:
                try:
                    kind, content = pickle.load(answers)
                except (EOFError, pickle.UnpicklingError):
                    inbox.put((self, "died", None))
                    return
                inbox.put((self, kind, content))


def worker_environment(threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a worker: this process's own, its threads counted, and one GPU where there is one."""
    threading_ = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threading_, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    return environment | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else {})
