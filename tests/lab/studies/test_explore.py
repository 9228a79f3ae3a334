"""Many noises, few trainings: equal budgets, data that chooses and data that judges, and no trial lost."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, RunFolderError, TrialError
from noisytune.lab import explore as explore_all
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.chosen import Chosen, as_record
from noisytune.lab.studies.compare import arms_of
from noisytune.lab.studies.events import Event, StudyStarted
from noisytune.lab.studies.exploration import HELD_OUT, MOST_NOISES, Exploration
from noisytune.lab.studies.explore import explore
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.events import Notice
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report import render_markdown
from noisytune.report.evidence.choices import choice_rows
from noisytune.report.evidence.pairs import gather


def luck(trial: Trial) -> float:
    """What chance gives a trial: a function of its noise, and of its seed where it has none."""
    methods = trial.settings["arm"]["methods"]
    start = methods[0]["noise_seed"] if methods else 7 * trial.seed
    return float(np.random.default_rng(start).uniform(0.4, 0.8))


class Judge(InlineEngine):
    """Trains nothing: scores are luck, on dev a little less. May be interrupted."""

    def __init__(self, stop_after: int | None = None, undefined: int | None = None) -> None:
        super().__init__()
        self.finished: list[Trial] = []
        self._stop_after, self._undefined = stop_after, undefined

    def prepare(self, task: Any) -> tuple[str, ...]:
        return ()

    def check(self, trial: Trial, arms: Any) -> tuple[str, ...]:
        return ()

    def run_of(self, trial: Trial) -> TrialRecord:
        if len(self.finished) == self._stop_after:
            raise KeyboardInterrupt
        self.finished.append(trial)
        methods = trial.settings["arm"]["methods"]
        score = {"accuracy": luck(trial)}
        if methods and methods[0]["noise_seed"] == self._undefined:
            score = {}
        evaluations = {HELD_OUT: {"status": "ok", "scores": score}}
        if "(held out)" in trial.task:
            evaluations["dev"] = {"status": "ok", "scores": {"accuracy": luck(trial) - 0.1}}
        return TrialRecord(trial.key, trial.settings, "ok", score, [1.0], {"total": 1.0}, {}, {}, evaluations)


class Judged:
    """The runner of a judge."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.prepare, self.check = judge.prepare, judge.check

    def run(self, training: Trial, trials: Sequence[Trial], on_step: Any) -> Iterator[TrialRecord]:
        yield from map(self._judge.run_of, trials)

    def calibrate(self, trial: Trial, tasks: Any) -> Any:
        raise NotImplementedError


@pytest.fixture
def plan(tiny: Model, topics: TaskData) -> Exploration:
    return Exploration(
        name="explored",
        model=tiny,
        task=topics,
        arms=arms_of("noisytune(0.1)", "noisytune(0.3)")[1:],
        noise_seeds=8,
        keep=2,
        seeds=2,
        training=TrainingSettings(max_length=32, batch_size=8),
    )


def test_examples_that_hang_together_choose_together_or_are_trained_on(plan: Exploration) -> None:
    train = plan.task.train
    grouped = replace(plan.task, train=replace(train, groups=tuple(f"user{i // 4}" for i in range(len(train)))))
    final = replace(plan, task=grouped).final
    assert final.evaluate[HELD_OUT].groups
    assert not set(final.evaluate[HELD_OUT].groups) & set(final.train.groups)


def run(plan: Exploration, folder: Path, **how: Any) -> tuple[Judge, StudyRecord, list[Event]]:
    judge, events = Judge(**how), list[Event]()
    return judge, explore(plan, Store(folder), judge, events.append, Judged(judge)), events


def rounds(judge: Judge) -> dict[tuple[int, int], list[int]]:
    """Noise seeds of each seed and length of training."""
    found: dict[tuple[int, int], list[int]] = {}
    for trial in judge.finished:
        if "(screened)" in trial.task:
            place = trial.seed, trial.settings["training"]["max_steps"]
            found.setdefault(place, []).append(trial.settings["arm"]["methods"][0]["noise_seed"])
    return found


