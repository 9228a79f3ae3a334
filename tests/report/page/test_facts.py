"""What was noticed about the data stands on the page, whatever it is."""

from dataclasses import replace
from typing import Any

import pytest
from support.records import synthetic

from noisytune.report import findings, notes, render_html, render_markdown, scored_on, summary_rows, verdict_sentence
from noisytune.report.page.facts import SHOWN, about_data, text

FACTS: dict[str, Any] = {
    "rows": [{"source": "reviews.csv", "rows": 600}, {"source": "dev.csv", "rows": 90}],
    "left_out": [{"source": "reviews.csv", "reason": "no label", "rows": 38}],
    "split_off": 112,
    "lengths": {"train": {"characters": {"median": 80.0, "largest": 300}}, "dev": {"words": {"median": 8.5}}},
    "classes": [{"name": "bad", "train": 1500, "dev": 37}],
    "majority": 0.671,
    "absent_from_dev": [],
    "something new": {"a": {"b": {"c": [1, 2]}}},
}
LINES = [
    ("rows", "reviews.csv: rows 600; dev.csv: rows 90"),
    ("left out", "reviews.csv: reason no label, rows 38"),
    ("split off", "112"),
    ("lengths · train · characters", "median 80, largest 300"),
    ("lengths · dev · words", "median 8.5"),
    ("classes", "bad: train 1,500, dev 37"),
    ("majority", "67.1 % of dev is the largest class"),
    ("something new · a · b", "c 1, 2"),
]


def test_each_fact_is_a_line() -> None:
    assert about_data(FACTS) == LINES


def test_they_stand_on_both_pages_and_once() -> None:
    study, records = synthetic(seeds=2, examples=20, steps=5)
    study.tasks[0]["facts"] = FACTS
    page, lines = render_html(study, records), render_markdown(study, records)
    for term, value in LINES:
        assert f"<dt>{term}</dt><dd>{value}</dd>" in page
        assert f"- {term}: {value}" in lines
    assert page.count("<dt>majority</dt>") == 1
    assert "Data of task-0" in page


def test_a_long_list_is_cut_and_says_so() -> None:
    assert text(list(range(SHOWN + 3))).endswith("and 3 more")


@pytest.mark.parametrize("render", [render_html, render_markdown])
def test_an_untrained_run_is_flagged(render: Any) -> None:
    study, records = synthetic(seeds=3, examples=20, steps=5)
    records[1] = replace(records[1], status="untrained")
    page = render(study, records)
    assert "1 run stayed untrained: no weight moved (1 of noisytune" in page.replace("\\", "")
    assert "3 (1 untrained)" in page


def test_an_inconclusive_result_does_not_say_that_anything_changed() -> None:
    said = verdict_sentence(*synthetic(seeds=8, examples=40, steps=5))
    assert said.startswith(
        "Inconclusive after 8 pairs: no difference established. NoisyTune (λ = 0.05) differed from plain"
    )
    assert "could have detected" in said
    assert "changed" not in said


def test_findings_are_what_the_single_functions_say() -> None:
    study, records = synthetic(tasks=2, arms=3, seeds=4, examples=20, steps=5)
    found = findings(study, records)
    assert found.rows == summary_rows(study, records)
    assert found.verdict == verdict_sentence(study, records)
    assert (found.scored_on, found.notes) == (scored_on(study), notes(study, records))
