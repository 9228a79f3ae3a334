"""The command line: parse, call, print. What things mean is said in the rooms below."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from noisytune import __version__
from noisytune._console import Console
from noisytune._text import terminal
from noisytune.cli import tune as _tune_cli
from noisytune.cli.checkpoint import Debug, option, register
from noisytune.errors import ConfigError, NoisyTuneError, RunFolderError

if TYPE_CHECKING:
    from noisytune.lab.studies.file import Changes
    from noisytune.lab.studies.study import Study
    from noisytune.lab.trials.arm import Arm
    from noisytune.records import StudyRecord, TrialRecord

app = typer.Typer(
    name="noisytune",
    help="A little noise before fine-tuning, and paired evidence whether it helped on your task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Tracker(StrEnum):
    """Trackers that transformers can log to."""

    tensorboard = "tensorboard"
    mlflow = "mlflow"
    wandb = "wandb"
    trackio = "trackio"


_LAB = ("transformers", "scipy", "matplotlib", "jinja2")
"""What a study needs besides torch."""

_WHAT, _NOISE, _TRAINING, _FILE, _RUN = "What to compare", "Noise", "Training", "Your own file", "Run"


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"noisytune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Show the version and leave."
        ),
    ] = False,
) -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal or file that cannot show a character shows another
            stream.reconfigure(errors="replace")


@app.command()
def compare(
    model: Annotated[
        str | None, option(_WHAT, "Pretrained weights. Default: all-MiniLM-L6-v2, needs no network.", "DIR|HUB_ID")
    ] = None,
    task: Annotated[
        str,
        option(
            _WHAT,
            "What to fine-tune on; several with commas; glue: its nine. A FILE is CSV, TSV, JSONL or Parquet.",
            "topics|replies|glue[/NAME]|FILE",
        ),
    ] = "topics",
    data_dir: Annotated[
        Path | None, option(_WHAT, "GLUE's official download, with CoLA, SST-2 ... Default: from the Hub.", "DIR")
    ] = None,
    seeds: Annotated[int, option(_WHAT, "Number of pairs: seeds 0, 1, 2 ...", "N", min=1)] = 5,
    until_decided: Annotated[
        bool, option(_WHAT, "Add seeds until the interval settles the question.", "", "--until-decided")
    ] = False,
    max_seeds: Annotated[int, option(_WHAT, "At most so many with --until-decided.", "N", min=1)] = 50,
    margin: Annotated[
        float, option(_WHAT, "Differences within this many points count as equivalent.", "POINTS", min=0)
    ] = 1.0,
    metric: Annotated[str | None, option(_WHAT, "Primary score. Default: the task's own.", "NAME")] = None,
    arm: Annotated[
        list[str] | None,
        option(
            _WHAT, "An arm besides the plain baseline; may be repeated: see noisytune methods.", "METHOD[+METHOD...]"
        ),
    ] = None,
    noise_lambda: Annotated[
        str | None, option(_NOISE, "Strengths of NoisyTune, one arm each. Default, without --arm: 0.15.", "L[,L...]")
    ] = None,
    distribution: Annotated[str, option(_NOISE, "uniform, gaussian, or both.", "D[,D]")] = "uniform",
    scale: Annotated[str, option(_NOISE, "matrix (each tensor's own std), global, or both.", "S[,S]")] = "matrix",
    scope: Annotated[str, option(_NOISE, "all: a new head gets noise too.", "pretrained|all")] = "pretrained",
    include: Annotated[list[str] | None, option(_NOISE, "Tensors to perturb; may be repeated.", "GLOB")] = None,
    exclude: Annotated[list[str] | None, option(_NOISE, "Tensors to leave alone; may be repeated.", "GLOB")] = None,
    train_size: Annotated[int | None, option(_TRAINING, "Training examples. Default: all.", "N", min=1)] = None,
    dev_size: Annotated[int | None, option(_TRAINING, "Dev examples. Default: all.", "N", min=1)] = None,
    epochs: Annotated[int, option(_TRAINING, "Passes over the training examples.", "N", min=1)] = 3,
    learning_rate: Annotated[
        float | None, option(_TRAINING, "Peak. Default: 2e-4 for the default model, 2e-5 for others.", "RATE")
    ] = None,
    batch_size: Annotated[int, option(_TRAINING, "Examples a step.", "N", min=1)] = 16,
    max_length: Annotated[int, option(_TRAINING, "Tokens; longer texts are cut.", "N", min=4)] = 128,
    warmup: Annotated[float, option(_TRAINING, "Share of the steps in which the rate rises.", "SHARE")] = 0.1,
    weight_decay: Annotated[float, option(_TRAINING, "Of AdamW.", "W")] = 0.01,
    select: Annotated[str, option(_TRAINING, "Which epoch is scored.", "last|best")] = "last",
    protocol: Annotated[
        str, option(_TRAINING, "Choose the best epoch on dev (paper) or on a tenth of train (clean).", "paper|clean")
    ] = "paper",
    text_columns: Annotated[str, option(_FILE, "The column of the text, or the two of a pair.", "A[,B]")] = "",
    label_column: Annotated[str | None, option(_FILE, "The column of the label.", "NAME")] = None,
    dev_file: Annotated[Path | None, option(_FILE, "The dev set. Default: a fifth of the file.", "FILE")] = None,
    language: Annotated[str, option(_WHAT, "For topics: a language of the corpus.", "NAME")] = "english",
    out: Annotated[Path | None, option(_RUN, "Run folder. Default: one of its own in runs/.", "DIR")] = None,
    workers: Annotated[
        int | None, option(_RUN, "Processes. Default: one for each core, or for each GPU.", "N", min=1)
    ] = None,
    report_to: Annotated[
        Tracker | None, option(_RUN, "Log each trial there as well.", "tensorboard|mlflow|wandb|trackio")
    ] = None,
    debug: Debug = False,
) -> None:
    """Fine-tune a model on a task without and with NoisyTune, seed by seed, and report the difference.

    The same command goes on after an interruption; with more --seeds or strengths it extends a finished study.
    """
    with _one_line_errors(debug):
        from noisytune._pretrained import Model
        from noisytune.cli.study_display import StudyDisplay
        from noisytune.errors import require
        from noisytune.lab.engines import LocalEngine
        from noisytune.lab.store import STUDY, Store
        from noisytune.lab.studies.study import Study, run_study
        from noisytune.lab.tasks import TaskOptions, load_tasks
        from noisytune.lab.trials.settings import TrainingSettings

        for library in _LAB:
            require(library, extra="lab", needed_for="noisytune compare")
        training = TrainingSettings(
            epochs=epochs,
            learning_rate=learning_rate,
            batch_size=batch_size,
            max_length=max_length,
            warmup=warmup,
            weight_decay=weight_decay,
            select=select,  # type: ignore[arg-type]
            protocol=protocol,  # type: ignore[arg-type]
        )
        options = TaskOptions(
            train_size=train_size,
            dev_size=dev_size,
            text_columns=tuple(column.strip() for column in text_columns.split(",") if column.strip()),
            label_column=label_column,
            dev_file=dev_file,
            data_dir=data_dir,
            language=language,
            metric=metric,
        )
        strengths = noise_lambda or ("" if arm else "0.15")
        noises = _noises(strengths, distribution, scale, scope, include or [], exclude or [])
        arms = _arms(noises, arm or [])
        with LocalEngine(workers) as engine:
            engine.start(at_most=1)  # imports while the data is loaded; the study starts the rest if it needs them
            data = load_tasks(task, options)
            study = Study(
                name=data[0].name if len(data) == 1 else task,
                model=Model.find(model),
                tasks=data,
                arms=arms,
                seeds=tuple(range(max_seeds if until_decided else seeds)),
                training=training,
                margin=margin,
            )
            store = Store(out or _default_folder(study))
            with StudyDisplay(store.folder, _console()) as display:
                until = partial(_decided, [arm.name for arm in arms]) if until_decided else None
                record = run_study(study, store, engine, display.on_event, until, report_to and report_to.value)
        _render(store.folder, {STUDY: record})


Out = Annotated[
    Path | None, option(_RUN, "Run folder. Studies in one folder share their trials.", "DIR", show_default=False)
]
Workers = Annotated[int | None, option(_RUN, "Processes. Default: one for each core, or for each GPU.", "N", min=1)]
ReportTo = Annotated[Tracker | None, option(_RUN, "Log each trial there as well.", "tensorboard|mlflow|wandb|trackio")]
DryRun = Annotated[bool, option(_RUN, "Show trials, tokens, FLOPs and time; run none.", "", "--dry-run")]


@app.command()
def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="What to compare; see docs/studies.md.")],
    dry_run: DryRun = False,
    out: Out = None,
    workers: Workers = None,
    report_to: ReportTo = None,
    debug: Debug = False,
) -> None:
    """Run the study that a file describes: any models, tasks, arms and seeds. Goes on after an interruption."""
    with _one_line_errors(debug):
        from noisytune.lab.studies.file import Changes

        _run_file(study, Changes(), out, dry_run, workers, report_to)


@app.command()
def reproduce(
    study: Annotated[str, typer.Argument(metavar="table2|figure2|...|figure6", help="A table or figure of the paper.")],
    models: Annotated[str, option(_WHAT, "Instead of the paper's. all-MiniLM-L6-v2 is embedded.", "M[,M...]")] = "",
    tasks: Annotated[str, option(_WHAT, "Instead of the paper's.", "T[,T...]")] = "",
    train_size: Annotated[int | None, option(_WHAT, "Training examples a task. Default: all.", "N", min=1)] = None,
    seeds: Annotated[int | None, option(_WHAT, "Number of pairs. The paper has 5.", "N", min=1)] = None,
    epochs: Annotated[int | None, option(_WHAT, "Passes over the training examples.", "N", min=1)] = None,
    data_dir: Annotated[Path | None, option(_WHAT, "Downloaded GLUE files. Default: the Hub.", "DIR")] = None,
    show: Annotated[bool, option(_WHAT, "Print the study's file, to copy and edit.", "", "--show")] = False,
    dry_run: DryRun = False,
    out: Out = None,
    workers: Workers = None,
    report_to: ReportTo = None,
    debug: Debug = False,
) -> None:
    """Run a table or figure of the paper, whole or at a scale of your choice. Goes on after an interruption."""
    with _one_line_errors(debug):
        from noisytune.lab.studies.file import Changes, paper_study

        file = paper_study(study)
        if show:
            typer.echo(file.read_text(encoding="utf-8"), nl=False)
            return
        changes = Changes(
            models=tuple(_values(models)),
            tasks=tuple(_values(tasks)),
            train_size=train_size,
            data_dir=data_dir,
            seeds=seeds,
            epochs=epochs,
        )
        _run_file(file, changes, out or Path("runs/paper"), dry_run, workers, report_to)


@app.command()
def report(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")], debug: Debug = False) -> None:
    """Render a run folder's reports again. Needs no torch."""
    with _one_line_errors(debug):
        from noisytune.lab.store import Store

        studies = Store(run).studies()
        if not studies:
            raise RunFolderError(f"{run} holds no study: give a folder that noisytune compare, run or reproduce wrote")
        for name in dict.fromkeys(study.name for study in studies.values()):
            _render(run, {file: study for file, study in studies.items() if study.name == name})


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(metavar="[METHOD]", help="Everything about one.")] = None,
    debug: Debug = False,
) -> None:
    """Show the methods that an --arm can have: what they do, their settings, cost and source."""
    with _one_line_errors(debug):
        from noisytune.cli.methods_display import print_method, print_methods
        from noisytune.methods import method_class

        if name is None:
            print_methods(_console())
        else:
            print_method(_console(), method_class(name))


