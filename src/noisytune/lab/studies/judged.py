"""Scores that exist become studies, as if the lab had run them. Which make pairs, and what is to be known of that?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from noisytune._metrics import OWN, OWN_LOWER
from noisytune.errors import ConfigError, DataError
from noisytune.lab.studies.scores import Score
from noisytune.records import StudyRecord, TrialRecord, digest

Built = tuple[StudyRecord, list[TrialRecord]]
BASELINES = ("plain", "baseline")
"""Arms that are the baseline where nobody says which is: tools that write tables sort their columns."""
_APART = 10.0
"""The largest scores of arms in one unit do not differ by this factor."""
SHOWN = 5
"""Runs or examples that a message names."""


@dataclass(frozen=True)
class Reading:
    """How scores are to be taken."""

    baseline: str | None = None
    """The arm that the others are compared with; None: one of `BASELINES`, else the first."""
    metric: str | None = None
    """Only this one."""
    margin: float = 1.0
    """Points within which a difference counts as none."""
    unit: Literal["auto", "fractions", "points"] = "auto"
    """Whether 0.71 is 71 points, or 71 is; auto: points where some score lies beyond 1."""
    lower_is_better: bool = False
    unpaired: Literal["refuse", "drop", "match"] = "refuse"
    """What to do about runs that only some arms have: nothing, leave them out, or pair the runs in their order."""


def studies_of(scores: Sequence[Score], name: str, how: Reading) -> list[Built]:
    """One study, or several: no verdict pools metrics, and none pairs examples of one task with those of another.

    Args:
        scores: as they were given.
        name: of the file or the folders, for the title.
        how: how they are to be taken.

    Raises:
        DataError: fewer than two arms, a score twice, runs without a partner, fractions beside points.
        ConfigError: no such baseline or metric.
    """
    metrics = list(dict.fromkeys(score.metric for score in scores))
    if how.metric is not None:
        if how.metric not in metrics:
            raise ConfigError(f"metric must be one of {', '.join(metrics)}, got {how.metric!r}")
        scores, metrics = [score for score in scores if score.metric == how.metric], [how.metric]
    places = {(score.task, score.arm, score.run, score.item) for score in scores}
    parts = {f"{name}, {metric}": [score for score in scores if score.metric == metric] for metric in metrics}
    if len(metrics) < 2 or len(places) == len(scores):  # each task has a metric of its own
        parts = {name: list(scores)}
    found = [built for title, mine in parts.items() for built in _of_one_metric(mine, title, how)]
    if not found:
        raise DataError(f"{name}: no task has results of the baseline and of another arm")
    return found


def _of_one_metric(scores: Sequence[Score], name: str, how: Reading) -> Iterator[Built]:
    """Tasks that are paired by example, each apart, for a pair is within a task; the others together, paired by run."""
    arms, by_task = _arms(scores, how.baseline), _of_tasks(scores)
    apart = {task for task, mine in by_task.items() if len(by_task) > 1 and _one_run_each(mine)}
    together = {task: mine for task, mine in by_task.items() if task not in apart}
    together, notices = _with_every_arm(together, arms, how.unpaired)
    if together:
        yield _study([score for mine in together.values() for score in mine], name, how, arms, notices)
    for task in (task for task in by_task if task in apart):
        having = {score.arm for score in by_task[task]}
        here = [arm for arm in arms if arm in having]
        if len(here) > 1 and here[0] == arms[0]:
            yield _study(by_task[task], f"{name}, {task}", how, here)
        elif how.unpaired != "drop":
            lacking = ", ".join(arm for arm in arms if arm not in having)
            raise DataError(
                f"{task}: no example of {lacking}: give results on the same tasks, or unpaired=drop leaves this one out"
            )


def _with_every_arm(
    by_task: Mapping[str, list[Score]], arms: Sequence[str], unpaired: str
) -> tuple[dict[str, list[Score]], tuple[str, ...]]:
    """The tasks that can be pooled, and what was left out: without one arm's runs a task never has a pair of it."""
    whole, notices = dict(by_task), []
    for task, mine in by_task.items():
        having = {score.arm for score in mine}
        lacking = ", ".join(arm for arm in arms if arm not in having)
        if not lacking:
            continue
        if unpaired != "drop":
            raise DataError(
                f"{task}: no run of {lacking}: give results on the same tasks, or unpaired=drop leaves this one out"
            )
        notices.append(f"{task}: no run of {lacking}: the task is left out")
        del whole[task]
    return whole, tuple(notices)


