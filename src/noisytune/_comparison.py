"""`noisytune.lab.compare`: one call from a model and a task to the evidence.

It stands above the lab, which runs the study, and the report, which says what came out: neither knows the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from noisytune._pretrained import Model
from noisytune._settings import checked
from noisytune.errors import ConfigError, MissingExtraError
from noisytune.lab.engines import Engine, LocalEngine
from noisytune.lab.store import Store, run_folder
from noisytune.lab.studies.attempts import Rules
from noisytune.lab.studies.compare import NO_NOISE_ON_TOKENS, arms_for, arms_of, given_of, seeds_of
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import USUAL, Until, run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_tasks, noticed, task_from_rows, trained_as
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.records import FailureRecord, StudyRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

    from noisytune.report import SummaryRow


@dataclass(frozen=True)
class Result:
    """A study as far as it has been run, and what it shows. ``print(result)`` says it in a few lines."""

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
        """What the study shows, in a sentence or two: helped, hurt, equivalent, or no difference established."""
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
    model: str | Path | None = None,
    task: Any = "topics",
    *,
    dev: Any = None,
    arms: Sequence[str | Arm] = ("noisytune",),
    seeds: int | Sequence[int] = 5,
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
    """Fine-tune a model on a task without and with other arms, seed by seed, as far as that has not been done yet.

    The command ``noisytune compare`` calls this. The two runs of a pair share everything but the arm. The same call
    goes on after an interruption; with more seeds or arms it extends a finished study.

    Args:
        model: a directory or an id on the Hub; None: all-MiniLM-L6-v2, which needs no network.
        task: a task's name or a file, as for ``--task``; tasks that are loaded already; or rows in memory: dicts,
            tuples ``(text, label)`` or ``(text, text, label)``, a dict of columns, a pandas or polars frame, a
            ``datasets.Dataset``.
        dev: with rows, those of the dev set; None: a fifth of the rows.
        arms: beside plain fine-tuning, as for ``--arm``: ``"noisytune(0.1)"``, ``"noisytune+recadam"`` ...
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
    """
    wanted: TaskOptions = checked(TaskOptions, options)
    settings: TrainingSettings = checked(TrainingSettings, training)
    with ExitStack() as stack:
        engine = engine or stack.enter_context(LocalEngine())
        engine.start(at_most=1)  # imports while the data is loaded; the study starts the rest if it needs them
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
        own = [one.training for one in study.tasks if one.training]
        shared = [study.model.digest, *(one.digest for one in study.tasks), study.training.to_dict(), *own]
        store = Store(Path(out) if out is not None else run_folder(study.name, study.model.name, shared))
        record = run_study(study, store, engine, on_event, until, report_to, rules=rules)
    keys = [entry["key"] for entry in record.trials]
    failures = store.failures()
    return Result(record, store.records(keys), store.folder, [failures[key] for key in keys if key in failures])


def _tasks(task: Any, dev: Any, options: TaskOptions) -> tuple[TaskData, ...]:
    """By name or file, loaded already, or made of rows in memory."""
    loaded = [task] if isinstance(task, TaskData) else task
    is_loaded = isinstance(loaded, list | tuple) and loaded and all(isinstance(one, TaskData) for one in loaded)
    if not (is_loaded or isinstance(task, str | Path)):
        return (task_from_rows(task, options, dev=dev),)
    if dev is not None:
        raise ConfigError("dev goes with rows in memory: for a file give options={'dev_file': ...}")
    return tuple(loaded) if is_loaded else load_tasks(str(task), options)