def _run_file(
    file: Path, changes: Changes, out: Path | None, dry_run: bool, workers: int | None, report_to: Tracker | None
) -> None:
    """Run the studies of a file, one for each model, in one run folder."""
    from noisytune.cli.study_display import StudyDisplay
    from noisytune.errors import require
    from noisytune.lab.engines import LocalEngine
    from noisytune.lab.store import Store, file_name
    from noisytune.lab.studies.file import read_studies
    from noisytune.lab.studies.study import run_study

    for library in (*_LAB, "yaml"):
        require(library, extra="lab", needed_for="a study")
    with LocalEngine(workers) as engine:
        engine.start(at_most=1)  # imports while the data is loaded
        studies = read_studies(file, changes)
        name = studies[0].name
        folder = out or Path("runs") / file_name(name)
        if dry_run:
            from noisytune.cli.cost_display import print_budgets
            from noisytune.lab.studies.cost import budget

            found = [budget(study, Store(folder), engine, engine.workers) for study in studies]
            print_budgets(_console(), name, folder, found)
            return
        for study in studies:
            store = Store(folder, study.file_name)
            with StudyDisplay(folder, _console()) as display:
                run_study(study, store, engine, display.on_event, None, report_to and report_to.value)
    _render(folder, Store(folder).studies(name))


