"""Writes everything in this folder that follows from the records: pages, the table and the forest plot of README.md.

python evidence/render.py           # make evidence
python evidence/render.py --check   # says whether README.md agrees with the records; writes nothing
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import stdev
from typing import Any

from claims import CLAIMS, Finding, judged
from luck import differences_of
from luck import table as luck_table

from noisytune.lab.store import Store
from noisytune.report import report_json, write_report
from noisytune.report.evidence.pairs import Evidence, gather

HERE = Path(__file__).resolve().parent
README, FOREST = HERE / "README.md", HERE / "forest.svg"
FOLDERS = HERE / "records", HERE / "records-gpu"
"""The run folders: of studies on two cores, and on a graphics processor. No study is in both."""
AGAIN = HERE / "records-again"
"""Two pairs of ``main`` drawn at random (again-rte.yaml and again-stsb.yaml), on two cores."""
LUCK = tuple(f"luck-{head}" for head in range(4))
STUDIES = ("main", "second", "base", "dose", "kinds", "shares", "on-top", *LUCK, "language")
"""In the order in which they are shown."""
MARKS = "<!-- results: written by render.py -->", "<!-- end of results -->"


@dataclass(frozen=True)
class Finished:
    """A study whose trials are all there."""

    evidence: Evidence
    folder: Path
    """Where they are."""

    def report(self) -> dict[str, Any]:
        """``report.json``, its primary comparisons first, with the page that shows it all."""
        evidence = self.evidence
        report = report_json(evidence.study, evidence.trials.values(), evidence.failed.values())
        report["comparisons"].sort(key=lambda row: not row["primary"])
        return report | {"page": f"{self.folder.name}/{evidence.study.name}.html"}

    def write_page(self) -> Path:
        """The page, beside the records."""
        evidence = self.evidence
        name, trials, failed = evidence.study.name, evidence.trials.values(), evidence.failed.values()
        return write_report(self.folder, evidence.study, trials, name, failed)


def studies(folder: Path) -> Iterator[tuple[str, Finished]]:
    """The finished studies of a run folder, by name."""
    store = Store(folder)
    failures = list(store.failures().values())
    for study in store.studies().values():
        evidence = gather(study, store.records(entry["key"] for entry in study.trials), failures)
        if evidence.complete:
            yield study.name, Finished(evidence, folder)
        else:
            sys.stderr.write(f"{study.name}: {evidence.done} of {evidence.planned} trials, left out until finished\n")


def paragraphs(reports: list[dict[str, Any]], there: Mapping[str, Finished]) -> list[str]:
    """Everything that README.md says of results, from the records alone."""
    evidence = {name: study.evidence for name, study in there.items()}
    says = [f"- **{one['study']}**, {one['trials_done']} trials: {one['sentence']}" for one in reports]
    blocks = ["\n".join(says), "![The differences of the table, with their intervals](forest.svg)", table(reports)]
    blocks = blocks if reports else ["No study has been run yet."]
    blocks += ["### What the paper says", claims_table([judged(claim, evidence) for claim in CLAIMS])]
    if there.keys() >= set(LUCK):
        pages = " · ".join(f"[{name}]({there[name].folder.name}/{name}.html)" for name in LUCK)
        blocks += [
            "### How much is luck",
            luck_table(differences_of([evidence[name] for name in LUCK])),
            f"Pages: {pages}.",
        ]
    if AGAIN.is_dir() and "main" in evidence:
        blocks += ["### The same trials on another machine", again_table(evidence["main"], Store(AGAIN))]
    return blocks


def again_table(first: Evidence, store: Store) -> str:
    """A line for each trial that was run a second time: both scores, and how far seeds lie apart."""
    lines = [
        "Two pairs of `main`, drawn at random: at first on the graphics processor, again on two cores.",
        "",
        "| task | arm | seed | at first | again | standard deviation over seeds |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for study in sorted(store.studies().values(), key=lambda study: study.name):
        for record in store.records(entry["key"] for entry in study.trials):
            metric = next(task["metric"] for task in study.tasks if task["name"] == record.task)
            seeds = [
                100 * one.scores.get(metric, nan)
                for one in first.trials.values()
                if (one.task, one.arm) == (record.task, record.arm)
            ]
            before, now = (100 * one.scores.get(metric, nan) for one in (first.trials[record.key], record))
            lines.append(
                f"| {record.task} | `{record.arm}` | {record.seed} | {before:.2f} | {now:.2f} | {stdev(seeds):.2f} |"
            )
    return "\n".join(lines)


def shown(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparisons that README.md shows: the primary ones, and each task of two studies; a study's page has all."""
    return [row for row in report["comparisons"] if row["primary"] or report["study"] in ("main", "shares")]


