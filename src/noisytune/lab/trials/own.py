"""Trainings of the user's own, by command or function: where their files lie, which noise an arm is, their records."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune._files import publish
from noisytune._machine import available_cores
from noisytune._text import encodable
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.lab.store import file_name
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.arm import methods_of
from noisytune.lab.trials.environment import describe, python_of, revision
from noisytune.lab.trials.runner import Speed
from noisytune.lab.trials.scores import Outcome, Scoring
from noisytune.lab.trials.trial import Trial
from noisytune.manifest import FILE_NAME
from noisytune.methods import Method
from noisytune.methods.noisytune import NoisyTune
from noisytune.records import TrialRecord, digest

SPLIT = "eval"
"""What the scores are of, whatever the script calls it."""
LONGEST_NAME = 120
"""Characters of a trial's label in names of files, which file systems limit to 255 bytes."""
_RUNNING = ".running"
"""Ending of a checkpoint that a trial uses."""
_NAMED = re.compile(r"-[0-9a-f]{8}$")
"""How the name of a trial's folder ends: with its key."""


@dataclass(frozen=True, kw_only=True)
class OwnRunner:
    """What a `noisytune.lab.trials.runner.Runner` of a training of the user's own has, by command or by function."""

    model_dir: Path
    scoring: Scoring
    folder: Path
    """The run folder: ``outputs``, ``logs`` and ``checkpoints`` lie in it, each with a name for each trial."""
    about: dict[str, Any]
    """What is known of its code and its Python, as plain JSON."""
    packages: tuple[str, ...] = ()
    """What is installed in its Python."""

    def prepare(self, task: TaskData) -> tuple[str, ...]:
        """Write down what is installed beside the code, which reads its data itself."""
        if self.packages:
            self.folder.mkdir(parents=True, exist_ok=True)
            content = "".join(f"{package}\n" for package in self.packages).encode()
            publish(self.folder / f"packages-{digest(self.packages)}.txt", content)
        return ()

    def calibrate(self, trial: Trial, tasks: Sequence[TaskData]) -> Speed:
        """Refuse: nobody can time what is not known.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("what a training of your own costs shows when it has run once")

    def _place(self, what: str, trial: Trial) -> Path:
        return self.folder / what / name_of(trial)

    def _new_output(self, trial: Trial) -> Path:
        """An empty folder: what an attempt that failed has left is not this one's."""
        out = self._place("outputs", trial)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        return out


def about_code(what: str, near: Path, cwd: Path, program: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What is known of the code that trains, for `OwnRunner.about`, and what is installed beside it.

    Args:
        what: ``command`` or ``function``.
        near: a folder of its checkout.
        cwd: where it runs.
        program: its Python, or what that runs.
    """
    about: dict[str, Any] = {"folder": encodable(str(cwd.absolute())), "git": revision(near)}
    python, packages = python_of(program, cwd) or ("", ())
    if python:
        about |= {"python": python, "packages": f"{len(packages)}, digest {digest(packages)}"}
    return {what: about}, packages


def name_of(trial: Trial) -> str:
    """What a trial's files are called."""
    return f"{file_name(trial.label)[:LONGEST_NAME]}-{trial.key[:8]}"


def noise_of(trial: Trial) -> NoisyTuneConfig | None:
    """The noise that a trial's arm puts into a checkpoint; None for plain fine-tuning.

    Raises:
        ConfigError: the arm has a method that works while a model trains.
    """
    methods = methods_of(trial.settings["arm"]["methods"])
    if not methods:
        return None
    others = ", ".join(method.name for method in methods if method.name != "noisytune")
    if others:
        raise ConfigError(
            f"arm {trial.arm}: {others} works while a model trains, and a command trains by itself; give arms of "
            "noisytune alone, or a Python function to noisytune.lab.compare"
        )
    refuse_soup(trial.arm, methods)
    (noise,) = (method for method in methods if isinstance(method, NoisyTune))
    return noise.config(trial.seed)


def refuse_soup(arm: str, methods: Iterable[Method]) -> None:
    """See that an arm needs one training.

    Raises:
        ConfigError: it is the mean of several.
    """
    if any(method.trainings > 1 for method in methods):
        raise ConfigError(f"arm {arm}: a soup is the mean of several trainings, and yours is one; leave soup out")


@contextmanager
def checkpoint_for(trial: Trial, model_dir: Path, folder: Path, keep: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The weights that a trial starts from: the original, or a copy with the arm's noise that goes with the trial.

    Args:
        trial: of a command.
        model_dir: the clean model.
        folder: for noisy copies.
        keep: how many of them stay when their trials are done, the newest ones.

    Yields:
        the directory, and what was done to the weights.

    Raises:
        NoisyTuneError: as `noisytune.checkpoint.perturb_checkpoint`.
    """
    from noisytune.checkpoint import perturb_checkpoint

    config = noise_of(trial)
    if config is None:
        yield model_dir, {}
        return
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{name_of(trial)}{_RUNNING}"
    shutil.rmtree(place, ignore_errors=True)  # of an attempt that was killed
    try:
        manifest = perturb_checkpoint(model_dir, place, config)
        yield place, {"noisytune": manifest.summary()}
        if keep:
            shutil.rmtree(place.with_suffix(""), ignore_errors=True)
            place.rename(place.with_suffix(""))
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # other workers tidy up here, too
            kept = list(filter(_is_noisy_copy, folder.iterdir()))
            for one in sorted(kept, key=lambda one: one.stat().st_mtime)[: max(0, len(kept) - keep)]:
                shutil.rmtree(one, ignore_errors=True)
            folder.rmdir()


def _is_noisy_copy(place: Path) -> bool:
    """Whether `checkpoint_for` made a folder that stays: it is called as a trial is, and tells of its noise."""
    return bool(_NAMED.search(place.name)) and not place.is_symlink() and (place / FILE_NAME).is_file()


def record_of(
    trial: Trial,
    scoring: Scoring,
    found: Outcome,
    applied: dict[str, dict[str, Any]],
    timing: Mapping[str, float],
    about: Mapping[str, Any],
) -> TrialRecord:
    """What a training of the user's own gave, as the record of its trial.

    Args:
        trial: what was asked for.
        scoring: how its score is read.
        found: what came out.
        applied: what the arm did to the model.
        timing: seconds by what they were spent on.
        about: what ran, as plain JSON.

    Raises:
        TrialError: the score does not have the unit that was said.
    """
    scores = {} if found.score is None else {scoring.score: scoring.kept(found.score)}
    return TrialRecord(
        key=trial.key,
        settings=trial.settings,
        status=found.status,
        scores=scores,
        loss_curve=[],
        timing={**timing, "total": sum(timing.values())},
        applied=applied,
        environment=describe(int(os.environ.get("OMP_NUM_THREADS", 0)) or available_cores()) | dict(about),
        evaluations={SPLIT: {"status": found.status, "scores": scores, "chosen": {"numbers": found.numbers}}},
        outputs={f"{SPLIT}/{name}": array for name, array in found.outputs.items()},
    )
