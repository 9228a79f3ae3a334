"""What is compared: arms and seeds."""

from __future__ import annotations

from typing import Any

import pytest

from noisytune.errors import ConfigError
from noisytune.lab.studies.compare import Noises, arms_of, equal_compute, seeds_of
from noisytune.lab.trials.settings import TrainingSettings


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


@pytest.mark.parametrize("setting", [{"distribution": "gaussian"}, {"scale": "matrix,global"}, {"exclude": "*bias*"}])
def test_settings_of_noise_beside_named_arms_are_not_lost(setting: dict[str, Any]) -> None:
    assert Noises.beside(["mixout"], {}) == Noises.beside(["mixout"], {"scale": "matrix"}) == ()
    with pytest.raises(ConfigError, match=f"^{next(iter(setting))} has no effect on arms that are given by name"):
        Noises.beside(["mixout"], setting)
    given = {"noise_lambda": "0.1", **setting}
    assert Noises.beside(["mixout"], given) == Noises(**given).arms() != ()


@pytest.mark.parametrize(
    ("arms", "training", "longer"),
    [
        (["noisytune", "recadam"], {}, {}),
        (["sam", "rdrop"], {}, {"plain(epochs=6)": {"epochs": 6}}),
        (["noisytune(0.1, soup=3)+sam"], {"epochs": 2}, {"plain(epochs=12)": {"epochs": 12}}),
        (["child_tuning"], {}, {"plain(epochs=4)": {"epochs": 4}}),
        (["symnoise", "r3f(0)"], {"max_steps": 7}, {"plain(max_steps=14)": {"max_steps": 14}}),
    ],
)
def test_a_baseline_of_as_many_tokens(arms: list[str], training: dict[str, Any], longer: dict[str, Any]) -> None:
    """Those that read a token once add nothing; what is there already stays as it is."""
    asked = arms_of(*arms)
    every = equal_compute(asked, [(TrainingSettings(**training), 40)])
    assert every[: len(asked)] == asked
    assert {arm.name: arm.training for arm in every[len(asked) :]} == longer
    assert all(not arm.methods for arm in every[len(asked) :])


def test_tasks_of_different_lengths_have_no_single_longer_baseline() -> None:
    with pytest.raises(ConfigError, match="equal_compute: sam needs baselines of different lengths"):
        equal_compute(arms_of("sam"), [(TrainingSettings(epochs=epochs), 40) for epochs in (2, 5)])
