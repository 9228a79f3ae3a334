"""Writes everything in this folder that follows from the records: pages, the table and the forest plot of README.md.

python evidence/render.py           # make evidence
python evidence/render.py --check   # says whether README.md agrees with the records; writes nothing
"""

import re
import sys
from pathlib import Path
from typing import Any

from noisytune.lab.store import Store
from noisytune.report import report_json, write_report

HERE = Path(__file__).resolve().parent
RECORDS, README, FOREST = HERE / "records", HERE / "README.md", HERE / "forest.svg"
STUDIES = (
    "main",
    "second",
    "base",
    "dose",
    "kinds",
    "shares",
    "on-top",
    *(f"luck-{head}" for head in range(4)),
    "language",
)
"""In the order in which they are shown."""
MARKS = "<!-- results: written by render.py -->", "<!-- end of results -->"


def results(store: Store, pages: Path | None = None) -> list[dict[str, Any]]:
    """What the records show: ``report.json`` of each study, in the order of `STUDIES`, primary comparisons first.

    Args:
        store: the run folder.
        pages: where each study's page is written; None: nowhere.
    """
    found, failures = [], list(store.failures().values())
    for study in sorted(store.studies().values(), key=lambda study: STUDIES.index(study.name)):
        records = store.records(entry["key"] for entry in study.trials)
        if pages:
            sys.stdout.write(f"{write_report(pages, study, records, study.name, failures)}\n")
        report = report_json(study, records, failures)
        report["comparisons"].sort(key=lambda row: not row["primary"])
        found.append(report)
    return found


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


def with_results(text: str, found: list[dict[str, Any]]) -> str:
    """README.md with the table and the sentence of each study between the marks."""
    begin, end = MARKS
    says = "\n".join(
        f"- **{report['study']}**, {report['trials_done']} trials: {report['sentence']}" for report in found
    )
    block = f"{begin}\n\n{says}\n\n![Every difference with its intervals](forest.svg)\n\n{table(found)}\n\n{end}"
    changed, times = re.subn(f"{re.escape(begin)}.*{re.escape(end)}", lambda _: block, text, flags=re.DOTALL)
    if times != 1:
        raise ValueError(f"README.md must have {begin} and {end} once")
    return changed


if __name__ == "__main__":
    if not RECORDS.is_dir():
        sys.exit("no study has been run yet: see README.md")
    check, text = "--check" in sys.argv, README.read_text(encoding="utf-8")
    found = results(Store(RECORDS), None if check else RECORDS)
    if check:
        sys.exit(0 if with_results(text, found) == text else "README.md differs from the records: run  make evidence")
    forest(found, FOREST)
    README.write_text(with_results(text, found), encoding="utf-8")
