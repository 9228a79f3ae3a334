"""Records of studies of any size as the lab would write them, without training anything."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from noisytune._languages import LANGUAGES
from noisytune._metrics import METRICS
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


CODES = tuple(LANGUAGES)
"""The forty languages of XTREME."""
MULTILINGUAL: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "xnli": ("sentence pair", "classification", "accuracy", ()),
    "pawsx": ("sentence pair", "classification", "accuracy", ()),
    "udpos": ("structured prediction", "tagging", "tag_f1", ("token_accuracy",)),
    "panx": ("structured prediction", "tagging", "entity_f1", ("token_accuracy",)),
    "bucc": ("retrieval", "retrieval", "mining_f1", ("bitext_f1",)),
    "tatoeba": ("retrieval", "retrieval", "retrieval_accuracy", ("bitext_f1",)),
    "xquad": ("question answering", "spans", "answer_mean", ("answer_f1", "exact_match")),
    "mlqa": ("question answering", "spans", "answer_mean", ("answer_f1", "exact_match")),
    "tydiqa": ("question answering", "spans", "answer_mean", ("answer_f1", "exact_match")),
}
"""XTREME's tasks: category, kind, metric, and further scores of a split."""
NOISY = "noisytune(0.1, exclude=@token_embeddings)"


def multilingual(
    tasks: Sequence[str] = tuple(MULTILINGUAL),
    arms: Sequence[str] = ("plain", NOISY),
    seeds: int = 5,
    codes: Sequence[str] = CODES,
    *,
    model: str = "FacebookAI/xlm-roberta-base",
    setting: str = "transfer",
) -> Built:
    """A finished study of tasks in many languages. Each arm gains a little more, and English is ahead."""
    rng = np.random.default_rng(1)
    rows, records, plan = [], [], []
    for name in tasks:
        category, kind, metric, _ = MULTILINGUAL[name]
        scored = [code for code in codes if kind != "retrieval" or code != "en"]
        facts = {
            "category": category,
            "setting": setting,
            "scored": "test",
            "languages": scored[1:],
            "missing_languages": scored[:1],
            "languages_of_benchmark": len(scored),
            "training_rows": {"en": 392_702},
        }
        task = _task(f"xtreme/{name}", 1000, 3) | {"kind": kind, "metric": metric, "facts": facts}
        rows.append(task | {"metric_label": METRICS[kind][metric].label, "labels": [], "majority": None})
    for seed in range(seeds):
        for row in rows:
            shared = rng.normal(0.0, 0.01, len(CODES))
            for place, arm in enumerate(arms):
                records.append(
                    _in_languages(row, arm, place, seed, shared + rng.normal(0.003 * place, 0.004, len(CODES)))
                )
                plan.append({"key": records[-1].key, "task": row["name"], "arm": arm, "seed": seed})
    training = {"epochs": 5, "learning_rate": 2e-5}
    study = StudyRecord(
        "table3", {"name": model, "digest": "0f3a"}, rows, list(arms), list(range(seeds)), training, 0.5, plan
    )
    return study, records


def _in_languages(task: dict[str, Any], arm: str, place: int, seed: int, levels: np.ndarray) -> TrialRecord:
    """``levels``: of each of `CODES`, around 0."""
    methods = [{"method": "noisytune", "noise_lambda": 0.1, "scale": "matrix", "distribution": "uniform"}][: place > 0]
    for method in methods:
        method["exclude"] = ["@token_embeddings"] * ("@token_embeddings" in arm)  # type: ignore[assignment]
    codes = task["facts"]["languages"]
    reading = {}
    if task["kind"] == "retrieval":
        reading = {"reading": {"layer": "official"}, "trained_on": {"name": "xtreme/xnli", "digest": "beef"}}
    settings = {
        "model": {"name": "xlm-roberta-base", "digest": "0f3a"},
        "task": {"name": task["name"], "digest": task["digest"], "select": "dev", "primary": codes, **reading},
        "arm": {"name": arm, "methods": methods},
        "seed": seed,
        "training": {"epochs": 5, "learning_rate": 2e-5},
    }
    more = MULTILINGUAL[task["name"].removeprefix("xtreme/")][3]
    evaluations: dict[str, dict[str, Any]] = {"dev": {"status": "ok", "scores": {task["metric"]: 0.85}}}
    for code in codes:
        level = 0.7 + 0.1 * (code == "en") - 0.005 * CODES.index(code) + float(levels[CODES.index(code)])
        further = dict(zip(more, (level + 0.08, level - 0.08), strict=False))
        evaluations[code] = {"status": "ok", "scores": {task["metric"]: level, **further}}
        if reading:
            evaluations[code]["chosen"] = {"layer": 8}
    keys = (task["metric"], *more)
    means = {key: float(np.mean([evaluations[code]["scores"][key] for code in codes])) for key in keys}
    return TrialRecord(
        key=digest(settings),
        settings=settings,
        status="ok",
        scores=means,
        loss_curve=[1.0, 0.8, 0.6, 0.5],
        timing={"train": 21.5, "evaluate": 80.0, "total": 101.5},
        applied={"noisytune": {"perturbed": 197, "left_alone": {"excluded: @token_embeddings": 1}}} if methods else {},
        environment={"versions": {"torch": "2.13.0"}, "machine": {"cores": 2}},
        evaluations=evaluations,
    )
