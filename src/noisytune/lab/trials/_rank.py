"""The other end of `noisytune.lab.trials.launched`: one of the processes that a launcher starts for a training."""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from noisytune.errors import TrialError


def main(folder: Path) -> None:
    """Carry out the job of a folder together with the other processes."""
    # Each process perturbs weights of its own: none may wait for those of the main one.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    with (folder / f"{uuid.uuid4().hex}.said").open("wb", buffering=0) as stream:

        def say(kind: str, content: object) -> None:
            stream.write(pickle.dumps((kind, content)))

        try:
            _work(folder, say)
        except Exception as error:
            error.add_note(traceback.format_exc())
            say("failed", (time.time(), _picklable(error)))
            sys.exit(1)


def _work(folder: Path, say: Callable[[str, object], None]) -> None:
    import torch
    from accelerate import PartialState
    from transformers.utils import logging as transformers_logging

    quiet: Any = transformers_logging
    quiet.set_verbosity_error()
    quiet.disable_progress_bar()
    state = PartialState(cpu=not torch.accelerator.is_available())
    threads, beside = int(os.environ.get("OMP_NUM_THREADS", "1")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(max(1, threads // beside))
    runner, training, trials = pickle.loads((folder / "job").read_bytes())
    tell = say if state.is_main_process else lambda *_: None
    for record in runner.run(training, trials, lambda *step: tell("step", step)):
        tell("record", record)
    state.wait_for_everyone()
    state.destroy_process_group()


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        told = TrialError(f"{type(error).__name__}: {error}")
        for note in error.__notes__:
            told.add_note(note)
        return told
    return error


if __name__ == "__main__":
    main(Path(sys.argv[1]))
