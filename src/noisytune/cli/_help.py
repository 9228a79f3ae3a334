"""Help pages: the common options on one screen, all of them in groups with --help-all, examples at the end."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from noisytune._console import Console
from noisytune.cli._errors import one_line_usage

_EXAMPLES = "\n\nExamples:\n"
_ALL = "noisytune: every option"
"""Where a context notes that all of them are asked for."""


class Rare(str):
    """A heading whose option is shown by --help-all only: the heading is all that typer keeps of ours."""


def texts(function: Callable[..., Any]) -> tuple[str, str]:
    r"""What a help page says first, and the examples at its end: both from the docstring.

    >>> def work():
    ...     '''Run what is missing.
    ...
    ...     Examples:
    ...         noisytune work runs/mine
    ...     '''
    >>> texts(work)
    ('Run what is missing.', 'noisytune work runs/mine')
    """
    about, _, examples = (inspect.getdoc(function) or "").partition(_EXAMPLES)
    return about, inspect.cleandoc(examples)


class Command(TyperCommand):
    """A command with such a page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        page = _page(self, ctx)
        if not ctx.meta.get(_ALL):
            page.params = [one for one in page.params if not isinstance(_heading(one), Rare)]
            for one in page.params:
                one.rich_help_panel = None
        with _wide_names():
            super(Command, page).format_help(ctx, formatter)
        _print_examples(self.epilog)


class Group(TyperGroup):
    """All commands, and their page."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        super(Group, _page(self, ctx)).format_help(ctx, formatter)
        _print_examples(self.epilog)

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """Read the options before the command."""
        with one_line_usage():
            return super().make_context(*arguments, **more)

    def invoke(self, ctx: Any) -> Any:
        """Find the command, read its options, call it."""
        with one_line_usage():
            return super().invoke(ctx)


def help_all(options: list[inspect.Parameter]) -> list[inspect.Parameter]:
    """The option --help-all, where some of the options are rare."""
    rare = sum(isinstance(_heading(known), Rare) for one in options for known in one.annotation.__metadata__)
    if not rare:
        return []
    shown: Any = typer.Option(
        "--help-all", help=f"Show {rare} more options, in groups.", metavar="", is_eager=True, callback=_show_all
    )
    annotation = Annotated[bool, shown]
    return [inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)]


def default(option: Any) -> str:
    """What an option is without being given, where that is worth a word."""
    value = option.show_default if isinstance(option.show_default, str) else option.default
    if value is None or value is False or value in ("", []) or option.show_default is False:
        return ""
    return str(getattr(value, "value", value))


def _heading(option: Any) -> str | None:
    heading: str | None = getattr(option, "rich_help_panel", None)
    return heading


def _show_all(ctx: typer.Context, asked: bool) -> None:
    if asked and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _page(command: Any, ctx: Any) -> Any:
    """The command as typer is to show it: a flag takes no value, a default is part of what is said."""
    page = copy(command)
    page.params, page.epilog = [copy(one) for one in command.get_params(ctx)], None
    page.add_help_option = False  # it is among them
    for one in page.params:
        if one.opts[0].startswith("-"):
            one.opts = [",".join(sorted(one.opts, key=len, reverse=True))]
            if one.is_flag:
                one.metavar = ""
            elif usual := default(one):
                one.help, one.show_default = f"{one.help} Default: {usual}.", False
    return page


def _print_examples(examples: str | None) -> None:
    """Each line as it is copied, however narrow the terminal."""
    if examples:
        Console(soft_wrap=True).print("\n".join(["Examples:", *(f"  {line}" for line in examples.split("\n"))]))


@contextmanager
def _wide_names() -> Iterator[None]:
    """No option's name is cut, however narrow the page, and no empty column takes its place.

    typer has no setting for it, so its table is another one while the page is made.
    """
    from rich.table import Table

    class WholeNames(Table):
        def add_row(self, *cells: Any, **style: Any) -> None:
            super().add_row(*cells, **style)
            for column, cell in zip(self.columns, cells, strict=True):
                column.no_wrap |= str(cell).startswith("--")

        def __rich_console__(self, *how: Any) -> Any:
            self.columns = [column for column in self.columns if any(map(str, column.cells))]
            return super().__rich_console__(*how)

    rich_utils: Any = import_module("typer.rich_utils")
    usual, rich_utils.Table = rich_utils.Table, WholeNames
    try:
        yield
    finally:
        rich_utils.Table = usual
