"""Rows in memory: the same task from every container, and as from a file."""

from __future__ import annotations

import json

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks import TaskOptions, load_task, task_from_rows

ROWS = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad", "so-so") for i in range(12)]


class Series:
    """As much of a polars column as is asked for."""

    def __init__(self, cells):
        self.cells = cells

    def to_list(self):
        return list(self.cells)


class Frame:
    """As much of a polars frame as is asked for."""

    def __init__(self, columns):
        self._columns = columns

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return Series(self._columns[name])


COLUMNS = {name: [row[name] for row in ROWS] for name in ("text", "label")}
SAME = {
    "dicts": ROWS,
    "a generator": (dict(row) for row in ROWS),
    "tuples": [(row["text"], row["label"]) for row in ROWS],
    "lists": [[row["text"], row["label"]] for row in ROWS],
    "columns": COLUMNS,
    "columns of arrays": {name: np.array(cells) for name, cells in COLUMNS.items()},
    "pandas": pd.DataFrame(ROWS),
    "pandas, categories": pd.DataFrame(ROWS).astype({"label": "category"}),
    "polars' interface": Frame(COLUMNS),
    "arrow": pa.table(COLUMNS),
    "datasets": datasets.Dataset.from_list(ROWS),
    "datasets, class ids": datasets.Dataset.from_list(ROWS).class_encode_column("label"),
}


@pytest.mark.parametrize("case", SAME)
def test_every_container_gives_the_task_of_the_file(case, tmp_path):
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    options = TaskOptions(train_size=9)
    task = task_from_rows(SAME[case], options, name="reviews")
    assert task.digest == load_task(str(file), options).digest
    assert (task.name, task.labels) == ("reviews", ("bad", "good", "so-so"))
    assert not any("guessed" in notice for notice in task.notices) or case not in ("tuples", "lists")


def test_a_polars_frame():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    assert task_from_rows(polars.DataFrame(ROWS)).digest == task_from_rows(ROWS).digest


def test_pairs_and_columns_by_number():
    triples = [(f"a{i}", f"b{i}", i / 7) for i in range(40)]
    task = task_from_rows(triples, name="sts")
    assert (task.kind, task.metric) == ("regression", "pearson")
    assert {len(texts) for texts in task.train.texts} == {2}
    one = task_from_rows(triples, TaskOptions(text_columns=("1",), label_column="2"))
    assert all(text.startswith("b") for (text,) in one.train.texts)


@pytest.mark.parametrize("ids", [[2**63 + 1, 2**63 + 3], [np.int64(7), np.int64(70)], [True, False], [1.0, 0.0]])
def test_typed_labels_keep_every_digit(ids):
    rows = [{"text": f"t{i}", "label": ids[i % 2]} for i in range(40)]
    expected = {str(value).lower().removesuffix(".0") for value in ids}
    assert set(task_from_rows(rows).labels) == expected
    assert set(task_from_rows(pd.DataFrame(rows)).labels) == expected


