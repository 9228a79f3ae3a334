"""The published evidence: its tables agree with its records, and its contrasts are what their words say."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

from noisytune.lab.trials.arm import Arm
from noisytune.records import StudyRecord, TrialRecord, digest
from noisytune.report.evidence.pairs import Evidence, gather

NOISY = "noisytune(0.15)"
GAUSSIAN, GLOBAL = "noisytune(0.15, distribution=gaussian)", "noisytune(0.15, scale=global)"
MIXOUT = "mixout(p=0.7)"
FOLDER = Path(__file__).resolve().parent.parent / "evidence"
SEEDS = 12


@pytest.fixture
def claims(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("claims", reason="the checkout has no evidence")


def finished(name: str, points: dict[str, float], quarter: float = 0.0) -> Evidence:
    """A study as its file plans it, finished.

    Args:
        name: of the study.
        points: what an arm adds to the score of every task.
        quarter: what every arm but plain adds at a quarter of the data.
    """
    written = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    whole = [task["task"] for task in written["tasks"]]
    shares = [f" {100 * share:g} %" if share != 1 else "" for share in written.get("train_shares", [1])]
    tasks = [
        {"name": task + share, "kind": "classification", "metric": "accuracy", "dev_size": 100, "digest": task}
        for task in whole
        for share in shares
    ]
    arms = ["plain", *(Arm.parse(arm).name for arm in written["arms"])]
    assert points.keys() <= set(arms)
    records = [
        _trial(task["name"], arm, seed, points, quarter * (arm != "plain" and task["name"].endswith(" 25 %")))
        for task in tasks
        for arm in arms
        for seed in range(SEEDS)
    ]
    plan = [{"key": one.key, "task": one.task, "arm": one.arm, "seed": one.seed} for one in records]
    study = StudyRecord(name, {"name": "m", "digest": "0"}, tasks, arms, list(range(SEEDS)), {}, 0.5, plan)
    return gather(study, records)


def _trial(task: str, arm: str, seed: int, points: dict[str, float], more: float) -> TrialRecord:
    noise = np.random.default_rng([seed, *map(ord, arm)]).normal(0, 0.01)
    settings: dict[str, Any] = {
        "model": {"name": "m"},
        "task": {"name": task},
        "arm": {"name": arm, "methods": []},
        "seed": seed,
        "training": {},
    }
    score = 0.5 + (points.get(arm, 0.0) + more + noise) / 100
    norms = {"query": {"before": 100.0, "after": 103.0 if arm == "plain" else 98.0}, "head": {"before": 0, "after": 9}}
    return TrialRecord(digest(settings), settings, "ok", {"accuracy": score}, [1.0], {}, {}, {}, norms=norms)


def judged(claims: ModuleType, says: str, evidence: Evidence) -> tuple[float, str]:
    (claim,) = (one for one in claims.CLAIMS if one.says.startswith(says))
    finding = claims.judged(claim, {evidence.study.name: evidence})
    return round(float(np.mean([part.mean for part in finding.parts.values()])), 1), finding.word


def test_tables_agree_with_the_records() -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / "render.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("says", "study", "points", "seen", "word"),
    [
        ("Noise helps on average", "main", {NOISY: 2.0}, 2.0, "supported"),
        ("Noise helps on average", "main", {NOISY: -2.0}, -2.0, "contradicted"),
        ("Noise helps on average", "main", {NOISY: 0.2}, 0.2, "supported"),
        ("Noise helps on every", "main", {NOISY: 2.0}, 2.0, "supported"),
        ("Norms", "main", {}, 1.0, "supported"),
        ("Noise helps a model of base", "base", {NOISY: 1.0}, 1.0, "supported"),
        ("Noise helps a multi", "second", {"noisytune(0.1, exclude=@token_embeddings)": 1.0}, 1.0, "supported"),
        ("Uniform", "kinds", {NOISY: 1.0, GAUSSIAN: 3.0}, -2.0, "contradicted"),
        ("One strength", "kinds", {GLOBAL: -4.0}, 2.0, "supported"),
        ("Matrix", "kinds", {NOISY: 1.0, GLOBAL: -4.0}, 2.5, "supported"),
        ("λ", "dose", {"noisytune(0.1)": 3.0, NOISY: 3.0, "noisytune(0.2)": 4.0}, 2.0, "supported"),
        ("λ", "dose", {"noisytune(1.2)": -9.0}, 0.0, "negligible"),
        ("Noise adds", "on-top", {MIXOUT: 5.0, f"{NOISY}+{MIXOUT}": 6.0, NOISY: 9.0}, 0.5, "supported"),
    ],
)  # fmt: skip
def test_a_contrast_is_what_its_words_say(claims, says, study, points, seen, word) -> None:
    assert judged(claims, says, finished(study, points)) == (seen, word)


def test_less_data_is_compared_with_all_of_it(claims) -> None:
    gains = {NOISY: 1.0}
    assert judged(claims, "Noise helps more", finished("shares", gains, quarter=3.0)) == (3.0, "supported")
    assert judged(claims, "Noise helps more", finished("shares", gains))[0] == 0.0


def test_a_claim_on_every_task_falls_with_one(claims) -> None:
    evidence = finished("main", {NOISY: 2.0})
    for record in evidence.trials.values():
        if record.task == "topics" and record.arm != "plain":
            record.scores["accuracy"] -= 0.04
    evidence = gather(evidence.study, evidence.trials.values())
    assert judged(claims, "Noise helps on every", evidence) == (1.3, "contradicted")
    assert judged(claims, "Noise helps on average", evidence) == (1.3, "supported")


def test_nothing_is_said_of_a_study_that_has_not_run(claims) -> None:
    assert {claims.judged(claim, {}).word for claim in claims.CLAIMS} == {"not run yet"}


def test_variance_goes_to_its_source(claims) -> None:
    """The mean of many simulated studies: the estimates are unbiased."""
    import luck

    rng = np.random.default_rng(0)
    wanted = {"head": 4.0, "order": 1.0, "noise": 0.25, "rest": 2.0}

    def simulated() -> dict[str, float]:
        heads, orders, noises = (
            rng.normal(0, wanted[name] ** 0.5, shape)
            for name, shape in (("head", (4, 1, 1)), ("order", (1, 5, 1)), ("noise", (1, 1, 2)))
        )
        return luck.components(heads + orders + noises + rng.normal(0, wanted["rest"] ** 0.5, (4, 5, 2)))

    many = [simulated() for _ in range(4000)]
    for name, variance in wanted.items():
        each = np.array([one[name] for one in many])
        assert abs(each.mean() - variance) < 4 * each.std() / len(many) ** 0.5, name
