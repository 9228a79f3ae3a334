"""`noisytune.lab.compare` and `noisytune.lab.explore`: one call from a model and a task to the evidence.

It stands above the lab, which runs the study, and the report, which says what came out: neither knows the other.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisytune._pretrained import Model
from noisytune._settings import checked
from noisytune.errors import ConfigError, MissingExtraError, NoisyTuneError
from noisytune.lab.engines import Engine, InlineEngine, LocalEngine
from noisytune.lab.store import Store, run_folder
from noisytune.lab.studies import USUAL_SEEDS
from noisytune.lab.studies.attempts import Rules
from noisytune.lab.studies.compare import NO_NOISE_ON_TOKENS, arms_for, arms_of, given_of, seeds_of
from noisytune.lab.studies.compare import equal_compute as with_equal_compute
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.exploration import Exploration
from noisytune.lab.studies.explore import explore as run_exploration
from noisytune.lab.studies.own import NO_MODEL, OwnStudy, OwnTask, own_model, run_own
from noisytune.lab.studies.run import USUAL, Until, run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_tasks, noticed, task_from_rows, trained_as
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.function import Function, FunctionRunner, OwnTrial
from noisytune.lab.trials.scores import Scoring
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.transformers_runner import TransformersRunner
from noisytune.records import FailureRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

    from noisytune.report import SummaryRow


@dataclass(frozen=True)
class Result:
    """A study as far as it has been run, and what it shows. ``print(result)`` says it in a few lines.

    Here of a function that trains, and stands for any training:

    >>> import tempfile
    >>> import torch
    >>> from noisytune.lab import InlineEngine, compare
    >>> def train(trial):
    ...     trial.perturb_(torch.nn.Linear(4, 2))
    ...     return {"accuracy": 0.8 + trial.seed / 100 + (trial.arm != "plain") * (0.01 + trial.seed / 1000)}
    >>> folder = tempfile.mkdtemp()
    >>> result = compare(train, score="accuracy", seeds=8, out=folder, engine=InlineEngine(), rerun=False)
    >>> row = result.summary[0]
    >>> row.verdict.value, row.n, round(row.difference, 2), row.wins
    ('helped', 8, 1.35, 8)
    >>> result.verdict[:50], len(result.records), result.failures
    ('Helped after 8 pairs: NoisyTune (λ = 0.15) raised ', 16, [])
    >>> result.to_frame().groupby("arm")["accuracy"].mean().round(3).to_dict()
    {'noisytune(0.15)': 0.848, 'plain': 0.835}
    >>> result.report().relative_to(folder).as_posix()
    'report.html'
    """

    study: StudyRecord
    """As the run folder keeps it, with what was there before."""
    records: list[TrialRecord]
    """Of its trials."""
    folder: Path
    """The run folder."""
    failures: list[FailureRecord] = field(default_factory=list)
    """Trials that failed; the same call tries them again."""

    @property
    def summary(self) -> list[SummaryRow]:
        """One row for each arm and task, and for each arm over all tasks where there are several. In points."""
        from noisytune.report import summary_rows

        return summary_rows(self.study, self.records)

    @property
    def verdict(self) -> str:
        """What the study shows, in a sentence or two: helped, hurt, mixed, equivalent or inconclusive."""
        from noisytune.report import verdict_sentence

        return verdict_sentence(self.study, self.records)

    @property
    def notes(self) -> list[str]:
        """What to be careful about, one sentence or two each."""
        from noisytune.report import notes

        return notes(self.study, self.records, self.failures)

    def to_frame(self) -> pd.DataFrame:
        """One row for each finished trial: ``task``, ``arm``, ``seed``, ``status``, ``seconds`` and its scores.

        Scores are fractions or correlations, not points. An undefined score is NaN.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise MissingExtraError("to_frame() needs pandas: run  pip install pandas") from error
        return pd.DataFrame(
            {
                "task": record.task,
                "arm": record.arm,
                "seed": record.seed,
                "status": record.status,
                "seconds": record.timing["total"],
                **record.scores,
            }
            for record in self.records
        )

    def report(self) -> Path:
        """Write ``report.html`` and ``report.md`` into the run folder. Returns the path of the HTML file."""
        from noisytune.report import write_report

        return write_report(self.folder, self.study, self.records, failures=self.failures)

    def __str__(self) -> str:
        lines = [self.verdict, *(f"Note: {note}" for note in self.notes), f"Run folder: {self.folder}"]
        return "\n".join(lines)


