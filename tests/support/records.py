"""Records of studies of any size as the lab would write them, without training anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from noisytune.records import StudyRecord, TrialRecord, digest

Built = tuple[StudyRecord, list[TrialRecord]]


def synthetic(
    tasks: int = 1, arms: int = 2, seeds: int = 5, *, examples: int = 100, steps: int = 200, classes: int = 4
) -> Built:
    """A finished study: tasks x arms x seeds trials of classification, one in fifty of them collapsed.

    Args:
        tasks: how many.
        arms: the baseline included; the others are better than it by a little more each.
        seeds: pairs of each comparison.
        examples: dev examples, of which the predictions are kept.
        steps: length of a loss curve.
        classes: of every task.
    """
    rng = np.random.default_rng(0)
    names = ["plain", *(f"noisytune({0.05 * (i + 1):.2f})" for i in range(arms - 1))]
    rows = [_task(f"task-{i}", examples, classes) for i in range(tasks)]
    gold = rng.integers(0, classes, examples)
    records, plan = [], []
    for seed in range(seeds):
        for row in rows:
            level = rng.normal(0.75, 0.02)
            for place, arm in enumerate(names):
                right = rng.random(examples) < level + 0.004 * place
                predictions = np.where(right, gold, (gold + 1) % classes)
                if rng.random() < 0.02:
                    predictions = np.zeros_like(gold)
                record = _trial(row, arm, place, seed, predictions, gold, _curve(rng, steps))
                records.append(record)
                plan.append({"key": record.key, "task": row["name"], "arm": arm, "seed": seed})
    model, training = {"name": "all-MiniLM-L6-v2", "digest": "0f3a"}, {"epochs": 3, "learning_rate": 1e-4}
    study = StudyRecord("synthetic", model, rows, names, list(range(seeds)), training, 0.5, plan)
    return study, records


def _task(name: str, examples: int, classes: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": "classification",
        "metric": "accuracy",
        "metric_label": "accuracy",
        "labels": [f"class {i}" for i in range(classes)],
        "train_size": 256,
        "dev_size": examples,
        "majority": 1 / classes,
        "digest": digest(name),
    }


def _curve(rng: np.random.Generator, steps: int) -> list[float]:
    falling = 0.4 + np.exp(-np.arange(steps) / max(1, steps / 3))
    return (falling + rng.normal(0, 0.05, steps)).clip(0.05).tolist()


def _trial(
    task: dict[str, Any],
    arm: str,
    place: int,
    seed: int,
    predictions: np.ndarray,
    gold: np.ndarray,
    curve: Sequence[float],
) -> TrialRecord:
    methods = [{"method": "noisytune", "noise_lambda": round(0.05 * place, 2), "distribution": "uniform"}][: place > 0]
    settings = {
        "model": {"name": "all-MiniLM-L6-v2", "digest": "0f3a"},
        "task": {"name": task["name"], "digest": task["digest"]},
        "arm": {"name": arm, "methods": methods},
        "seed": seed,
        "training": {"epochs": 3, "learning_rate": 1e-4},
    }
    roles = ("word embedding", "query", "key", "value", "feed-forward", "head")
    return TrialRecord(
        key=digest(settings),
        settings=settings,
        status="ok" if len(set(predictions.tolist())) > 1 else "collapsed",
        scores={"accuracy": float((predictions == gold).mean())},
        loss_curve=list(curve),
        timing={"load": 0.2, "prepare": 0.01, "train": 21.5 + seed % 7, "evaluate": 0.8, "total": 22.5 + seed % 7},
        applied={"noisytune": {"perturbed": 101, "elements": 22_713_216}} if methods else {},
        environment={"versions": {"torch": "2.13.0"}, "machine": {"cores": 2}, "started": f"2026-01-01T00:{seed:04}"},
        outputs={"dev/predictions": predictions, "dev/references": gold},
        norms={role: {"elements": 9.0, "before": 100.0, "after": 100.1, "moved": 1 + seed % 5 / 10} for role in roles},
    )
