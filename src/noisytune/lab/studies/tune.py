"""Settings for each arm, searched with equal budgets; then the winners against each other on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from noisytune._metrics import direction
from noisytune._pretrained import Model
from noisytune.errors import ConfigError, RunFolderError, TrialError
from noisytune.lab.engines import Engine
from noisytune.lab.store import Store
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.attempts import Attempts, Rules
from noisytune.lab.studies.compare import NO_NOISE_ON_TOKENS, arms_for
from noisytune.lab.studies.events import Event, SearchStarted, SearchTold, each_notice_once
from noisytune.lab.studies.ready import get_ready, say_notices, set_damaged_aside, start
from noisytune.lab.studies.run import USUAL, run_study
from noisytune.lab.studies.search import Candidate, Search, Space, sqlite_url
from noisytune.lab.studies.study import Study, refuse_choosing
from noisytune.lab.tasks import TaskData, held_out
from noisytune.lab.trials.arm import PLAIN, Arm, methods_of
from noisytune.lab.trials.events import Notice, TrialDone, TrialEvent
from noisytune.lab.trials.jobs import TrialJob
from noisytune.lab.trials.runner import Runner
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.lab.trials.trial import Trial
from noisytune.records import StudyRecord, TrialRecord

FIRST_SEED = 1_000_000
"""Trial i of every arm's search has seed ``FIRST_SEED + i``; the winners' seeds lie below."""

_NOISE = "noisytune"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """What to tune, and how.

    Raises:
        ConfigError: no arm but the baseline, two arms that are one when noise_lambda is searched, a number out of
            range, or a task that is trained on another with another score.
    """

    name: str
    """For the report's title."""
    model: Model
    task: TaskData
    arms: tuple[str, ...] = (_NOISE,)
    """As for `noisytune.lab.trials.arm.Arm.parse`; the baseline is searched besides. The search chooses the
    noise_lambda of each arm with NoisyTune, whatever is written."""
    space: Space = field(default_factory=Space)
    budget: int = 20
    """Trials of each arm, >= 1."""
    sampler: str = "random"
    """One of `noisytune.lab.studies.search.SAMPLERS`."""
    seeds: int = USUAL_SEEDS
    """On how many fresh seeds the winners are run: 0, 1, 2 ..."""
    training: TrainingSettings
    """What is not searched. Its ``protocol`` says where settings are chosen: ``paper``: on dev, where the winners are
    scored too. ``clean``: on a tenth of the training examples, which the search does not train on; the winners train on
    all of them."""
    margin: float = 1.0
    """Differences within +- this many points count as equivalent, >= 0."""

    def __post_init__(self) -> None:
        # Searched: its value here says nothing. It is always the same, so that a search goes on in its folder.
        object.__setattr__(self, "training", replace(self.training, learning_rate=5e-5))
        for name, value, most in (("budget", self.budget, 2**31), ("seeds", self.seeds, FIRST_SEED)):
            if type(value) is not int or not 1 <= value <= most:
                raise ConfigError(f"{name} must be a whole number, 1 to {most:,}, got {value!r}")
        if self.training.select != "last":
            raise ConfigError("a search chooses the number of epochs, so the last one is scored: leave select as it is")
        source = self.task.trained_on
        if source and source.metric != self.task.metric:
            raise ConfigError(
                f"{self.task.name} is scored with the model that is trained on {source.name}: search settings on that"
            )
        refuse_choosing(source or self.task, self.training.protocol)
        named: dict[str, str] = {}
        for asked, arm in self.planned.items():
            same = named.setdefault(_with(arm, {"noise_lambda": 0.0}).name, asked)
            if same != asked:
                raise ConfigError(
                    f"the arms {same!r} and {asked!r} are the same: the search chooses their noise_lambda"
                )
        if len(named) == 1:
            raise ConfigError("only the baseline is asked for: give an arm to compare it with")

    @cached_property
    def asked(self) -> dict[str, Arm]:
        """The arms by what the user wrote, the baseline first."""
        return {PLAIN.name: PLAIN, **{text.strip(): Arm.parse(text) for text in self.arms}}

    @cached_property
    def planned(self) -> dict[str, Arm]:
        """The same as the paper has them on this task: see `noisytune.lab.studies.compare.arms_for`."""
        return dict(zip(self.asked, arms_for([self.task.name], tuple(self.asked.values())), strict=True))

    @cached_property
    def searched(self) -> Study:
        """Task and arms as the search sees them. Its trials are others: their settings are searched.

        Where the task is scored with the model of another, XQuAD's with SQuAD's, settings are chosen on that one.
        """
        task = self.task.trained_on or self.task
        if self.training.protocol == "clean":
            task = held_out(task, "dev")
        return Study(
            name=self.name,
            model=self.model,
            tasks=(task,),
            arms=tuple(replace(arm, name=asked) for asked, arm in self.planned.items()),
            seeds=(FIRST_SEED,),
            training=self.training,
            margin=self.margin,
        )

    def trial(self, asked: str, candidate: Candidate) -> Trial:
        """A trial of the search."""
        arm = _with(self.planned[asked], candidate.settings)
        return Trial.resolve(
            self.model, self.searched.tasks[0], arm, FIRST_SEED + candidate.number, self.searched.training
        )


