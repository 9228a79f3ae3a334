"""The command line: parse, call, print. What things mean is said in the rooms below."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from noisytune import __version__
from noisytune.cli._command import as_command
from noisytune.cli._help import Command, Group, texts
from noisytune.cli.checkpoint import diff, inspect, perturb, verify
from noisytune.cli.compare import compare
from noisytune.cli.explore import explore
from noisytune.cli.export import export, merge
from noisytune.cli.gate import gate
from noisytune.cli.judge import judge
from noisytune.cli.planned import plan, status, work
from noisytune.cli.power import power
from noisytune.cli.reports import methods, report
from noisytune.cli.studies import reproduce, run
from noisytune.cli.tune import tune


class _App(typer.Typer):
    """Where the terminal or file cannot show a character, another is shown."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        # Thousands of tensors or trials are objects that stay: looking through them again and again takes a fifth of
        # the time.
        gc.set_threshold(100_000, 50, 50)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().__call__(*arguments, **settings)


app = _App(
    name="noisytune",
    cls=Group,
    help="A little noise before fine-tuning, and paired evidence whether it helped on your task.",
    epilog="""\
noisytune compare                              # the demo: needs no network
noisytune compare --task reviews.csv           # your data, seed by seed
noisytune perturb ./bert ./noisy-bert          # a checkpoint with noise
noisytune judge scores.csv                     # results that you have""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
) -> None: ...


_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Studies": (compare, run, reproduce, tune, explore, plan, work, status, methods),
    "Results": (report, judge, power, gate, export, merge),
    "Checkpoints": (perturb, inspect, diff, verify),
}
"""By heading, in the order of the help page."""
_KEEP_TRIALS = (compare, run, reproduce, tune, explore, plan, work)
for _heading, _functions in _COMMANDS.items():
    for _function in _functions:
        app.command(cls=Command, epilog=texts(_function)[1], rich_help_panel=_heading)(
            as_command(_function, keeps_trials=_function in _KEEP_TRIALS)
        )
