"""What does the page show of a task in many languages? A heat map, the transfer gaps, and what is known of the task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from noisytune._languages import language_name
from noisytune._metrics import METRICS
from noisytune.config import TOKEN_EMBEDDINGS
from noisytune.report.evidence.languages import FLIPS, LanguageCell, Languages, TransferGap, languages
from noisytune.report.evidence.pairs import Evidence
from noisytune.report.evidence.summary import SummaryRow, task_rows
from noisytune.report.page.facts import merged
from noisytune.report.page.wording import smallest_p
from noisytune.report.statistics.intervals import ALPHA

OPEN_UP_TO = 200
"""Languages of all tasks together up to which every map is open."""
DEEPEST = 60
"""Percent of the colour in the cell that is farthest from the baseline."""


@dataclass(frozen=True)
class Shade:
    """A cell of a heat map."""

    cell: LanguageCell
    side: str
    """The CSS class of its colour: "good", "bad" or, for no difference, empty."""
    strength: int
    """Percent of that colour."""

    @property
    def stands_out(self) -> bool:
        """Whether the adjusted p is below the usual level."""
        return self.cell.p_holm < ALPHA


@dataclass(frozen=True)
class LanguageMap:
    """One task."""

    task: str
    metric: str
    parts: str
    """Labels of the metrics that the score is the mean of, joined; empty where it is none."""
    arms: tuple[str, ...]
    means: tuple[SummaryRow, ...]
    """Of each arm over all languages: the only ones with a verdict."""
    rows: tuple[tuple[str, float, tuple[float, ...], tuple[Shade, ...]], ...]
    """Each language's name, baseline, the baseline's parts and cells."""
    about: tuple[str, ...]
    """What the task's facts say, a sentence each."""
    is_open: bool


@dataclass(frozen=True)
class LanguagesView:
    """All tasks of a study."""

    maps: tuple[LanguageMap, ...]
    gaps: tuple[tuple[str, TransferGap], ...]
    """Of each task and arm."""
    about: tuple[str, ...]
    """What is to be known of all maps, a sentence each."""


def languages_view(evidence: Evidence) -> LanguagesView | None:
    """What the page shows of the study's tasks in several languages; None where it has none."""
    found = languages(evidence)
    if not found:
        return None
    total, margin = sum(len(one.rows) for one in found), evidence.study.margin
    maps = tuple(_map(evidence, one, margin, not i or total <= OPEN_UP_TO) for i, one in enumerate(found))
    gaps = tuple((one.task["name"], gap) for one in found for gap in one.gaps)
    about = (
        "Differences from the baseline in points. The verdict is on each task's mean over its languages only: so many "
        "languages are exploratory, and some differ by chance.",
        "p: sign flip over the seeds in one language, Holm-adjusted over the languages and arms of the task; * where "
        f"it is below {ALPHA:g}. " + smallest_p(min(one.pairs for one in found), FLIPS),
        *_about_noise(evidence),
    )
    return LanguagesView(maps, gaps, about)


def named(codes: Iterable[str]) -> str:
    """Languages for people, by name.

    >>> named(["sw", "de"])
    'German, Swahili'
    """
    return ", ".join(sorted(map(language_name, codes)))


def _map(evidence: Evidence, found: Languages, margin: float, is_open: bool) -> LanguageMap:
    task = found.task
    means = {row.arm: row for row in task_rows(evidence) if row.task == task["name"]}
    reach = max([margin, *(abs(cell.difference) for row in found.rows for cell in row.cells)]) or 1.0
    metrics = METRICS.get(task["kind"], {})
    metric = metrics.get(task["metric"])
    rows = [
        (language_name(row.code), row.baseline, row.parts, tuple(_shade(cell, reach) for cell in row.cells))
        for row in found.rows
    ]
    return LanguageMap(
        task=task["name"],
        metric=task["metric_label"],
        parts=" / ".join(metrics[key].label for key in metric.parts) if metric else "",
        arms=found.arms,
        means=tuple(means[arm] for arm in found.arms),
        rows=tuple(sorted(rows, key=lambda row: row[0])),
        about=tuple(_about_task(evidence, task)),
        is_open=is_open,
    )


def _shade(cell: LanguageCell, reach: float) -> Shade:
    strength = round(DEEPEST * min(1.0, abs(cell.difference) / reach))
    return Shade(cell, "good" if cell.difference > 0 else "bad" if cell.difference < 0 else "", strength)


def _about_task(evidence: Evidence, task: Mapping[str, Any]) -> Iterable[str]:
    facts = task.get("facts") or {}
    records = [record for arm in evidence.study.arms for record in evidence.runs[task["name"], arm]]
    scored, missing = facts.get("languages", ()), facts.get("missing_languages", ())
    if facts.get("setting"):
        trained: Mapping[str, int] = facts.get("training_rows") or {}
        rows = ", ".join(f"{language_name(code)} ({n:,})" for code, n in trained.items())
        others = {r.settings["task"]["trained_on"]["name"] for r in records if "trained_on" in r.settings["task"]}
        of = f" of {', '.join(sorted(others))}" if others else ""
        yield f"Setting {facts['setting']}" + (f", trained on examples{of} in {rows}." if rows else ".")
    if facts.get("scored"):
        yield f"Scored on {facts['scored']}."
    if missing:
        known = facts.get("languages_of_benchmark", len(scored) + len(missing))
        yield f"Not there, and left out: {named(missing)}. The mean is over {len(scored)} of {known} languages."
    reading = merged(record.settings["task"].get("reading") or {} for record in records)
    chosen = merged(one.get("chosen") or {} for record in records for one in record.evaluations.values())
    for what, said in (("Read with", reading), ("Chosen", chosen)):
        if said:
            yield f"{what}: {', '.join(f'{term} {value}' for term, value in said)}."


def _about_noise(evidence: Evidence) -> Iterable[str]:
    """Whether the token embeddings of a multilingual model got noise."""
    left: list[str] = []
    noisy: list[str] = []
    for arm in evidence.begun:
        run = next(record for record in evidence.trials.values() if record.arm == arm)
        for method in run.settings["arm"]["methods"]:
            if method["method"] == "noisytune":
                (left if TOKEN_EMBEDDINGS in method.get("exclude", ()) else noisy).append(arm)
    if left:
        yield f"Token embeddings get no noise in {', '.join(left)}: the paper's rule for multilingual models."
    if noisy:
        yield f"The paper leaves the token embeddings of multilingual models alone; {', '.join(noisy)} does not say so."
