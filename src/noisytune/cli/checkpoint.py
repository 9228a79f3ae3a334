"""The checkpoint commands: perturb, inspect, diff, verify. `register` puts them beside the others."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from noisytune._console import Console
from noisytune._pretrained import find_directory
from noisytune.cli._signals import stoppable
from noisytune.errors import NoisyTuneError

if TYPE_CHECKING:
    from noisytune.checkpoint._diff import Difference
    from noisytune.manifest import Manifest, TensorEntry

Progress = Callable[[int, int], None]


class Sort(StrEnum):
    """Orders of `inspect`'s table."""

    file = "file"
    name = "name"
    std = "std"
    size = "size"


def option(panel: str, help_text: str, metavar: str | None = None, *names: str, **more: Any) -> Any:
    """An option under a heading of the help page; of every command."""
    return typer.Option(*names, help=help_text, metavar=metavar, rich_help_panel=panel, **more)


_NOISE, _RUN = "Noise", "Run"
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="A directory of weights, or a model's id on the Hub.", show_default=False)
]
NoiseLambda = Annotated[float, option(_NOISE, "Width of the noise, in standard deviations.", "L", "--noise-lambda")]
Seed = Annotated[int, option(_NOISE, "Selects the noise.", "N")]
Distribution = Annotated[str, option(_NOISE, "Of the noise.", "uniform|gaussian")]
Scale = Annotated[str, option(_NOISE, "Each tensor's own std, or one for all.", "matrix|global")]
Include = Annotated[list[str] | None, option(_NOISE, "Tensors to perturb; may be repeated.", "GLOB")]
Exclude = Annotated[list[str] | None, option(_NOISE, "Tensors to leave alone; may be repeated.", "GLOB")]
Json = Annotated[bool, option(_RUN, "Print JSON.", "", "--json")]
Debug = Annotated[bool, option(_RUN, "Show the whole traceback of an error.", "", "--debug")]


def register(app: typer.Typer, one_line_errors: Callable[[bool], Any]) -> None:
    """Add the commands to the command line.

    Args:
        app: where to.
        one_line_errors: context that turns an error into one line and an exit code, unless debugging.
    """
    one_line_errors = stoppable(one_line_errors)

    @app.command()
    def perturb(
        model: ModelArgument,
        out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty directory.", show_default=False)],
        noise_lambda: NoiseLambda = 0.15,
        seed: Seed = 0,
        distribution: Distribution = "uniform",
        scale: Scale = "matrix",
        include: Include = None,
        exclude: Exclude = None,
        dry_run: Annotated[bool, option(_RUN, "Measure and report; write nothing.", "", "--dry-run")] = False,
        again: Annotated[bool, option(_RUN, "Even if the weights carry noise already.", "", "--again")] = False,
        debug: Debug = False,
    ) -> None:
        """Write a checkpoint's copy with noise, ready for from_pretrained.

        The same noise as noisytune.torch.perturb_ adds in memory. Needs no torch, and little memory.
        """
        with one_line_errors(debug):
            from noisytune.checkpoint import perturb_checkpoint

            settings = _settings(noise_lambda, seed, distribution, scale, include, exclude)
            source = find_directory(model, whole=True)
            with _progress("Measuring" if dry_run else "Perturbing") as progress:
                manifest = perturb_checkpoint(source, out, again=again, dry_run=dry_run, progress=progress, **settings)
            console = _console()
            _print(console, manifest.table(width=console.width) if dry_run else manifest.headline())
            for notice in () if dry_run else manifest.notices:
                _print(console, f"Note: {notice}")
            _print(console, "Nothing was written." if dry_run else f"Written: {out}")

    @app.command()
    def inspect(
        model: ModelArgument,
        noise_lambda: NoiseLambda = 0.15,
        scale: Scale = "matrix",
        include: Include = None,
        exclude: Exclude = None,
        sort: Annotated[Sort, option(_RUN, "Order of the tensors.", "file|name|std|size")] = Sort.file,
        as_json: Json = False,
        debug: Debug = False,
    ) -> None:
        """List a checkpoint's tensors, and what noise would do to each."""
        with one_line_errors(debug):
            from noisytune.checkpoint import inspect_checkpoint

            settings = _settings(noise_lambda, 0, "uniform", scale, include, exclude)
            source = find_directory(model)
            with _progress("Measuring") as progress:
                manifest = inspect_checkpoint(source, progress=progress, **settings)
            entries = _sorted(manifest, sort)
            if as_json:
                typer.echo(json.dumps([_row(entry) for entry in entries], indent=1))
            else:
                _console().print(_inspection(entries))
                for notice in manifest.notices:
                    _print(_console(), f"Note: {notice}")

    @app.command()
    def diff(
        first: Annotated[str, typer.Argument(metavar="A", help="The clean model.", show_default=False)],
        second: Annotated[str, typer.Argument(metavar="B", help="The other one.", show_default=False)],
        plot: Annotated[Path | None, option(_RUN, "Draw it too: .png, .svg or .pdf.", "FILE")] = None,
        as_json: Json = False,
        debug: Debug = False,
    ) -> None:
        """Relative change of each kind of parameter between two checkpoints: sum |B - A| / sum |A|."""
        with one_line_errors(debug):
            from noisytune.checkpoint import diff_checkpoints
            from noisytune.errors import require

            if plot is not None:
                require("matplotlib", extra="lab", needed_for="--plot")
            sources = find_directory(first), find_directory(second)
            with _progress("Comparing") as progress:
                found = diff_checkpoints(*sources, progress=progress)
            if as_json:
                kinds = [{"kind": kind.name, **_change(kind)} for kind in [*found.kinds(), found.total()]]
                typer.echo(json.dumps(kinds, indent=1))
            else:
                _print_difference(found)
            if plot is not None:
                _plot(found, plot)

    @app.command()
    def verify(
        out: Annotated[Path, typer.Argument(metavar="OUT", help="What noisytune perturb wrote.", show_default=False)],
        against: Annotated[
            str | None, option(_RUN, "The clean model: compute the noise again, and compare every bit.", "MODEL")
        ] = None,
        debug: Debug = False,
    ) -> None:
        """Check that a perturbed checkpoint is exactly what its manifest states.

        Without --against the weights are compared with the hashes in noisytune.json.
        """
        with one_line_errors(debug):
            from noisytune.checkpoint import verify_checkpoint

            source = None if against is None else find_directory(against)
            with _progress("Verifying") as progress:
                found = verify_checkpoint(out, source, progress=progress)
            if not found.ok:
                more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
                raise NoisyTuneError(found.problems[0] + more)
            what = "what was written (--against MODEL checks the noise)"
            what = what if source is None else f"{against} plus the noise that its manifest states, bit for bit"
            _print(_console(), f"Verified: the {found.tensors} tensors of {out} are {what}.")


