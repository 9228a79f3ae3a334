"""Records in, evidence out: statistics, figures and the page. Never loads torch; loads its libraries on first use.

Every function takes a study's plan and the records of its finished trials, here those of scores in a file:

>>> import tempfile
>>> from pathlib import Path
>>> from noisytune import report
>>> from noisytune.lab.studies.judged import Reading, studies_of
>>> from noisytune.lab.studies.scores import read_scores
>>> folder = Path(tempfile.mkdtemp())
>>> rows = [f"{seed},{80 + seed % 3},{80.5 + seed % 3 + seed / 50}" for seed in range(8)]
>>> _ = (folder / "scores.csv").write_text(f"seed,plain,noisy{chr(10)}" + chr(10).join(rows))
>>> ((study, records),) = studies_of(read_scores(folder / "scores.csv", {}), "scores", Reading(margin=0.5))

>>> (row,) = report.summary_rows(study, records)
>>> row.arm, row.verdict.value, row.n, round(row.difference, 2), row.e >= row.e_needed
('noisy', 'helped', 8, 0.57, True)
>>> report.decided(study, records)
True
>>> [(one.arm, one.answer) for one in report.gate(study, records, "not-worse")]
[('noisy', 'yes')]
>>> report.verdict_sentence(study, records)[:52]
'Helped after 8 pairs: noisy raised score on scores b'
>>> found = report.findings(study, records)  # all of these at once
>>> found.rows == [row], found.notes == report.notes(study, records)
(True, True)
>>> report.scored_on(study)
'The scores are score of scores, paired by seed.'
>>> report.report_json(study, records)["schema"]
'noisytune.report'
>>> report.render_markdown(study, records).splitlines()[0]  # render_html and write_report alike, with figures
'# scores'

One page on several studies that differ in the model only, here on one:

>>> report.write_overview(folder, [(study, records, "report")], "models").name  # render_overview gives its text
'models.html'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from noisytune.errors import require

if TYPE_CHECKING:
    from noisytune.report.evidence.summary import SummaryRow, decided, summary_rows
    from noisytune.report.page.findings import findings
    from noisytune.report.page.gated import gate
    from noisytune.report.page.machine import report_json
    from noisytune.report.page.notes import notes
    from noisytune.report.page.render import render_html, render_markdown, render_overview, write_overview, write_report
    from noisytune.report.page.wording import scored_on, settings_text, verdict_sentence

__all__ = [
    "SummaryRow",
    "decided",
    "findings",
    "gate",
    "notes",
    "render_html",
    "render_markdown",
    "render_overview",
    "report_json",
    "scored_on",
    "settings_text",
    "summary_rows",
    "verdict_sentence",
    "write_overview",
    "write_report",
]

_ROOMS = {
    "SummaryRow": "evidence.summary",
    "decided": "evidence.summary",
    "findings": "page.findings",
    "gate": "page.gated",
    "notes": "page.notes",
    "render_html": "page.render",
    "render_markdown": "page.render",
    "render_overview": "page.render",
    "report_json": "page.machine",
    "scored_on": "page.wording",
    "settings_text": "page.wording",
    "summary_rows": "evidence.summary",
    "verdict_sentence": "page.wording",
    "write_overview": "page.render",
    "write_report": "page.render",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for library in ("scipy", "matplotlib", "jinja2"):
        require(library, extra="report", needed_for="a report")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