def test_marks_of_missing_cells():
    frame = pd.DataFrame(ROWS).astype("string")
    frame.loc[0, "label"] = pd.NA
    frame.loc[1, "text"] = None
    for rows in (frame, pd.DataFrame(ROWS).assign(label=frame["label"], text=frame["text"].astype(object))):
        task = task_from_rows(rows)
        assert len(task.train) + len(task.dev) == 34
        assert [item["rows"] for item in task.facts["left_out"]] == [1, 1]
    hub = datasets.Dataset.from_dict(
        {"text": [row["text"] for row in ROWS], "label": [i % 3 - 1 for i in range(len(ROWS))]},
        features=datasets.Features(
            {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
        ),
    )
    task = task_from_rows(hub)
    assert task.labels == ("no", "yes")
    assert task.facts["left_out"] == [{"source": "rows", "reason": "no label", "rows": 12}]


def test_a_dev_set_in_memory_or_in_a_file(tmp_path):
    dev = [{"text": "new", "label": "good"}]
    task = task_from_rows(ROWS, dev=pd.DataFrame(dev))
    assert task.dev.texts == (("new",),)
    assert len(task.train) == len(ROWS)
    file = tmp_path / "dev.jsonl"
    file.write_text(json.dumps(dev[0]))
    assert task_from_rows(ROWS, TaskOptions(dev_file=file)).digest == task.digest


WRONG = {
    "nothing": ([], "rows: no rows"),
    "an empty frame": (pd.DataFrame({"text": [], "label": []}), "no rows"),
    "a path": ("reviews.csv", "rows are needed .* not a str"),
    "a number": (7, "not a int"),
    "strings": (["good", "bad"], "row 0 is not like"),
    "ragged": ([("a", "x"), ("a", "b", "x")], "row 1 is not like row 0 .3 cells"),
    "mixed": ([("a", "x"), {"text": "a"}], "row 1 is not like row 0"),
    "five cells": ([tuple("abcde")] * 9, "rows of 5 cells"),
    "one value a column": ({"text": "a", "label": "b"}, "column 'text' is one value"),
    "columns of two lengths": ({"text": ["a"], "label": []}, "columns of 0 and 1 rows"),
    "two columns of one name": (pd.DataFrame([["a", "b", "x"]], columns=["text", "text", "label"]), "called 'text'"),
    "splits": (datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}), "several splits .train."),
    "no such column": ([{"words": "a", "label": "x"}], "none is known as the text"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_makes_no_task_is_one_line(case):
    rows, message = WRONG[case]
    with pytest.raises(DataError, match=message) as caught:
        task_from_rows(rows)
    assert "\n" not in str(caught.value)


def test_settings_of_other_tasks_are_refused():
    with pytest.raises(ConfigError, match="language is not for rows"):
        task_from_rows(ROWS, TaskOptions(language="german"))
    with pytest.raises(ConfigError, match="no metric 'bleu'"):
        task_from_rows(ROWS, TaskOptions(metric="bleu"))


TAGGED = [{"tokens": [f"w{i}", "Rome"], "ner_tags": ["O", "B-LOC"]} for i in range(10)]
TAG_FEATURES = datasets.Features(
    {
        "tokens": datasets.Sequence(datasets.Value("string")),
        "ner_tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B-LOC"])),
    }
)
TAGGED_COLUMNS = {name: [row[name] for row in TAGGED] for name in ("tokens", "ner_tags")}
SAME_TAGS = {
    "dicts": TAGGED,
    "tuples": [tuple(row.values()) for row in TAGGED],
    "columns": TAGGED_COLUMNS,
    "arrays": {name: [np.array(cell) for cell in cells] for name, cells in TAGGED_COLUMNS.items()},
    "pandas": pd.DataFrame(TAGGED),
    "arrow": pa.table(TAGGED_COLUMNS),
    "datasets": datasets.Dataset.from_list(TAGGED),
    "datasets, class ids": datasets.Dataset.from_dict(
        {"tokens": TAGGED_COLUMNS["tokens"], "ner_tags": [[0, 1]] * 10}, features=TAG_FEATURES
    ),
}


@pytest.mark.parametrize("asked", [{"kind": "tagging"}, {"metric": "entity_f1"}], ids=str)
@pytest.mark.parametrize("case", SAME_TAGS)
def test_sentences_from_every_container_are_those_of_the_file(case, asked, tmp_path):
    file = tmp_path / "towns.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in TAGGED))
    task = task_from_rows(SAME_TAGS[case], TaskOptions(**asked), name="towns")
    assert task.digest == load_task(str(file), TaskOptions(**asked)).digest
    assert (task.kind, task.labels, len(task.dev)) == ("tagging", ("O", "B-LOC"), 2)


def test_dev_sentences_in_memory_or_in_a_file(tmp_path):
    (tmp_path / "dev.conll").write_text("new O\nRome B-LOC\n")
    options = TaskOptions(kind="tagging")
    dev = [{"tokens": ["new", "Rome"], "ner_tags": ["O", "B-LOC"]}]
    task = task_from_rows(TAGGED, options, dev=dev)
    assert task.dev.texts == (("new", "Rome"),)
    filed = TaskOptions(kind="tagging", dev_file=tmp_path / "dev.conll")
    assert task_from_rows(TAGGED, filed).digest == task.digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ROWS, "none of ner_tags|is no list of words"),
        ([{"tokens": ["a", "b"], "tags": ["O"]}], "sentence 1: 2 tokens and 1 tags"),
        ([{"tokens": ["a"], "tags": [None]}], "'tags' is no list of words"),
        ([{"tokens": [], "tags": []}], "no words in any row"),
    ],
)
def test_rows_without_tags_are_refused_in_one_line(rows, message):
    with pytest.raises(DataError, match=message) as caught:
        task_from_rows(rows, TaskOptions(kind="tagging"))
    assert "\n" not in str(caught.value)
