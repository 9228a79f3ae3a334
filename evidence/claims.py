"""What does the paper claim, and what was seen of it? One number a seed for each claim, fixed before the first trial.

Each claim is turned into a contrast: a number for each seed, in points, above 0 where the claim holds. It is judged as
any other comparison is: `noisytune.report.statistics.paired.judge`, the 5 % of error spent on each claim by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from noisytune.report.evidence.pairs import Evidence
from noisytune.report.statistics.paired import Summary, Verdict, judge, summarise

Floats = NDArray[np.float64]

NOISY = "noisytune(0.15)"
GAUSSIAN = "noisytune(0.15, distribution=gaussian)"
GLOBAL = "noisytune(0.15, scale=global)"
GLOBAL_GAUSSIAN = "noisytune(0.15, distribution=gaussian, scale=global)"

WORDS = {
    Verdict.HELPED: "supported",
    Verdict.HURT: "contradicted",
    Verdict.EQUIVALENT: "negligible",
    Verdict.MIXED: "not decided",
    Verdict.INCONCLUSIVE: "not decided",
}
"""*Negligible*: whichever way it goes, by less than the margin."""


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper and the numbers that speak for it or against it."""

    says: str
    where: str
    """In the paper."""
    study: str
    seen_as: str
    """The contrast in words."""
    contrasts: Callable[[Evidence], dict[str, Floats]]
    """Shape (seeds,) for each part of the claim, by name; all must hold. A part that is alone has no name."""
    unit: str = "points"
    levels: Callable[[Evidence], str] = lambda _: ""
    """The two numbers whose difference it is, in words; empty where the table of studies has them."""


@dataclass(frozen=True)
class Finding:
    """What was seen of a claim."""

    claim: Claim
    parts: dict[str, Summary]
    word: str
    """One of `WORDS`, or *not run yet*."""
    more: str = ""
    """The claim's ``levels``, or why nothing was seen."""


class NoSoundPairError(Exception):
    """Every pair has a run that collapsed, diverged or stayed untrained."""


def gain(evidence: Evidence, *arms: str, among: Callable[[str], bool] = bool) -> Floats:
    """Arm minus plain in points: the mean over the arms and over the tasks whose name is ``among`` those asked for.

    Returns:
        Shape (seeds,): the seeds that every one of these comparisons has.

    Raises:
        ValueError: the study has no such arm.
        NoSoundPairError: on a task an arm and plain never both did; scores of such runs say nothing about the arm.
    """
    if unknown := set(arms) - set(evidence.study.arms):
        raise ValueError(f"{evidence.study.name}: no arm is called {', '.join(sorted(unknown))}")
    chosen = [one for one in evidence.comparisons if one.arm in arms and among(one.task["name"])]
    if silent := {one.task["name"] for one in chosen if not any(pair.both_ok for pair in one.pairs)}:
        raise NoSoundPairError(f"on {', '.join(sorted(silent))} no pair ended well")
    each = [{pair.seed: pair.difference for pair in one.pairs} for one in chosen]
    complete = [seed for seed in evidence.study.seeds if all(seed in one for one in each)]
    return np.array([np.mean([one[seed] for one in each]) for seed in complete])


def each_task(evidence: Evidence) -> dict[str, Floats]:
    """Noise minus plain by task."""
    return {task["name"]: gain(evidence, NOISY, among=task["name"].__eq__) for task in evidence.study.tasks}


def near_its_best(evidence: Evidence) -> Floats:
    """The strengths that the paper recommends, less those around them."""
    best = gain(evidence, "noisytune(0.1)", NOISY)
    return best - gain(evidence, "noisytune(0.05)", "noisytune(0.2)", "noisytune(0.25)", "noisytune(0.3)")


def more_with_less(evidence: Evidence) -> Floats:
    """What noise brings at a quarter of the training data, less what it brings at all of it."""
    little = gain(evidence, NOISY, among=lambda name: name.endswith(" 25 %"))
    return little - gain(evidence, NOISY, among=lambda name: not name.endswith("%"))


def growth(evidence: Evidence) -> dict[str, Floats]:
    """How much the L1 norm of each role but the head changes, in percent of it, up or down.

    Returns:
        By role, shape (seeds, tasks, 2): plain and noise, of the seeds that have all of them.
    """
    roles = dict.fromkeys(role for record in evidence.trials.values() for role in record.norms if role != "head")
    changes = {
        (record.seed, record.task, record.arm): {
            role: 100 * abs(record.norms[role]["after"] / record.norms[role]["before"] - 1) for role in roles
        }
        for record in evidence.trials.values()
        if record.norms  # a diverged trial has none
    }
    tasks, arms = [task["name"] for task in evidence.study.tasks], ("plain", NOISY)
    whole = [s for s in evidence.study.seeds if all((s, task, arm) in changes for task in tasks for arm in arms)]
    return {
        role: np.array([[[changes[seed, task, arm][role] for arm in arms] for task in tasks] for seed in whole])
        for role in roles
    }


