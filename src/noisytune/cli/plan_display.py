"""What the terminal shows of a study whose models or data are not on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from noisytune._console import Console
from noisytune._languages import language_name
from noisytune._text import terminal
from noisytune.cli._rows import print_rows
from noisytune.cli.cost_display import duration
from noisytune.lab.studies.cost import GPUS
from noisytune.lab.studies.plan import Plan


def print_plans(out: Console, plans: Sequence[Plan]) -> None:
    """Trials, rows and languages by model and task; operations where the model's configuration is known."""
    for plan in plans:
        out.print(terminal(f"{plan.name} on {plan.model}: {plan.trials:,} trials"))
        table = []
        several = any(one.task.languages for one in plan.tasks)
        for one in plan.tasks:
            work = f"{one.flops(plan.parameters):.1e}" if plan.parameters else "unknown"
            rows = ["as above" if one.shares_training else f"{one.task.train_rows:,}", f"{one.task.scored_rows:,}"]
            languages = [str(len(one.task.languages) or 1)] * several
            table.append((one.task.name, f"{one.trials:,}", f"{one.training.epochs}", *rows, *languages, work))
        headings = ("task", "trials", "epochs", "trained on", "scored on", *(["languages"] * several), "FLOPs")
        print_rows(out, headings, table)
        if plan.parameters:
            total = sum(one.trials * one.flops(plan.parameters) for one in plan.tasks)
            on = ", ".join(f"{duration(plan.seconds_on(gpu))} on one {gpu}" for gpu in GPUS)
            size = f"{plan.parameters / 1e6:.1f}M parameters without embeddings"
            out.print(terminal(f"All: {total:.1e} FLOPs if every row is as long as max_length ({size}), {on}."))
        out.print()
    codes = sorted({code for one in plans[0].tasks for code in one.task.languages})
    if codes:
        out.print(terminal(f"Languages: {', '.join(f'{language_name(code)} ({code})' for code in codes)}."))
    for line in dict.fromkeys(line for plan in plans for line in plan.lacking):
        out.print(terminal(f"Not on this machine: {line}"))
    out.print(
        "So time here is unknown. Rows are the official ones where data are lacking (of BUCC gold pairs); FLOPs are of "
        "one trial. Neither weights nor data were downloaded; trials that a run folder holds are not taken off."
    )
