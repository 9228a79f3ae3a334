"""How much of a pair's spread is the noise, the head, the order of the data? Printed from the records of ``luck``.

python evidence/luck.py
"""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noisytune.lab.store import Store

RECORDS = Path(__file__).resolve().parent / "records"
FACTORS = ("head", "order", "noise")


def components(differences: NDArray[np.float64]) -> dict[str, float]:
    """The variance that each factor adds to a difference, and what is left with the factors' interactions.

    A crossed analysis of variance with random effects and one value a cell: a factor's mean square is expected to be
    the rest's variance plus, for each value of the factor, so many cells times the factor's own. A negative estimate is
    shown as it is: about 0.

    Args:
        differences: in points, one axis a factor, in the order of `FACTORS`; every axis of 2 or more.

    Source: Searle, Casella and McCulloch 1992, "Variance Components", chapter 4.
    """
    whole, size = differences.mean(), differences.size
    squares, freedom, means = float(((differences - whole) ** 2).sum()), size - 1, {}
    for axis, name in enumerate(FACTORS):
        others = tuple(one for one in range(differences.ndim) if one != axis)
        cells, levels = size // differences.shape[axis], differences.shape[axis]
        between = cells * float(((differences.mean(axis=others) - whole) ** 2).sum())
        squares, freedom = squares - between, freedom - (levels - 1)
        means[name] = (between / (levels - 1), cells)
    rest = squares / freedom
    return {name: (mean - rest) / cells for name, (mean, cells) in means.items()} | {"rest": rest}


def differences_of(store: Store) -> NDArray[np.float64]:
    """Arm minus plain in points: heads, orders, draws of the noise."""
    heads = []
    for study in sorted(
        (one for one in store.studies().values() if one.name.startswith("luck-")), key=lambda s: s.name
    ):
        metric = study.tasks[0]["metric"]
        scores = {
            (one.arm, one.seed): one.scores[metric] for one in store.records(entry["key"] for entry in study.trials)
        }
        plain, *noises = study.arms
        heads.append([[100 * (scores[arm, seed] - scores[plain, seed]) for arm in noises] for seed in study.seeds])
    return np.array(heads)


def table(found: NDArray[np.float64]) -> str:
    """What the differences show, as Markdown."""
    lines = [
        f"{found.size} differences, {found.mean():+.2f} points on average, standard deviation {found.std(ddof=1):.2f}:",
        "",
        "| from | variance, points squared |",
        "|---|--:|",
        *(f"| {name} | {variance:.2f} |" for name, variance in components(found).items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table(differences_of(Store(RECORDS)))}\n")
