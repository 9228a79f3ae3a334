"""What a run folder holds once a study goes on in it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from noisytune.errors import RunFolderError
from noisytune.lab.studies.merge import extend
from noisytune.lab.studies.study import Study


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
