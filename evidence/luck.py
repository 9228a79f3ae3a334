"""How much of a pair's spread is the noise, the head, the order of the data?"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from noisytune.report.evidence.pairs import Evidence
from noisytune.report.page.wording import number

Floats = NDArray[np.float64]


class Component(NamedTuple):
    """What one source adds to the variance of a difference."""

    variance: float
    """Points squared. A negative estimate is not told from 0."""
    freedom: int
    """Degrees of freedom of its mean square: with few, the variance is hardly known."""


def components(differences: Floats) -> dict[str, Component]:
    """The variance that the head, the order, their combination and the noise add to a difference, and what is left.

    A crossed analysis of variance with random effects. The plain run of a head and an order is in the differences of
    every draw of the noise: it is a part of what head and order have together, which is why that has a component of
    its own, and why head and order are compared with it. Expected mean squares, with H heads, O orders and N draws:

        rest + N both + O N head,   rest + N both + H N order,   rest + N both,   rest + H O noise,   rest

    Args:
        differences: in points, shape (heads, orders, draws), each 2 or more.

    Source: Searle, Casella and McCulloch 1992, "Variance Components", chapter 4.
    """
    heads, orders, draws = differences.shape
    whole = differences.mean()
    head = differences.mean(axis=(1, 2), keepdims=True) - whole
    order = differences.mean(axis=(0, 2), keepdims=True) - whole
    noise = differences.mean(axis=(0, 1), keepdims=True) - whole
    both = differences.mean(axis=2, keepdims=True) - whole - head - order
    left = differences - whole - head - order - noise - both

    def mean_square(effect: Floats, freedom: int) -> float:
        return float((np.broadcast_to(effect, differences.shape) ** 2).sum()) / freedom

    free = {"head": heads - 1, "order": orders - 1, "both": (heads - 1) * (orders - 1), "noise": draws - 1}
    free["rest"] = differences.size - 1 - sum(free.values())
    effects = {"head": head, "order": order, "both": both, "noise": noise, "rest": left}
    found = {name: mean_square(effect, free[name]) for name, effect in effects.items()}
    variances = {
        "head": (found["head"] - found["both"]) / (orders * draws),
        "order": (found["order"] - found["both"]) / (heads * draws),
        "both": (found["both"] - found["rest"]) / draws,
        "noise": (found["noise"] - found["rest"]) / (heads * orders),
        "rest": found["rest"],
    }
    return {name: Component(variance, free[name]) for name, variance in variances.items()}


def differences_of(studies: Sequence[Evidence]) -> Floats:
    """Arm minus plain in points, shape (heads, orders, draws of the noise): a study is a head, a seed an order."""
    return np.stack([np.stack([one.differences for one in study.comparisons], axis=1) for study in studies])


SOURCES = {
    "head": "the head",
    "order": "the order of the data, and dropout",
    "both": "head and order together, the plain run among it",
    "noise": "the draw of the noise",
    "rest": "what is left",
}


def table(differences: Floats) -> str:
    """What the differences show, as Markdown."""
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    lines = [
        f"{differences.size} differences, {number(mean, signed=True)} points on average, standard deviation "
        f"{number(sd)}. A variance below 0 is not told from 0; with few degrees of freedom "
        "little is known of it.",
        "",
        "| from | variance, points squared | degrees of freedom |",
        "|---|--:|--:|",
    ]
    found = components(differences).items()
    return "\n".join(
        [*lines, *(f"| {SOURCES[name]} | {number(one.variance)} | {one.freedom} |" for name, one in found)]
    )
