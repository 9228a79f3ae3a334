"""A training on several processes: what starts them, what they say, and that nothing is left of them."""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from noisytune._processes import Family
from noisytune.errors import ConfigError, TrialError
from noisytune.lab.trials.logged import last_lines
from noisytune.lab.trials.runner import OnStep, Runner
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

POLL = 0.05
"""Seconds between two looks at what the processes say."""


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
            family = self._started(folder)
            try:
                said = _Said(folder)
                while True:
                    ended = family.has_ended
                    for kind, content in said.since():
                        if kind == "step":
                            on_step(*content)
                        elif kind == "record":
                            yield content
                    if ended:
                        break
                    time.sleep(POLL)
                if said.failures or family.wait():
                    self._fail(training, said.failures, family.wait(), folder / "log")
            finally:
                family.end()

    def _started(self, folder: Path) -> Family:
        # Programs of this environment first; the same modules as here, from the same places.
        search = {"PATH": [str(Path(sys.executable).parent), os.environ.get("PATH", "")], "PYTHONPATH": sys.path}
        variables = {name: os.pathsep.join(filter(None, places)) for name, places in search.items()}
        command = [*self.launcher, "-m", "noisytune.lab.trials._rank", str(folder)]
        with (folder / "log").open("wb") as log:
            try:
                return Family(command, variables, stdout=log, stderr=log)
            except OSError as error:
                raise ConfigError(f"launcher {self.launcher[0]!r} cannot be started: {error.strerror}") from error

    def _fail(self, training: Trial, failures: list[tuple[float, Exception]], code: int, log: Path) -> NoReturn:
        """Raise what went wrong first: the other processes fail for want of the first one that does."""
        if failures:
            _, error = min(failures, key=lambda each: each[0])
        else:
            error = TrialError(f"{training.label}: {self.launcher[0]} ended with code {code}")
        error.add_note("\n".join(last_lines(log)))
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
