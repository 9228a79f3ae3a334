"""Equal budgets, separate data, fresh seeds, and no trial lost: the search around an engine that trains nothing."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, RunFolderError, TrialError
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.events import Event, SearchStarted, SearchTold, StudyStarted
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.search import Space
from noisytune.lab.studies.study import Study
from noisytune.lab.studies.tune import FIRST_SEED, Tuning, tune
from noisytune.lab.tasks import TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.events import Notice, TrialDone
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord
from tests.support.xtreme_files import write_xtreme

SPACE = Space(learning_rate=(1e-4, 1e-3), epochs=(1, 2), batch_size=(8, 16), noise_lambda=(0.0, 0.1, 0.2))


def quality(trial: Trial) -> float | None:
    """The objective: more epochs are better, so is more noise; the seed matters a little."""
    noise = sum(method.get("noise_lambda", 0.0) for method in trial.settings["arm"]["methods"])
    return 0.3 + 0.1 * trial.settings["training"]["epochs"] + noise + (trial.seed % 7) / 1000


class Judge(InlineEngine):
    """An engine whose runner scores trials with a function, up to ``behind`` trials late, and may be interrupted."""

    def __init__(
        self, quality: Callable[[Trial], float | None] = quality, stop_after: int | None = None, behind: int = 0
    ) -> None:
        super().__init__(workers=behind + 1)
        self.finished: list[Trial] = []
        self._quality, self._stop_after = quality, stop_after

    def judge(self, trial: Trial) -> TrialRecord:
        if len(self.finished) == self._stop_after:
            raise KeyboardInterrupt
        self.finished.append(trial)
        value = self._quality(trial)
        scores = {} if value is None else {"accuracy": value}
        status: Any = "diverged" if value is None else "ok"
        return TrialRecord(trial.key, trial.settings, status, scores, [1.0], {"total": 1.0}, {}, {})


class Judged:
    """A runner that trains nothing."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def prepare(self, task: Any) -> tuple[str, ...]:
        return ()

    def check(self, trial: Trial, arms: Any) -> tuple[str, ...]:
        return ()

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        yield from map(self._judge.judge, trials)

    def calibrate(self, trial: Trial, tasks: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def tuning(tiny: Model, topics: TaskData) -> Tuning:
    return Tuning(
        name="tuned",
        model=tiny,
        task=topics,
        space=SPACE,
        budget=5,
        seeds=2,
        training=TrainingSettings(max_length=32, protocol="clean"),
    )


def run(tuning: Tuning, folder: Path, **options: Any) -> tuple[Judge, StudyRecord, list[Event]]:
    judge, events = options.pop("engine", None) or Judge(), list[Event]()
    return judge, tune(tuning, Store(folder), judge, events.append, runner=Judged(judge), **options), events


def searching(trials: Iterable[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.seed >= FIRST_SEED]


def test_every_arm_gets_the_same_trials_but_for_its_method(tuning: Tuning, tmp_path: Path) -> None:
    three = replace(tuning, arms=("noisytune", "noisytune+recadam"))
    judge, record, events = run(three, tmp_path)
    assert record.search is not None
    by_arm = {arm["asked"]: arm["trials"] for arm in record.search["arms"]}
    assert list(by_arm) == ["plain", "noisytune", "noisytune+recadam"]
    seen = [
        [(t["seed"], {k: v for k, v in t["settings"].items() if k != "noise_lambda"}) for t in trials]
        for trials in by_arm.values()
    ]
    assert len(seen[0]) == 5
    assert seen[0] == seen[1] == seen[2]
    assert not any("noise_lambda" in trial["settings"] for trial in by_arm["plain"])
    assert all("noise_lambda" in trial["settings"] for trial in by_arm["noisytune"])
    assert len({trial["key"] for trials in by_arm.values() for trial in trials}) == 15
    assert len(searching(judge.finished)) == 15
    assert isinstance(events[0], SearchStarted)
    assert sum(isinstance(event, SearchTold) for event in events) == 15
    assert sum(isinstance(event, StudyStarted) for event in events) == 1


def test_the_best_settings_of_each_arm_are_run_on_fresh_seeds(tuning: Tuning, tmp_path: Path) -> None:
    judge, record, _ = run(tuning, tmp_path)
    assert record.search is not None
    for arm in record.search["arms"]:
        values = [trial["value"] for trial in arm["trials"]]
        assert arm["winner"] == values.index(max(values))
        won = arm["trials"][arm["winner"]]["settings"]
        mine = [t for t in judge.finished if t.arm == arm["arm"] and t.seed < FIRST_SEED]
        assert [trial.seed for trial in mine] == [0, 1]
        for trial in mine:
            assert {name: trial.settings["training"][name] for name in won if name != "noise_lambda"} == {
                name: value for name, value in won.items() if name != "noise_lambda"
            }
            assert [m["noise_lambda"] for m in trial.settings["arm"]["methods"]] == [
                value for name, value in won.items() if name == "noise_lambda"
            ]
    assert [trial.task for trial in judge.finished[-4:]] == ["topics"] * 4


def test_clean_chooses_on_examples_that_nothing_else_sees(tuning: Tuning) -> None:
    topics, (searched,) = tuning.task, tuning.searched.tasks
    assert len(searched.dev) == 4
    assert sorted(searched.train.texts + searched.dev.texts) == sorted(topics.train.texts)
    assert not set(searched.dev.texts) & set(topics.dev.texts)


def test_paper_chooses_on_dev_and_says_so(tuning: Tuning, tmp_path: Path) -> None:
    paper = replace(tuning, training=replace(tuning.training, protocol="paper"))
    judge, record, _ = run(paper, tmp_path)
    assert {trial.settings["task"]["digest"] for trial in judge.finished} == {tuning.task.digest}
    assert record.search is not None
    assert (record.search["protocol"], record.search["chosen_on"]) == ("paper", len(tuning.task.dev))
    assert record.training["protocol"] == "paper"


def test_the_winners_of_equal_settings_are_an_ordinary_study(tuning: Tuning, tiny_study: Study, tmp_path: Path) -> None:
    """One value of everything: the trials are those that compare would run, key by key."""
    one = replace(tuning, space=Space(learning_rate=(1e-3,), epochs=(1,), batch_size=(8,), noise_lambda=(0.15,)))
    _, record, _ = run(one, tmp_path)
    ordinary = replace(tiny_study, training=replace(tiny_study.training, protocol="clean"))
    assert [entry["key"] for entry in record.trials] == [trial.key for trial in ordinary.plan]


@pytest.mark.parametrize("sampler", ["random", pytest.param("grid", marks=pytest.mark.slow)])
@pytest.mark.parametrize("behind", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_wherever_it_is_interrupted_nothing_is_lost_or_done_twice(
    tuning: Tuning, tmp_path: Path, sampler: str, behind: int
) -> None:
    plan = replace(tuning, sampler=sampler)
    whole, expected, _ = run(plan, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "whole")
    finished: list[Trial] = []
    for stop in (0, 1, 3, 2, 1, 5, None):
        judge = Judge(stop_after=stop, behind=behind)
        with contextlib.suppress(KeyboardInterrupt):
            record = run(plan, tmp_path / "run", engine=judge)[1]
        finished += judge.finished
    assert Counter(trial.key for trial in finished) == Counter(trial.key for trial in whole.finished)
    assert record == expected


def test_a_trial_that_was_kept_but_not_told_is_not_run_again(tuning: Tuning, tmp_path: Path) -> None:
    store, first = Store(tmp_path), Judge()

    def killed(event: Event) -> None:
        if isinstance(event, TrialDone):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(tuning, store, first, killed, runner=Judged(first))
    second, record, _ = run(tuning, tmp_path)
    assert len(searching(first.finished + second.finished)) == 10
    assert first.finished[0].key in {t["key"] for arm in (record.search or {})["arms"] for t in arm["trials"]}


def test_a_larger_budget_goes_on_and_a_smaller_one_is_a_part(tuning: Tuning, tmp_path: Path) -> None:
    def late(trial: Trial) -> float:
        return 0.9 if trial.seed == FIRST_SEED + 6 else 0.5 + (trial.seed % 3) / 100

    _, small, _ = run(tuning, tmp_path, engine=Judge(late))
    more, large, _ = run(replace(tuning, budget=8), tmp_path, engine=Judge(late))
    assert sorted({trial.seed - FIRST_SEED for trial in searching(more.finished)}) == [5, 6, 7]
    assert [arm["winner"] for arm in (large.search or {})["arms"]] == [6, 6]
    assert Store(tmp_path).read_study() == large
    back, again, _ = run(tuning, tmp_path, engine=Judge(late))
    assert (back.finished, again) == ([], small)


def test_more_seeds_keep_the_pairs(tuning: Tuning, tmp_path: Path) -> None:
    run(tuning, tmp_path)
    more, record, _ = run(replace(tuning, seeds=4), tmp_path)
    assert [trial.seed for trial in more.finished] == [2, 2, 3, 3]
    assert record.seeds == [0, 1, 2, 3]


def test_a_search_may_lie_elsewhere(tuning: Tuning, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    run(tuning, tmp_path / "a", storage=url)
    run(replace(tuning, budget=2), tmp_path / "b", storage=url)
    assert not (tmp_path / "a" / "optuna.db").exists()
    (tmp_path / "a" / "study.json").unlink()
    again, _, _ = run(tuning, tmp_path / "a", storage=url)
    assert again.finished == []


def test_another_space_or_task_is_refused_in_one_line(tuning: Tuning, tmp_path: Path) -> None:
    run(tuning, tmp_path)
    kept = (tmp_path / "study.json").read_bytes()
    task = tuning.task
    for said, other in {
        r"its epochs is \[1, 2\], not \[1, 3\]": replace(tuning, space=replace(SPACE, epochs=(1, 3))),
        "its task is topics by accuracy .*, not topics by": replace(
            tuning, task=replace(task, train=task.train.take(range(30)))
        ),
        "its protocol is clean, not paper": replace(tuning, training=replace(tuning.training, protocol="paper")),
        "its sampler is random, not tpe": replace(tuning, sampler="tpe"),
    }.items():
        with pytest.raises(RunFolderError, match=said) as caught:
            run(other, tmp_path)
        assert "\n" not in str(caught.value)
    assert (tmp_path / "study.json").read_bytes() == kept


def test_a_folder_of_another_command_is_refused(tuning: Tuning, tiny_study: Study, tmp_path: Path) -> None:
    run_study(tiny_study, Store(tmp_path), judge := Judge(), lambda _: None, runner=Judged(judge))
    with pytest.raises(RunFolderError, match="searched nothing; choose another run folder"):
        run(tuning, tmp_path)


def test_an_ordinary_study_leaves_the_table_of_a_search_alone(tuning: Tuning, tmp_path: Path) -> None:
    """One of the same settings could go on there, and the report would lose how they were chosen."""
    judge, record, _ = run(tuning, tmp_path)
    kept = (tmp_path / "study.json").read_bytes()
    training = TrainingSettings(**record.training)
    study = Study(
        name="x", model=tuning.model, tasks=(tuning.task,), arms=(PLAIN,), seeds=(0,), training=training, margin=1.0
    )
    with pytest.raises(RunFolderError, match="searches nothing: give another --out") as caught:
        run_study(study, Store(tmp_path), judge, lambda _: None, runner=Judged(judge))
    assert "\n" not in str(caught.value)
    assert (tmp_path / "study.json").read_bytes() == kept


def test_trials_without_a_score_count_and_cannot_win(tuning: Tuning, tmp_path: Path) -> None:
    _, record, _ = run(tuning, tmp_path, engine=Judge(lambda t: None if t.seed % 2 else quality(t)))
    for arm in (record.search or {})["arms"]:
        assert [trial["value"] is None for trial in arm["trials"]] == [False, True, False, True, False]
        assert arm["winner"] % 2 == 0


def test_an_arm_without_any_score_stops_with_one_line(tuning: Tuning, tmp_path: Path) -> None:
    nothing = Judge(lambda t: None if t.settings["arm"]["methods"] else 0.5)
    with pytest.raises(TrialError, match="noisytune: none of its 5 trials has a score"):
        run(tuning, tmp_path, engine=nothing)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ("plain",)}, "only the baseline"),
        ({"arms": ("noisytune", "noisytune(0.1)")}, "'noisytune' and 'noisytune\\(0.1\\)' are the same"),
        ({"arms": ("noisytun",)}, "did you mean 'noisytune'"),
        ({"budget": 0}, "budget must be a whole number, 1 to"),
        ({"seeds": FIRST_SEED + 1}, "seeds must be a whole number"),
        ({"training": TrainingSettings(select="best")}, "leave select as it is"),
    ],
)
def test_what_makes_no_sense_is_refused(tuning: Tuning, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(tuning, **change)


def test_on_xtreme_token_embeddings_get_no_noise_and_settings_are_chosen_on_what_is_trained(
    tuning: Tuning, tmp_path: Path
) -> None:
    data = TaskOptions(data_dir=write_xtreme(tmp_path / "download", ("de", "en")), languages=("de",))
    found = replace(tuning, task=load_task("xtreme/xquad", data), arms=("noisytune", "noisytune(exclude=*norm*)"))
    assert [arm.name.partition(", ")[2] for arm in found.planned.values()] == [
        "",
        "exclude=@token_embeddings)",
        "exclude=*norm*)",
    ]
    (searched,), squad = found.searched.tasks, found.task.trained_on
    assert squad is not None
    assert searched.name == f"{squad.name} (held out)"
    assert len(searched.train) + len(searched.dev) == len(squad.train)
    assert not set(searched.train.texts) & set(searched.dev.texts)
    with pytest.raises(ConfigError, match="xtreme/tatoeba is scored with the model that is trained on xtreme/xnli"):
        replace(tuning, task=load_task("xtreme/tatoeba", data))


def test_an_arms_own_training_is_part_of_its_trials_only(tiny_study: Study) -> None:
    own = replace(Arm.parse("noisytune"), training={"epochs": 4})
    plain, noisy = replace(tiny_study, arms=(PLAIN, own), seeds=(0,)).plan
    assert (plain.settings["training"]["epochs"], noisy.settings["training"]["epochs"]) == (1, 4)
    assert plain.key == tiny_study.plan[0].key


def test_what_is_noticed_is_said_before_the_search_and_once(tuning: Tuning, tmp_path: Path) -> None:
    noticed = replace(tuning, task=replace(tuning.task, notices=("3 rows are empty",)))
    _, _, events = run(noticed, tmp_path)
    assert isinstance(events[0], SearchStarted)
    assert events[1] == Notice("3 rows are empty")
    assert events.count(Notice("3 rows are empty")) == 1
