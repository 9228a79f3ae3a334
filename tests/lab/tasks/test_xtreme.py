"""XTREME from files in the official layout: every language in its place, one clear line for what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisytune._languages import LANGUAGES, language_name
from noisytune.errors import ConfigError, DataError, NoisyTuneError, NotFoundError
from noisytune.lab.tasks import TASKS, TaskData, TaskOptions, load_task, load_tasks
from noisytune.lab.tasks.xtreme import OFFICIAL
from noisytune.lab.tasks.xtreme.gather import named
from noisytune.lab.tasks.xtreme.official import DEV, TEST, TRAIN, TRANSLATED
from noisytune.lab.tasks.xtreme.pairs import read_pairs
from noisytune.lab.tasks.xtreme.questions import read_squad
from noisytune.lab.tasks.xtreme.tags import read_tags
from tests.support.xtreme_files import ROWS, WORDS, pair_rows, write_xtreme

REAL = Path(__file__).parents[4] / "shared" / "data" / "xtreme"
NAMES = [name for name in OFFICIAL if f"xtreme/{name}" in TASKS]
NLI = OFFICIAL["xnli"].labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_xtreme(tmp_path / "download")


def load(name: str, folder: Path, **options: Any) -> TaskData:
    return load_task(f"xtreme/{name}", TaskOptions(data_dir=folder, **options))


def test_the_table_of_facts_is_whole() -> None:
    assert {code for task in OFFICIAL.values() for code in task.languages} == set(LANGUAGES)
    sizes = {"xnli": 15, "pawsx": 7, "udpos": 33, "panx": 40, "bucc": 4, "tatoeba": 36, "xquad": 11, "mlqa": 7}
    assert {name: len(task.languages) for name, task in OFFICIAL.items()} == sizes | {"tydiqa": 9}
    assert sum(OFFICIAL["tydiqa"].rows[TEST].values()) == 5_077  # type: ignore[arg-type]
    for task in OFFICIAL.values():
        assert set(task.files) == set(task.rows)
        assert TRAIN in task.rows or task.trained_on
        assert "en" not in task.rows.get(TRANSLATED, {})
    assert language_name("xx") == "xx"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", ["transfer", "translate-train-all"])
def test_every_language_is_a_split_of_its_own(name: str, setting: str, data: Path) -> None:
    task = load(name, data, setting=setting)
    official = OFFICIAL[name]
    there = [code for code in official.languages if code in WORDS]
    mined = [f"dev-{code}" for code in there] if name == "bucc" else []
    assert [split for split in task.evaluate if split != "dev"] == [*there, *mined]
    assert task.primary == tuple(there)
    assert ("dev" in task.evaluate) == ("en" in official.rows.get(DEV, {}))
    assert task.select == ("dev" if "dev" in task.evaluate else "en" if "en" in there else there[0])
    facts = task.facts
    assert (facts["category"], facts["setting"], facts["languages"]) == (official.category, setting, there)
    assert facts["missing_languages"] == [code for code in official.languages if code not in WORDS]
    assert facts["languages_of_benchmark"] == len(official.languages)
    others = [code for code in ("de", "ru", "zh") if official.trained_on == "xnli" or code in there]
    trained = ["en", *others] if setting != "transfer" else ["en"]
    assert facts["training_rows"] == dict.fromkeys(trained, ROWS)
    assert len(task.train) == ROWS * len(trained)
    assert all(len(row["digest"]) == 16 for row in facts["rows"])
    assert any("train" in row["source"] for row in facts["rows"])
    notices = " | ".join(task.notices)
    assert f"the score is the mean of {len(there)} of {len(official.languages)} languages" in notices
    assert "Spanish (es)" in notices or "es" not in official.languages
    assert (f"trained on English and {named(others[:1])}" in notices) == (setting != "transfer")


def test_mlqa_alone_says_its_language() -> None:
    assert [name for name, task in OFFICIAL.items() if task.by_language] == ["mlqa"]


def test_pairs_are_read_as_the_official_code_reads_them(data: Path) -> None:
    task = load("xnli", data)
    rows = pair_rows("de", "xnli", ROWS // 2, 200)
    assert task.evaluate["de"].texts == tuple((one, other) for one, other, _ in rows)
    assert [task.labels[int(target)] for target in task.evaluate["de"].targets] == [label for *_, label in rows]
    file = data / "xnli" / "test-de.tsv"
    lines = ['"Nein", sagte er\t""\tcontradictory', "\tleer\tneutral", "a\tb\t0"]
    file.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    part = read_pairs(file, NLI, "de", train=False)
    assert part.split is not None
    assert part.split.texts == (('"Nein", sagte er', '""'), ("", "leer"), ("a", "b"))
    assert part.split.targets == (2.0, 1.0, 0.0)
    assert part.notices == (
        "test-de.tsv: 1 rows have a blank sentence (the first: line 2); they stay, as in the official code",
    )


def test_translations_are_the_third_and_fourth_cell(data: Path) -> None:
    file = data / "xtreme_translations" / "XNLI" / "translate-train" / "en-zh-translated.tsv"
    part = read_pairs(file, NLI, "zh", train=False)
    assert part.split is not None
    assert part.split.texts == tuple((one, other) for one, other, _ in pair_rows("zh", "xnli", ROWS))
    assert set(part.split.targets) == {0.0, 1.0, 2.0}


def test_raw_panx_words_lose_their_language(tmp_path: Path) -> None:
    file = tmp_path / "train-de.tsv"
    file.write_text("de:Berlin\tB-LOC\nde::\tO\n\nde:Rom\tB-LOC\n\n", encoding="utf-8")
    part = read_tags(file, OFFICIAL["panx"].labels, "de", train=False)
    assert part.split is not None
    assert part.split.texts == (("Berlin", ":"), ("Rom",))
    file.write_text("de:Berlin\tB-LOC\nRom\tB-LOC\n", encoding="utf-8")
    kept = read_tags(file, OFFICIAL["panx"].labels, "de", train=False)
    assert kept.split is not None
    assert kept.split.texts == (("de:Berlin", "Rom"),)


def test_words_without_a_tag_are_told(tmp_path: Path) -> None:
    file = tmp_path / "dev-ta.tsv"
    file.write_text("a\tNOUN\nb\nc\t_\n\tADJ\n \t \nd\u2028e\tX\n", encoding="utf-8")
    part = read_tags(file, OFFICIAL["udpos"].labels, "ta", train=False)
    assert part.split is not None
    assert part.split.texts == (("a", "b", "c"), ("d\u2028e",))
    assert part.notices == (
        "dev-ta.tsv: 2 words have no tag (the first: line 2); they are read as X, as in the official code",
        "dev-ta.tsv: 1 tags have no word (the first: line 4); they are left out",
    )


def test_an_answer_that_is_not_in_its_context_is_told(tmp_path: Path) -> None:
    file = tmp_path / "squad.json"
    asked = '{"id": "q%d", "question": "who?", "answers": [{"answer_start": %d, "text": "%s"}]}'
    qas = ", ".join(asked % one for one in ((1, 1, "bc"), (2, 0, "xy")))
    file.write_text(f'{{"data": [{{"paragraphs": [{{"context": "abcd", "qas": [{qas}]}}]}}]}}', encoding="utf-8")
    trained, scored = (read_squad(file, (), "en", train) for train in (True, False))
    assert trained.split is not None
    assert scored.split is not None
    assert (trained.rows, len(trained.split), len(scored.split)) == (2, 1, 2)
    assert "answer not in their context (the first: 'xy' of question 'q2'): left out" in trained.notices[0]
    assert "they are scored all the same" in scored.notices[0]


def test_languages_that_are_asked_for(data: Path) -> None:
    task = load("xnli", data, languages="zh, de,fr,ko")
    assert list(task.evaluate) == ["dev", "de", "zh"]
    assert task.facts["missing_languages"] == ["fr"]
    assert "xtreme/xnli: not in Korean (ko)" in task.notices
    assert "xtreme/xnli: no test file of French (fr): left out" in task.notices
    mixed = load("xnli", data, languages="de", setting="translate-train-all")
    assert mixed.facts["training_rows"] == {"en": ROWS, "de": ROWS}


def test_dev_can_be_scored_instead(data: Path) -> None:
    task = load("xnli", data, scored_split="dev")
    assert list(task.evaluate) == ["de", "en", "ru", "zh"]
    assert task.select == "en"
    assert task.dev.texts == load("xnli", data).dev.texts
    assert list(load("xnli", data, scored_split="dev", languages="de").evaluate) == ["dev", "de"]


def test_the_release_without_labels_is_recognised(tmp_path: Path) -> None:
    folder = write_xtreme(tmp_path, labels=False)
    for name in NAMES:
        with pytest.raises(DataError, match="no labels, as in XTREME's own release, so nothing to score") as caught:
            load(name, folder)
        assert "\n" not in str(caught.value)
        other = len(OFFICIAL[name].rows.get(DEV, {})) > 1
        assert ("scored_split=dev" in str(caught.value)) == other
        if other:
            assert load(name, folder, scored_split="dev").facts["scored"] == "dev"
    rows = ["\t".join(row) for row in pair_rows("de", "xnli", 3)]
    (tmp_path / "xnli" / "test-de.tsv").write_text("\n".join(rows), encoding="utf-8")
    told = " | ".join(load("xnli", folder).notices)
    assert "no labels in the test files of English (en), Russian (ru), Chinese (zh), as in XTREME's own" in told


def test_mixed_languages_stay_in_proportion(data: Path) -> None:
    for code, rows in (("de", 20), ("zh", 8)):
        file = data / "udpos" / f"train-{code}.tsv"
        file.write_text("".join(f"{code}{i}\tX\n\n" for i in range(rows)), encoding="utf-8")
    (data / "udpos" / "train-ru.tsv").unlink()
    taken: list[set[tuple[str, ...]]] = []
    for size, counts in ((10, {"en": 3, "de": 5, "zh": 2}), (20, {"en": 6, "de": 10, "zh": 4})):
        task = load("udpos", data, setting="translate-train-all", train_size=size, languages="de,en,ru,zh")
        assert task.facts["training_rows"] == counts
        assert len(task.train) == size
        taken.append(set(task.train.texts))
    assert taken[0] < taken[1]
    assert "xtreme/udpos: no training examples in Russian (ru)" in " | ".join(task.notices)
    assert load("udpos", data, train_size=5).facts["training_rows"] == {"en": 5}


def test_a_training_is_shared_whatever_parts_are_taken(data: Path) -> None:
    sizes = {"train_size": 8, "dev_size": 3, "split_seed": 4}
    xnli, tatoeba, bucc = (load(name, data, **sizes) for name in ("xnli", "tatoeba", "bucc"))
    assert len({task.training_digest for task in (xnli, tatoeba, bucc)}) == 1
    assert tatoeba.evaluate == load("tatoeba", data).evaluate
    assert "xtreme/tatoeba: dev_size takes no part of it, all sentences are searched" in tatoeba.notices
    assert (
        load("xquad", data, **sizes).training_digest == load("mlqa", data, languages="de,en", **sizes).training_digest
    )


def test_other_numbers_of_rows_are_told(data: Path) -> None:
    told = " | ".join(load("xnli", data).notices)
    assert "other numbers of rows than the official ones: xnli/test-de.tsv 6 of 5,010; xnli/test-en.tsv 6 of" in told
    assert "and 2 more files" in told
    (data / "udpos" / "test-yo.tsv").write_text("a\tX\n\n" * 101, encoding="utf-8")
    assert "udpos/test-yo.tsv 101 rows, officially 100" in " | ".join(load("udpos", data, languages="yo").notices)


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


WRONG: dict[str, tuple[str, dict[str, Any], Callable[[Path], object], str]] = {
    "a tab in a text": ("xnli", {}, lambda d: append(d / "xnli/test-de.tsv", "a\tb\tc\tneutral"), "line 7 has 4 cells"),
    "unknown label": ("pawsx", {}, lambda d: append(d / "pawsx/dev-en.tsv", "a\tb\t2"), r"dev-en.tsv: line 7: .*'2'"),
    "unknown tag": ("panx", {}, lambda d: append(d / "panx/test-de.tsv", "a\tB-MISC"), "'B-MISC' is unknown"),
    "cells": ("udpos", {}, lambda d: append(d / "udpos/train-en.tsv", "a\tX\tb"), "has 3 cells"),
    "no train": ("xnli", {}, lambda d: (d / "xnli/train-en.tsv").unlink(), "train-en.tsv: there is no such file"),
    "no dev": ("udpos", {}, lambda d: (d / "udpos/dev-en.tsv").unlink(), "dev-en.tsv: there is no such file"),
    "empty": ("panx", {}, lambda d: (d / "panx/test-de.tsv").write_text("\n"), "no sentence in it"),
    "no rows": ("xnli", {}, lambda d: (d / "xnli/dev-en.tsv").write_text("\n"), "dev-en.tsv: no rows"),
    "no language": ("xnli", {"languages": "ko"}, lambda d: None, r"xnli is not in Korean \(ko\); choose among ar, bg"),
    "no such language": ("xnli", {"languages": "de,xx"}, lambda d: None, "XTREME has no 'xx'; choose among af, ar"),
    "no file": ("xnli", {"languages": "fr"}, lambda d: None, "test-fr.tsv: there is no such file, nor of another"),
    "no translation": (
        "xnli",
        {"setting": "translate-train-all", "languages": "fr,de"},
        lambda d: (d / "xtreme_translations/XNLI/translate-train/en-de-translated.tsv").unlink(),
        "en-de-translated.tsv: there is no such file",
    ),
    "gold": (
        "bucc",
        {},
        lambda d: append(d / "bucc2018/zh-en.test.gold", "zh-000000099\ten-000000001"),
        r"zh-en.test.gold, line 16: the gold pair names 'zh-000000099'",
    ),
    "no id": ("bucc", {}, lambda d: append(d / "bucc2018/de-en.dev.en", "a"), "de-en.dev.en: line 31 has no tab"),
    "one side": ("tatoeba", {}, lambda d: (d / "tatoeba/de-en.en").unlink(), "de-en.en: there is no such file"),
    "lines": ("tatoeba", {}, lambda d: append(d / "tatoeba/de-en.de", "a"), "has 31 lines and .*de-en.en 30"),
    "layer": ("xnli", {"layer": 3}, lambda d: None, "layer is for the retrieval tasks"),
    "metric": ("xnli", {"metric": "pearson"}, lambda d: None, "the metric pearson does not fit"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line(wrong: str, data: Path) -> None:
    name, options, damage, said = WRONG[wrong]
    damage(data)
    with pytest.raises(NoisyTuneError, match=said) as caught:
        load(name, data, **options)
    assert "\n" not in str(caught.value)


def test_settings_of_xtreme_are_refused_elsewhere(data: Path) -> None:
    given: dict[str, Any] = {"languages": "de", "setting": "translate-train-all", "layer": "oracle"}
    for setting, value in given.items():
        with pytest.raises(ConfigError, match=f"{setting} can be given for the tasks of xtreme only, not for 'topics'"):
            load_task("topics", TaskOptions(**{setting: value}))
    with pytest.raises(ConfigError, match="layer must be official or dev or oracle or a whole number >= 0, got 'best'"):
        TaskOptions(layer="best")
    assert TaskOptions(layer="7").layer == 7
    with pytest.raises(NotFoundError, match="there is no such folder"):
        load("xnli", data / "nowhere")
    with pytest.raises(NotFoundError, match="none of XTREME's folders is in it"):
        load("xnli", data / "mlqa" / "MLQA_V1")


def test_the_folder_may_be_the_one_above_or_a_tasks_own(data: Path) -> None:
    digest = load("xnli", data).digest
    assert load("xnli", data.parent).digest == digest
    assert load("xnli", data / "xnli").digest == digest


def test_xtreme_stands_for_the_tasks_whose_files_are_there(data: Path) -> None:
    for file in (data / "panx").glob("test-*.tsv"):
        file.unlink()
    (data / "pawsx" / "train-en.tsv").unlink()
    tasks = load_tasks("xtreme", TaskOptions(data_dir=data, languages="de,en,sw"))
    assert [task.name for task in tasks] == [f"xtreme/{name}" for name in NAMES if name not in ("panx", "pawsx")]
    notice = tasks[0].notices[1]
    assert "xtreme/pawsx: no pawsx/train-en.tsv, left out" in notice
    assert "xtreme/panx: no panx/test-de.tsv (scored_split=dev scores its dev files), left out" in notice
    for file in (data / "tatoeba").glob("*.en"):
        file.write_text("".join(f"Line {i}.\n" for i in range(100, 130)), encoding="utf-8")
    fewer = load_tasks("xtreme", TaskOptions(data_dir=data, languages=("de", "en"), dev_size=3))
    assert "xtreme/tatoeba" not in [task.name for task in fewer]
    assert any("xtreme/tatoeba is left out: " in one and "no labels" in one for one in fewer[0].notices)
    every = load_tasks("xtreme", TaskOptions(data_dir=data, scored_split="dev", layer=1))
    assert [task.facts["scored"] for task in every if task.name == "xtreme/panx"] == ["dev"]


def test_what_some_tasks_of_a_list_have_is_for_those(data: Path) -> None:
    options = TaskOptions(data_dir=data, scored_split="dev")
    bucc, tatoeba = load_tasks("xtreme/bucc, xtreme/tatoeba", options)
    assert (bucc.facts["scored"], tatoeba.facts["scored"]) == ("dev", "test")
    with pytest.raises(ConfigError, match="xtreme/tatoeba has one set in each language"):
        load_tasks("xtreme/tatoeba,xtreme/xquad", options)


OTHERWISE = {
    "xnli": "xnli/train-en.tsv 9,999 of 392,702",
    "pawsx": "pawsx/train-en.tsv 8,000 of 49,401",
    "xquad": "squad/train-v1.1.json 3,696 of 87,599",
}
"""What is said of the rows of the real files: these training sets are parts, and SQuAD's is another task's."""


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmark's files are not here")
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mlqa", "tydiqa")])
def test_real_files_have_the_official_numbers_of_rows(name: str) -> None:
    part = "dev" if name in ("panx", "bucc") else None
    task = load(name, REAL, scored_split=part, train_size=100, dev_size=None if name in ("bucc", "tatoeba") else 50)
    told = [notice for notice in task.notices if "other numbers of rows" in notice]
    differ = [row["source"] for row in task.facts["rows"] if row["rows"] != row.get("official", row["rows"])]
    assert len(differ) == (name in OTHERWISE or task.trained_on is not None)
    expected = OTHERWISE.get(name, OTHERWISE["xnli"] if task.trained_on else "")
    assert [expected in notice for notice in told] == [True] * bool(expected)


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmark's files are not here")
def test_real_files_without_labels_are_recognised() -> None:
    with pytest.raises(DataError, match=r"goldp\.en\.dev\.json: no labels, as in XTREME's own release"):
        load("tydiqa", REAL)
