"""What was run? Settings, versions and machine of many trials as short lines for the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from noisytune._languages import language_name
from noisytune.report.evidence.pairs import Evidence

SHOWN = 25
"""Entries of a list; more are counted."""

Facts = list[tuple[str, str]]
"""Pairs of a term and what is known of it."""


def text(value: Any) -> str:
    """A JSON value for people.

    >>> text(0.00002), text(["a", "b"]), text(None), text(22713216)
    ('2e-05', 'a, b', 'none', '22,713,216')
    >>> text([{"name": "good", "train": 150, "dev": 37}])
    'good: train 150, dev 37'
    """
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return _entry(value)
    if isinstance(value, list | tuple):
        shown = [text(v) for v in value[:SHOWN]] + [f"and {len(value) - SHOWN:,} more"] * (len(value) > SHOWN)
        return ("; " if any(isinstance(v, Mapping) for v in value) else ", ").join(shown) or "none"
    return str(value)


def _entry(value: Mapping[str, Any]) -> str:
    """A JSON object on a line; what names it comes first."""
    title = next((str(value[key]) for key in ("name", "source") if key in value), "")
    rest = ", ".join(
        f"{key} {text(one)}".replace("_", " ") for key, one in value.items() if key not in ("name", "source")
    )
    return f"{title}: {rest}" if title and rest else title or rest


def about_data(facts: Mapping[str, Any], prefix: str = "") -> Facts:
    """What was noticed about a task's data, whatever it is: a line for each value, and for each object of plain values.

    >>> about_data({"split_off": 112, "lengths": {"train": {"words": {"median": 8.0, "largest": 30}}}})
    [('split off', '112'), ('lengths · train · words', 'median 8, largest 30')]
    """
    lines: Facts = []
    for name, value in facts.items():
        term = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping) and any(isinstance(one, Mapping) for one in value.values()):
            lines += about_data(value, f"{term} · ")
        elif name == "majority" and isinstance(value, float):
            lines.append((term, f"{100 * value:.1f} % of dev is the largest class"))
        elif name.endswith("languages") and isinstance(value, list | tuple) and value:
            lines.append((term, ", ".join(language_name(str(code)) for code in value)))
        elif value not in (None, [], {}, ""):
            lines.append((term, text(value)))
    return lines


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        term = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{term} · ")
        else:
            yield term, value


def merged(records: Iterable[Mapping[str, Any]]) -> Facts:
    """One line for each term of nested settings; a term whose value differs shows how.

    >>> merged([{"host": {"cores": 2}, "step": 1}, {"host": {"cores": 2}, "step": 5}])
    [('host · cores', '2'), ('step', '2 values, 1 to 5')]
    """
    seen: dict[str, dict[str, Any]] = {}
    for record in records:
        for term, value in _flat(record):
            seen.setdefault(term, {})[text(value)] = value
    facts = []
    for term, values in seen.items():
        shown = list(values)
        if len(shown) > 2:
            numbers = all(isinstance(v, int | float) for v in values.values())
            ordered = sorted(shown, key=lambda s: values[s]) if numbers else sorted(shown)
            facts.append((term, f"{len(shown)} values, {ordered[0]} to {ordered[-1]}"))
        elif len(shown) == 2 and all(isinstance(v, int | float) for v in values.values()):
            facts.append((term, f"2 values, {' to '.join(sorted(shown, key=lambda s: values[s]))}"))
        else:
            facts.append((term, " / ".join(shown)))
    return facts


def _asked(methods: list[dict[str, Any]]) -> dict[str, Any]:
    settings = {one["method"]: {key: one[key] for key in one if key != "method"} for one in methods}
    return {name: own or "no settings" for name, own in settings.items()} or {"methods": "none"}


def what_was_run(evidence: Evidence) -> list[tuple[str, Facts]]:
    """Headed lists: the model, each task, what all trials share, each arm's methods, versions and machine."""
    study, records = evidence.study, list(evidence.trials.values())
    sections: list[tuple[str, Facts]] = [("Model", merged([study.model]))]
    for task in study.tasks:
        facts = task.get("facts") or {}
        lines = {k: v for k, v in task.items() if k not in ("name", "facts", *facts) and (v or not k.endswith("_size"))}
        sections.append((f"Task {task['name']}", about_data(lines)))
        if facts:
            sections.append((f"Data of {task['name']}", about_data(facts)))
    searched = set(study.search["space"]) if study.search else set()
    shared = {name: value for name, value in study.training.items() if name not in searched}
    sections.append(("Every trial", merged([shared, {"seeds": study.seeds, "margin in points": study.margin}])))
    for arm in study.arms if "paired_by" not in study.training else ():  # of judged scores nothing more is known
        mine = [r for r in records if r.arm == arm]
        own = [{name: value for name, value in r.settings["training"].items() if name in searched} for r in mine]
        asked = [_asked(r.settings["arm"]["methods"]) | more for r, more in zip(mine, own, strict=True)]
        done = [{m: {k: v for k, v in told.items() if k != "config"} for m, told in r.applied.items()} for r in mine]
        if mine:
            facts = dict(merged(asked)) | {f"applied · {term}": value for term, value in merged(done)}
            sections.append((f"Arm {arm}", list(facts.items())))
    if any(record.environment for record in records):
        seconds = {"seconds, all trials": sum(r.timing.get("total", 0.0) for r in records)}
        sections.append(("Machine and versions", merged([r.environment for r in records]) + merged([seconds])))
    return sections