def test_half_goes_on_each_time_and_trains_twice_as_long(plan: Exploration, tmp_path: Path) -> None:
    judge, _, _ = run(plan, tmp_path)
    (first, more), seen = [steps for _, steps, _ in plan.rounds], rounds(judge)
    assert more == 2 * first
    assert set(seen) == {(seed, steps) for seed in (0, 1) for steps in (first, more)}
    for seed in (0, 1):
        assert sorted(seen[seed, first]) == [seed * MOST_NOISES + i for i in range(8)]
        best = sorted(seen[seed, first], key=lambda noise: -np.random.default_rng(noise).uniform(0.4, 0.8))
        assert sorted(seen[seed, more]) == sorted(best[:4])
        trained = [t for t in judge.finished if "(held out)" in t.task and t.seed == seed and t.arm != "plain"]
        assert sorted(t.settings["arm"]["methods"][0]["noise_seed"] for t in trained) == sorted(best[:2])
    strengths = {t.settings["arm"]["methods"][0]["noise_lambda"] for t in judge.finished if t.arm != "plain"}
    assert strengths == {0.1, 0.3}


def test_what_chooses_is_not_what_judges(plan: Exploration, tmp_path: Path) -> None:
    _, study, _ = run(plan, tmp_path)
    held, kept = plan.final.evaluate[HELD_OUT], plan.final.train
    assert sorted(held.texts + kept.texts) == sorted(plan.task.train.texts)
    assert not set(held.texts) & set(plan.task.dev.texts)
    assert list(plan.screened.evaluate) == [HELD_OUT]
    for record in Store(tmp_path).records(entry["key"] for entry in study.trials):
        told = record.applied["chosen"]
        best = next(one for one in told["from"] if one["number"] == told["number"])
        assert best["chosen_by"] == max(one["chosen_by"] for one in told["from"])
        assert record.scores == {"accuracy": pytest.approx(best["score"])}
        assert record.split == "dev"


def test_the_budgets_are_the_same(plan: Exploration, tmp_path: Path) -> None:
    judge, study, _ = run(plan, tmp_path)
    batch, held = 8, len(plan.screened.dev) / 3
    cost = Counter[bool]()
    for trial in judge.finished:
        steps = trial.settings["training"]["max_steps"] or plan.steps
        cost[trial.arm == "plain"] += steps * batch + held
    assert cost[False] <= cost[True] < cost[False] + 2 * (plan.steps * batch + held)
    assert study.arms == [f"best of {plan.restarts} restarts", "best of 8 noises", "plain"]
    assert plan.spent == pytest.approx(cost[False] / 2 / (plan.steps * batch + held))
    rows = choice_rows(gather(study, Store(tmp_path).records(entry["key"] for entry in study.trials)))
    assert [row.trainings for row in rows] == [plan.restarts, pytest.approx(plan.spent), 1]


