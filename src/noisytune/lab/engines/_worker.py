"""The other end of `noisytune.lab.engines.LocalEngine`: a process that carries out jobs until its stdin closes."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import re
import signal
import sys
import threading
import traceback
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, BinaryIO

from noisytune._processes import MARK, end_family
from noisytune.errors import NoisyTuneError, TrialError

if TYPE_CHECKING:
    from noisytune.lab.engines.protocol import First, Job


def main() -> None:
    """Read what to do first and then jobs from stdin, pickled; write pickled (kind, content) pairs to what was stdout.

    Kinds are "begun", "message", "done" (content: the job's result), and "failed", "broken" or "memory" (content: an
    exception); after the last two this process ends.
    """
    _outlive_signals()
    # Whatever a library prints must not get between the pickles: it goes with the errors, which the engine keeps.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Nor must a job, or what it starts, read what is meant for this process.
    stdin = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    jobs: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_read_jobs, args=(stdin, jobs), daemon=True).start()
    try:
        _do_first(jobs.get())
        while True:
            job = jobs.get()
            _send(answers, "begun", None)
            kind, content = carry_out(job, lambda message: _send(answers, "message", message))
            if kind == "failed" and _lost_its_gpu():
                kind = "broken"
            _send(answers, kind, content)
            if kind in ("memory", "broken"):  # what is left of the job would want it again, or fail whatever comes
                os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # the other thread reads: Python cannot end as usual


def _outlive_signals() -> None:
    """Whoever stops a study sends these to every process of it, and the main process decides what is finished.

    Handlers, unlike ignored signals, are not handed on to what a trial starts.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)


def _read_jobs(stdin: BinaryIO, jobs: SimpleQueue[Any]) -> None:
    """The pipe closes when the engine closes it or dies, in whatever way: then nobody wants the running job either."""
    while True:
        try:
            jobs.put(pickle.load(stdin))
        except EOFError:
            code = 0
        except BaseException:
            traceback.print_exc()
            code = 1
        else:
            continue
        # The main process may have been killed: what a trial started would run on for nobody.
        end_family(os.getpid(), f"{MARK}={os.environ[MARK]}", spared=[os.getpid()])
        os._exit(code)


def _do_first(first: First | None) -> None:
    """Whatever is missing is missed again, and reported, by the job that needs it."""
    if first is None:
        return
    # Looking for garbage takes a seventh of an import, and the Trainer looks at every start; what is imported is none.
    gc.disable()
    with contextlib.suppress(Exception):
        first()
    gc.freeze()
    gc.enable()


def carry_out(job: Job, report: Any) -> tuple[str, Any]:
    """Do a job: ("done", its result), or an exception whose message is one line, as "failed" or as "memory"."""
    try:
        return "done", job(report)
    except (Exception, SystemExit) as error:
        known: BaseException = error
        if not isinstance(error, NoisyTuneError):
            text = _text_of(error).strip()
            reason = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
            known = TrialError(f"{job.label} failed: {reason}")
        if not hasattr(known, "__notes__"):  # what a command said last tells more
            known.add_note(traceback.format_exc())
        return "memory" if wants_memory(error) else "failed", known


def _lost_its_gpu() -> bool:
    """Whether a failed job has left CUDA in a state that no later job of this process can use, as an assertion that
    fails on the device does."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
    except Exception:
        return True
    return False


def _text_of(error: BaseException) -> str:
    """Its message; nothing where a class of somebody's own fails to say it."""
    try:
        return str(error)
    except Exception:
        return ""


_WANT_OF_MEMORY = re.compile("out of memory|not enough memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
"""What PyTorch's allocators and CUDA's libraries say, in a RuntimeError."""


def wants_memory(error: BaseException | None) -> bool:
    """Whether an exception, or what led to it, was for want of memory.

    >>> wants_memory(RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")), wants_memory(ValueError("memory"))
    (True, False)
    """
    while error is not None:
        if isinstance(error, MemoryError) or (
            isinstance(error, RuntimeError) and _WANT_OF_MEMORY.search(_text_of(error))
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _send(answers: BinaryIO, kind: str, content: object) -> None:
    answers.write(pickle.dumps((kind, content)))
    answers.flush()