def _settings(
    noise_lambda: float, seed: int, distribution: str, scale: str, include: list[str] | None, exclude: list[str] | None
) -> dict[str, Any]:
    return {
        "noise_lambda": noise_lambda,
        "seed": seed,
        "distribution": distribution,
        "scale": scale,
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
    }


def _console() -> Console:
    return Console()


def _print(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)


@contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """A bar with bytes, rate and remaining time on a terminal; nothing elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=console, transient=True) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _sorted(manifest: Manifest, order: Sort) -> list[TensorEntry]:
    keys: dict[Sort, Callable[[TensorEntry], Any]] = {
        Sort.name: lambda entry: entry.name,
        Sort.std: lambda entry: -(entry.std or 0.0),
        Sort.size: lambda entry: -entry.elements,
    }
    return sorted(manifest.entries, key=keys[order]) if order in keys else list(manifest.entries)


def _row(entry: TensorEntry) -> dict[str, Any]:
    return {
        "name": entry.own_names[0],
        "canonical_name": entry.name,
        "copies": list(entry.own_names[1:]),
        "shape": list(entry.shape),
        "dtype": entry.dtype,
        "std": entry.std,
        "scale": entry.scale,
        "noise_std": None if entry.scale is None else entry.scale / math.sqrt(12),
        "left_alone": entry.left_alone,
    }


def _inspection(entries: list[TensorEntry]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("tensor", overflow="fold")
    for column in ("shape", "dtype", "std"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("noise", justify="right", overflow="fold", min_width=10, max_width=15)
    for entry in entries:
        noise = f"left: {entry.left_alone}" if entry.scale is None else f"+-{entry.scale / 2:.3g}"
        shape = "x".join(map(str, entry.shape)) or "-"
        std = "-" if entry.std is None else f"{entry.std:.3g}"
        table.add_row(entry.own_names[0], shape, entry.dtype, std, noise)
    return table


def _change(change: Any) -> dict[str, Any]:
    relative = change.relative if math.isfinite(change.relative) else None
    return {"relative_l1": relative, "tensors": change.tensors, "elements": change.elements}


def _print_difference(found: Difference) -> None:
    kinds, console = found.kinds(), _console()
    largest = max((kind.relative for kind in kinds if math.isfinite(kind.relative)), default=0.0) or 1.0
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    for column in ("tensors", "elements", "change"):
        table.add_column(column, justify="right")
    table.add_column("")
    for kind in [*kinds, found.total()]:
        bar = "█" * round(24 * min(kind.relative / largest, 1.0))
        table.add_row(kind.name, str(kind.tensors), f"{kind.elements:,}", f"{kind.relative:.4%}", bar)
    console.print(table)
    for which, only in (("A", found.only_first), ("B", found.only_second)):
        if only:
            _print(console, f"Only in {which}, not compared: {', '.join(only[:5])}{' ...' if len(only) > 5 else ''}")


def _plot(found: Difference, path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kinds = found.kinds()
    figure = Figure(figsize=(7, 0.4 * len(kinds) + 1.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.barh([kind.name for kind in kinds], [100 * kind.relative for kind in kinds])
    axes.invert_yaxis()
    axes.set_xlabel("relative change, sum |B - A| / sum |A| (%)")
    figure.savefig(path)