def _render(folder: Path, studies: dict[str, StudyRecord]) -> None:
    """The reports of one study, for each of its models and on all, and what they say. By file name."""
    from noisytune.cli.study_display import print_summary
    from noisytune.lab.store import STUDY, Store, file_name
    from noisytune.report import write_overview, write_report

    results = []
    for file, study in studies.items():
        page = "report" if file == STUDY else file if len(studies) > 1 else file_name(study.name)
        if len(studies) > 1:
            _console().print(f"\n{study.model['name']}", style="bold", markup=False)
        records = Store(folder).records(entry["key"] for entry in study.trials)
        print_summary(_console(), study, records, write_report(folder, study, records, page))
        results.append((study, records, page))
    if len(results) > 1:
        overview = write_overview(folder, results, file_name(results[0][0].name))
        _console().print(f"\nReport on all models: {overview}", markup=False, soft_wrap=True)


def _decided(arms: list[str], study: StudyRecord, records: list[TrialRecord]) -> bool:
    from noisytune.report import decided

    return decided(study, records, arms)


def _noises(
    lambdas: str, distributions: str, scales: str, scope: str, include: list[str], exclude: list[str]
) -> Iterator[Arm]:
    """One arm for each combination of the comma-separated values."""
    from noisytune.lab.trials.arm import Arm
    from noisytune.methods import make

    shared = {"scope": scope, "include": include, "exclude": exclude}
    for strength, distribution, scale in itertools.product(*map(_values, (lambdas, distributions, scales))):
        settings = {"noise_lambda": strength, "distribution": distribution, "scale": scale}
        method = make("noisytune", settings | shared)
        if method.settings["noise_lambda"] > 0:
            yield Arm.of(method)