def less_growth(evidence: Evidence) -> Floats:
    """How much less L1 norms change with noise, in percent of them: mean over roles and over tasks."""
    plain, noisy = np.moveaxis(np.mean([one.mean(axis=1) for one in growth(evidence).values()], axis=0), -1, 0)
    return np.asarray(plain - noisy)


def levels_of_growth(evidence: Evidence) -> str:
    """Both sides of it, and the role that has the largest part in it."""
    by_role = {role: one.mean(axis=(0, 1)) for role, one in growth(evidence).items()}
    plain, noisy = np.mean(list(by_role.values()), axis=0)
    role, most = max(((role, a - b) for role, (a, b) in by_role.items()), key=lambda one: one[1])
    part = most / len(by_role) / (plain - noisy)
    return f"plain {plain:.4f}, noise {noisy:.4f}; {part:.0%} of the difference is the {role}'s"


CLAIMS = (
    Claim(
        "Noise helps on average",
        "Table 2",
        "main",
        "noise minus plain, mean of six tasks",
        lambda e: {"": gain(e, NOISY)},
    ),
    Claim("Noise helps on every task", "Table 2", "main", "noise minus plain on each of six tasks", each_task),
    Claim(
        "Noise helps a multilingual model in the mean of its languages",
        "Table 3",
        "second",
        "noise minus plain, mean of six languages, English among them",
        lambda e: {"": gain(e, *e.study.arms[1:])},
    ),
    Claim(
        "Noise helps a model of base size",
        "Table 2",
        "base",
        "noise minus plain, mean of two tasks",
        lambda e: {"": gain(e, NOISY)},
    ),
    Claim(
        "Noise helps more where there is less data",
        "Figure 4",
        "shares",
        "(noise minus plain) at 25 % of the data minus the same at all of it",
        lambda e: {"": more_with_less(e)},
    ),
    Claim(
        "Uniform noise is better than Gaussian",
        "Figure 2",
        "kinds",
        "uniform minus Gaussian, both matrix by matrix",
        lambda e: {"": gain(e, NOISY) - gain(e, GAUSSIAN)},
    ),
    Claim(
        "One strength for all parameters harms",
        "Figure 2",
        "kinds",
        "plain minus global, mean of uniform and Gaussian",
        lambda e: {"": -gain(e, GLOBAL, GLOBAL_GAUSSIAN)},
    ),
    Claim(
        "Matrix by matrix is better than one strength for all",
        "Figure 2",
        "kinds",
        "matrix by matrix minus global, mean of uniform and Gaussian",
        lambda e: {"": gain(e, NOISY, GAUSSIAN) - gain(e, GLOBAL, GLOBAL_GAUSSIAN)},
    ),
    Claim(
        "λ of 0.1 to 0.15 is better than less or more",
        "Figure 6",
        "dose",
        "mean of 0.1 and 0.15 minus mean of 0.05, 0.2, 0.25 and 0.3",
        lambda e: {"": near_its_best(e)},
    ),
    Claim(
        "Noise adds to RecAdam and Mixout, on average",
        "Figure 3",
        "on-top",
        "method with noise minus method, mean of both",
        lambda e: {
            "": gain(e, f"{NOISY}+recadam(gamma=500)", f"{NOISY}+mixout(p=0.7)")
            - gain(e, "recadam(gamma=500)", "mixout(p=0.7)")
        },
    ),
    Claim(
        "Norms change less after noise",
        "Figure 5",
        "main",
        "change of the L1 norm, plain minus noise, mean over the roles of parameters",
        lambda e: {"": less_growth(e)},
        unit="% of the norm",
        levels=levels_of_growth,
    ),
)
"""In the order of the paper's argument; their contrasts were settled before the first trial."""


def judged(claim: Claim, studies: Mapping[str, Evidence]) -> Finding:
    """Judge a claim by the records of its study.

    A claim of several parts is supported where all are, contradicted where one is; its parts share the 5 % of error.
    Where an arm and plain never both ended well on a task, nothing is decided.
    """
    if claim.study not in studies:
        return Finding(claim, {}, "not run yet")
    evidence = studies[claim.study]
    margin = evidence.study.margin if claim.unit == "points" else 0.0
    try:
        contrasts = claim.contrasts(evidence)
    except NoSoundPairError as error:
        return Finding(claim, {}, "not decided", str(error))
    parts = {name: summarise(np.round(one, 9), len(contrasts)) for name, one in contrasts.items()}
    words = {WORDS[judge(one.evidence, one.needed, one.mean, one.anytime, margin)] for one in parts.values()}
    word = words.pop() if len(words) == 1 else "contradicted" if "contradicted" in words else "not decided"
    return Finding(claim, parts, word, claim.levels(evidence))
