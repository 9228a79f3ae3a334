"""The command line: parse, call, print. What things mean is said in the rooms below."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from noisytune import __version__
from noisytune.cli._command import as_command
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


class _Command(typer.Typer):
    """Where the terminal or file cannot show a character, another is shown."""

    def __call__(self, *arguments: Any, **settings: Any) -> Any:
        # Thousands of tensors or trials are objects that stay: looking through them again and again takes a fifth of
        # the time.
        gc.set_threshold(100_000, 50, 50)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().__call__(*arguments, **settings)


app = _Command(
    name="noisytune",
    help="A little noise before fine-tuning, and paired evidence whether it helped on your task.",
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


class _WithHelp(TyperCommand):
    """A command whose help page cuts no option's name, however narrow: what is said of it takes the rest of the line.

    typer has no setting for it, so its table is another one while the page is made.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        from rich.table import Table

        class WholeNames(Table):
            def add_row(self, *cells: Any, **style: Any) -> None:
                super().add_row(*cells, **style)
                for column, cell in zip(self.columns, cells, strict=True):
                    column.no_wrap |= str(cell).startswith("--")

        rich_utils: Any = import_module("typer.rich_utils")
        usual, rich_utils.Table = rich_utils.Table, WholeNames
        try:
            super().format_help(ctx, formatter)
        finally:
            rich_utils.Table = usual


_STUDIES: tuple[Callable[..., None], ...] = (compare, run, reproduce, tune, explore, plan, work)
_OTHERS: tuple[Callable[..., None], ...] = (
    status,
    report,
    judge,
    power,
    gate,
    export,
    merge,
    methods,
    perturb,
    inspect,
    diff,
    verify,
)
for _function in (*_STUDIES, *_OTHERS):  # in the order of the help page
    app.command(cls=_WithHelp)(as_command(_function, keeps_trials=_function in _STUDIES))
