"""Trials of a tiny study, and what comes out of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.methods import make
from noisytune.records import TrialRecord

SHORT = TrainingSettings(max_steps=3, max_length=32, batch_size=8, learning_rate=1e-3)


def a_trial(study: Study, arm: Arm = PLAIN, seed: int = 0, **changes: Any) -> Trial:
    return Trial.resolve(study.model, study.tasks[0], arm, seed, replace(study.training, **changes))


def noisy(noise_lambda: float, **settings: Any) -> Arm:
    return Arm.of(make("noisytune", {"noise_lambda": noise_lambda} | settings))


def outcome(record: TrialRecord) -> dict[str, Any]:
    """What may not depend on when and where the trial ran."""
    return {
        "status": record.status,
        "scores": record.scores,
        "losses": record.loss_curve,
        "predictions": record.predictions,
        "references": record.references,
    }