def tune(
    tuning: Tuning,
    store: Store,
    engine: Engine,
    on_event: Callable[[Event], None],
    storage: str | None = None,
    runner: Runner | None = None,
    rules: Rules = USUAL,
) -> StudyRecord:
    """Search what has not been searched yet, then run the study of the winners as far as it has not been run.

    Args:
        tuning: what to do.
        store: the run folder: empty, or with an earlier, perhaps interrupted, search of the same.
        engine: where trials run.
        on_event: told of everything that happens, in this thread.
        storage: any URL that Optuna takes. None: SQLite in the run folder. One process at a time may use a search.
        runner: how trials are carried out; None: with the transformers Trainer.
        rules: what to do about failures, for how long, and until when.

    Returns:
        the study of the winners as it is kept, with the search in it.

    Raises:
        RunFolderError: the folder or the storage holds something else, is in use, or cannot be written.
        TrialError: a trial of the search failed, or no trial of an arm has a score. Finished trials are kept.
        NoisyTuneError: something is wrong with the model, the data or the settings.
    """
    runner = runner or TransformersRunner.of(tuning.model, tuning.training.max_length, store.cache_folder)
    on_event = each_notice_once(on_event)
    with store.lock() as notice:
        earlier = store.read_study()
        if earlier and earlier.search is None:
            raise RunFolderError(f"{store.folder} holds a study that searched nothing; choose another run folder")
        searches = _open(tuning, storage or sqlite_url(store.folder.absolute() / "optuna.db"), store.folder.name)
        _search(tuning, searches, store, engine, runner, on_event, rules, notice)
        study = _winners(tuning, searches)
        if earlier and not _goes_on(earlier, study):
            store.study_file.unlink()
    return run_study(study, store, engine, on_event, runner=runner, rules=rules)


def _open(tuning: Tuning, storage: str, name: str) -> dict[str, Search]:
    """The search of each arm, by what the user wrote."""
    searched = ("learning_rate", "epochs", "batch_size")
    training = {key: value for key, value in tuning.training.to_dict().items() if key not in searched}
    asked = {
        "model": f"{tuning.model.name} ({tuning.model.digest})",
        "task": f"{tuning.task.name} by {tuning.task.metric} ({tuning.task.digest})",
        **training,
    }
    return {
        text: Search.open(
            storage,
            f"{name}/{text}",
            tuning.space,
            tuning.sampler,
            noise=_has_noise(arm),
            asked=asked,
            better=direction(tuning.task.kind, tuning.task.metric),
        )
        for text, arm in tuning.planned.items()
    }


