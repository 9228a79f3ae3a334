"""XTREME from copies of the Hub's Parquet files: the same tasks as from the official download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from noisytune._languages import language_name
from noisytune.errors import DataError
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.tasks.xtreme import OFFICIAL, source
from noisytune.lab.tasks.xtreme.official import CODES_OF_THREE
from tests.support.xtreme_files import NER, NLI, POS, ROWS, WORDS, pair_rows, sentence, squad, write_xtreme

HALF = ROWS // 2
SPLITS = {"train": (ROWS, 0), "validation": (HALF, 100), "test": (HALF, 200)}


def write(root: Path, id: str, folder: str, split: str, columns: dict[str, list[Any]], names: dict[str, Any]) -> None:
    """A file as the Hub has it: numbers for classes, their names in its schema."""
    features = {"huggingface": json.dumps({"info": {"features": names}})}
    path = root / id / folder / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table(columns).replace_schema_metadata(features), path)


def pairs(root: Path, id: str, task: str, texts: tuple[str, str], names: list[str]) -> None:
    for code in OFFICIAL[task].languages:
        if code not in WORDS:
            continue
        for split, (rows, first) in SPLITS.items():
            one, other, label = zip(*pair_rows(code, task, rows, first), strict=True)
            ids = [names.index(name) for name in label]
            write(root, id, code, split, {texts[0]: one, texts[1]: other, "label": ids}, {"label": {"names": names}})


def tags(root: Path, config: Callable[[str], str], column: str, labels: tuple[str, ...]) -> None:
    names = sorted(set(labels))
    for code in WORDS:
        for split, (rows, first) in SPLITS.items():
            numbers = [[(i + place) % 8 for place in range(3 + i % 4)] for i in range(first, first + rows)]
            words = [[WORDS[code][n] for n in row] for row in numbers]
            ids = [[names.index(labels[n]) for n in row] for row in numbers]
            feature = {column: {"feature": {"names": names}}}
            write(root, "google/xtreme", config(code), split, {"tokens": words, column: ids}, feature)


def questions(root: Path, id: str, folder: str, split: str, files: dict[str, dict[str, Any]]) -> None:
    """Files of SQuAD's layout, by what stands before their ids."""
    columns: dict[str, list[Any]] = {"id": [], "question": [], "context": [], "answers": []}
    for prefix, content in files.items():
        for paragraph in content["data"][0]["paragraphs"]:
            for one in paragraph["qas"]:
                columns["id"].append(f"{prefix}{one['id']}")
                columns["question"].append(one["question"])
                columns["context"].append(paragraph["context"])
                answers = one["answers"]
                columns["answers"].append({key: [a[key] for a in answers] for key in ("text", "answer_start")})
    write(root, id, folder, split, columns, {})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "hub"
    pairs(root, "facebook/xnli", "xnli", ("premise", "hypothesis"), list(NLI))
    pairs(root, "google-research-datasets/paws-x", "pawsx", ("sentence1", "sentence2"), ["0", "1"])
    tags(root, lambda code: f"udpos.{language_name(code)}", "pos_tags", POS)
    tags(root, lambda code: f"PAN-X.{code}", "ner_tags", NER)
    for code in ("de", "ru", "zh"):
        mine, english = ([sentence(one, i) for i in range(30)] for one in (code, "en"))
        sides = {"source_sentence": mine, "target_sentence": english}
        write(root, "google/xtreme", f"tatoeba.{CODES_OF_THREE[code]}", "validation", sides, {})
    for split, (rows, first) in list(SPLITS.items())[:2]:
        questions(root, "rajpurkar/squad", "plain_text", split, {"": squad("en", rows, first)})
    for code in WORDS:
        questions(root, "google/xquad", f"xquad.{code}", "validation", {"": squad(code, HALF, 200)})
        if code != "ru":
            for split, first in (("validation", 100), ("test", 200)):
                questions(root, "facebook/mlqa", f"mlqa.{code}.{code}", split, {"": squad(code, HALF, first)})
    tydiqa = "google-research-datasets/tydiqa"
    both = {"english-": squad("en", HALF, 200), "russian-": squad("ru", HALF, 200)}
    questions(root, tydiqa, "secondary_task", "train", {"english-": squad("en", ROWS), "russian-": squad("ru", ROWS)})
    questions(root, tydiqa, "secondary_task", "validation", both)

    def fetched(what: str, id: str, instead: str, **settings: Any) -> Path:
        assert settings["repo_type"] == "dataset"
        assert all(pattern.endswith("-*.parquet") for pattern in settings["allow_patterns"])
        return root / id

    monkeypatch.setattr(source, "fetch", fetched)
    return root


@pytest.mark.parametrize("name", [name for name in OFFICIAL if name != "bucc"])
def test_the_hub_gives_the_same_as_the_download(name: str, hub: Path, tmp_path: Path) -> None:
    # TyDiQA has all its languages in one file, of which two are written here.
    asked = ("en", "ru") if name == "tydiqa" else ()
    local = load_task(f"xtreme/{name}", TaskOptions(data_dir=write_xtreme(tmp_path / "download"), languages=asked))
    task = load_task(f"xtreme/{name}", TaskOptions(languages=asked))
    assert task.evaluate == local.evaluate
    assert task.digest == local.digest
    assert task.facts["languages"] == local.facts["languages"]


def test_the_hub_has_training_examples_of_other_languages_for_some(hub: Path) -> None:
    for name in ("xnli", "panx"):
        task = load_task(f"xtreme/{name}", TaskOptions(setting="translate-train-all", languages=("de", "zh")))
        assert task.facts["training_rows"] == {"en": ROWS, "de": ROWS, "zh": ROWS}
    with pytest.raises(DataError, match="setting=transfer needs none"):
        load_task("xtreme/xquad", TaskOptions(setting="translate-train-all"))


def test_bucc_needs_its_files(hub: Path) -> None:
    with pytest.raises(DataError, match=r"gold pairs of bucc18 alone.*give the official download as data_dir"):
        load_task("xtreme/bucc")


def test_a_column_that_is_missing_is_one_line(hub: Path) -> None:
    file = hub / "facebook/xnli" / "de" / "test-00000-of-00001.parquet"
    pa.parquet.write_table(pa.table({"premise": ["a"], "label": [0]}), file)
    with pytest.raises(DataError, match="no columns premise and hypothesis; the columns are premise, label"):
        load_task("xtreme/xnli")
