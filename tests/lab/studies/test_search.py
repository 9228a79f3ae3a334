"""Searches in an Optuna storage: what is tried, what survives an interruption, what is refused."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from noisytune.errors import ConfigError, RunFolderError
from noisytune.lab.studies.search import SAMPLERS, Search, Space, sqlite_url

SMALL = Space(learning_rate=(1e-5, 2e-5), epochs=(1, 2, 3), batch_size=(8,), noise_lambda=(0.0, 0.1, 0.2))


def opened(
    url: str = "sqlite://", sampler: str = "random", *, space: Space = SMALL, noise: bool = True, **asked: Any
) -> Search:
    return Search.open(url, "run/arm", space, sampler, noise=noise, asked={"task": "rte", **asked})


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'optuna.db'}"


def score(settings: dict[str, Any]) -> float:
    return float(settings["epochs"] == 2) + 1e4 * settings["learning_rate"]


def told(search: Search, budget: int) -> list[dict[str, Any]]:
    tried = []
    for number in range(budget):
        candidate = search.candidate(number)
        tried.append(candidate.settings)
        if not candidate.done:
            search.tell(number, score(candidate.settings))
    return tried


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_arms_with_and_without_noise_see_the_same_other_settings(sampler: str) -> None:
    plain = told(opened(sampler=sampler, noise=False, space=Space()), 30)
    noisy = told(opened(sampler=sampler, noise=True, space=Space()), 30)
    assert all("noise_lambda" not in settings for settings in plain)
    assert [{k: v for k, v in settings.items() if k != "noise_lambda"} for settings in noisy] == plain
    assert {settings["noise_lambda"] for settings in noisy} == set(Space().noise_lambda)


def test_the_grid_is_walked_whole_and_then_again() -> None:
    plain = [tuple(settings.items()) for settings in told(opened(sampler="grid", noise=False), 12)]
    noisy = [tuple(settings.items()) for settings in told(opened(sampler="grid"), 18)]
    assert len(set(plain[:6])) == 6
    assert plain[6:] == plain[:6]
    assert len(set(noisy)) == 18


def test_random_draws_every_value_about_as_often() -> None:
    tried = told(opened(space=Space()), 150)
    for name, values in Space().axes(noise=True).items():
        often = Counter(settings[name] for settings in tried)
        assert set(often) == set(values)
        assert max(often.values()) < 3 * min(often.values())


def test_tpe_comes_back_to_what_was_good() -> None:
    tried = told(opened(sampler="tpe", space=Space()), 60)
    last = Counter(settings["learning_rate"] for settings in tried[30:])
    assert last[3e-5] > 15, "a quarter of 30 would be chance"


@pytest.mark.parametrize("sampler", [s if s == "tpe" else pytest.param(s, marks=pytest.mark.slow) for s in SAMPLERS])
def test_an_interrupted_search_goes_on_as_if_it_had_not_been(sampler: str, tmp_path: Path) -> None:
    whole = told(opened(sampler=sampler), 16)
    url, broken = url_of(tmp_path), []
    for number in range(16):
        search = opened(url, sampler)
        if number % 4 == 1:  # settings were given out, the score never came
            search.candidate(number)
        elif number % 4 == 2:  # the process died between the trial and its settings
            search._new(number)
        elif number % 4 == 3 and sampler == "grid":  # or before the trial
            search._study.enqueue_trial(search._grid[number % len(search._grid)])
        broken += told(opened(url, sampler), number + 1)[number:]
    assert broken == whole
    assert [one.number for one in opened(url, sampler).candidates()] == list(range(16))
    assert all(one.done for one in opened(url, sampler).candidates())


def test_the_first_of_the_best_wins_within_the_budget() -> None:
    search = opened()
    assert search.best(9) is None
    for number, value in enumerate([None, 0.5, 0.7, 0.7, None, 0.9]):
        search.candidate(number)
        search.tell(number, value)
    best = [search.best(budget) for budget in (1, 2, 5, 6)]
    assert [one and one.number for one in best] == [None, 1, 2, 5]
    assert [one.value for one in search.candidates()] == [None, 0.5, 0.7, 0.7, None, 0.9]
    assert all(one.done for one in search.candidates())


def test_a_score_told_twice_stays_the_first() -> None:
    search = opened()
    search.candidate(0)
    search.tell(0, 0.5)
    search.tell(0, 0.6)
    assert search.candidates()[0].value == 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space": Space()}, r"its learning_rate is \[1e-05, 2e-05\], not \[7e-06, 1e-05, 2e-05, 3e-05\]"),
        ({"noise": False}, r"its noise_lambda is \[0.0, 0.1, 0.2\], not None"),
        ({"sampler": "grid"}, "its sampler is random, not grid"),
        ({"task": "cola"}, "its task is rte, not cola"),
    ],
)
def test_another_search_of_the_same_name_is_refused(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    told(opened(url_of(tmp_path)), 2)
    with pytest.raises(RunFolderError, match=said) as caught:
        opened(url_of(tmp_path), **change)
    assert "\n" not in str(caught.value)
    assert "another storage" in str(caught.value)
    assert len(opened(url_of(tmp_path)).candidates()) == 2


def test_somebody_elses_study_is_refused(tmp_path: Path) -> None:
    study = optuna.create_study(storage=url_of(tmp_path), study_name="run/arm")
    study.tell(study.ask(), 1.0)
    with pytest.raises(RunFolderError, match="noisytune did not write it"):
        opened(url_of(tmp_path))


@pytest.mark.parametrize("url", ["rubbish", "no://where", "sqlite:////no/such/folder/x.db", "mysql+no://a:secret@b/c"])
def test_a_storage_that_cannot_be_opened_is_one_line_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match="the storage of the search cannot be used") as caught:
        opened(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": ()}, "epochs must be one or several"),
        ({"epochs": (1, 1)}, "epochs must be one or several, none twice"),
        ({"batch_size": (0,)}, "batch_size must be .*: a whole number >= 1, got"),
        ({"learning_rate": (-1e-5,)}, "learning_rate must be .*: a finite number > 0, got"),
        ({"noise_lambda": (-0.1,)}, "noise_lambda"),
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Space(**values)


def test_the_database_lies_where_its_path_says_whatever_that_holds(tmp_path: Path) -> None:
    for name in ("what?", "100%", "a#b", "a b&c", "$SCHEMA_VERSION", "%41", "plain"):
        folder = tmp_path / name
        folder.mkdir()
        for _ in range(2):
            Search.open(sqlite_url(folder / "optuna.db"), "s", Space(epochs=(1, 2)), "random", noise=False, asked={})
        assert [file.name for file in folder.iterdir()] == ["optuna.db"]
    assert len(list(tmp_path.iterdir())) == 7


def test_a_database_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "optuna.db").symlink_to(tmp_path / "precious.db")
    with pytest.raises(RunFolderError, match="is a link to"):
        sqlite_url(tmp_path / "optuna.db")


def test_the_storage_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = Search.open("sqlite://", "s", Space(epochs=(1, 2)), "random", noise=False, asked={})
    for number in range(3):
        search.tell(number, float(search.candidate(number).number))
    monkeypatch.setattr(search, "_study", None)
    assert [search.candidate(number).value for number in range(3)] == [0.0, 1.0, 2.0]
    assert search.best(3) == search.candidates()[2]


def test_where_less_is_better_the_lowest_score_wins() -> None:
    search = Search.open("sqlite://", "s", Space(), "random", noise=False, asked={}, better=-1)
    for number, value in enumerate((3.0, 1.0, None, 2.0, 1.0)):
        search.candidate(number)
        search.tell(number, value)
    best = search.best(5)
    assert best is not None
    assert (best.number, best.value) == (1, 1.0)
