"""The page as text: whole, escaped, self-contained, the same every time."""

import base64
import csv
import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib as mpl
import pytest
from support.records import synthetic

from noisytune import report
from noisytune._text import plain
from noisytune.errors import RunFolderError
from noisytune.records import StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import gather
from noisytune.report.evidence.summary import task_rows
from noisytune.report.page import figures
from noisytune.report.page.downloads import download
from noisytune.report.page.view import item_rows

Build = Callable[..., tuple[StudyRecord, list[TrialRecord]]]
HOSTILE = "<script>alert(1)</script>&\"'|`*$x$ {{ 7 * 7 }} ]]> 漢字 \x07 #010101"
VOID = {"meta", "link", "br"}
LAMBDAS = {f"λ = {v}": v for v in (0.05, 0.1, 0.2)}
CASES = {
    "five": {},
    "hostile": {
        "gains": {HOSTILE: [0.5, 1.0, -0.2, 0.4, 0.3]},
        "tasks": (HOSTILE,),
        "name": HOSTILE,
        "baseline": "b" + HOSTILE,
        "model": HOSTILE,
        "status": {("b" + HOSTILE, 1): "collapsed", (HOSTILE, 3): "diverged"},
    },
    "one seed": {"gains": {"noisy": [0.5]}},
    "no pair": {"missing": [("λ = 0.15", seed) for seed in range(5)]},
    "nothing done": {"missing": [(arm, seed) for arm in ("baseline", "λ = 0.15") for seed in range(5)]},
    "baseline only": {"gains": {}, "lambdas": {}},
    "running": {"missing": [("λ = 0.15", 3), ("baseline", 4)]},
    "lambdas": {"gains": {arm: [0.3, -0.1, v * 9, 0.4, 0.2, 0.1] for arm, v in LAMBDAS.items()}, "lambdas": LAMBDAS},
    "tasks": {"tasks": ("CoLA", "RTE"), "gains": {"noisy": [0.5, 1.0, 0.2]}},
    "regression": {"kind": "regression", "metric": "pearson", "status": {("λ = 0.15", 2): "collapsed"}},
    "all equal": {"gains": {"noisy": [0.0] * 6}},
    "forty seeds": {"gains": {"noisy": [0.1 * (i % 7) for i in range(40)]}, "dev_size": 200},
}


