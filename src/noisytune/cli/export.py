"""The commands export and merge: run folders for other programs, and out of other clusters."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from noisytune._text import terminal
from noisytune.cli._output import console
from noisytune.errors import ConfigError


class Format(StrEnum):
    """What is written."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"
    MLFLOW = "mlflow"
    XTREME = "xtreme"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    out: Annotated[
        str, typer.Option(metavar="FILE|DIR|URI", help="Where to write: a file, XTREME's folder, or MLflow's server.")
    ],
    to: Annotated[Format, typer.Option(help="What to write.")] = Format.CSV,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="XTREME: the official download that the run has read.")
    ] = None,
) -> None:
    """Write a run's trials for other programs, or its predictions for XTREME's own evaluate.py.

    CSV and Parquet have a row for each trial, JSON has everything but predictions, MLflow gets a run for each trial.

    Examples:
        noisytune export runs/mine --out trials.csv
        noisytune export runs/mine --to parquet --out trials.parquet
    """
    if to is Format.XTREME:
        _export_xtreme(run, data_dir, Path(out))
        return
    if data_dir is not None:
        raise ConfigError("data_dir goes with --to xtreme")
    if to is Format.MLFLOW:
        from noisytune.lab.studies.export_mlflow import export_mlflow

        number = export_mlflow(run, out)
    else:
        from noisytune.lab.studies.export import export as export_file

        number = export_file(run, to.value, Path(out))
    console().print(f"{number:,} trials: {terminal(out)}", soft_wrap=True)


def _export_xtreme(run: Path, data_dir: Path | None, out: Path) -> None:
    from noisytune.lab.studies.export_xtreme import LABELS, export_xtreme

    if data_dir is None:
        raise ConfigError("--to xtreme needs data_dir: the official download that the run has read")
    for line in export_xtreme(run, data_dir, out):
        console().print(terminal(line), soft_wrap=True, markup=False)
    console().print(f"labels: {terminal(out / LABELS)}", soft_wrap=True, markup=False)


def merge(
    run: Annotated[Path, typer.Argument(metavar="RUN_A", help="The run folder that is added to.")],
    other: Annotated[Path, typer.Argument(metavar="RUN_B", help="A run folder with the rest; it is only read.")],
) -> None:
    """Copy into a run folder what another has of the same studies: trials that ran on two clusters become one study.

    Examples:
        noisytune merge runs/here runs/there
    """
    from noisytune.lab.studies.join import join

    found, out = join(run, other), console()
    out.print(f"{found.copied:,} trials copied, {found.both:,} were in both")
    if found.differing:
        kept = f"{terminal(run)} keeps its own"
        out.print(f"Note: {found.differing:,} of those have other scores in {terminal(other)}; {kept}", soft_wrap=True)
    for line in found.aside:
        out.print(f"Note: {terminal(line)}", soft_wrap=True)
    for line in found.damaged:
        out.print(f"Note: left out: {terminal(line)}", soft_wrap=True)