def compare(
    first: str | Path | Callable[[OwnTrial], Any] | None = None,
    task: Any = "topics",
    *,
    model: str | Path | None = None,
    score: str | Mapping[str, Any] | None = None,
    rerun: bool = True,
    dev: Any = None,
    arms: Sequence[str | Arm] = ("noisytune",),
    equal_compute: bool = False,
    seeds: int | Sequence[int] = USUAL_SEEDS,
    training: TrainingSettings | Mapping[str, Any] | None = None,
    options: TaskOptions | Mapping[str, Any] | None = None,
    margin: float = 1.0,
    until: Until | None = None,
    out: str | Path | None = None,
    engine: Engine | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    report_to: str | None = None,
    rules: Rules = USUAL,
) -> Result:
    """Fine-tune a model without and with other arms, seed by seed, as far as that has not been done yet.

    The command ``noisytune compare`` calls this. The two runs of a pair share everything but the arm. The same call
    goes on after an interruption; with more seeds or arms it extends a finished study.

    Args:
        first: a model, to be fine-tuned on a task: a directory or an id on the Hub; None: all-MiniLM-L6-v2, which needs
            no network. Or a function that trains: it gets a `noisytune.lab.OwnTrial`, and returns a score, scores by
            their names, or ``{"scores": ..., "items": ...}`` with a prediction and a reference of each example.
        task: a task's name or a file, as for ``--task``; tasks that are loaded already; or rows in memory: dicts,
            tuples ``(text, label)`` or ``(text, text, label)``, a dict of columns, a pandas or polars frame, a
            ``datasets.Dataset``.
        model: the model, where ``first`` is a function or nothing.
        score: with a function: the name of the score that is compared; or fields of
            `noisytune.lab.trials.scores.Scoring`, such as ``{"score": "loss", "lower_is_better": True}``.
        rerun: with a function: whether the baseline's first seed is run twice, to see whether its seed decides.
        dev: with rows, those of the dev set; None: a fifth of the rows.
        arms: beside plain fine-tuning, as for ``--arm``: ``"noisytune(0.1)"``, ``"noisytune+recadam"`` ...
        equal_compute: whether to add plain fine-tuning that reads as many tokens as each arm that reads more than once.
        seeds: a number of pairs (seeds 0, 1, 2 ...), or the seeds, each 0 <= seed < 2**32.
        training: how every trial is trained; what is not given is as the task's benchmark says, or has its default.
        options: of the task: its size, its columns, its metric ...
        margin: differences within this many points count as equivalent, >= 0.
        until: asked between seeds with the study so far and its finished trials; after a yes no seed is begun any more.
            ``seeds`` are then the most. ``noisytune.report.decided`` stops once the question is settled.
        out: the run folder; None: one of its own in ``runs/``, the same for the same study.
        engine: where trials run; None: processes on this machine. ``InlineEngine()`` runs them in this process.
        on_event: told of everything that happens, in this thread; ``print`` shows it.
        report_to: a tracker that trials log to as well: tensorboard, mlflow, wandb or trackio.
        rules: what to do about trials that fail or take too long, and when to stop; see `Result.failures`.

    Raises:
        NoisyTuneError: something is wrong with the model, the data or a setting, or no trial came to its end.

    Example::

        result = compare("bert-base-uncased", "reviews.csv", arms=["noisytune(0.15)"], seeds=8)
        print(result)
        result.to_frame().groupby("arm")["accuracy"].mean()

        def train(trial):
            torch.manual_seed(trial.seed)
            model = trial.perturb_(AutoModel.from_pretrained(trial.model_dir))
            ...
            return {"accuracy": accuracy}

        print(compare(train, model="bert-base-uncased", score="accuracy", seeds=8))
    """
    if callable(first):
        task = None if task == "topics" else task
        _refuse_ours(dev=dev, training=training, options=options, task=task, equal_compute=equal_compute or None)
        own = _own_study(first, model, arms, seeds, score, margin)
        run = partial(run_own, until=until, rerun=rerun, report_to=report_to, rules=rules)
        return _of_function(Function(first), own, _store(out, own, [own.own]), engine, on_event, run)
    if score is not None:
        raise ConfigError("score goes with a function that trains: the metric of a task is options={'metric': ...}")
    if first is not None and model is not None:
        raise ConfigError(f"two models are given, {first} and {model}: give one of them")
    model = first if model is None else model
    wanted: TaskOptions = checked(TaskOptions, options)
    settings: TrainingSettings = checked(TrainingSettings, training)
    with ExitStack() as stack:
        engine = engine or stack.enter_context(LocalEngine())
        engine.start(1, TransformersRunner.warm_up)  # imports while the data is loaded; the study starts the rest
        tasks = tuple(trained_as(one, {}, given_of(training)) for one in _tasks(task, dev, wanted))
        asked = arms_of(*arms)
        every = arms_for([one.name for one in tasks], asked)
        if every != asked:
            tasks = (noticed(tasks[0], NO_NOISE_ON_TOKENS), *tasks[1:])
        study = Study(
            name=tasks[0].name if len(tasks) == 1 else str(task) if isinstance(task, str | Path) else "comparison",
            model=Model.find(None if model is None else str(model)),
            tasks=tasks,
            arms=every,
            seeds=seeds_of(seeds),
            training=settings,
            margin=margin,
        )
        if equal_compute:
            study = replace(study, arms=with_equal_compute(study.arms, study.trained))
        own_trainings = [one.training for one in study.tasks if one.training]
        store = _store(out, study, [study.training.to_dict(), *own_trainings])
        record = run_study(study, store, engine, on_event, until, report_to, rules=rules)
    return _result(store, record)


