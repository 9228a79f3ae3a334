"""The other end of `noisytune.lab.engines.LocalEngine`: a process that carries out jobs until its stdin closes."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from noisytune.errors import NoisyTuneError, TrialError

if TYPE_CHECKING:
    from noisytune.lab.engines import Job


def main() -> None:
    """Read pickled jobs from stdin, write pickled (kind, content) pairs to what was stdout.

    Kinds are "message", "done" (content: the job's result) and "failed" (content: an exception).
    """
    # Whatever a library prints must not get between the pickles: it goes with the errors, which the engine keeps.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: SimpleQueue[Job] = SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    # What is missing here is missed again, and reported, by the job that needs it.
    with contextlib.suppress(Exception):
        _warm_up()
    while True:
        job = jobs.get()
        _send(answers, *carry_out(job, lambda message: _send(answers, "message", message)))


def _read_jobs(stdin: BinaryIO, jobs: SimpleQueue[Job]) -> None:
    """The pipe closes when the engine closes it or dies, in whatever way: then nobody wants the running job either."""
    while True:
        try:
            jobs.put(pickle.load(stdin))
        except EOFError:
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)


def _warm_up() -> None:
    """Import what every trial needs while the main process still loads data, and keep it quiet."""
    import torch
    from transformers.utils import logging as transformers_logging

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    quiet: Any = transformers_logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    import noisytune.lab.trials.fine_tune  # noqa: F401

    # The Trainer collects garbage at every start; what was just imported is none.
    gc.freeze()


def carry_out(job: Job, report: Any) -> tuple[str, Any]:
    """Do a job: ("done", its result), or ("failed", an exception whose message is one line)."""
    try:
        return "done", job(report)
    except Exception as error:
        known: Exception = error
        if not isinstance(error, NoisyTuneError):
            text = str(error).strip()
            reason = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
            known = TrialError(f"{job.label} failed: {reason}")
        known.add_note(traceback.format_exc())
        return "failed", known


def _send(answers: BinaryIO, kind: str, content: object) -> None:
    answers.write(pickle.dumps((kind, content)))
    answers.flush()
