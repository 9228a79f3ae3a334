"""What the terminal shows of a study that is not run: its trials, and what they would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from noisytune._console import Console
from noisytune._text import terminal
from noisytune.cli._rows import print_rows
from noisytune.lab.studies.cost import GPUS, PEAKS, UTILISATION, Cost


def print_costs(out: Console, name: str, folder: Path, costs: Sequence[Cost]) -> None:
    """Trials by model, task and arm; tokens, operations and time of those that are not done yet."""
    for one in costs:
        out.print(terminal(f"{name} on {one.model}: {one.trials:,} trials to run, {one.done:,} are done in {folder}"))
        if not one.trials:
            continue
        rows = []
        for task in one.tasks:
            each = [f"{task.tokens:,.0f}", f"{task.flops:.1e}"]
            times = _times([replace(one, tasks=(task,))])
            rows.append((task.task, f"{task.trials:,}", *each, *times))
        if len(one.tasks) > 1:
            sums = [f"{one.total('tokens'):,.0f}", f"{one.total('flops'):.1e}"]
            times = _times([one])
            rows.append(("all, summed", f"{one.trials:,}", *sums, *times))
        headings = ("task", "trials", "tokens each", "FLOPs each", "here", *GPUS)
        print_rows(out, headings, rows, total=len(one.tasks) > 1)
        out.print(terminal("Trials of each arm: " + ", ".join(f"{n:,} {arm}" for arm, n in _arms(one).items())))
        out.print()
    known = [one for one in costs if one.trials]
    if len(known) > 1:
        work = sum(one.total("flops") for one in known)
        here, *gpus = _times(known)
        on = ", ".join(f"{time} on {gpu}" for gpu, time in zip(GPUS, gpus, strict=True))
        out.print(f"All models: {sum(one.trials for one in known):,} trials, {work:.1e} FLOPs, {here} here, {on}\n")
    if known:
        out.print(terminal(_basis(known)))


def _basis(known: Sequence[Cost]) -> str:
    """Where the numbers come from."""
    sizes = ", ".join(f"{one.model} {one.parameters / 1e6:.1f}M" for one in known)
    precisions = dict.fromkeys(task.precision for one in known for task in one.tasks)
    peaks = ", ".join(
        f"the {name} peak of " + " and ".join(f"{peak / 1e12:g} ({gpu})" for gpu, peak in PEAKS[name].items())
        for name in precisions
    )
    return (
        "Tokens: of training, all epochs and passes, from the mean of a sample, the mean of the arms. FLOPs: 6 N a "
        "token trained on, 2 N a dev token (Kaplan et al. 2020, section 2.1), N the parameters without embeddings "
        f"({sizes}). Here: {known[0].workers} trials at a time at the speed of a few timed steps. GPUs: one, at "
        f"{UTILISATION:.0%} of {peaks} TFLOP/s, without loading. What methods add to the tokens that they read is "
        "not counted: noisytune methods says it."
    )


def _times(costs: Sequence[Cost]) -> list[str]:
    """Of all trials: here, and on each GPU."""
    here = sum(one.total("seconds") / one.workers for one in costs)
    return [duration(here), *(duration(sum(one.seconds_on(gpu) for one in costs)) for gpu in GPUS)]


def _arms(one: Cost) -> dict[str, int]:
    return {arm: sum(task.arms[arm] for task in one.tasks) for arm in one.tasks[0].arms}


def duration(seconds: float) -> str:
    """Seconds for people, two digits or so.

    >>> duration(0.4), duration(95), duration(8000), duration(500000)
    ('< 1 s', '95 s', '2.2 h', '5.8 days')
    """
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            value = seconds / size
            return "< 1 s" if seconds < 1 else f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 86_400:,.1f} days"
