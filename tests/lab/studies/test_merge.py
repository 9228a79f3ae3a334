"""What a run folder holds once a study goes on in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune.errors import RunFolderError
from noisytune.lab.studies.merge import extend
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.arm import Arm


def test_seeds_and_arms_of_both_are_kept_in_the_order_of_the_seeds(tiny_study: Study) -> None:
    earlier = replace(tiny_study, seeds=(0, 2)).record
    both = extend(earlier, replace(tiny_study, seeds=(1,)).record, Path("run"))
    assert both.seeds == [0, 1, 2]
    assert [entry["seed"] for entry in both.trials] == [0, 0, 1, 1, 2, 2]


def test_a_method_that_was_mended_takes_the_place_of_its_earlier_trials(tiny_study: Study) -> None:
    """Its key is another; the plan has one trial for each task, arm and seed all the same."""
    record = tiny_study.record
    mended = [entry | {"key": "mended"} if entry["arm"] != "plain" else entry for entry in record.trials]
    both = extend(record, replace(record, trials=mended), Path("run"))
    assert both.trials == mended


def test_another_baseline_is_another_study(tiny_study: Study) -> None:
    record = tiny_study.record
    with pytest.raises(RunFolderError, match="its baseline is plain, not noisytune"):
        extend(record, replace(record, arms=record.arms[::-1]), Path("run"))


def changed(entries: list[dict[str, Any]], *arms: str) -> list[dict[str, Any]]:
    return [entry | {"key": f"{entry['key']}-mended"} if entry["arm"] in arms else entry for entry in entries]


def test_no_seed_keeps_an_arm_that_means_something_else_now(tiny_study: Study) -> None:
    """Seeds that are not asked for again would mix two methods under one name."""
    earlier = replace(tiny_study, seeds=(0, 1, 2)).record
    now = replace(tiny_study, seeds=(1,)).record
    both = extend(earlier, replace(now, trials=changed(now.trials, now.arms[1])), Path("run"))
    assert [(entry["arm"], entry["seed"]) for entry in both.trials] == [
        ("plain", 0),
        ("plain", 1),
        (now.arms[1], 1),
        ("plain", 2),
    ]
    assert both.seeds == [0, 1, 2]


def test_a_baseline_that_means_something_else_now_leaves_nothing_of_the_task(tiny_study: Study) -> None:
    earlier = replace(tiny_study, arms=(*tiny_study.arms, Arm.parse("recadam")), seeds=(0, 1, 2)).record
    now = replace(tiny_study, seeds=(1, 3)).record
    asked = replace(now, trials=changed(now.trials, "plain"))
    both = extend(earlier, asked, Path("run"))
    assert (both.trials, both.seeds, both.arms) == (asked.trials, [1, 3], asked.arms)


def test_another_task_keeps_its_seeds(tiny_study: Study) -> None:
    other = replace(tiny_study.tasks[0], name="other")
    earlier = replace(tiny_study, tasks=(*tiny_study.tasks, other), seeds=(0, 1)).record
    now = replace(tiny_study, seeds=(0,)).record
    both = extend(earlier, replace(now, trials=changed(now.trials, "plain")), Path("run"))
    assert {(entry["task"], entry["seed"]) for entry in both.trials} == {("topics", 0), ("other", 0), ("other", 1)}