def _of_tasks(scores: Iterable[Score]) -> dict[str, list[Score]]:
    by_task = defaultdict(list)
    for score in scores:
        by_task[score.task].append(score)
    return by_task


def _one_run_each(scores: Sequence[Score]) -> bool:
    """Whether all there is to pair is examples."""
    return bool(scores[0].item) and len({(score.arm, score.run) for score in scores}) == len({s.arm for s in scores})


def _study(scores: Sequence[Score], name: str, how: Reading, arms: list[str], left_out: tuple[str, ...] = ()) -> Built:
    beyond = [abs(score.value) > 1.0 for score in scores if score.value is not None]
    guessed = how.unit == "auto" and any(beyond)
    in_points = guessed or how.unit == "points"
    if guessed:
        _refuse_two_units(scores)
    unsure = left_out
    if guessed and 2 * sum(beyond) < len(beyond):
        unsure += ("some scores lie beyond 1, so all are taken for points, though most are not: say score_unit",)
    factor = 0.01 if in_points else 1.0
    paired = {
        task or name: _paired(_defined(mine, how.lower_is_better), task or name, arms, how.unpaired)
        for task, mine in _of_tasks(scores).items()
    }
    units = {unit for _, unit, _ in paired.values()}
    if "order" in units:  # a pool has the pairs that all its tasks have
        paired = {
            task: (mine if unit == "order" else _by_place(mine), unit, said)
            for task, (mine, unit, said) in paired.items()
        }
    runs = list(dict.fromkeys(score.run for mine, _, _ in paired.values() for score in mine))
    numbers = _seeds(runs)
    content = digest([[s.task, s.arm, s.run, s.item, s.metric, s.value] for s in scores])
    model = {"name": name, "digest": content}
    records, plan, tasks = [], [], []
    for task, (mine, _, notices) in paired.items():
        entry, found = _task_of(task, mine, content, how.lower_is_better), defaultdict(list)
        for score in mine:
            found[score.run, score.arm].append(score)
        size = max(map(len, found.values())) if mine[0].item else 0
        tasks.append(entry | {"dev_size": size})
        for (run, arm), of_run in sorted(found.items(), key=lambda one: (runs.index(one[0][0]), arms.index(one[0][1]))):
            record = _record(entry, model, arm, numbers[run], of_run, factor, (*notices, *unsure))
            records.append(record)
            plan.append({"key": record.key, "task": task, "arm": arm, "seed": record.seed})
    training = {
        "scores": name,
        "paired_by": " or ".join(sorted(units)),
        "unit": "points" if in_points else "fractions",
    }
    study = StudyRecord(name, model, tasks, arms, sorted(numbers.values()), training, how.margin, plan)
    return study, records


def _refuse_two_units(scores: Iterable[Score]) -> None:
    """Fractions of one task or arm and points of another are not brought to one unit by a guess.

    Losses of one task may lie on both sides of 1: its arms are taken for two units where they are far apart.
    """
    size: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for score in scores:
        size[score.task][score.arm] = max(size[score.task][score.arm], abs(score.value or 0.0))
    groups = [{task: max(arms.values()) for task, arms in size.items()}]
    for task, arms in size.items():
        named = {" of ".join(filter(None, (arm, task))): largest for arm, largest in arms.items() if largest}
        if named and max(named.values()) >= _APART * min(named.values()):
            groups.append(named)
    for group in groups:
        within = [place for place, largest in group.items() if 0.0 < largest <= 1.0]
        beyond = [place for place, largest in group.items() if largest > 1.0]
        if within and beyond:
            raise DataError(
                f"scores of {within[0]} lie within 1, those of {beyond[0]} beyond it: are they fractions beside "
                "points? Give all in one unit, or say score_unit"
            )


def _arms(scores: Iterable[Score], baseline: str | None) -> list[str]:
    arms = list(dict.fromkeys(score.arm for score in scores))
    if len(arms) < 2:
        raise DataError(f"only one arm, {', '.join(arms)}: a comparison needs a baseline and another")
    if baseline is None:
        baseline = next((arm for usual in BASELINES for arm in arms if arm.casefold() == usual), arms[0])
    if baseline not in arms:
        raise ConfigError(f"baseline must be one of {', '.join(arms)}, got {baseline!r}")
    return [baseline, *(arm for arm in arms if arm != baseline)]


