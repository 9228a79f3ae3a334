"""What the page says of languages: by name, by the facts of the task, and never by the task's own name."""

import re
from dataclasses import replace

import pytest
from support.records import CODES, NOISY, Built, multilingual

from noisytune._text import html
from noisytune.errors import DamagedRecordError
from noisytune.records import StudyRecord
from noisytune.report import render_html, render_markdown, scored_on
from noisytune.report.evidence.pairs import gather
from noisytune.report.page.languages import languages_view

HOSTILE = "<script>alert(1)</script>|`*"


@pytest.fixture(scope="module")
def built() -> Built:
    return multilingual(tasks=("panx", "bucc", "xquad"), arms=("plain", NOISY, "noisytune(0.1)"))


def test_languages_are_written_out_and_verdicts_are_on_means_only(built: Built) -> None:
    view = languages_view(gather(*built))
    assert view is not None
    panx, bucc, xquad = view.maps
    names = [name for name, *_ in panx.rows]
    assert {"Swahili", "Chinese", "Yoruba"} <= set(names)
    assert names == sorted(names)
    assert not set(names) & set(CODES)
    assert [row.arm for row in panx.means] == list(panx.arms)
    assert xquad.parts == "F1 of answers / exact match"
    assert panx.parts == bucc.parts == ""
    page = render_html(*built)
    assert page.count(">Swahili</th>") == 3
    section = page[page.index("Language by language</h2>") : page.index("Transfer gap</h2>")]
    assert section.count('class="inconclusive"') == 6


def test_the_deepest_colour_is_the_farthest_language(built: Built) -> None:
    view = languages_view(gather(*built))
    assert view is not None
    for one in view.maps:
        shades = [shade for *_, cells in one.rows for shade in cells]
        ordered = sorted(shades, key=lambda shade: abs(shade.cell.difference))
        assert [shade.strength for shade in ordered] == sorted(shade.strength for shade in shades)
        assert all((shade.side == "good") == (shade.cell.difference > 0) for shade in shades)


def test_the_facts_of_a_task_are_on_the_page(built: Built) -> None:
    for said in (render_html(*built), render_markdown(*built)):
        assert "Setting transfer, trained on examples in English (392,702)." in said
        assert "Setting transfer, trained on examples of xtreme/xnli in English (392,702)." in said
        assert "Scored on test." in said
        assert "Not there, and left out: Afrikaans. The mean is over 39 of 40 languages." in said
        assert "Read with: layer official." in said
        assert "Chosen: layer 8." in said
        assert f"Token embeddings get no noise in {html(NOISY)}: the paper" in said.replace("\\", "")
        assert "leaves the token embeddings of multilingual models alone; noisytune(0.1) does not" in said.replace(
            "\\", ""
        )
        assert "5 pairs cannot reach p" in said
        assert "transfer" in said
    study = built[0]
    assert scored_on(study).startswith("The scores on test are")
    mixed = replace(study, tasks=[study.tasks[0], study.tasks[1] | {"facts": {}}])
    assert scored_on(mixed).startswith("The scores on test and dev are")


def test_the_name_of_a_task_decides_nothing(built: Built) -> None:
    study, records = built
    names = {task["name"]: f"mine/{i}" for i, task in enumerate(study.tasks)}
    renamed = [
        replace(r, settings=r.settings | {"task": r.settings["task"] | {"name": names[r.task]}}) for r in records
    ]
    other = replace(
        study,
        tasks=[task | {"name": names[task["name"]]} for task in study.tasks],
        trials=[entry | {"task": names[entry["task"]]} for entry in study.trials],
    )
    page, text = render_html(study, records), render_html(other, renamed)
    for task, name in names.items():
        page = page.replace(task, name)
    assert re.findall(r"Language by language</h2>.*?Trials</h2>", page, re.DOTALL) == re.findall(
        r"Language by language</h2>.*?Trials</h2>", text, re.DOTALL
    )


def test_a_language_of_a_stranger_is_text() -> None:
    study, records = multilingual(tasks=("xnli",), codes=("ar", "de", "en", "sw"))
    facts = study.tasks[0]["facts"] | {"languages": ["de", "en", HOSTILE], "setting": HOSTILE, "scored": HOSTILE}
    study = replace(study, tasks=[study.tasks[0] | {"facts": facts}])
    records = [replace(r, evaluations=r.evaluations | {HOSTILE: r.evaluations["sw"]}) for r in records]
    page = render_html(study, records)
    assert page.count("<script") == 1  # the page's own
    assert "&lt;script" in page
    assert render_markdown(study, records)


@pytest.mark.parametrize(
    "facts",
    [{"languages": "ar"}, {"languages": [1]}, {"languages_of_benchmark": "many"}, {"training_rows": {"en": "all"}}],
)
def test_facts_of_another_form_are_a_damaged_record(built: Built, facts: dict[str, object]) -> None:
    study = replace(built[0], tasks=[built[0].tasks[0] | {"facts": facts}], trials=[])
    with pytest.raises(DamagedRecordError, match="not a record that noisytune wrote"):
        StudyRecord.from_json(study.to_json(), "study.json")
    assert StudyRecord.from_json(built[0].to_json(), "study.json") == built[0]


def test_trials_list_no_score_of_each_language(built: Built) -> None:
    text = render_markdown(*built)
    line = next(line for line in text.splitlines() if line.startswith(("| xtreme/panx | plain | 0", "| xtreme/panx")))
    assert line.count("|") < 20
    assert "(dev 85.00)" in text
    assert "(ar " not in text
    assert "Class by class" not in text
    assert "Example by example" not in text
