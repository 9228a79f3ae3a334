"""What is compared: arms and seeds."""

from __future__ import annotations

from typing import Any

import pytest

from noisytune.errors import ConfigError
from noisytune.lab.studies.compare import Noises, arms_of, seeds_of


@pytest.mark.parametrize("seeds", [0, -1, True, 1.0, "3", 100_001, 9_999_999_999, [], [0.5], ["1"]])
def test_seeds_that_are_none(seeds: Any) -> None:
    with pytest.raises(ConfigError, match="seeds must be a number of seeds, 1 to 100,000"):
        seeds_of(seeds)


def test_an_arm_for_each_combination_of_noises() -> None:
    noises = Noises(noise_lambda="0, 0.1,0.2", scale=("matrix", "global"), exclude="*bias*")  # type: ignore[arg-type]
    names = [arm.name for arm in arms_of(*noises.arms())]
    assert names == [
        "plain",
        *(
            f"noisytune({strength}{scale}, exclude=*bias*)"
            for strength in (0.1, 0.2)
            for scale in ("", ", scale=global")
        ),
    ]
    with pytest.raises(ConfigError, match="noise_lambda must be one or several, none twice"):
        Noises(noise_lambda=(0.1, 0.1))
