"""The command tune. `register` puts it beside the others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune._console import Console
from noisytune.cli.checkpoint import Debug, option
from noisytune.errors import ConfigError

if TYPE_CHECKING:
    from noisytune.lab.studies.tune import Tuning

_WHAT, _SPACE, _TRAINING, _FILE, _RUN = "What to tune", "Values to try", "Training", "Your own file", "Run"


def register(app: typer.Typer, one_line_errors: Callable[[bool], Any], show: Callable[[Path, bool], None]) -> None:
    """Add the command to the command line.

    Args:
        app: where to.
        one_line_errors: context that turns an error into one line and an exit code, unless debugging.
        show: the command report.
    """

    @app.command()
    def tune(
        model: Annotated[
            str | None, option(_WHAT, "Pretrained weights. Default: all-MiniLM-L6-v2, needs no network.", "DIR|HUB_ID")
        ] = None,
        task: Annotated[
            str, option(_WHAT, "What to fine-tune on. A FILE is CSV, TSV, JSONL or Parquet.", "glue/NAME|topics|FILE")
        ] = "topics",
        data_dir: Annotated[
            Path | None, option(_WHAT, "GLUE's official download, with CoLA, SST-2 ... Default: from the Hub.", "DIR")
        ] = None,
        budget: Annotated[int, option(_WHAT, "Trials of each arm, the baseline included.", "N", min=1)] = 20,
        sampler: Annotated[str, option(_WHAT, "How settings are picked.", "random|grid|tpe")] = "random",
        protocol: Annotated[
            str, option(_WHAT, "Choose on a tenth of train (clean) or on dev (paper).", "paper|clean")
        ] = "clean",
        arm: Annotated[
            list[str] | None,
            option(
                _WHAT,
                "An arm besides the plain baseline; may be repeated. Default: noisytune.",
                "METHOD[+METHOD...]",
            ),
        ] = None,
        seeds: Annotated[int, option(_WHAT, "Fresh seeds for each arm's winner.", "N", min=1)] = 5,
        margin: Annotated[
            float, option(_WHAT, "Differences within this many points count as equivalent.", "POINTS", min=0)
        ] = 1.0,
        metric: Annotated[str | None, option(_WHAT, "Primary score. Default: the task's own.", "NAME")] = None,
        learning_rate: Annotated[str, option(_SPACE, "Peaks.", "RATE[,RATE...]")] = "7e-6,1e-5,2e-5,3e-5",
        epochs: Annotated[str, option(_SPACE, "Passes over the training examples.", "N[,N...]")] = "3,5,7,10,15,20",
        batch_size: Annotated[str, option(_SPACE, "Examples a step.", "N[,N...]")] = "8,16,32",
        noise_lambda: Annotated[
            str, option(_SPACE, "Strengths, of arms with NoisyTune.", "L[,L...]")
        ] = "0,0.05,0.1,0.15,0.2,0.25,0.3",
        train_size: Annotated[int | None, option(_TRAINING, "Training examples. Default: all.", "N", min=1)] = None,
        dev_size: Annotated[int | None, option(_TRAINING, "Dev examples. Default: all.", "N", min=1)] = None,
        max_length: Annotated[int, option(_TRAINING, "Tokens; longer texts are cut.", "N", min=4)] = 128,
        warmup: Annotated[float, option(_TRAINING, "Share of the steps in which the rate rises.", "SHARE")] = 0.1,
        weight_decay: Annotated[float, option(_TRAINING, "Of AdamW.", "W")] = 0.01,
        text_columns: Annotated[str, option(_FILE, "The column of the text, or the two of a pair.", "A[,B]")] = "",
        label_column: Annotated[str | None, option(_FILE, "The column of the label.", "NAME")] = None,
        dev_file: Annotated[Path | None, option(_FILE, "The dev set. Default: a fifth of the file.", "FILE")] = None,
        language: Annotated[str, option(_WHAT, "For topics: a language of the corpus.", "NAME")] = "english",
        storage: Annotated[
            str | None, option(_RUN, "Any Optuna storage. Default: SQLite in the run folder.", "URL")
        ] = None,
        out: Annotated[Path | None, option(_RUN, "Run folder. Default: one of its own in runs/.", "DIR")] = None,
        workers: Annotated[
            int | None, option(_RUN, "Processes. Default: one for each core, or for each GPU.", "N", min=1)
        ] = None,
        debug: Debug = False,
    ) -> None:
        """Search each arm's settings with the same number of trials, then compare the winners on fresh seeds.

        The same command goes on after an interruption; with more --budget or --seeds it extends a finished search.
        """
        with one_line_errors(debug):
            from noisytune._pretrained import Model
            from noisytune.cli.study_display import StudyDisplay
            from noisytune.errors import require
            from noisytune.lab.engines import LocalEngine
            from noisytune.lab.store import Store
            from noisytune.lab.studies.search import Space
            from noisytune.lab.studies.tune import Tuning
            from noisytune.lab.studies.tune import tune as run_search
            from noisytune.lab.tasks import GLUE, TaskOptions, load_task
            from noisytune.lab.trials.settings import TrainingSettings

            for library in ("transformers", "scipy", "matplotlib", "jinja2"):
                require(library, extra="lab", needed_for="noisytune tune")
            require("optuna", extra="tune", needed_for="noisytune tune")
            if task == GLUE:
                raise ConfigError("tune searches one task at a time: choose one of GLUE's, for example glue/rte")
            space = Space(
                learning_rate=_numbers("--learning-rate", learning_rate, float),
                epochs=_numbers("--epochs", epochs, int),
                batch_size=_numbers("--batch-size", batch_size, int),
                noise_lambda=_numbers("--noise-lambda", noise_lambda, float),
            )
            training = TrainingSettings(
                max_length=max_length,
                warmup=warmup,
                weight_decay=weight_decay,
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
            with LocalEngine(workers) as engine:
                engine.start(at_most=1)  # imports while the data is loaded
                data = load_task(task, options)
                tuning = Tuning(
                    name=f"{data.name}, tuned",
                    model=Model.find(model),
                    task=data,
                    arms=tuple(arm or ["noisytune"]),
                    space=space,
                    budget=budget,
                    sampler=sampler,
                    seeds=seeds,
                    training=training,
                    margin=margin,
                )
                store = Store(out or _default_folder(tuning))
                with StudyDisplay(store.folder, Console()) as display:
                    run_search(tuning, store, engine, display.on_event, storage)
        show(store.folder, debug)


def _numbers(name: str, text: str, kind: type[Any]) -> tuple[Any, ...]:
    """Numbers with commas between them.

    >>> _numbers("--epochs", "1, 2", int)
    (1, 2)
    """
    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise ConfigError(f"{name} must be {what} with commas between them, got {text!r}") from None


def _default_folder(tuning: Tuning) -> Path:
    """The same model, data, space and training give the same folder, so that running again goes on."""
    from noisytune.records import digest

    shared = [
        tuning.model.digest,
        tuning.task.digest,
        tuning.space.axes(noise=True),
        tuning.sampler,
        tuning.training.to_dict(),
    ]
    name = tuning.task.name.replace("/", "-")
    return Path("runs") / f"tune-{name}-{tuning.model.name.rsplit('/')[-1]}-{digest(shared)[:6]}"