def explore(
    model: str | Path | None = None,
    task: Any = "topics",
    *,
    dev: Any = None,
    noise_seeds: int = 32,
    keep: int = 4,
    screen: str = "auto",
    arms: Sequence[str | Arm] = ("noisytune",),
    seeds: int = USUAL_SEEDS,
    training: TrainingSettings | Mapping[str, Any] | None = None,
    options: TaskOptions | Mapping[str, Any] | None = None,
    margin: float = 1.0,
    out: str | Path | None = None,
    engine: Engine | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    rules: Rules = USUAL,
) -> Result:
    """Draw many noises, train the most promising ones, and spend as much on plain restarts; as far as not yet done.

    The command ``noisytune explore`` calls this. The best of each is chosen on held-out training examples, and the two
    are compared on dev, which chooses nothing.

    Args:
        model: a directory or an id on the Hub; None: all-MiniLM-L6-v2, which needs no network.
        task: a task's name, a file, a task that is loaded already, or rows in memory: as for `compare`.
        dev: with rows, those of the dev set; None: a fifth of the rows.
        noise_seeds: noises that are drawn for each seed.
        keep: how many of them are trained as a whole.
        screen: how the others are left out: ``untrained``, ``short``, or ``auto`` for the cheaper one that is possible.
        arms: with NoisyTune, whose noise is chosen: several strengths, say. Candidates take them in turn.
        seeds: how often all of this is done, each time with other noises and restarts: pairs of the report.
        training: how every whole training is done.
        options: of the task: its size, its columns, its metric ...
        margin: differences within this many points count as equivalent, >= 0.
        out: the run folder; None: one of its own in ``runs/``, the same for the same exploration.
        engine: where trials run; None: processes on this machine.
        on_event: told of everything that happens, in this thread.
        rules: what to do about trials that fail or take too long, and when to stop.

    Raises:
        NoisyTuneError: something is wrong with the model, the data or a setting, or a trial failed.

    Example::

        result = explore("HuggingFaceTB/SmolLM2-135M-Instruct", "chats.jsonl", noise_seeds=32, keep=4)
        print(result)
    """
    wanted: TaskOptions = checked(TaskOptions, options)
    settings: TrainingSettings = checked(TrainingSettings, training)
    with ExitStack() as stack:
        engine = engine or stack.enter_context(LocalEngine())
        engine.start(1, TransformersRunner.warm_up)  # imports while the data is loaded
        tasks = _tasks(task, dev, wanted)
        if len(tasks) > 1:
            raise ConfigError("explore takes one task at a time: choose one of them")
        exploration = Exploration(
            name=f"{tasks[0].name}, explored",
            model=Model.find(None if model is None else str(model)),
            task=trained_as(tasks[0], {}, given_of(training)),
            arms=tuple(arm for arm in arms_of(*arms) if arm != PLAIN),
            noise_seeds=noise_seeds,
            keep=keep,
            screen=screen,
            seeds=seeds,
            training=settings,
            margin=margin,
        )
        store = _store(out, exploration.study, [exploration.training.to_dict(), noise_seeds, keep, screen])
        record = run_exploration(exploration, store, engine, on_event, rules=rules)
    return _result(store, record)