def _seeds(runs: Sequence[str]) -> dict[str, int]:
    """Numbers for runs: their own where all are numbers, else their places."""
    if all(run.isdecimal() and str(int(run)) == run and int(run) < 2**32 for run in runs):
        return {run: int(run) for run in runs}
    return {run: place for place, run in enumerate(runs)}


def _defined(scores: list[Score], lower_is_better: bool) -> list[Score]:
    """An example without a score counts as the task's worst, so that a mean over examples leaves none out."""
    known = [score.value for score in scores if score.value is not None]
    if not known or not scores[0].item:
        return scores
    worst = max(known) if lower_is_better else min(known)
    return [replace(score, value=worst) if score.value is None else score for score in scores]


def _status(scores: Iterable[Score]) -> str:
    """How a run ended: as the first of its examples that did not end well."""
    return next((score.status for score in scores if score.status != "ok"), "ok")


def _group(score: Score) -> str:
    """An example that belongs to nothing is a group of its own."""
    return score.group or f"example {score.item}"


def _paired(scores: list[Score], task: str, arms: list[str], unpaired: str) -> tuple[list[Score], str, tuple[str, ...]]:
    """The scores with the runs that make pairs, what a pair is, and what is to be known of it."""
    twice = defaultdict(list)
    for score in scores:
        twice[score.arm, score.run, score.item].append(score.where)
    for (arm, run, item), rows in twice.items():
        if len(rows) > 1:
            what = f"run {run or 'without a seed'}" + (f", example {item}" if item else "")
            raise DataError(f"{rows[1]}: {arm}, {what} has a score already ({rows[0]}): each needs one")
    _same_examples(scores, task)
    runs = {arm: list(dict.fromkeys(s.run for s in scores if s.arm == arm)) for arm in arms}
    if _one_run_each(scores):
        return _by_example(scores, task, arms, unpaired)
    return _by_run(scores, task, runs, unpaired)


def _same_examples(scores: Iterable[Score], task: str) -> None:
    seen: dict[str, Score] = {}
    for score in scores:
        first = seen.setdefault(score.item, score)
        if score.item and score.check != first.check:
            raise DataError(
                f"{task}: example {score.item} is another text in {score.where} than in {first.where}: "
                "give results on the same examples"
            )


def _by_example(
    scores: list[Score], task: str, arms: list[str], unpaired: str
) -> tuple[list[Score], str, tuple[str, ...]]:
    """One run of each arm: the pairs are examples, or whole groups of them where examples hang together."""
    grouped = any(score.group for score in scores)
    lacking = _lacking({arm: {s.item for s in scores if s.arm == arm} for arm in arms})
    if lacking and unpaired == "refuse":
        raise DataError(f"{task}: {lacking}: give results on the same examples, or unpaired=drop leaves these out")
    kept = set.intersection(*({s.item for s in scores if s.arm == arm} for arm in arms))
    scores = [score for score in scores if score.item in kept]
    what = "example"
    if grouped:
        what, sums = "group", defaultdict(list)
        for score in scores:
            sums[score.arm, _group(score)].append(score)
        scores = [replace(of[0], value=_mean(of), status=_status(of), item=group) for (_, group), of in sums.items()]
    notice = (
        f"on {task}: one run of each arm, paired by {what} ({len({s.item for s in scores}):,}). The verdict is about "
        "these runs: it does not know what another seed would give"
    )
    dropped = (f"on {task}: {lacking}: left out",) if lacking else ()
    return [replace(score, run=score.item, item="") for score in scores], what, (notice, *dropped)


def _mean(scores: Iterable[Score]) -> float | None:
    values = [score.value for score in scores if score.value is not None]
    return float(np.mean(values)) if values else None