def test_it_is_a_study_that_is_reported_and_goes_on(plan: Exploration, tmp_path: Path) -> None:
    first, study, events = run(plan, tmp_path)
    again, same, _ = run(plan, tmp_path)
    assert (again.finished, same) == ([], study)
    assert Store(tmp_path).read_study() == study
    records = Store(tmp_path).records(entry["key"] for entry in study.trials)
    assert len(records) == 6
    page = render_markdown(study, records)
    assert "best of 8 noises" in page
    assert sum(isinstance(event, StudyStarted) for event in events) == 3
    assert any("restarts" in event.text for event in events if isinstance(event, Notice))
    more, grown, _ = run(replace(plan, seeds=3), tmp_path)
    assert {trial.seed % 1_000_000 // 10_000 if trial.seed > 2 else trial.seed for trial in more.finished} == {2}
    assert grown.seeds == [0, 1, 2]
    assert len({trial.key for trial in first.finished + more.finished}) == len(first.finished + more.finished)


def test_wherever_it_is_interrupted_nothing_is_done_twice(plan: Exploration, tmp_path: Path) -> None:
    whole, expected, _ = run(plan, tmp_path / "whole")
    finished: list[Trial] = []
    for stop in (0, 5, 17, 3, None):
        judge = Judge(stop_after=stop)
        with contextlib.suppress(KeyboardInterrupt):
            found = explore(plan, Store(tmp_path / "run"), judge, lambda _: None, Judged(judge))
        finished += judge.finished
    assert Counter(t.key for t in finished) == Counter(t.key for t in whole.finished)
    assert found == expected


def test_a_candidate_without_a_score_is_not_kept(plan: Exploration, tmp_path: Path) -> None:
    judge, _, _ = run(plan, tmp_path, undefined=3)
    assert all(3 not in seen for (seed, steps), seen in rounds(judge).items() if steps > plan.rounds[0][1])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keep": 9}, "keep must be a whole number, 1 to 8, got 9"),
        ({"noise_seeds": 1}, "noise_seeds must be a whole number, 2 to 65,536"),
        ({"screen": "guess"}, "screen must be auto, untrained or short"),
        ({"screen": "untrained"}, "its new head knows nothing"),
        ({"training": TrainingSettings(select="best")}, "leave select as it is"),
        ({"arms": arms_of("recadam")[1:]}, "arm recadam: explore chooses its noise"),
        ({"arms": arms_of("noisytune(0.1, noise_seed=3)")[1:]}, "explore chooses its noise"),
    ],
)
def test_what_makes_no_sense_is_refused(plan: Exploration, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(plan, **changes)


def test_another_task_does_not_go_on(plan: Exploration, tmp_path: Path) -> None:
    run(plan, tmp_path)
    other = replace(plan, task=replace(plan.task, train=plan.task.train.take(range(30))))
    longer = replace(plan, training=replace(plan.training, epochs=4))
    for another, said in ((other, "holds another study"), (longer, "holds another study: its epochs is 3, not 4")):
        with pytest.raises(RunFolderError, match=said):
            run(another, tmp_path)


def test_fewer_seeds_are_told(plan: Exploration, tmp_path: Path) -> None:
    run(plan, tmp_path)
    fewer, study, events = run(replace(plan, seeds=1), tmp_path)
    assert (fewer.finished, study.seeds) == ([], [0])
    assert "1 seeds, not 2 as before" in " ".join(event.text for event in events if isinstance(event, Notice))


def test_a_trial_that_fails_is_told(plan: Exploration, tmp_path: Path) -> None:
    class Failing(Judge):
        def run_of(self, trial: Trial) -> TrialRecord:
            raise TrialError("no")

    judge = Failing()
    with pytest.raises(TrialError, match="no"):
        explore(plan, Store(tmp_path), judge, lambda _: None, Judged(judge))


def test_with_real_trainings(tiny: Model, topics: TaskData, tmp_path: Path) -> None:
    how = {"noise_seeds": 4, "keep": 2, "seeds": 2, "training": {"max_steps": 6, "max_length": 32, "batch_size": 8}}
    found = explore_all(tiny.path, topics, out=tmp_path, engine=InlineEngine(), **how)
    assert [row.arm for row in found.summary] == ["best of 4 noises", "plain"]
    assert all(record.applied["chosen"]["from"] for record in found.records)
    assert found.report().exists()


def test_language_models_are_screened_before_training(language_models: dict[str, Model], tmp_path: Path) -> None:
    """Of likelihoods less is better, and a noise is judged by what the model says with it."""
    chats = [{"prompt": f"say {i}", "completion": f"{i} it is"} for i in range(40)]
    how = {"noise_seeds": 3, "keep": 1, "seeds": 1, "training": {"max_steps": 2, "max_length": 64}}
    arms = ["noisytune(0.5)"]
    found = explore_all(language_models["llama"].path, chats, arms=arms, out=tmp_path, engine=InlineEngine(), **how)
    every = Store(tmp_path).records()
    screened = [record for record in every if "(screened)" in record.task]
    assert [record.status for record in screened] == ["untrained"] * 3
    assert all(list(record.evaluations) == [HELD_OUT] for record in screened)
    nll = {record.settings["arm"]["methods"][0]["noise_seed"]: record.scores["nll"] for record in screened}
    assert len(set(nll.values())) == 3
    (explored,) = (record for record in found.records if record.arm == "best of 3 noises")
    assert explored.settings["arm"]["methods"][0]["noise_seed"] == min(nll, key=lambda noise: nll[noise])
    assert explored.applied["chosen"]["from"][0]["screened"] == [min(nll.values())]
    assert found.study.arms[0] == "best of 2 restarts"


@pytest.mark.parametrize(
    ("chose", "scored", "said"), [("ok", "collapsed", "collapsed"), ("untrained", "ok", "untrained")]
)
def test_the_status_of_the_chosen_trial_is_that_of_what_is_scored(
    tiny_study: Study, chose: Any, scored: str, said: str
) -> None:
    (task,), trial = tiny_study.tasks, tiny_study.plan[0]
    states = {
        HELD_OUT: {"status": "ok", "scores": {"accuracy": 0.9}},
        "dev": {"status": scored, "scores": {"accuracy": 0.2}},
    }
    record = TrialRecord(trial.key, trial.settings, chose, {"accuracy": 0.9}, [], {}, {}, {}, states)
    found = as_record(Chosen("best", 0, 0, {0: record}, {}, "accuracy", 1.0), task, task)
    assert (found.status, found.scores) == (said, {"accuracy": 0.2})
