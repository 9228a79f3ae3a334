"""The page in headless Chromium, on a phone's and on a wide screen: no console message, everything in sight."""

import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.browser import CHROMIUM, figures_are_legible, measure, opened
from support.records import NOISY, multilingual

from noisytune._paper.numbers import TASKS
from noisytune.lab.studies.file import paper_studies
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report import render_html, render_overview, verdict_sentence

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")

HOSTILE = "<script>document.title='owned'</script>&\"'" + "x" * 60
LAMBDAS = {f"λ = {v}": v for v in (0.05, 0.1, 0.15, 0.2)}
CASES: dict[str, dict[str, Any]] = {
    "five": {},
    "running": {"missing": [("λ = 0.15", 2), ("λ = 0.15", 3), ("λ = 0.15", 4)]},
    "hostile": {
        "gains": {HOSTILE: [0.5, 1.0, -0.2, 0.4, 0.3], "two": [0.1, 0.2, 0.3, 0.1, 0.2]},
        "tasks": (HOSTILE, "short"),
        "name": HOSTILE,
        "baseline": "b" + HOSTILE,
        "model": HOSTILE,
        "status": {(HOSTILE, 3): "diverged"},
    },
    "lambdas": {"gains": {a: [0.3, -0.1, v * 9, 0.4, 0.2, 0.1, 1.0] for a, v in LAMBDAS.items()}, "lambdas": LAMBDAS},
}


@pytest.fixture(scope="module", params=list(CASES))
def case(
    request: pytest.FixtureRequest, build: Callable[..., tuple[StudyRecord, list[TrialRecord]]]
) -> tuple[StudyRecord, list[TrialRecord], str]:
    study, records = build(**CASES[request.param])
    return study, records, render_html(study, records)


@pytest.mark.parametrize("width", [400, 1400])
def test_verdict_and_figures_are_in_sight(
    case: tuple[StudyRecord, list[TrialRecord], str], width: int, tmp_path: Path
) -> None:
    study, records, page = case
    seen = measure(page, tmp_path, width)
    assert seen["width"] == width
    assert seen["page"] <= width
    assert seen["outside"] == []
    assert seen["title"] != "owned"
    assert " ".join(seen["verdict"].split()) == " ".join(verdict_sentence(study, records).split())
    left, top, right, bottom = seen["at"]
    assert 0 <= left < right <= width
    assert 0 <= top < bottom < 1200
    figures_are_legible(seen, page)


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1400, 900)])
@pytest.mark.parametrize("name", ["five", "running", "lambdas"])
def test_verdict_next_step_and_a_figure_without_scrolling(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]], name: str, width: int, height: int, tmp_path: Path
) -> None:
    seen = measure(render_html(*build(**CASES[name])), tmp_path, width)
    assert len(seen["look"]) == 3
    assert max(bottom for _, _, _, bottom in seen["look"]) <= height
    assert seen["columns"]
    assert all(abs(left) <= 1.5 for each in seen["columns"] for left in each)


SORT = """<script>
const table = [...document.querySelectorAll("table.sorts")].find((t) => t.parentNode.ariaLabel === "Trials");
const column = (name) => [...table.tHead.rows[0].cells].findIndex((c) => c.textContent === name);
const read = (name) => [...table.tBodies[0].rows].map((row) => row.cells[column(name)].textContent.trim());
const click = (name) => table.tHead.rows[0].cells[column(name)].querySelector("button").click();
const seen = [];
for (const name of ["Score", "Score", "Arm", "Seed"]) { click(name); seen.push(read(name)); }
document.title = JSON.stringify(seen);
</script>"""


def test_trials_are_sorted_by_a_click_on_a_heading(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]], tmp_path: Path
) -> None:
    page = render_html(*build(status={("λ = 0.15", 2): "diverged"}))
    dom, log = opened(page, tmp_path)
    assert dom.count("<button>") > 20  # by the page's script, under the page's own policy
    assert "CONSOLE" not in log
    allowed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    dom, log = opened(allowed.replace("</body>", SORT + "</body>"), tmp_path)
    assert "CONSOLE" not in log
    title = re.search(r"<title>(.*?)</title>", dom, flags=re.DOTALL)
    assert title is not None
    up, down, arms, seeds = json.loads(html.unescape(title[1]))
    scores = [float(score.split()[0]) for score in up]
    assert scores == sorted(scores)
    assert down == up[::-1]
    assert arms == sorted(arms)
    assert seeds == sorted(seeds, key=int)