class Reader(HTMLParser):
    """Checks nesting; gathers visible text, element names and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href"):
                self.links.append(value or "")
            assert not name.startswith("on")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, build: Build) -> tuple[StudyRecord, list[TrialRecord], str]:
    study, records = build(**CASES[request.param])
    return study, records, report.render_html(study, records)


def test_whole_escaped_and_self_contained(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    study, records, page = case
    reader = read(page)
    assert len(reader.ids) == len(set(reader.ids))
    assert all(link.startswith(("data:,", "data:text/csv")) or link[1:] in reader.ids for link in reader.links)
    assert not re.search(r"https?://|url\((?!#)|@import", page)
    assert "nan" not in re.findall(r"[a-z]+", " ".join(reader.words))
    assert "inf" not in re.findall(r"[a-z]+", " ".join(reader.words))
    assert study.name.split()[0] in " ".join(reader.words)
    said = " ".join(" ".join(reader.words).replace("\u00a0", " ").split())
    for part in plain(report.verdict_sentence(study, records)).split(": ", 1):
        assert " ".join(part.split()) in said


def test_one_script_runs_the_pages_own(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", case[2], flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:" in case[2]


def downloads(page: str) -> dict[str, list[dict[str, str]]]:
    """The files that a page holds."""
    found = re.findall(r'<a download="([^"]*)" href="data:text/csv;charset=utf-8,([^"]*)"', page)
    return {name: list(csv.DictReader(unquote(unescape(text)).splitlines())) for name, text in found}


def test_every_figure_has_its_numbers(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    study, records, page = case
    assert page.count("<figure ") == page.count("<a download=")
    files = downloads(page)
    evidence = gather(study, records)
    pairs = [(c, p) for c in evidence.comparisons for p in c.pairs]
    assert len(files.get("pairs.csv", [])) == len(pairs)
    for line, (c, p) in zip(files.get("pairs.csv", []), pairs, strict=True):
        assert (line["task"], line["arm"], int(line["seed"])) == (plain(c.task["name"]), plain(c.arm), p.seed)
        assert float(line["difference"]) == pytest.approx(p.difference, abs=1e-4)
    for line in files.get("differences.csv", []):
        (row,) = (
            r
            for r in report.summary_rows(study, records)
            if (plain(r.task), plain(r.arm)) == (line["task"], line["arm"])
        )
        assert float(line["difference"]) == pytest.approx(row.difference, rel=1e-5)
        assert line["verdict"] == row.verdict.value
    for line in files.get("loss.csv", []):
        assert float(line["loss"]) > 0


def test_small_figures_make_one_grid(build: Build) -> None:
    tasks = [f"task {i}" for i in range(12)]
    page = report.render_html(*build(gains={"noisy": [0.5, 1.0]}, tasks=tasks))
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles.count("Seed by seed") == titles.count("Training loss") == 1
    assert page.count('id="slope-') >= 12
    assert page.count("Each line is a pair.") == 1


def test_contents_lead_to_every_part(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    (nav,) = re.findall(r"<nav.*?</nav>", case[2], flags=re.DOTALL)
    led = re.findall(r'href="#([^"]*)">([^<]*)<', nav)
    assert [title for _, title in led] == re.findall(r"<h2>(.*?)</h2>", case[2])
    assert all(f'<div id="{place}">' in case[2] for place, _ in led)


def test_a_models_page_leads_to_that_of_all(build: Build, tmp_path: Path) -> None:
    page = report.write_report(tmp_path, *build(), name="one", overview="all of them")
    assert '<a href="all%20of%20them.html">All models</a>' in page.read_text(encoding="utf-8")


def test_figures_are_well_formed_and_take_the_pages_colours(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    for text in re.findall(r"<svg.*?</svg>", case[2], flags=re.DOTALL):
        root = ElementTree.fromstring(text)
        assert root.get("viewBox", "").startswith("0 0 360 ")
        assert root.findtext("title")
        assert root.findtext("desc")
        assert not re.findall(r'style="[^"]*#[0-9a-f]{6}', text)
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", text)]
        assert min(sizes) >= 10.5


def test_markdown_escapes_and_tells_the_same(case: tuple[StudyRecord, list[TrialRecord], str]) -> None:
    study, records, _ = case
    text = report.render_markdown(study, records)
    assert "<script" not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for line in tables:
        assert len(re.findall(r"(?<!\\)\|", line)) in (5, 7, 8, 15)
    for row in report.summary_rows(study, records):
        assert row.verdict.value in text


def test_rendering_twice_gives_the_same_text(build: Build) -> None:
    study, records = build(**CASES["lambdas"])
    page = report.render_html(study, records)
    assert page == report.render_html(study, list(reversed(records)))


def test_matplotlib_is_left_as_it_was(build: Build) -> None:
    before = dict(mpl.rcParams)
    report.render_html(*build())
    assert dict(mpl.rcParams) == before


def test_page_says_what_is_missing_and_what_went_wrong(build: Build) -> None:
    study, records = build(missing=[("λ = 0.15", 4)], status={("λ = 0.15", 1): "collapsed"})
    words = " ".join(read(report.render_html(study, records)).words)
    assert "9 of 10 trials, still running or stopped" in words
    assert "4 (1 collapsed)" in words
    assert "4 (1 collapsed)" in report.render_markdown(study, records)
    assert "select last, protocol paper" in words
    assert "select last, protocol paper" in report.render_markdown(study, records)
    assert "not done" in words


def test_a_further_dev_set_is_shown_beside_the_score(build: Build) -> None:
    study, records = build()
    further = {"dev": {"status": "ok", "scores": {}}, "mismatched": {"status": "ok", "scores": {"accuracy": 0.1234}}}
    more = [replace(record, evaluations=further) for record in records]
    assert "(mismatched 12.34)" in " ".join(read(report.render_html(study, more)).words)
    assert "(mismatched 12.34)" in report.render_markdown(study, more)
    assert [row.difference for row in task_rows(gather(study, more))] == [
        row.difference for row in task_rows(gather(study, records))
    ]


def test_forest_marks_an_interval_that_runs_on(build: Build) -> None:
    evidence = gather(*build({"noisy": [0.5, 1.0, 0.2]}))
    row = task_rows(evidence)[0]
    differences = [evidence.comparisons[0].differences]
    assert "unbounded" in figures.forest(figures.Lines([row], differences, 1.0), 0, 1)


@pytest.mark.parametrize(("arms", "says"), [(4, ""), (5, "3 of 4 comparisons; every one is below.")])
def test_the_first_figure_says_where_it_has_not_every_arm(arms: int, says: str) -> None:
    page = report.render_html(*synthetic(arms=arms, seeds=8))
    assert ("comparisons; every one is below." in page) == bool(says)
    assert says in page


def test_item_level_only_where_the_metric_can_be_recomputed(build: Build) -> None:
    (row,) = item_rows(gather(*build()))
    assert row.bootstrap is not None
    assert [seed for seed, _ in row.seeds] == [0, 1, 2, 3, 4]
    study, records = build()
    study.tasks[0]["metric"] = "bleu"
    for record in records:
        record.scores["bleu"] = 0.3
    (row,) = item_rows(gather(study, records))
    assert row.bootstrap is None
    assert "bleu" in row.why_not
    study.tasks[0]["metric"] = "macro_f1"
    for record in records:
        record.scores["macro_f1"] = 0.3 if record.arm == "baseline" else 0.9
    (row,) = item_rows(gather(study, records))
    assert row.bootstrap is None
    assert "differs from the recorded" in row.why_not


def test_item_level_says_when_a_diverged_run_has_no_predictions(build: Build) -> None:
    (row,) = item_rows(gather(*build(status={("λ = 0.15", 3): "diverged"})))
    assert row.why_not == "only 4 of 5 pairs have predictions on the same examples"
    assert [seed for seed, _ in row.seeds] == [0, 1, 2, 4]


def test_write_report_replaces_whole_files(build: Build, tmp_path: Path) -> None:
    study, records = build()
    page = report.write_report(tmp_path, study, records[:4])
    report.write_report(tmp_path, study, iter(records))
    assert page.read_text(encoding="utf-8") == report.render_html(study, records)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]


def test_a_folder_that_cannot_be_written(build: Build, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="cannot write the report"):
        report.write_report(tmp_path / "gone", *build())


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = report.nothing_here


def test_no_cell_of_a_download_is_a_formula() -> None:
    (line,) = unquote(download("d", [], [['=HYPERLINK("http://x")', "-1", -1.5]]).url).splitlines()[1:]
    assert next(csv.reader([line])) == ['\'=HYPERLINK("http://x")', "'-1", "-1.5"]
