"""A training on several processes: what starts them, what they say, and that nothing is left of them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from noisytune._processes import end_family
from noisytune.errors import ConfigError, TrialError
from noisytune.lab.trials.runner import OnStep, Runner
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

MARK = "NOISYTUNE_LAUNCH"
"""The variable by which what a launcher starts is known."""
POLL = 0.05
"""Seconds between two looks at what the processes say."""
LAST_WORDS = 4000
"""Characters that are kept of what they print, from its end."""


@dataclass(frozen=True)
class Launched:
    """Carries out the trainings of a runner by a launcher: ``torchrun --nproc-per-node 2``, say.

    Every process of the launcher calls the runner. The main one tells the steps and the records.
    """

    runner: Runner
    launcher: tuple[str, ...]
    """A program and its arguments; ``-m MODULE FOLDER`` is put behind them."""

    def run(self, training: Trial, trials: Sequence[Trial], on_step: OnStep) -> Iterator[TrialRecord]:
        """Train once, and give the records, as `noisytune.lab.trials.runner.Runner.run` says.

        Raises:
            ConfigError: there is no such program.
            TrialError: it ended before the training did.
            Exception: what the first process to fail said.
        """
        with tempfile.TemporaryDirectory(prefix="noisytune-") as name:
            folder = Path(name)
            (folder / "job").write_bytes(pickle.dumps((self.runner, training, tuple(trials))))
            process, mark = self._started(folder)
            try:
                said = _Said(folder)
                while True:
                    ended = process.poll() is not None
                    for kind, content in said.since():
                        if kind == "step":
                            on_step(*content)
                        elif kind == "record":
                            yield content
                    if ended:
                        break
                    time.sleep(POLL)
                if said.failures or process.returncode:
                    self._fail(training, said.failures, process.returncode, folder / "log")
            finally:
                end_family(process.pid, mark)
                process.wait()

    def _started(self, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
        mark = uuid.uuid4().hex
        # Programs of this environment first; the same modules as here, from the same places.
        search = {"PATH": [str(Path(sys.executable).parent), os.environ.get("PATH", "")], "PYTHONPATH": sys.path}
        environment = {name: os.pathsep.join(filter(None, places)) for name, places in search.items()}
        with (folder / "log").open("wb") as log:
            try:
                process = subprocess.Popen(
                    [*self.launcher, "-m", "noisytune.lab.trials._rank", str(folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=os.environ | environment | {MARK: mark},
                    start_new_session=True,
                )
            except OSError as error:
                raise ConfigError(f"launcher {self.launcher[0]!r} cannot be started: {error.strerror}") from error
        return process, f"{MARK}={mark}"

    def _fail(self, training: Trial, failures: list[tuple[float, Exception]], code: int, log: Path) -> NoReturn:
        """Raise what went wrong first: the other processes fail for want of the first one that does."""
        words = log.read_text(errors="replace")[-LAST_WORDS:].strip()
        if failures:
            _, error = min(failures, key=lambda each: each[0])
        else:
            error = TrialError(f"{training.label}: {self.launcher[0]} ended with code {code}")
        error.add_note(words)
        raise error


@dataclass
class _Said:
    """What processes write into files of their own, read as it comes."""

    folder: Path
    failures: list[tuple[float, Exception]] = field(default_factory=list)
    """When each failed, and of what."""
    _read: dict[Path, int] = field(default_factory=dict)

    def since(self) -> Iterator[tuple[str, Any]]:
        """What is new: pairs of kind and content. Failures are kept instead."""
        for file in sorted(self.folder.glob("*.said")):
            with file.open("rb") as stream:
                stream.seek(self._read.get(file, 0))
                while True:
                    try:
                        kind, content = pickle.load(stream)
                    except (EOFError, pickle.UnpicklingError):  # the rest is on its way
                        break
                    self._read[file] = stream.tell()
                    if kind == "failed":
                        self.failures.append(content)
                    else:
                        yield kind, content
