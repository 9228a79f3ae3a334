"""The published evidence: its tables agree with its records, and its contrasts are what their words say."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, ModuleType
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


@pytest.fixture
def claims(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return pytest.importorskip("claims", reason="the checkout has no evidence")


def finished(name: str, points: Mapping[str, float] = MappingProxyType({}), quarter: float = 0.0) -> Evidence:
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
        {
            "name": task + share,
            "kind": "classification",
            "metric": "accuracy",
            "metric_label": "accuracy",
            "dev_size": 9,
            "digest": task,
            "part_of": task if len(shares) > 1 else "",
        }
        for task in whole
        for share in shares
    ]
    arms = ["plain", *(Arm.parse(arm).name for arm in written["arms"])]
    assert points.keys() <= set(arms)
    seeds = list(range(written["seeds"]))
    records = [
        _trial(task["name"], arm, seed, points, quarter * (arm != "plain" and task["name"].endswith(" 25 %")))
        for task in tasks
        for arm in arms
        for seed in seeds
    ]
    plan = [{"key": one.key, "task": one.task, "arm": one.arm, "seed": one.seed} for one in records]
    study = StudyRecord(name, {"name": "m", "digest": "0"}, tasks, arms, seeds, {}, written["margin"], plan)
    return gather(study, records)


def _trial(task: str, arm: str, seed: int, points: Mapping[str, float], more: float) -> TrialRecord:
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
    """The mean of many simulated studies: the estimates are unbiased. Both draws of the noise share a plain run."""
    import luck

    rng = np.random.default_rng(0)
    wanted = {"head": 4.0, "order": 1.0, "both": 3.0, "noise": 0.25, "rest": 2.0}
    shapes = {"head": (4, 1, 1), "order": (1, 5, 1), "both": (4, 5, 1), "noise": (1, 1, 2), "rest": (4, 5, 2)}

    def simulated() -> dict[str, float]:
        parts = (rng.normal(0, wanted[name] ** 0.5, shape) for name, shape in shapes.items())
        return {name: one.variance for name, one in luck.components(sum(parts)).items()}

    many = [simulated() for _ in range(4000)]
    for name, variance in wanted.items():
        each = np.array([one[name] for one in many])
        assert abs(each.mean() - variance) < 4 * each.std() / len(many) ** 0.5, name


def test_luck_is_read_from_heads_orders_and_draws(claims) -> None:
    import luck

    noises = "noisytune(0.15, noise_seed=100)", "noisytune(0.15, noise_seed=101)"
    heads = [finished(f"luck-{head}", {noises[0]: head, noises[1]: -head}) for head in range(4)]
    found = luck.differences_of(heads)
    assert found.shape == (4, 5, 2)
    np.testing.assert_allclose(found, [[[head, -head]] * 5 for head in range(4)], atol=0.05)
    assert [one.freedom for one in luck.components(found).values()] == [3, 4, 12, 1, 19]
    assert "| the draw of the noise | " in luck.table(found)


def test_where_nothing_ended_well_nothing_is_decided(claims) -> None:
    evidence = finished("base", {NOISY: 2.0})
    collapsed = [replace(one, status="collapsed") for one in evidence.trials.values()]
    assert judged(claims, "Noise helps a model of base", evidence)[1] == "supported"
    (claim,) = (one for one in claims.CLAIMS if one.study == "base")
    finding = claims.judged(claim, {"base": gather(evidence.study, collapsed)})
    assert (finding.word, finding.more) == ("not decided", "on glue/cola, glue/rte no pair ended well")


def test_a_diverged_trial_has_no_norms_and_its_seed_does_not_count(claims) -> None:
    evidence = finished("main")
    first, *others = evidence.trials.values()
    diverged = replace(first, status="diverged", scores={}, norms={})
    (claim,) = (one for one in claims.CLAIMS if one.says.startswith("Norms"))
    finding = claims.judged(claim, {"main": gather(evidence.study, [diverged, *others])})
    assert finding.parts[""].n == len(evidence.study.seeds) - 1
    assert finding.more == "plain 3.0000, noise 2.0000; 100% of the difference is the query's"


def test_an_arm_that_a_study_does_not_have_is_an_error(claims) -> None:
    with pytest.raises(ValueError, match=r"base: no arm is called mixout\(p=0.9\)"):
        claims.gain(finished("base"), "mixout(p=0.9)")


def test_every_study_has_its_place_when_it_is_finished(claims, tmp_path, monkeypatch) -> None:
    import render

    monkeypatch.setattr(render, "AGAIN", tmp_path / "none")  # real trials, of which these know nothing
    there = {name: render.Finished(finished(name), Path("records")) for name in render.STUDIES}
    reports = [there[name].report() for name in there if name not in render.LUCK]
    text = "\n\n".join(render.paragraphs(reports, there))
    rows = [line.split(" | ") for line in text.splitlines() if "](records/" in line and line.startswith("| ")]
    assert {row[0].partition("]")[0].strip("| [") for row in rows} == there.keys() - set(render.LUCK)
    assert [row[1] for row in rows if "[shares]" in row[0]] == [
        "all 3 shares of 2 tasks",
        *(f"{task}{share}" for task in ("glue/cola", "topics") for share in (" 25 %", " 50 %", "")),
    ]
    assert "not run yet" not in text
    assert "**luck" not in text, "one draw of the noise is no verdict on the method"
    assert "(records/luck-3.html)" in text
    render.forest(reports, tmp_path / "forest.svg")
    drawn = (tmp_path / "forest.svg").read_text()
    assert all(f"{name}, " in drawn for name in there.keys() - set(render.LUCK))
