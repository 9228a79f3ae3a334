"""How the fine-tuning methods are shown in a terminal."""

from __future__ import annotations

import inspect
from dataclasses import fields

from rich.table import Table
from rich.text import Text

from noisytune._console import Console
from noisytune.methods import METHODS, Method, Stage, setting_of


def print_methods(console: Console) -> None:
    """All methods: what each is, where it is from, what it costs, its settings with their ranges."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    for heading, share in (("method", None), ("what it does", 3), ("settings, defaults, ranges", 2)):
        table.add_column(heading, ratio=share, no_wrap=share is None)
    for name, method in METHODS.items():
        about = Text(f"{method.summary}.\n").append(f"{method.source}. Cost: {method.cost}.", style="dim")
        table.add_row(
            name, about, "\n".join(f"{f.name} = {_shown(f.default)}; {setting_of(f).allowed}" for f in fields(method))
        )
    console.print(table)
    console.print(
        "An arm is one or several, joined by +, with the settings that are not the defaults in parentheses:\n"
        '  noisytune compare --arm recadam --arm "noisytune(0.15)+mixout(p=0.8)"\n'
        "noisytune methods METHOD shows the equations of one."
    )


def print_method(console: Console, method: type[Method]) -> None:
    """One method: its module's text, each setting with its range, and what it cannot be combined with."""
    for paragraph in (inspect.getdoc(inspect.getmodule(method)) or "").split("\n\n"):
        indented = paragraph.startswith(" ")
        console.print(paragraph if indented else " ".join(paragraph.split()), end="\n\n")
    console.print(f"Source: {method.source}. Cost: {method.cost}.")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("setting", "default", "allowed", "what it does"):
        table.add_column(heading, no_wrap=heading == "setting")
    for field in fields(method):
        setting = setting_of(field)
        table.add_row(field.name, _shown(field.default), setting.allowed, setting.about)
    console.print()
    console.print(table)
    excluded = dict(method.excludes) | {
        name: other.excludes[method.name] for name, other in METHODS.items() if method.name in other.excludes
    }
    for name, reason in excluded.items():
        console.print(f"\nNot with {name}: {reason}.")
    if method.stage is not Stage.TRAIN:
        console.print("\nIt changes the weights, so it comes first in an arm.")


def _shown(default: object) -> str:
    if default is None:
        return "auto"
    return "none" if default == () else str(default).removesuffix(".0")
