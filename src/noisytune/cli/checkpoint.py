"""The checkpoint commands: perturb, inspect, diff, verify."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noisytune._console import Console
from noisytune._pretrained import find_directory
from noisytune.cli._options import RUN, CheckpointNoise, Json, Measure, ModelArgument, option
from noisytune.cli._output import console, print_json
from noisytune.cli.checkpoint_display import (
    difference,
    plot_difference,
    print_difference,
    print_names,
    print_tensors,
    tensor_rows,
)
from noisytune.errors import NoisyTuneError, NotFoundError

if TYPE_CHECKING:
    from noisytune.manifest import TensorEntry

Progress = Callable[[int, int], None]


class Codes(StrEnum):
    """Codes of four bits."""

    nf4 = "nf4"


class Sort(StrEnum):
    """Orders of `inspect`'s table."""

    file = "file"
    name = "name"
    std = "std"
    size = "size"


_ORDERS: dict[Sort, Callable[[TensorEntry], Any]] = {
    Sort.name: lambda entry: entry.name,
    Sort.std: lambda entry: -(entry.std or 0.0),
    Sort.size: lambda entry: -entry.elements,
}


def perturb(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new or empty directory.", show_default=False)],
    *,
    noise: CheckpointNoise,
    dry_run: Annotated[bool, option(RUN, "Measure and report; write nothing.", "", "--dry-run")] = False,
    again: Annotated[bool, option(RUN, "Add noise even if the weights carry some already.", "", "--again")] = False,
    quantize: Annotated[
        Codes | None, option(RUN, "Write four bits a weight after the noise, for QLoRA.", "nf4")
    ] = None,
) -> None:
    """Write a checkpoint's copy with noise, ready for from_pretrained.

    The same noise as noisytune.torch.perturb_ adds in memory. Needs no torch, and little memory.

    Examples:
        noisytune perturb ./bert ./noisy-bert
        noisytune perturb xlm-roberta-base ./noisy --exclude @token_embeddings
        noisytune perturb ./bert ./noisy-bert --noise-lambda 0.1 --dry-run
    """
    from noisytune.checkpoint import perturb_checkpoint

    source = find_directory(model, whole=True)
    with _progress("Measuring" if dry_run else "Perturbing") as progress:
        manifest = perturb_checkpoint(
            source, out, again=again, dry_run=dry_run, quantize="nf4" if quantize else None, progress=progress, **noise
        )
    _print(manifest.table(width=console().width) if dry_run else manifest.headline())
    for notice in () if dry_run else manifest.notices:
        _print(f"Note: {notice}")
    _print("Nothing was written." if dry_run else f"Written: {out}")


def inspect(
    model: ModelArgument,
    *,
    noise: Measure,
    sort: Annotated[Sort, option(RUN, "List the tensors in this order.", "file|name|std|size")] = Sort.file,
    names: Annotated[bool, option(RUN, "List the canonical names beside those in the files.", "", "--names")] = False,
    as_json: Json = False,
) -> None:
    """List a checkpoint's tensors, and what noise would do to each.

    Examples:
        noisytune inspect ./bert
        noisytune inspect ./bert --sort std --exclude "*norm*"
    """
    from noisytune.checkpoint import inspect_checkpoint

    source = find_directory(model)
    with _progress("Measuring") as progress:
        manifest = inspect_checkpoint(source, progress=progress, **noise)
    entries = sorted(manifest.entries, key=_ORDERS[sort]) if sort in _ORDERS else list(manifest.entries)
    if as_json:
        print_json("inspect", {"tensors": tensor_rows(entries), "notices": list(manifest.notices)})
    else:
        (print_names if names else print_tensors)(console(), entries)
        for notice in manifest.notices:
            _print(f"Note: {notice}")


def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="The clean model.", show_default=False)],
    second: Annotated[str, typer.Argument(metavar="B", help="The other one.", show_default=False)],
    plot: Annotated[Path | None, option(RUN, "Draw it too: .png, .svg or .pdf.", "FILE")] = None,
    as_json: Json = False,
) -> None:
    """Relative change of the parameters of each role between two checkpoints: sum |B - A| / sum |A|.

    Examples:
        noisytune diff ./bert ./bert-mnli --plot change.png
    """
    from noisytune.checkpoint import diff_checkpoints
    from noisytune.errors import require

    if plot is not None:
        require("matplotlib", extra="report", needed_for="--plot")
    sources = find_directory(first), find_directory(second)
    with _progress("Comparing") as progress:
        found = diff_checkpoints(*sources, progress=progress)
    if as_json:
        print_json("diff", difference(found))
    else:
        print_difference(console(), found)
    if plot is not None:
        plot_difference(found, plot)


def verify(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="What noisytune perturb wrote.", show_default=False)],
    against: Annotated[
        str | None, option(RUN, "Compute the noise on this clean model again, and compare every bit.", "MODEL")
    ] = None,
    every_file: Annotated[
        bool, option(RUN, "Compare the files beside the weights with their hashes too.", "", "--all")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a perturbed checkpoint is exactly what its manifest states.

    Without --against the weights are compared with the hashes in noisytune.json. Other files are covered by --all.

    Examples:
        noisytune verify ./noisy-bert
        noisytune verify ./noisy-bert --against ./bert --all
    """
    from noisytune.checkpoint import verify_checkpoint

    if not out.is_dir():
        raise NotFoundError(f"{out}: there is no such folder")
    source = None if against is None else find_directory(against)
    with _progress("Verifying") as progress:
        found = verify_checkpoint(out, source, every_file=every_file, progress=progress)
    if as_json:
        print_json("verify", {"ok": found.ok} | asdict(found))
    if not found.ok:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise NoisyTuneError(found.problems[0] + more)
    if as_json:
        return
    what = "what was written (--against MODEL checks the noise)"
    what = what if source is None else f"{against} plus the noise that its manifest states, bit for bit"
    files = "not looked at (--all)" if found.files is None else f"{found.files}, as they were written"
    _print(f"Verified: the {found.tensors} tensors of {out} are {what}. Other files: {files}.")
    if found.others:
        _print(f"Note: not written by noisytune: {', '.join(found.others)}")


def _print(text: str) -> None:
    console().print(text, soft_wrap=True)


@contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """A bar with bytes, rate and remaining time on a terminal; nothing elsewhere."""
    screen = Console(stderr=True)
    if not screen.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, TimeRemainingColumn(), console=screen, transient=True) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