def _search(
    tuning: Tuning,
    searches: dict[str, Search],
    store: Store,
    engine: Engine,
    runner: Runner,
    on_event: Callable[[Event], None],
    rules: Rules,
    notice: str,
) -> None:
    """Bring every arm to the budget, trial by trial, so that all arms are equally far at any time."""
    study = tuning.searched
    done = sum(one.done for search in searches.values() for one in search.candidates()[: tuning.budget])
    missing = tuning.budget * len(searches) - done
    on_event(SearchStarted(study.record, tuning.budget, done, store.folder))
    say_notices(study, (notice, NO_NOISE_ON_TOKENS if tuning.planned != tuning.asked else ""), on_event)
    if not missing:
        return
    running: dict[str, tuple[str, Candidate]] = {}

    def told(record: TrialRecord) -> None:
        asked, candidate = running.pop(record.key)
        value = record.scores.get(tuning.task.metric)
        searches[asked].tell(candidate.number, value)
        best = searches[asked].best(tuning.budget)
        highest = best.value if best else None
        on_event(SearchTold(asked, candidate.number, candidate.settings, value, highest))

    def jobs() -> Iterator[TrialJob]:
        for number in range(tuning.budget):
            for asked, search in searches.items():
                candidate = search.candidate(number)
                if candidate.done:
                    continue
                trial = tuning.trial(asked, candidate)
                running[trial.key] = asked, candidate
                for notice in set_damaged_aside(store, [trial.key]):
                    on_event(Notice(notice))
                if store.has(trial.key):  # kept just before an interruption
                    told(store.read(trial.key))
                else:
                    yield TrialJob(trial, (trial,), runner)

    def on_trial(message: TrialEvent) -> None:
        on_event(message)
        if isinstance(message, TrialDone):
            told(message.record)

    start(engine, runner, missing)
    get_ready(study, runner, engine, study.plan, on_event)
    attempts = Attempts(store, engine, on_trial, rules)
    attempts.run(jobs())
    if rules.stopping():
        raise TrialError("the search was stopped before it was done: the same command goes on from there")
    if attempts.failed:  # arms with other numbers of trials cannot be compared
        raise next(iter(attempts.failed.values()))


def _winners(tuning: Tuning, searches: dict[str, Search]) -> Study:
    """The study of the best settings of each arm, which says how they were found."""
    arms, told = [], []
    for asked, search in searches.items():
        best = search.best(tuning.budget)
        if best is None:
            raise TrialError(
                f"{asked}: none of its {tuning.budget} trials has a score (diverged, or constant predictions): "
                "search other settings, or with a larger budget"
            )
        arms.append(_with(tuning.planned[asked], best.settings))
        trials = [_as_told(tuning.trial(asked, one), one) for one in search.candidates()[: tuning.budget]]
        told.append({"asked": asked, "arm": arms[-1].name, "winner": best.number, "trials": trials})
    task = tuning.searched.tasks[0]
    return Study(
        name=tuning.name,
        model=tuning.model,
        tasks=(tuning.task,),
        arms=tuple(arms),
        seeds=tuple(range(tuning.seeds)),
        training=replace(tuning.training, **arms[0].training),
        margin=tuning.margin,
        search={
            "protocol": tuning.training.protocol,
            "sampler": tuning.sampler,
            "budget": tuning.budget,
            "space": tuning.space.axes(noise=any(map(_has_noise, tuning.planned.values()))),
            "trained_on": len(task.train),
            "chosen_on": len(task.dev),
            "arms": told,
        },
    )


def _as_told(trial: Trial, candidate: Candidate) -> dict[str, Any]:
    return {
        "number": candidate.number,
        "seed": trial.seed,
        "key": trial.key,
        "settings": candidate.settings,
        "value": candidate.value,
    }


def _goes_on(earlier: StudyRecord, study: Study) -> bool:
    """Whether the winners are the earlier ones, so that only seeds are to be added. Trials are kept either way."""
    ours = {trial.key for trial in study.plan if trial.seed in earlier.seeds}
    return ours == {entry["key"] for entry in earlier.trials if entry["seed"] in study.seeds}


def _has_noise(arm: Arm) -> bool:
    return any(one["method"] == _NOISE for one in arm.methods)


def _with(arm: Arm, settings: dict[str, Any]) -> Arm:
    """The arm with settings of the search: the strength of its noise, and its own training."""
    training = dict(settings)
    strength = training.pop("noise_lambda", None)
    noise = {} if strength is None else {"noise_lambda": strength}
    methods = [one | noise if one["method"] == _NOISE else one for one in arm.methods]
    return replace(Arm.of(*methods_of(methods)), training=training)