PAPER = {
    "plain and noise": [("noisytune(0.15)", {})],
    "types": [
        ("noisytune(0.15)", {}),
        ("noisytune(0.15, distribution=gaussian)", {"distribution": "gaussian"}),
        ("noisytune(0.15, scale=global)", {"scale": "global"}),
        ("noisytune(0.15, distribution=gaussian, scale=global)", {"distribution": "gaussian", "scale": "global"}),
    ],
}
KINDS = ("embeddings", "layer norm", "query", "key", "value", "attention output", "feed-forward", "pooler", "head")
MODELS = ("google-bert/bert-base-uncased", "xlnet/xlnet-base-cased", HOSTILE)


def _of_the_paper(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]], arms: list[tuple[str, dict[str, str]]], model: str
) -> tuple[StudyRecord, list[TrialRecord]]:
    """All nine tasks, or few where there are many arms; one in three shares; norms from 1e-3 to 1e5 percent."""
    some = TASKS if len(arms) == 1 else ("mrpc",)
    tasks = [*(f"glue/{task}" for task in some), "glue/mrpc 10 %", "glue/mrpc 50 %"]
    gains = {arm: [0.5 + i, 1.0, -0.2, 0.4, 0.3] for i, (arm, _) in enumerate(arms)}
    study, records = build(gains=gains, tasks=tasks, baseline="plain", model=model, name="table2")
    for task in study.tasks:
        if "mrpc" in task["name"]:
            task |= {"part_of": "glue/mrpc", "train_size": {"%": 366}.get(task["name"][-1], 3668)}
    settings = dict(arms)
    for record in records:
        for method in record.settings["arm"]["methods"]:
            method |= {"scale": "matrix"} | settings[record.arm]
    norms = {k: {"elements": 9.0, "before": 1e5, "after": 1.1e5, "moved": 10.0**i / 1e3} for i, k in enumerate(KINDS)}
    return study, [replace(record, norms=norms) for record in records]


@pytest.mark.parametrize(
    "arms", [pytest.param(arms, id=name, marks=[pytest.mark.slow] * (name == "types")) for name, arms in PAPER.items()]
)
def test_pages_of_the_papers_studies_fit(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]], arms: list[tuple[str, dict[str, str]]], tmp_path: Path
) -> None:
    each = [(*_of_the_paper(build, arms, model), f"page-{i}") for i, model in enumerate(MODELS)]
    for page, width in product((render_overview(each), render_html(*each[0][:2])), (400, 1200)):
        seen = measure(page, tmp_path, width)
        assert seen["page"] <= width
        assert seen["outside"] == []
        assert seen["title"] != "owned"
        figures_are_legible(seen, page)


@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_of_forty_languages_and_three_arms_fits(width: int, tmp_path: Path) -> None:
    study, records = multilingual(tasks=("panx", "xquad"), arms=("plain", NOISY, "noisytune(0.15, scale=global)"))
    page = render_html(study, records)
    assert page.count(' style="--s: ') == 2 * 2 * 39
    seen = measure(page, tmp_path, width)
    assert seen["page"] <= width
    assert seen["outside"] == []
    figures_are_legible(seen, page)


def test_console_stays_empty_under_the_pages_own_policy(
    case: tuple[StudyRecord, list[TrialRecord], str], tmp_path: Path
) -> None:
    dom, log = opened(case[2], tmp_path)
    assert 'id="verdict"' in dom
    assert "CONSOLE" not in log


@pytest.mark.slow
@pytest.mark.parametrize("name", paper_studies())
def test_each_study_of_the_paper_end_to_end(name: str, tmp_path: Path) -> None:
    """The embedded model on an embedded task: run by name, reported, opened."""
    options = [
        "--models",
        "all-MiniLM-L6-v2",
        "--tasks",
        "topics",
        "--train-size",
        "60",
        "--seeds",
        "2",
        "--epochs",
        "1",
    ]
    command = [sys.executable, "-m", "noisytune", "reproduce", name, *options, "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    page = (tmp_path / "run" / f"{name}.html").read_text(encoding="utf-8")
    assert "How far training moved the weights" in page
    for width in (400, 1200):
        seen = measure(page, tmp_path, width)
        assert seen["page"] <= width
        assert seen["outside"] == []
        figures_are_legible(seen, page)


def test_console_messages_would_be_seen(tmp_path: Path) -> None:
    _, log = opened("<!doctype html><script>console.error('here')</script>", tmp_path)
    assert "CONSOLE" in log


def test_dark_mode_turns_ink_and_paper_around(
    build: Callable[..., tuple[StudyRecord, list[TrialRecord]]], tmp_path: Path
) -> None:
    page = render_html(*build())
    light = measure(page, tmp_path, 400)["colours"]
    dark = measure(page, tmp_path, 400, "--blink-settings=preferredColorScheme=0")["colours"]
    assert "rgb(28, 30, 34)" in light
    assert "rgb(233, 230, 224)" in dark
    assert "rgb(28, 30, 34)" not in dark
