"""What a command prints: words for people, or with --json one object for programs and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from noisytune._console import Console

VERSION = 1
"""Of each object. A field that is added leaves it as it is; one that changes or goes raises it."""


def console(as_json: bool = False) -> Console:
    """Where people read: standard output, or standard error while a program reads the other."""
    return Console(stderr=as_json)


def print_json(schema: str, found: Mapping[str, Any]) -> None:
    """Print an object that says what it is.

    Args:
        schema: its name after ``noisytune.``: that of the command.
        found: JSON values; numbers are finite.

    >>> print_json("power", {"effect": 0.5})
    {
     "schema": "noisytune.power",
     "version": 1,
     "effect": 0.5
    }
    """
    told = {"schema": f"noisytune.{schema}", "version": VERSION} | dict(found)
    typer.echo(json.dumps(told, allow_nan=False, indent=1))


def print_reports(reports: Sequence[Mapping[str, Any]]) -> None:
    """Print what ``report.json`` holds; of several studies ``noisytune.reports``, with all of them."""
    if len(reports) == 1:
        print_json("report", reports[0])
    else:
        print_json("reports", {"reports": list(reports)})
