"""One call from a model and a task to the finished study: find, load, plan, run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from noisytune._pretrained import Model
from noisytune._settings import check, like, several
from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.lab.engines import Engine, LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import Until, run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_tasks
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.methods import make
from noisytune.records import StudyRecord, TrialRecord, digest


@dataclass(frozen=True, kw_only=True)
class Noises:
    """Noises to compare: an arm for each combination of strength, distribution and scale.

    Raises:
        ConfigError: no value, one twice, or one out of range.

    >>> [arm.name for arm in Noises(noise_lambda=(0.1, 0.2)).arms()]
    ['noisytune(0.1)', 'noisytune(0.2)']
    """

    noise_lambda: tuple[float, ...] = several(NoisyTuneConfig, "noise_lambda", (0.15,))
    """0 is the baseline, which is always there."""
    distribution: tuple[str, ...] = several(NoisyTuneConfig, "distribution", ("uniform",))
    scale: tuple[str, ...] = several(NoisyTuneConfig, "scale", ("matrix",))
    scope: str = like(NoisyTuneConfig, "scope")
    include: tuple[str, ...] = like(NoisyTuneConfig, "include")
    exclude: tuple[str, ...] = like(NoisyTuneConfig, "exclude")

    def __post_init__(self) -> None:
        check(self)

    def arms(self) -> tuple[Arm, ...]:
        """In order, strengths first."""
        shared = {"scope": self.scope, "include": self.include, "exclude": self.exclude}
        return tuple(
            Arm.of(
                make("noisytune", {"noise_lambda": strength, "distribution": distribution, "scale": scale, **shared})
            )
            for strength, distribution, scale in product(self.noise_lambda, self.distribution, self.scale)
            if strength > 0
        )


@dataclass(frozen=True)
class Comparison:
    """What `compare` gives back."""

    study: StudyRecord
    """As the run folder keeps it, with what was there before."""
    records: list[TrialRecord]
    """Of its trials."""
    folder: Path
    """The run folder."""


def compare(
    model: str | None = None,
    task: str | Path | Sequence[TaskData] = "topics",
    *,
    arms: Sequence[str | Arm] = ("noisytune",),
    seeds: int | Sequence[int] = 5,
    training: TrainingSettings | None = None,
    options: TaskOptions | None = None,
    margin: float = 1.0,
    until: Until | None = None,
    out: str | Path | None = None,
    engine: Engine | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    report_to: str | None = None,
) -> Comparison:
    """Fine-tune a model on a task without and with other arms, seed by seed, as far as that has not been done yet.

    Args:
        model: a directory or an id on the Hub; None: all-MiniLM-L6-v2.
        task: as for `noisytune.lab.tasks.load_tasks`, or tasks that are loaded already.
        arms: beside plain fine-tuning, as for `noisytune.lab.trials.arm.Arm.parse`.
        seeds: a number of pairs, seeds 0, 1, 2 ..., or the seeds.
        training: how every trial is trained; None: the defaults, with the model's usual learning rate.
        options: of tasks that are to be loaded.
        margin: differences within this many points count as equivalent.
        until: as for `noisytune.lab.studies.run.run_study`; ``seeds`` are then the most.
        out: the run folder; None: one of its own in ``runs/``, the same for the same study.
        engine: where trials run; None: processes on this machine.
        on_event: told of everything that happens, in this thread.
        report_to: a tracker that trials log to as well.

    Raises:
        NoisyTuneError: as `noisytune.lab.studies.run.run_study`.
    """
    every = arms_of(*arms)
    with ExitStack() as stack:
        engine = engine or stack.enter_context(LocalEngine())
        engine.start(at_most=1)  # imports while the data is loaded; the study starts the rest if it needs them
        tasks = load_tasks(str(task), options or TaskOptions()) if isinstance(task, str | Path) else tuple(task)
        study = Study(
            name=tasks[0].name if len(tasks) == 1 else str(task) if isinstance(task, str | Path) else "comparison",
            model=Model.find(model),
            tasks=tasks,
            arms=every,
            seeds=seeds_of(seeds),
            training=training or TrainingSettings(),
            margin=margin,
        )
        store = Store(Path(out) if out is not None else default_folder(study))
        record = run_study(study, store, engine, on_event, until, report_to)
    return Comparison(record, list(store.records(entry["key"] for entry in record.trials)), store.folder)


def arms_of(*arms: str | Arm) -> tuple[Arm, ...]:
    """Plain fine-tuning, then each other arm once.

    Raises:
        ConfigError: there is no other, or one cannot be read.

    >>> [arm.name for arm in arms_of("noisytune", "plain", "noisytune(0.15)")]
    ['plain', 'noisytune(0.15)']
    """
    found = [PLAIN]
    for one in (Arm.parse(arm) if isinstance(arm, str) else arm for arm in arms):
        if one not in found:
            found.append(one)
    if len(found) == 1:
        raise ConfigError("only the baseline is asked for: give an arm, or noise_lambda above 0, to compare it with")
    return tuple(found)


MOST_SEEDS = 100_000
"""Of a study."""


def seeds_of(seeds: int | Iterable[int]) -> tuple[int, ...]:
    """Seeds from their number, or as they are.

    Raises:
        ConfigError: none, too many, or not whole numbers.

    >>> seeds_of(3), seeds_of([7, 5])
    ((0, 1, 2), (7, 5))
    """
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MOST_SEEDS:
        return tuple(range(seeds))
    if isinstance(seeds, Iterable) and not isinstance(seeds, str | bytes):
        found = tuple(seeds)
        if 0 < len(found) <= MOST_SEEDS and all(type(seed) is int for seed in found):
            return found
    raise ConfigError(
        f"seeds must be a number of seeds, 1 to {MOST_SEEDS:,}, or a list of so many whole numbers, got {seeds!r}"
    )


def default_folder(study: Study) -> Path:
    """The same model, data and training give the same folder, so that running again goes on."""
    shared = digest([study.model.digest, *(task.digest for task in study.tasks), study.training.to_dict()])
    name = study.name.replace("/", "-").replace(",", "+")
    return Path("runs") / f"{name}-{study.model.name.rsplit('/')[-1]}-{shared[:6]}"