def _arms(noises: Iterable[Arm], written: list[str]) -> tuple[Arm, ...]:
    """Plain fine-tuning, then each other arm once."""
    from noisytune.lab.trials.arm import PLAIN, Arm

    arms = [PLAIN]
    for one in itertools.chain(noises, map(Arm.parse, written)):
        if one not in arms:
            arms.append(one)
    if len(arms) == 1:
        raise ConfigError(
            "only the baseline is asked for: give --noise-lambda above 0, or an --arm, to compare it with"
        )
    return tuple(arms)


def _values(text: str) -> list[str]:
    return [value.strip() for value in text.split(",") if value.strip()]


def _default_folder(study: Study) -> Path:
    """The same model, data and training give the same folder, so that running again goes on."""
    from noisytune.records import digest

    shared = digest([study.model.digest, *(task.digest for task in study.tasks), study.training.to_dict()])
    name = study.name.replace("/", "-").replace(",", "+")
    return Path("runs") / f"{name}-{study.model.name.rsplit('/')[-1]}-{shared[:6]}"


def _console() -> Console:
    return Console()


@contextmanager
def _one_line_errors(debug: bool) -> Iterator[None]:
    """Leave with one line and a code: 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        message, code = "Interrupted. Finished trials are kept: the same command goes on from there.", 130
    except NoisyTuneError as error:
        if debug:
            raise
        message, code = f"Error: {error}", 2 if isinstance(error, ConfigError) else 1
    except Exception as error:
        if debug:
            raise
        message, code = f"Error: {type(error).__name__}: {error} (--debug shows where)", 1
    else:
        return
    Console(stderr=True, soft_wrap=True).print(terminal(message))
    raise typer.Exit(code)


_tune_cli.register(app, _one_line_errors, report)
register(app, _one_line_errors)
