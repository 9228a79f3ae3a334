"""One worker process of the local engine, seen from the main process."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from contextlib import suppress
from queue import SimpleQueue
from typing import IO, Any

from noisytune._processes import MARK, end_family, refuse_other_systems, wait_for
from noisytune.errors import TrialError
from noisytune.lab.engines.devices import Device
from noisytune.lab.engines.protocol import Cause, First, Job

Inbox = SimpleQueue[tuple["WorkerProcess", str, Any]]
"""What workers say, and that they died."""


class WorkerProcess:
    """A worker and the thread that listens to it."""

    def __init__(self, device: Device, threads: int, inbox: Inbox, first: First | None = None) -> None:
        refuse_other_systems("a worker process")
        self.device = device
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (open as long as the worker lives)
        # The same modules as here, from the same places; the user's own script is not run again.
        program = f"import sys; sys.path[:] = {sys.path!r}; from noisytune.lab.engines._worker import main; main()"
        name, _, value = self._mark.partition("=")
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=worker_environment(threads, device.gpu) | {name: value},
            start_new_session=True,
        )
        # When it has ended, what it started is ended.
        self._watching = threading.Thread(target=wait_for, args=(self._process, self._mark), daemon=True)
        for thread in (self._watching, threading.Thread(target=self._listen, args=(inbox,), daemon=True)):
            thread.start()
        self.give(first)

    def give(self, job: Job | First | None) -> None:
        """Send a job. A worker that has died meanwhile says so through the inbox."""
        with suppress(BrokenPipeError):
            pickle.dump(job, self._process.stdin)  # type: ignore[arg-type]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def dismiss(self) -> None:
        """Tell it to go."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()  # type: ignore[union-attr]

    def wait(self) -> None:
        """Wait until it has gone, with all that it started."""
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._watching.join()
        self._errors.close()

    def kill(self) -> None:
        """End it, and all that it started, whatever they are doing."""
        if self._process.poll() is None:
            end_family(self._process.pid, self._mark)
        self._watching.join()
        self._process.wait()

    def obituary(self, label: str) -> tuple[Cause, TrialError]:
        """Why it died, and what to tell about it, once nothing is left of it."""
        self._watching.join()
        code = self._process.wait()
        cause: Cause = "died"
        if code == -signal.SIGKILL:
            reason = "was killed, most likely for want of memory: try fewer workers or a smaller batch_size"
            cause = "memory"
        elif code < 0:
            reason = f"died of {signal.Signals(-code).name}"
        else:
            reason = f"ended with code {code}"
        return cause, self.with_last_words(TrialError(f"{label}: its worker {reason}"))

    def with_last_words(self, error: TrialError) -> TrialError:
        """The error, with what the worker and all that it started wrote to stdout and stderr."""
        self._errors.seek(0)
        if last_words := self._errors.read().decode(errors="replace").strip():
            error.add_note(last_words)
        return error

    def _listen(self, inbox: Inbox) -> None:
        with self._process.stdout as answers:  # type: ignore[union-attr]
            while True:
                try:
                    kind, content = pickle.load(answers)
                except (EOFError, pickle.UnpicklingError):
                    inbox.put((self, "died", None))
                    return
                inbox.put((self, kind, content))


def worker_environment(threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a worker: this process's own, its threads counted, and one GPU where there is one.

    Its number is nvidia-smi's, by which its kind is known, unless the user has chosen GPUs by CUDA's own order.
    """
    threading_ = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    environment = os.environ | dict.fromkeys(threading_, str(threads)) | {"TOKENIZERS_PARALLELISM": "false"}
    if gpu is not None:
        if "CUDA_VISIBLE_DEVICES" not in environment:
            environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment
