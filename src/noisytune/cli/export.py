"""The command export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from noisytune._text import terminal
from noisytune.cli.reports import console


class Format(StrEnum):
    """Whose folders are written."""

    XTREME = "xtreme"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    data_dir: Annotated[Path, typer.Option(metavar="DIR", help="The official download that the run has read.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where to write.")],
    to: Annotated[Format, typer.Option(help="Whose folders to write.")] = Format.XTREME,
) -> None:
    """Write a run's predictions for a benchmark's own evaluation: XTREME's evaluate.py."""
    from noisytune.lab.studies.export import LABELS, export_xtreme

    for line in export_xtreme(run, data_dir, out):
        console().print(terminal(line), soft_wrap=True, markup=False)
    console().print(f"labels: {terminal(out / LABELS)}", soft_wrap=True, markup=False)
