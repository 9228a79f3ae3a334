"""Writes docs/defaults.md: every method at its default on three sizes of training, with plain fine-tuning beside it.

    python docs/make_defaults.py [RUNS]

Trains all-MiniLM-L6-v2 on the embedded task ``topics``, one trial after the other on one thread. RUNS keeps finished
trials: the same command goes on after an interruption.
"""

import sys
from pathlib import Path
from statistics import fmean

import torch

from noisytune.lab import InlineEngine, TaskOptions, TrainingSettings, compare
from noisytune.methods import METHODS
from noisytune.records import TrialRecord

PAGE = Path(__file__).with_name("defaults.md")
SIZES = ((64, 3), (265, 3), (265, 6))
"""Training examples, and passes over them."""
SEEDS = (0,)

HEAD = """\
<!-- Written by docs/make_defaults.py; edit there. -->

# Every method at its default

Most settings of the [methods](methods.md) were chosen by their authors for trainings of thousands of steps. What do
they do in a short one? Accuracy in points of all-MiniLM-L6-v2 on the embedded task `topics`
({classes} classes, {dev} dev examples), for three sizes of training. Written by `python docs/make_defaults.py`.

**One seed orders nothing.** {seeds}, and two seeds of one [arm](words.md#arm) may differ by more
than most of these arms do. The table shows which defaults work at a size at all. Which arm is best on your task is a
question for `noisytune compare`, with as many seeds as it asks for.

"""
FOOT = """
`*`: the arm said before it ran that at this size and learning rate it would do next to nothing, or pull too hard.
Batches of {batch}; everything else as `noisytune compare` has it.

**Next:** [each arm at its best](tune.md), or [which number to report](explanation/which-number.md).
"""


def trained(examples: int, epochs: int, runs: Path) -> list[TrialRecord]:
    """Every arm on one size, as far as it has not been run yet."""
    result = compare(
        task="topics",
        arms=list(METHODS),
        seeds=SEEDS,
        training=TrainingSettings(epochs=epochs),
        options=TaskOptions(train_size=examples),
        out=runs / f"{examples}-{epochs}",
        engine=InlineEngine(),
        on_event=lambda event: sys.stderr.write(f"{event}\n"),
    )
    return result.records


def points(records: list[TrialRecord], arm: str) -> list[float]:
    """The scores of an arm by seed, in points; a trial that diverged counts as 0."""
    return [100 * one.scores.get("accuracy", 0.0) for one in records if one.arm == arm]


def noticed(records: list[TrialRecord], arm: str) -> bool:
    """Whether the arm had something to say before it ran."""
    return any(facts.get("notices") for one in records if one.arm == arm for facts in one.applied.values())


def table(columns: list[list[TrialRecord]]) -> str:
    """A line for each arm, a column for each size."""
    steps = [TrainingSettings(epochs=epochs).steps(examples) for examples, epochs in SIZES]
    sizes = [f"{examples} examples, {n} steps" for (examples, _), n in zip(SIZES, steps, strict=True)]
    lines = [f"| arm | {' | '.join(sizes)} |", f"|---{'|--:' * len(sizes)}|"]
    for arm in dict.fromkeys(one.arm for one in columns[0]):
        cells = [f"{fmean(points(one, arm)):.1f}{'*' * noticed(one, arm)}" for one in columns]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(runs: Path) -> str:
    """The whole page."""
    columns = [trained(examples, epochs, runs) for examples, epochs in SIZES]
    first, many = columns[0][0], len(SEEDS)
    about = {
        "classes": len(first.settings["task"]["labels"]),
        "dev": len(first.outputs["dev/predictions"]),
        "seeds": "Each number is that of one seed" if many == 1 else f"Each number is the mean of {many} seeds",
    }
    return HEAD.format(**about) + table(columns) + FOOT.format(batch=TrainingSettings().batch_size)


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/defaults")), encoding="utf-8")
    sys.stdout.write(f"{PAGE}\n")
