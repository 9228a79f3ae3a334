"""Rows that hang together, for every kind of task that a file holds: `group_column`."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks import TaskData, TaskOptions, hold_out, load_task, task_from_rows

WORDS = ("good", "bad", "fair")
SIZE = 36


def row(kind: str, i: int) -> dict[str, Any]:
    """The i-th example: four of them come from one user, and its text says which."""
    text, word = f"{WORDS[i % 3]} number {i} of user{i // 4}", WORDS[i % 3]
    return {
        "classification": {"text": text, "label": word},
        "pairs": {"text1": text, "text2": "and", "label": word},
        "regression": {"text": text, "label": i / 4 + 0.1},
        "multilabel": {"text": text, "label": [word, "all"]},
        "tagging": {"tokens": text.split(), "tags": [f"T{i % 2}", "O", "O", "O", "O"]},
        "spans": {"question": f"{text}?", "context": text, "answers": {"text": [word], "answer_start": [0]}},
        "language": {"prompt": text, "completion": word},
    }[kind] | {"user": f"user{i // 4}"}


KINDS = ("classification", "pairs", "regression", "multilabel", "tagging", "spans", "language")


def task_of(kind: str, rows: list[dict[str, Any]], **options: Any) -> TaskData:
    asked = {"pairs": "classification"}.get(kind, kind)
    return task_from_rows(rows, TaskOptions(kind=asked, **options))


def written(texts: tuple[str, ...]) -> str:
    """The user that an example's text names."""
    return next(word.rstrip("?") for text in texts for word in text.split() if word.startswith("user"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_example_keeps_its_group_and_a_group_its_side(kind: str) -> None:
    rows = [row(kind, i) for i in range(SIZE)]
    task, plain = task_of(kind, rows, group_column="user"), task_of(kind, rows)
    for split in (task.train, task.dev):
        assert split.groups == tuple(map(written, split.texts))
        assert set(Counter(split.groups).values()) == {4}
    assert not set(task.train.groups) & set(task.dev.groups)
    assert len(task.train) + len(task.dev) == SIZE
    assert task.dev.texts
    assert plain.train.groups == plain.dev.groups == ()
    assert task.digest != plain.digest


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_dev_file_too(kind: str, tmp_path: Path) -> None:
    rows = [row(kind, i) for i in range(SIZE)]
    for name, part in (("train", rows[:28]), ("dev", rows[24:])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    asked = {"pairs": "classification"}.get(kind, kind)
    options = TaskOptions(kind=asked, group_column="user", dev_file=tmp_path / "dev.jsonl")
    task = load_task(str(tmp_path / "train.jsonl"), options)
    assert task.dev.groups == tuple(one["user"] for one in rows[24:])
    assert task.train.groups == tuple(one["user"] for one in rows[:28])


def test_rows_that_are_left_out_take_their_groups_with_them() -> None:
    rows = [row("classification", i) for i in range(SIZE)]
    rows[5]["text"], rows[9]["label"] = None, ""
    task = task_of("classification", rows, group_column="USER")
    assert len(task.train) + len(task.dev) == SIZE - 2
    for split in (task.train, task.dev):
        assert split.groups == tuple(map(written, split.texts))


def test_a_row_without_a_group_stands_for_itself() -> None:
    rows = [row("classification", i) | {"user": None if i % 2 else "one"} for i in range(SIZE)]
    task = task_of("classification", rows, group_column="user")
    sizes = Counter((*task.train.groups, *task.dev.groups))
    assert sorted(sizes.values()) == [1] * 18 + [18]


def test_the_same_text_in_two_groups_is_told() -> None:
    rows = [row("classification", i) | {"text": f"{WORDS[i % 3]} {i % 9}"} for i in range(SIZE)]
    told = task_of("classification", rows, group_column="user").notices
    assert any("dev rows have the same text as a training row" in line for line in told)
    assert any("split off as dev, stratified by class, groups whole" in line for line in told)
    assert not any("stay on its side" in line for line in told)


def test_a_column_of_a_file_of_tags(tmp_path: Path) -> None:
    lines = [[f"w{i}", "X", f"T{i % 2}", f"doc{i // 3}"] for i in range(30)]
    text = "\n\n".join("\t".join(cells) + "\nand\tX\tO\tanother" for cells in lines)
    (tmp_path / "a.conll").write_text(text.replace("\nand\tX\tO\tanother", "\nand\tX\tO\tdoc"))
    for options in ({"group_column": "3"}, {"group_column": "3", "label_column": "2"}):
        task = load_task(str(tmp_path / "a.conll"), TaskOptions(**options))
        assert set(task.labels) == {"O", "T0", "T1"}
        assert not set(task.train.groups) & set(task.dev.groups)
        assert {f"doc{int(words[0][1:]) // 3}" for words in task.dev.texts} == set(task.dev.groups)


@pytest.mark.parametrize("column", ["context", "title", "who"])
def test_questions_of_an_article(column: str, tmp_path: Path) -> None:
    def question(a: int, p: int, q: int) -> dict[str, Any]:
        return {"id": f"{a}{p}{q}", "question": f"{q}?", "who": f"w{a}", "answers": [{"text": "x", "answer_start": 0}]}

    articles = [
        {
            "title": f"article {a}",
            "paragraphs": [{"context": f"x {a} {p}", "qas": [question(a, p, q) for q in range(2)]} for p in range(2)],
        }
        for a in range(10)
    ]
    (tmp_path / "a.json").write_text(json.dumps({"data": articles}))
    task = load_task(str(tmp_path / "a.json"), TaskOptions(group_column=column))
    groups = [*task.train.groups, *task.dev.groups]
    assert len(groups) == 40
    assert len(set(groups)) == (20 if column == "context" else 10)
    assert not set(task.train.groups) & set(task.dev.groups)


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_is_not_there(kind: str) -> None:
    with pytest.raises(DataError, match=r"usr.*(user|columns are)"):
        task_of(kind, [row(kind, i) for i in range(SIZE)], group_column="usr")


@pytest.mark.parametrize("kind", KINDS)
def test_a_cell_that_names_no_group(kind: str) -> None:
    rows = [row(kind, i) | {"user": ["a"]} for i in range(SIZE)]
    with pytest.raises(DataError, match=r"(row|sentence|question) 1: its group is a list; group_column must hold one"):
        task_of(kind, rows, group_column="user")


@pytest.mark.parametrize("kind", KINDS)
def test_too_few_groups(kind: str) -> None:
    with pytest.raises(DataError, match=r"\d (different )?groups are too few to split off a dev set"):
        task_of(kind, [row(kind, i) for i in range(8)], group_column="user")


@pytest.mark.parametrize("name", ["topics", "replies", "glue/rte", "xtreme/xnli"])
def test_benchmarks_have_no_such_column(name: str) -> None:
    with pytest.raises(ConfigError, match=f"group_column can be given for files only, not for '{name}'"):
        load_task(name, TaskOptions(group_column="user"))


def test_tuples_need_their_columns_named() -> None:
    rows = [(f"{WORDS[i % 3]} {i}", WORDS[i % 3], i // 4) for i in range(SIZE)]
    task = task_from_rows(rows, TaskOptions(text_columns=("0",), label_column="1", group_column="2"))
    assert set(task.train.groups) | set(task.dev.groups) == {str(i) for i in range(9)}


def test_a_csv_by_its_name(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["text", "label", "user"])
        table.writeheader()
        table.writerows(row("classification", i) for i in range(SIZE))
    task = load_task(str(tmp_path / "a.csv"), TaskOptions(group_column="user"))
    assert task.dev.groups == tuple(map(written, task.dev.texts))


@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.data())
def test_a_tenth_that_is_held_out_has_whole_groups(groups: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2), min_size=len(groups), max_size=len(groups)))
    kept, held = hold_out(values, groups)
    assert sorted(kept + held) == list(range(len(groups)))
    if len(set(groups)) > 1:
        assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert hold_out(values, np.arange(len(groups))) == hold_out(values)
