"""Trainings of the user's own, whoever runs them: where their files lie, which noise an arm is, and their records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.lab.store import file_name
from noisytune.lab.trials.arm import methods_of
from noisytune.lab.trials.environment import describe
from noisytune.lab.trials.scores import Outcome, Scoring
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

OWN = "own"
"""The kind of task in records: only its script knows the examples."""
SPLIT = "eval"
"""What the scores are of, whatever the script calls it."""
_RUNNING = ".running"
"""Ending of a checkpoint that a trial uses."""


def name_of(trial: Trial) -> str:
    """What a trial's files are called."""
    return f"{file_name(trial.label)}-{trial.key[:8]}"


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
    return NoisyTuneConfig.from_dict(methods[0].settings | {"seed": trial.seed})


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
        kept = [one for one in folder.iterdir() if not one.name.startswith(".") and one.suffix != _RUNNING]
        for one in sorted(kept, key=lambda one: one.stat().st_mtime)[: max(0, len(kept) - keep)]:
            shutil.rmtree(one, ignore_errors=True)
        with suppress(OSError):
            folder.rmdir()


def record_of(
    trial: Trial,
    scoring: Scoring,
    found: Outcome,
    applied: dict[str, dict[str, Any]],
    timing: Mapping[str, float],
    about: Mapping[str, Any],
    threads: int,
) -> TrialRecord:
    """What a training of the user's own gave, as the record of its trial.

    Args:
        trial: what was asked for.
        scoring: how its score is read.
        found: what came out.
        applied: what the arm did to the model.
        timing: seconds by what they were spent on.
        about: what ran, as plain JSON.
        threads: of the trial.

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
        environment=describe(threads) | dict(about),
        evaluations={SPLIT: {"status": found.status, "scores": scores, "chosen": {"numbers": found.numbers}}},
        outputs={f"{SPLIT}/{name}": array for name, array in found.outputs.items()},
    )
