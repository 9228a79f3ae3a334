"""Large studies, many arms and long names: the page stays small, whole and readable."""

import re
import warnings
from dataclasses import replace

import pytest
from support.records import Built, synthetic

from noisytune.report import render_html, render_markdown
from noisytune.report.evidence import pairs
from noisytune.report.evidence.pairs import gather
from noisytune.report.page import svg
from noisytune.report.page.trial_groups import ITEM_PAIRS, first_seeds, trial_groups


def elements(page: str) -> int:
    return page.count("<")


@pytest.fixture(scope="module")
def large() -> Built:
    return synthetic(tasks=2, arms=3, seeds=110, examples=20, steps=30)


@pytest.mark.slow
def test_a_page_of_many_trials_is_no_larger_than_one_of_a_few(large: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    study, records = large
    page = render_html(study, records)
    few = render_html(*synthetic(tasks=2, arms=3, seeds=20, examples=20, steps=30))
    assert elements(page) < elements(few)
    assert f"{len(records)} of {len(records)} trials" in page
    assert "the middle half and 90 % of pairs" in page
    assert "how many seeds have which score" in page
    monkeypatch.setattr(pairs, "TRIALS_UP_TO", len(records))
    assert elements(render_html(study, records)) > 3 * elements(page)


def test_groups_are_what_the_trials_are_together(large: Built) -> None:
    evidence = gather(*large)
    groups = trial_groups(evidence)
    assert sum(group.done for group in groups) == evidence.done
    for group in groups:
        scores = [evidence.score(r) for r in evidence.trials.values() if (r.task, r.arm) == (group.task, group.arm)]
        assert (group.lowest, group.highest) == (min(scores), max(scores))
        assert group.mean == pytest.approx(sum(scores) / len(scores))
    assert sum(sum(group.failed.values()) for group in groups) == sum(r.status != "ok" for r in large[1])
    assert "| task-1 | plain | 110 of 110" in render_markdown(*large)


def test_predictions_of_the_first_seeds_only_are_looked_at(large: Built) -> None:
    study, records = large
    evidence = gather(study, records)
    looked_at = [pair.seed for c in first_seeds(evidence) for pair in c.pairs]
    assert len(looked_at) == ITEM_PAIRS
    assert set(looked_at) == set(range(ITEM_PAIRS // 4))

    class Refused(dict[str, object]):
        def __iter__(self) -> None:
            raise AssertionError("predictions of a later seed were read")

    later = [r if r.seed in looked_at else replace(r, outputs=Refused()) for r in records]  # type: ignore[arg-type]
    assert "the first 50 seeds of each comparison" in render_markdown(study, later)


def test_a_large_study_of_the_baseline_alone_is_rendered() -> None:
    study, records = synthetic(arms=1, seeds=601, examples=4, steps=2)
    assert not gather(study, records).few
    assert "| plain | 601 of 601" in render_markdown(study, records)
    assert "<html" in render_html(study, records)


def long_names(arms: int) -> Built:
    study, records = synthetic(tasks=2, arms=arms, seeds=2, examples=20, steps=10)
    names = {arm: f"{arm}, distribution=gaussian, scale=global)+recadam(t0=51)" for arm in study.arms}
    records = [replace(r, settings=r.settings | {"arm": r.settings["arm"] | {"name": names[r.arm]}}) for r in records]
    plan = [row | {"arm": names[row["arm"]]} for row in study.trials]
    return replace(study, arms=list(names.values()), trials=plan), records


def test_thirteen_arms_are_drawn_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = render_html(*long_names(13))
    assert page.count("<svg") >= 13


@pytest.mark.slow
def test_many_arms_are_drawn_without_a_warning() -> None:
    """Matplotlib warns where a legend leaves no room for the axes; warnings are errors here."""
    for arms, seeds in ((13, 1), (13, 3), (25, 2)):
        assert "<html" in render_html(*synthetic(arms=arms, seeds=seeds, examples=20, steps=10))
    assert "<html" in render_html(*long_names(13))


NAMES = ["plain", "noisytune(0.15)+recadam", *(f"noisytune(0.{i:02}, {'x' * 200})+mixout" for i in range(30))]


def test_names_in_figures_are_told_apart() -> None:
    labels = svg.told_apart(NAMES, width=26, most=3)
    assert len(set(labels)) == len(NAMES)
    assert max(len(line) for label in labels for line in label.split("\n")) <= 26
    assert max(label.count("\n") for label in labels) < 4
    assert [label.replace("\n", "") for label in labels[:2]] == NAMES[:2]


def test_every_row_of_a_figure_has_a_label_of_its_own() -> None:
    page = render_html(*long_names(4))
    forest = "".join(
        text for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL) if re.search(r"forest-\d+-title", text)
    )
    for strength in ("0.05", "0.10", "0.15"):
        assert f"noisytune({strength}" in re.sub(r"<desc.*?</desc>", "", forest, flags=re.DOTALL)
