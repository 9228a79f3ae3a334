"""Exploring: candidates are screened round by round, what is left is trained, and what chooses is written down."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from noisytune.errors import RunFolderError, TrialError
from noisytune.lab.engines import Engine
from noisytune.lab.store import StudyStore
from noisytune.lab.studies.attempts import Attempts, Rules
from noisytune.lab.studies.chosen import Chosen, as_record
from noisytune.lab.studies.events import Event, StudyStarted, each_notice_once
from noisytune.lab.studies.exploration import Exploration
from noisytune.lab.studies.merge import other_setting
from noisytune.lab.studies.ready import get_ready, say_notices, set_damaged_aside, start
from noisytune.lab.studies.run import USUAL
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.runner import Runner
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord


def explore(
    exploration: Exploration,
    store: StudyStore,
    engine: Engine,
    on_event: Callable[[Event], None],
    runner: Runner | None = None,
    rules: Rules = USUAL,
) -> StudyRecord:
    """Screen what was not screened yet, train what was not trained yet, and write down what was chosen.

    Args:
        exploration: what to do.
        store: the run folder: empty, or with an earlier, perhaps interrupted, exploration of the same task and model.
        engine: where trials run.
        on_event: told of everything that happens, in this thread.
        runner: how trials are carried out; None: with the transformers Trainer.
        rules: what to do about failures, for how long, and until when.

    Returns:
        a study of three arms, the best of the restarts first, then the best of the explored, then one plain training.
        Each of its trials is the one that was chosen, scored on dev.

    Raises:
        RunFolderError: the folder holds something else, is in use, or cannot be written.
        TrialError: a trial failed. Finished trials are kept.
        NoisyTuneError: something is wrong with the model, the data or the settings.
    """
    runner = runner or TransformersRunner.of(exploration.model, exploration.training.max_length, store.cache_folder)
    on_event = each_notice_once(on_event)
    with store.lock() as notice:
        fewer = _about_earlier(exploration, store)
        say_notices(exploration.study, (notice, fewer, *_said(exploration)), on_event)
        run = _Run(exploration, store, engine, runner, on_event, rules)
        left, screened = run.screen()
        study, records = run.choose(left, screened)
        for record in records:
            store.write(record)
        store.write_study(study)
    return study


def _said(exploration: Exploration) -> Iterable[str]:
    """What is done, in words."""
    for count, steps, left in exploration.rounds:
        how = f"after {steps} steps" if steps else "before training"
        yield f"screening: {count} candidates of each seed are scored {how}, {left} are kept"
    yield (
        f"each seed spends {exploration.spent:.1f} trainings on its {exploration.noise_seeds} candidates, and "
        f"{exploration.restarts} on plain restarts; {len(exploration.screened.dev)} training examples choose"
    )


def _about_earlier(exploration: Exploration, store: StudyStore) -> str:
    """What the user should know of an exploration that is in the folder already.

    Raises:
        RunFolderError: something else is there.
    """
    earlier = store.read_study()
    if earlier is None:
        return ""
    ours = exploration.model.digest, exploration.final.digest
    if (earlier.model["digest"], earlier.tasks[0]["digest"]) != ours:
        raise RunFolderError(f"{store.folder} holds another study; choose another run folder")
    if other := other_setting(earlier.training, exploration.study.training.to_dict()):
        raise RunFolderError(f"{store.folder} holds another study: {other}; choose another run folder")
    if exploration.seeds >= len(earlier.seeds):
        return ""
    return f"the report will have {exploration.seeds} seeds, not {len(earlier.seeds)} as before: their trials are kept"


class _Run:
    """An exploration on its way."""

    def __init__(
        self,
        exploration: Exploration,
        store: StudyStore,
        engine: Engine,
        runner: Runner,
        on_event: Callable[[Event], None],
        rules: Rules,
    ) -> None:
        self.exploration, self.store, self.engine, self.runner = exploration, store, engine, runner
        self.on_event, self.rules, self.is_ready = on_event, rules, False

    def screen(self) -> tuple[dict[int, list[int]], dict[tuple[int, int], list[float | None]]]:
        """The candidates that are kept, by seed, and the scores of each in every round that it was in."""
        plan = self.exploration
        left = {seed: list(range(plan.noise_seeds)) for seed in range(plan.seeds)}
        scores: dict[tuple[int, int], list[float | None]] = {}
        for count, steps, most in plan.rounds:
            trials = {(seed, n): plan.screening(seed, n, steps) for seed, mine in left.items() for n in mine}
            what = f"{plan.name}: {count} candidates " + (f"after {steps} steps" if steps else "before training")
            found = self.run(what, plan.screened, trials.values())
            for place, trial in trials.items():
                scores.setdefault(place, []).append(found[trial.key].scores.get(plan.metric))
            for seed, mine in left.items():
                left[seed] = plan.best({n: scores[seed, n][-1] for n in mine}, most)
        return left, scores

    def choose(
        self, left: Mapping[int, Sequence[int]], screened: Mapping[tuple[int, int], list[float | None]]
    ) -> tuple[StudyRecord, list[TrialRecord]]:
        """Train what is left and the restarts; the study of those that score best on what is held out."""
        plan = self.exploration
        trained = {(seed, n): plan.trained(seed, n) for seed, mine in left.items() for n in mine}
        restarts = {(seed, n): plan.restart(seed, n) for seed in left for n in range(plan.restarts)}
        found = self.run(f"{plan.name}: whole trainings", plan.final, [*trained.values(), *restarts.values()])
        arms = {
            f"best of {plan.restarts} restarts": restarts,
            f"best of {plan.noise_seeds} noises": trained,
            PLAIN.name: {place: trial for place, trial in restarts.items() if place[1] == 0},
        }
        records = []
        for seed in left:
            for arm, trials in arms.items():
                mine = {n: found[trial.key] for (of, n), trial in trials.items() if of == seed}
                scores = {n: record.scores.get(plan.metric) for n, record in mine.items()}
                (best,) = plan.best(scores, 1)
                told = {n: screened.get((seed, n), []) for n in mine} if trials is trained else {}
                spent = plan.spent if trials is trained else float(len(mine))
                chosen = Chosen(arm, seed, best, mine, told, plan.metric, spent)
                records.append(as_record(chosen, plan.task, plan.final))
        plain = Study(
            name=plan.name,
            model=plan.model,
            tasks=(replace(plan.task, train=plan.final.train),),
            arms=tuple(Arm(name) for name in arms),
            seeds=tuple(left),
            training=plan.training,
            margin=plan.margin,
        ).record
        entries = [{"key": one.key, "task": one.task, "arm": one.arm, "seed": one.seed} for one in records]
        tasks = [plain.tasks[0] | {"digest": plan.final.digest}]
        return replace(plain, tasks=tasks, trials=entries), records

    def run(self, name: str, task: TaskData, trials: Iterable[Trial]) -> dict[str, TrialRecord]:
        """The records of trials by key; those that are not there yet are run."""
        trials = list({trial.key: trial for trial in trials}.values())
        set_damaged_aside(self.store, (trial.key for trial in trials))
        missing = [trial for trial in trials if not self.store.has(trial.key)]
        finished = tuple(self.store.records(trial.key for trial in trials))
        about = replace(self.exploration.study.record, name=name, arms=[PLAIN.name])
        about = replace(about, tasks=[one for one in about.tasks if one["name"] == task.name])
        self.on_event(StudyStarted(about, finished, tuple(missing), self.store.folder))
        if missing:
            start(self.engine, self.runner, len(missing))
            if not self.is_ready:
                study = self.exploration.study
                get_ready(study, self.runner, self.engine, study.plan, self.on_event)
                self.is_ready = True
            attempts = Attempts(self.store, self.engine, self.on_event, self.rules)
            attempts.run(TrialJob(trial, (trial,), self.runner) for trial in missing)
            if self.rules.stopping():
                raise TrialError("the exploration was stopped before it was done: the same command goes on from there")
            if attempts.failed:  # what is chosen from must be whole
                raise next(iter(attempts.failed.values()))
        return {record.key: record for record in self.store.records(trial.key for trial in trials)}
