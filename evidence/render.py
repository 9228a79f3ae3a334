"""Writes everything in this folder that follows from the records: pages, the table and the forest plot of README.md.

python evidence/render.py           # make evidence
python evidence/render.py --check   # says whether README.md agrees with the records; writes nothing
"""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from claims import CLAIMS, Finding, judged
from luck import differences_of
from luck import table as luck_table

from noisytune.lab.store import Store
from noisytune.report import report_json, write_report
from noisytune.report.evidence.pairs import Evidence, gather

HERE = Path(__file__).resolve().parent
RECORDS, README, FOREST = HERE / "records", HERE / "README.md", HERE / "forest.svg"
LUCK = tuple(f"luck-{head}" for head in range(4))
STUDIES = ("main", "second", "base", "dose", "kinds", "shares", "on-top", *LUCK, "language")
"""In the order in which they are shown."""
MARKS = "<!-- results: written by render.py -->", "<!-- end of results -->"


def studies(store: Store) -> dict[str, Evidence]:
    """What the records show, by the name of the study, in the order of `STUDIES`; of finished studies only."""
    failures, found = list(store.failures().values()), {}
    for study in sorted(store.studies().values(), key=lambda study: STUDIES.index(study.name)):
        evidence = gather(study, store.records(entry["key"] for entry in study.trials), failures)
        if evidence.complete:
            found[study.name] = evidence
        else:
            sys.stderr.write(f"{study.name}: {evidence.done} of {evidence.planned} trials, left out until finished\n")
    return found


def report_of(evidence: Evidence) -> dict[str, Any]:
    """``report.json`` of a study, its primary comparisons first."""
    report = report_json(evidence.study, evidence.trials.values(), evidence.failed.values())
    report["comparisons"].sort(key=lambda row: not row["primary"])
    return report


def paragraphs(there: Mapping[str, Evidence], store: Store) -> list[str]:
    """Everything that README.md says of results, from the records alone."""
    reports = [report_of(evidence) for evidence in there.values()]
    says = [f"- **{one['study']}**, {one['trials_done']} trials: {one['sentence']}" for one in reports]
    blocks = ["\n".join(says), "![Every difference with its intervals](forest.svg)", table(reports)]
    blocks = blocks if reports else ["No study has been run yet."]
    blocks += ["### What the paper says", claims_table([judged(claim, there) for claim in CLAIMS])]
    if there.keys() >= set(LUCK):
        blocks += ["### How much is luck", luck_table(differences_of(store))]
    return blocks


def table(found: list[dict[str, Any]]) -> str:
    """A line for each comparison."""
    lines = [
        "| study | task | arm | pairs | plain | arm's | difference | 95 % anytime | e / needed | verdict |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for report in found:
        lines += [_line(report["study"], row) for row in report["comparisons"]]
    return "\n".join(lines)


def _line(study: str, row: dict[str, Any]) -> str:
    bold = "**" if row["primary"] else ""
    cells = [
        f"[{study}](records/{study}.html)",
        row["task"],
        f"`{row['arm']}`",
        f"{row['pairs']}",
        _number(row["baseline"], ".2f"),
        _number(row["score"], ".2f"),
        f"{bold}{_number(row['difference'], '+.2f')}{bold}",
        " to ".join(_number(row[end], "+.2f") or "unbounded" for end in ("anytime_low", "anytime_high")),
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
        claim, word = finding.claim, finding.word
        first = f"| {claim.says} | {claim.where} | {claim.seen_as} | {claim.study} |"
        if not finding.parts:
            lines.append(f"{first} | | | | {word} |")
        for part in finding.parts:
            ends = " to ".join(_number(end, "+.2f") for end in (part.anytime.low, part.anytime.high))
            ends = ends if part.anytime.bounded else "unbounded"
            seen = f"{_number(part.mean, '+.2f')}{'' if claim.unit == 'points' else f' {claim.unit}'}"
            lines.append(
                f"{first} {part.n} | {seen} | {ends} | {part.evidence.e:.3g} / {part.needed:.0f} | **{word}** |"
            )
            first, word = "| | | | |", word
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    """As text, with a minus sign; nothing where there is no number."""
    return "" if value is None else format(value, form).replace("-", "\N{MINUS SIGN}")


def forest(found: list[dict[str, Any]], file: Path) -> None:
    """Draw the differences of all comparisons with their intervals: thick at one look, thin at any number of looks."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rows = [(report, row) for report in found for row in report["comparisons"] if row["difference"] is not None]
    with mpl.rc_context({"svg.hashsalt": "evidence", "svg.fonttype": "none"}):
        figure = Figure(figsize=(8, 1 + 0.28 * len(rows)), layout="constrained")
        axes = figure.subplots()
        margin = found[0]["margin"]
        axes.axvspan(-margin, margin, color="0.92", label=f"within the margin of {margin:g}")
        axes.axvline(0, color="0.4", linewidth=0.8)
        for place, (_, row) in enumerate(rows):
            color = "C0" if row["primary"] else "0.45"
            for low, high, width in (("anytime_low", "anytime_high", 1), ("fixed_low", "fixed_high", 3)):
                if row[low] is not None and row[high] is not None:
                    axes.plot([row[low], row[high]], [place, place], color=color, linewidth=width)
            axes.plot(row["difference"], place, "o", color=color, markersize=6 if row["primary"] else 4)
        names = [f"{report['study']}: {row['task']}, {row['arm']} ({row['pairs']})" for report, row in rows]
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xlabel("difference from plain fine-tuning, points")
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(file, metadata={"Date": None})


def with_results(text: str, blocks: list[str]) -> str:
    """README.md with other words between the marks."""
    begin, end = MARKS
    block = "\n\n".join([begin, *blocks, end])
    changed, times = re.subn(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"README.md must have {begin} and {end} once")
    return changed


if __name__ == "__main__":
    store = Store(RECORDS)
    there, text = studies(store) if RECORDS.is_dir() else {}, README.read_text(encoding="utf-8")
    wanted = with_results(text, paragraphs(there, store))
    if "--check" in sys.argv:
        sys.exit(0 if wanted == text else "README.md differs from the records: run  make evidence")
    for name, evidence in there.items():
        page = write_report(RECORDS, evidence.study, evidence.trials.values(), name, evidence.failed.values())
        sys.stdout.write(f"{page}\n")
    if there:
        forest([report_of(evidence) for evidence in there.values()], FOREST)
    README.write_text(wanted, encoding="utf-8")