def table(found: list[dict[str, Any]]) -> str:
    """A line for each comparison that is shown."""
    lines = [
        "| study | task | arm | pairs | plain | arm's | difference | 95 % anytime | e / needed | verdict |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for report in found:
        lines += [_line(report, row) for row in shown(report)]
    return "\n".join(lines)


def _line(report: dict[str, Any], row: dict[str, Any]) -> str:
    bold = "**" if row["primary"] else ""
    cells = [
        f"[{report['study']}]({report['page']})",
        str(row["task"]),
        f"`{row['arm']}`",
        f"{row['pairs']}",
        _number(row["baseline"], ".2f"),
        _number(row["score"], ".2f"),
        f"{bold}{_number(row['difference'], '+.2f')}{bold}",
        _interval(row["anytime_low"], row["anytime_high"]),
        f"{_number(row['e'], '.3g')} / {row['e_needed']:.0f}",
        f"{bold}{row['verdict']}{bold}",
    ]
    return f"| {' | '.join(cells)} |"


def claims_table(findings: list[Finding]) -> str:
    """A line for each part of each claim."""
    lines = [
        "| the paper | in | seen as | study | seeds | seen | 95 % anytime | e / needed | so |",
        "|---|---|---|---|--:|--:|--:|--:|---|",
    ]
    for finding in findings:
        claim = finding.claim
        said = f"| {claim.says} | {claim.where} |"
        if not finding.parts:
            word = f"**{finding.word}**: {finding.more}" if finding.more else finding.word
            lines.append(f"{said} {claim.seen_as} | {claim.study} | | | | | {word} |")
        for name, part in finding.parts.items():
            form = "+.2f" if claim.unit == "points" else "+.4f"
            ends = _interval(part.anytime.low, part.anytime.high, form) if part.anytime.bounded else "unbounded"
            seen = f"{_number(part.mean, form)}{'' if claim.unit == 'points' else f' {claim.unit} ({finding.more})'}"
            lines.append(
                f"{said} {name or claim.seen_as} | {claim.study} | {part.n} | {seen} | {ends} | "
                f"{part.evidence.e:.3g} / {part.needed:.0f} | **{finding.word}** |"
            )
            said = "| | |"
    return "\n".join(lines)


def _interval(low: float | None, high: float | None, form: str = "+.2f") -> str:
    return "unbounded" if low is None or high is None else f"{_number(low, form)} to {_number(high, form)}"


def _number(value: float | None, form: str) -> str:
    """As text, with a minus sign; nothing where there is no number."""
    return "" if value is None else format(value, form).replace("-", "\N{MINUS SIGN}")


def forest(found: list[dict[str, Any]], file: Path) -> None:
    """Draw the comparisons that are shown, with their intervals, a panel with an axis of its own for each study."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    heights = [1.8 + len(shown(report)) for report in found]
    with mpl.rc_context({"svg.hashsalt": "evidence", "svg.fonttype": "none"}):
        figure = Figure(figsize=(10, 0.6 + 0.25 * sum(heights)), layout="constrained")
        every = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, report in zip(every, found, strict=True):
            rows, margin = shown(report), report["margin"]
            axes.axvspan(-margin, margin, color="0.92")
            axes.axvline(0, color="0.4", linewidth=0.8)
            for place, row in enumerate(rows):
                _draw(axes, place, row)
            names = [f"{row['task']}: {row['arm']}" for row in rows]
            axes.set_yticks(range(len(rows)), names, fontsize=8)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.tick_params(axis="x", labelsize=8)
            pairs = f"{rows[0]['pairs']} {'seeds' if rows[0]['pooled'] else 'pairs'}"
            axes.set_title(f"{report['study']}, {pairs}; grey: ±{margin:g} points", fontsize=9, loc="left")
        every[-1].set_xlabel(
            "difference from plain fine-tuning, points, each study on a scale of its own\n"
            "dot: mean; thick: 95 % at one look; thin: 95 % at any number of looks; blue: primary comparisons",
            fontsize=8,
        )
        figure.savefig(file, metadata={"Date": None})


def _draw(axes: Any, place: int, row: dict[str, Any]) -> None:
    color = "C0" if row["primary"] else "0.45"
    for low, high, width in (("anytime_low", "anytime_high", 1), ("fixed_low", "fixed_high", 3)):
        if row[low] is not None and row[high] is not None:
            axes.plot([row[low], row[high]], [place, place], color=color, linewidth=width)
    axes.plot(row["difference"], place, "o", color=color, markersize=6 if row["primary"] else 4)


def with_results(text: str, blocks: list[str]) -> str:
    """README.md with other words between the marks."""
    begin, end = MARKS
    block = "\n\n".join([begin, *blocks, end])
    changed, times = re.subn(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"README.md must have {begin} and {end} once")
    return changed


if __name__ == "__main__":
    found: dict[str, Finished] = {}
    for name, study in (one for folder in FOLDERS if folder.is_dir() for one in studies(folder)):
        if name in found:
            sys.exit(f"{name} is in two folders: each study runs on one kind of machine")
        found[name] = study
    there = {name: found[name] for name in STUDIES if name in found}
    text, reports = README.read_text(encoding="utf-8"), [there[name].report() for name in there if name not in LUCK]
    wanted = with_results(text, paragraphs(reports, there))
    if "--check" in sys.argv:
        sys.exit(0 if wanted == text else "README.md differs from the records: run  make evidence")
    for study in there.values():
        sys.stdout.write(f"{study.write_page()}\n")
    if reports:
        forest(reports, FOREST)
    README.write_text(wanted, encoding="utf-8")