def _by_run(
    scores: list[Score], task: str, runs: dict[str, list[str]], unpaired: str
) -> tuple[list[Score], str, tuple[str, ...]]:
    lacking = _lacking({arm: set(found) for arm, found in runs.items()})
    if not lacking:
        scores, notices = _same_in_each_run(scores, task, unpaired)
        return scores, "seed", notices
    if unpaired == "refuse":
        raise DataError(
            f"{task}: {lacking}: such runs make no pairs. Run the missing ones, or say unpaired=drop to leave these "
            "out, or unpaired=match to pair runs in their order, which costs power"
        )
    if unpaired == "drop":
        first, *others = runs
        paired = set(runs[first]) & set().union(*(runs[arm] for arm in others))
        if not paired:
            raise DataError(f"{task}: {lacking}: no run is left; unpaired=match pairs runs in their order")
        scores, notices = _same_in_each_run([s for s in scores if s.run in paired], task, unpaired)
        return scores, "seed", (f"on {task}: {lacking}: without a pair there", *notices)
    number = min(map(len, runs.values()))
    places = {arm: {run: str(i) for i, run in enumerate(found[:number])} for arm, found in runs.items()}
    matched = [replace(s, run=places[s.arm][s.run]) for s in scores if s.run in places[s.arm]]
    notice = (
        f"on {task}: {lacking}: {number} runs of each arm are paired in their order. Such differences scatter as two "
        "runs do that share nothing. Where runs of one seed correlate by r, real pairs need 1 - r times as many: half "
        "as many at r = 0.5"
    )
    matched, notices = _same_in_each_run(matched, task, unpaired)
    return matched, "order", (notice, *notices)


def _by_place(scores: list[Score]) -> list[Score]:
    """Runs that pair by their own names, under the numbers of their places."""
    places = {run: str(place) for place, run in enumerate(dict.fromkeys(score.run for score in scores))}
    return [replace(score, run=places[score.run]) for score in scores]


def _same_in_each_run(scores: list[Score], task: str, unpaired: str) -> tuple[list[Score], tuple[str, ...]]:
    """The scores of the examples that every arm of a run has, and what was left out: a pair is over the same ones."""
    items: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for score in scores:
        items[score.run][score.arm].add(score.item)
    lacking = {run: said for run, of_arms in items.items() if (said := _lacking(of_arms))}
    if not lacking:
        return scores, ()
    run, said = next(iter(lacking.items()))
    if unpaired == "refuse":
        raise DataError(
            f"{task}, run {run}: {said}: give results on the same examples, or unpaired=drop leaves these out"
        )
    kept = {run: set.intersection(*of_arms.values()) for run, of_arms in items.items()}
    more = f", and so in {len(lacking) - 1:,} more runs" if len(lacking) > 1 else ""
    return [s for s in scores if s.item in kept[s.run]], (f"on {task}, run {run}: {said}: left out{more}",)


def _lacking(having: Mapping[str, set[str]]) -> str:
    """Which runs or examples some arms have and others lack; empty where none."""
    every = set().union(*having.values())
    parts = []
    for arm, own in having.items():
        missing = sorted(every - own)
        if missing:
            more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
            parts.append(f"{arm} has no {', '.join(missing[:SHOWN])}{more}")
    return "; ".join(parts)


def _task_of(task: str, scores: list[Score], content: str, lower_is_better: bool) -> dict[str, Any]:
    items = {"kind": "scores", "metric": "loss" if lower_is_better else "score"}
    if not lower_is_better and all(score.value in (0.0, 1.0) for score in scores):
        items = {"kind": "outcomes", "metric": "outcome"}
    return {
        "name": task,
        "kind": OWN_LOWER if lower_is_better else OWN,
        "metric": "score",
        "metric_label": scores[0].metric,
        **({"items": items} if scores[0].item else {}),
        "labels": [],
        "train_size": 0,
        "dev_size": 0,
        "majority": None,
        "digest": digest([content, task]),
    }


def _record(
    task: dict[str, Any],
    model: dict[str, Any],
    arm: str,
    seed: int,
    scores: list[Score],
    factor: float,
    notices: tuple[str, ...],
) -> TrialRecord:
    settings = {
        "model": model,
        "task": {"name": task["name"], "digest": task["digest"], "kind": task["kind"]},
        "arm": {"name": arm, "methods": []},
        "seed": seed,
    }
    value, outputs = _mean(scores), {}
    if scores[0].item:
        scores = sorted(scores, key=lambda score: score.item)
        outputs["dev/items"] = np.array([[(score.value or 0.0) * factor] for score in scores])
        if any(score.group for score in scores):
            outputs["dev/groups"] = np.unique(list(map(_group, scores)), return_inverse=True)[1]
    return TrialRecord(
        key=digest(settings),
        settings=settings,
        status=_status(scores),  # type: ignore[arg-type]
        scores={} if value is None else {task["metric"]: value * factor},
        loss_curve=[],
        timing={},
        applied={"scores": {"notices": list(notices)}},
        environment={},
        outputs=outputs,
    )