def _store(out: str | Path | None, study: Study, shared: list[Any]) -> Store:
    """The run folder: the one given, or one that is the same for the same study."""
    content = [study.model.digest, *(one.digest for one in study.tasks), *shared]
    return Store(Path(out) if out is not None else run_folder(study.name, study.model.name, content))


def _result(store: Store, record: StudyRecord) -> Result:
    keys = [entry["key"] for entry in record.trials]
    failures = store.failures()
    return Result(record, store.records(keys), store.folder, [failures[key] for key in keys if key in failures])


def _own_study(
    train: Callable[[OwnTrial], Any],
    model: str | Path | None,
    arms: Sequence[str | Arm],
    seeds: int | Sequence[int],
    score: str | Mapping[str, Any] | None,
    margin: float,
) -> OwnStudy:
    """The study of a function."""
    function = Function(train)
    scoring: Scoring = checked(Scoring, {"score": score} if isinstance(score, str) else score)
    return OwnStudy(
        name=function.name,
        model=NO_MODEL if model is None else own_model(str(model)),
        tasks=(OwnTask.of(function.name, scoring),),
        arms=arms_of(*arms),
        seeds=seeds_of(seeds),
        margin=margin,
        own=function.told(),
        scoring=scoring,
    )


def _refuse_ours(**ours: Any) -> None:
    """See that nothing is asked of our trainer."""
    given = [name for name, value in ours.items() if value is not None]
    if given:
        raise ConfigError(f"{', '.join(given)}: a function of yours knows its data and how to train; leave it out")


def _of_function(
    function: Function,
    study: OwnStudy,
    store: Store,
    engine: Engine | None,
    on_event: Callable[[Event], None],
    run: Callable[..., StudyRecord],
) -> Result:
    """Run the study of a function."""
    model_dir = None if study.model is NO_MODEL else study.model.path
    runner = FunctionRunner.of(function, model_dir, study.scoring, store.folder)
    with ExitStack() as stack:
        engine = engine or stack.enter_context(LocalEngine())
        if not isinstance(engine, InlineEngine):
            _check_sent(function)
        return _result(store, run(study, store, engine, on_event, runner))


def _check_sent(function: Function) -> None:
    """See that a function can go to another process.

    Raises:
        ConfigError: it holds something that stays where it is.
    """
    try:
        pickle.dumps(function)
    except NoisyTuneError:
        raise
    except Exception as error:
        raise ConfigError(
            f"{function.name} cannot be sent to a worker process ({error}): let it load what it needs itself, or give "
            "engine=InlineEngine()"
        ) from error


def _tasks(task: Any, dev: Any, options: TaskOptions) -> tuple[TaskData, ...]:
    """By name or file, loaded already, or made of rows in memory."""
    loaded = [task] if isinstance(task, TaskData) else task
    is_loaded = isinstance(loaded, list | tuple) and loaded and all(isinstance(one, TaskData) for one in loaded)
    if not (is_loaded or isinstance(task, str | Path)):
        return (task_from_rows(task, options, dev=dev),)
    if dev is not None:
        raise ConfigError("dev goes with rows in memory: for a file give options={'dev_file': ...}")
    return tuple(loaded) if is_loaded else load_tasks(str(task), options)
