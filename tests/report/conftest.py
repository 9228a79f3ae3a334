"""Builds studies and records as the lab would write them, without training anything."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from noisytune._metrics import METRICS
from noisytune.records import StudyRecord, TrialRecord, digest

Built = tuple[StudyRecord, list[TrialRecord]]

HOSTILE = "<script>alert(1)</script>&\"'|`*$x$ {{ 7 * 7 }} ]]> 漢字 \x07 #010101"


def _predictions(rng: np.random.Generator, gold: np.ndarray, kind: str, quality: float) -> np.ndarray:
    if kind == "regression":
        return quality * gold + (1 - quality) * rng.normal(0, 2, gold.size)
    right = np.arange(gold.size) < round(quality * gold.size)
    return np.where(rng.permuted(right), gold, (gold + 1) % 4)


def _trial(
    task: dict[str, Any], arm: str, noise_lambda: float | None, seed: int, quality: float, status: str
) -> TrialRecord:
    rng = np.random.default_rng([seed, sum(map(ord, task["name"] + arm))])
    fixed = np.random.default_rng(0)
    size = task["dev_size"]
    gold = fixed.normal(2, 1, size) if task["kind"] == "regression" else fixed.integers(0, 4, size).astype(float)
    predictions = _predictions(rng, gold, task["kind"], quality)
    if status == "collapsed":
        predictions = np.zeros(size)
    steps = np.arange(1, 49)
    curve = 0.4 + np.exp(-steps / 18) + rng.normal(0, 0.06, steps.size)
    score = METRICS[task["kind"]][task["metric"]].of(np.column_stack([predictions, gold]))
    scores = {} if np.isnan(score) else {task["metric"]: score}
    if status == "diverged":
        scores, predictions, curve = {}, np.array([]), curve[:9]
    elif status == "collapsed" and task["metric"] == "pearson":
        scores = {}
    noise = {"method": "noisytune", "noise_lambda": noise_lambda, "distribution": "uniform"}
    methods = [] if noise_lambda is None else [noise]
    settings = {
        "model": {"name": "all-MiniLM-L6-v2", "digest": "0f3a"},
        "task": {"name": task["name"], "digest": task["digest"]},
        "arm": {"name": arm, "methods": methods},
        "seed": seed,
        "training": {"epochs": 3, "learning_rate": 1e-4, "batch_size": 16},
    }
    return TrialRecord(
        key=digest(settings),
        settings=settings,
        status=status,  # type: ignore[arg-type]
        scores=scores,
        loss_curve=curve.clip(0.05).tolist(),
        timing={"load": 0.2, "prepare": 0.01, "train": 21.5 + seed, "evaluate": 0.8, "total": 22.5 + seed},
        applied={"noisytune": {"perturbed": 101, "elements": 22713216, "left_alone": {"new": 2}}} if methods else {},
        environment={
            "versions": {"torch": "2.13.0", "transformers": "5.23.0", "noisytune": "0.1.0"},
            "machine": {"cpu": "AMD EPYC", "cores": 2},
            "commit": "4f9d2c1",
            "started": f"2025-01-01T00:0{seed % 10}:00Z",
        },
        outputs={"dev/predictions": predictions, "dev/references": gold} if predictions.size else {},
    )


@pytest.fixture(scope="session")
def build() -> Callable[..., Built]:
    """``build(gains={arm: [points per seed]}, ...)`` -> study and records; a baseline is added."""

    def make(
        gains: dict[str, Sequence[float]] | None = None,
        lambdas: dict[str, float] | None = None,
        tasks: Sequence[str] = ("topics",),
        kind: str = "classification",
        metric: str = "accuracy",
        dev_size: int = 1000,
        margin: float = 1.0,
        name: str = "topics-demo",
        baseline: str = "baseline",
        status: dict[tuple[str, int], str] | None = None,
        missing: Sequence[tuple[str, int]] = (),
        model: str = "all-MiniLM-L6-v2",
    ) -> Built:
        gains = {"λ = 0.15": [1.2, -0.7, 0.9, 0.2, 1.4]} if gains is None else gains
        lambdas = dict.fromkeys(gains, 0.15) if lambdas is None else lambdas
        seeds = list(range(max((len(g) for g in gains.values()), default=2)))
        rows = [
            {
                "name": task,
                "kind": kind,
                "metric": metric,
                "metric_label": metric,
                "labels": [] if kind == "regression" else ["a", "b", "c", "d"],
                "train_size": 256,
                "dev_size": dev_size,
                "majority": None if kind == "regression" else 0.27,
                "digest": "beef",
            }
            for task in tasks
        ]
        records, plan = [], []
        for seed in seeds:
            base = 0.62 + 0.013 * ((seed * 7) % 5)
            for place, task in enumerate(rows):
                for arm in [baseline, *gains]:
                    gain = 0.0 if arm == baseline else (gains[arm][seed] + 0.3 * place) / 100
                    state = (status or {}).get((arm, seed), "ok")
                    record = _trial(task, arm, lambdas.get(arm), seed, base - 0.05 * place + gain, state)
                    plan.append({"key": record.key, "task": task["name"], "arm": arm, "seed": seed})
                    if (arm, seed) not in missing:
                        records.append(record)
        study = StudyRecord(
            name=name,
            model={"name": model, "digest": "0f3a"},
            tasks=rows,
            arms=[baseline, *gains],
            seeds=seeds,
            training={"epochs": 3, "learning_rate": 1e-4, "batch_size": 16},
            margin=margin,
            trials=plan,
        )
        return study, records

    return make
