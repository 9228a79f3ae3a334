"""Rows for language models: which columns are known, what becomes of them, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks import TaskData, TaskOptions, load_task, task_from_rows

LANGUAGE = TaskOptions(kind="language")


def turns(*pairs: tuple[str, str], role: str = "role", content: str = "content") -> list[dict[str, str]]:
    return [{role: who, content: text} for who, text in pairs]


def rows(n: int = 10, **cells: Any) -> list[dict[str, Any]]:
    return [{name: cell(i) for name, cell in cells.items()} for i in range(n)]


def example(task: TaskData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    found = dict(zip(task.train.texts + task.dev.texts, task.train.targets + task.dev.targets, strict=True))
    texts = next(texts for texts in found if "q0" in texts[0])
    return texts, found[texts]


LAYOUTS: dict[str, tuple[list[dict[str, Any]], tuple[str, ...], tuple[str, ...]]] = {
    "messages": (
        rows(messages=lambda i: turns(("system", f"q{i}"), ("user", "x"), ("assistant", "y"))),
        ("q0", "x", "y"),
        ("system", "user", "assistant"),
    ),
    "sharegpt": (
        rows(conversations=lambda i: turns(("human", f"q{i}"), ("gpt", "y"), role="from", content="value")),
        ("q0", "y"),
        ("user", "assistant"),
    ),
    "prompts": (
        rows(prompt=lambda i: f"q{i}", completion=lambda i: " y"),
        ("q0", " y"),
        ("prompt", "completion"),
    ),
    "prompts of turns": (
        rows(
            prompt=lambda i: turns(("user", f"q{i}"), ("assistant", "x"), ("user", "z")),
            completion=lambda i: turns(("assistant", "y")),
        ),
        ("q0", "x", "z", "y"),
        ("user", "assistant, given", "user", "assistant"),
    ),
    "alpaca": (
        rows(instruction=lambda i: f"q{i}", input=lambda i: "x" if i == 0 else "", output=lambda i: "y"),
        ("q0\n\nx", "y"),
        ("user", "assistant"),
    ),
    "dolly": (
        rows(instruction=lambda i: f"q{i}", context=lambda i: "", response=lambda i: "y", category=lambda i: "open"),
        ("q0", "y"),
        ("user", "assistant"),
    ),
    "choices": (
        rows(prompt=lambda i: f"q{i}", choices=lambda i: ["a", "b"], answer=lambda i: 1),
        ("q0", " b"),
        ("prompt", "completion"),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_known_columns_are_recognised(layout: str, tmp_path: Path) -> None:
    given, texts, roles = LAYOUTS[layout]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, given)))
    for task in (load_task(str(tmp_path / "data.jsonl")), task_from_rows(given)):
        assert task.kind == "language"
        assert dict(zip(task.train.texts, task.train.targets, strict=True)).get(texts, roles) == roles
        if layout != "choices":
            assert example(task) == (texts, roles)
        assert len(task.train) + len(task.dev) == 10
        assert list(task.evaluate) == ["dev", "elsewhere"]


def test_parquet_and_csv_are_read_alike(tmp_path: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(LAYOUTS["prompts"][0])
    frame.to_csv(tmp_path / "data.csv", index=False)
    frame.to_parquet(tmp_path / "data.parquet")
    pd.DataFrame(LAYOUTS["messages"][0]).to_parquet(tmp_path / "chats.parquet")
    one, other = (load_task(str(tmp_path / name)) for name in ("data.csv", "data.parquet"))
    assert one.digest == other.digest
    assert load_task(str(tmp_path / "chats.parquet")).train == task_from_rows(LAYOUTS["messages"][0]).train


def test_columns_can_be_named_and_texts_asked_for() -> None:
    given = rows(question=lambda i: f"q{i}", right=lambda i: "y", text=lambda i: f"text q{i}")
    named = task_from_rows(given, TaskOptions(prompt_column="question", completion_column="right"))
    assert example(named) == (("q0", "y"), ("prompt", "completion"))
    assert task_from_rows(given, LANGUAGE).train.targets[0] == ("text",)
    answers = rows(question=lambda i: f"q{i}", answer=lambda i: "y")
    assert example(task_from_rows(answers, LANGUAGE)) == (("q0", "y"), ("prompt", "completion"))


def test_other_tasks_are_read_as_before() -> None:
    given = rows(20, text=lambda i: f"q{i}", label=lambda i: "ab"[i % 2])
    assert task_from_rows(given).kind == "classification"
    pairs = rows(20, prompt=lambda i: f"q{i}", response=lambda i: "y", label=lambda i: "ab"[i % 2])
    asked = TaskOptions(text_columns=("prompt", "response"), label_column="label")
    assert task_from_rows(pairs, asked).kind == "classification"


def test_letters_and_texts_name_the_right_choice() -> None:
    for answer in ("B", "b", 1, "1"):
        given = rows(question=lambda i: f"q{i}", choices=lambda i: ["a", "b"], answer=lambda i, a=answer: a)
        task = task_from_rows(given, LANGUAGE)
        assert task.dev.targets[0] == ("prompt", "choice", "right")
    arc = rows(
        question=lambda i: f"q{i}", choices=lambda i: {"text": ["a", "b"], "label": ["1", "2"]}, answerKey=lambda i: "1"
    )
    assert task_from_rows(arc, LANGUAGE).dev.targets[0] == ("prompt", "right", "choice")


def test_last_turns_without_an_answer_are_left_out() -> None:
    given = rows(messages=lambda i: turns(("user", f"q{i}"), ("assistant", "y"), ("user", "thanks")))
    task = task_from_rows(given)
    assert example(task)[0] == ("q0", "y")
    assert any("10 chats end with turns that nobody answers" in line for line in task.notices)


def test_rows_of_a_group_stay_together_and_the_digest_knows_it() -> None:
    given = rows(20, prompt=lambda i: f"q{i}", completion=lambda i: "y", user=lambda i: i // 4)
    task, plain = task_from_rows(given, TaskOptions(group_column="user")), task_from_rows(given)
    assert not set(task.train.groups) & set(task.dev.groups)
    assert len(task.dev) == 4
    assert task.digest != plain.digest


def test_forgetting_is_measured_on_a_text_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("one\ntwo\n\nthree\n")
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, LAYOUTS["prompts"][0])))
    given = LAYOUTS["prompts"][0]
    own = task_from_rows(given, TaskOptions(also=tmp_path / "other.txt"))
    assert own.evaluate["elsewhere"].texts == (("one\ntwo",), ("three",))
    (tmp_path / "windows.txt").write_bytes(b"one\r\ntwo\r\n \t\r\n\r\nthree\r\n")
    windows = task_from_rows(given, TaskOptions(also=tmp_path / "windows.txt"))
    assert windows.evaluate["elsewhere"].texts == own.evaluate["elsewhere"].texts
    assert len(task_from_rows(given, TaskOptions(also=tmp_path / "other.jsonl")).evaluate["elsewhere"]) == 10
    assert len({task_from_rows(given).digest, own.digest}) == 2


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "no assistant": (rows(messages=lambda i: turns(("user", "x"))), {}, "row 1: no turn of the assistant"),
    "silence": (
        rows(messages=lambda i: turns(("user", "x"), ("assistant", " "))),
        {},
        "row 1, turn 2: the assistant says nothing",
    ),
    "no turns": (rows(messages=lambda i: [] if i == 3 else turns(("assistant", "x"))), {}, "row 4: a chat is a list"),
    "no text": (rows(messages=lambda i: [{"role": "user", "content": None}]), {}, "row 1, turn 1: needs 'role'"),
    "empty": (rows(prompt=lambda i: "x", completion=lambda i: "" if i == 2 else "y"), {}, "row 3: its completion is"),
    "no such choice": (
        rows(prompt=lambda i: "x", choices=lambda i: ["a", "b"], answer=lambda i: "c"),
        {},
        "row 1: its answer 'c' is none of the 2 choices",
    ),
    "few": (rows(4, prompt=lambda i: f"x{i}", completion=lambda i: "y"), {}, "4 different texts are too few"),
    "half": (
        rows(prompt=lambda i: "x", more=lambda i: "y"),
        {"prompt_column": "prompt"},
        "which column holds the comp",
    ),
    "label": (
        rows(prompt=lambda i: "x", completion=lambda i: "y"),
        {"kind": "language", "label_column": "completion"},
        "label_column says nothing about completions",
    ),
    "no pattern": (LAYOUTS["prompts"][0], {"metric": "pattern_match"}, "give answer_pattern"),
    "bad pattern": (
        LAYOUTS["prompts"][0],
        {"metric": "pattern_match", "answer_pattern": "("},
        "is no regular expression",
    ),
    "nothing to find": (
        rows(10, prompt=lambda i: f"x{i}", completion=lambda i: "twelve" if i else "#### 12"),
        {"metric": "pattern_match", "answer_pattern": r"#### (\d+)"},
        "finds nothing in its completion 'twelve'",
    ),
    "no JSON": (
        rows(10, prompt=lambda i: f"x{i}", completion=lambda i: "{" if i else "{}"),
        {"metric": "json_match"},
        "finds no JSON object or list in its completion '{'",
    ),
    "no choices": (LAYOUTS["prompts"][0], {"metric": "choice_accuracy"}, "give choices_column"),
    "texts do not answer": (
        rows(text=lambda i: f"x{i}"),
        {"kind": "language", "metric": "exact_match"},
        "plain texts have no prompt",
    ),
    "another kind": (
        rows(20, text=lambda i: f"x{i}", label=lambda i: "ab"[i % 2]),
        {"max_new_tokens": 4},
        "max_new_tokens is for language models",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_example_is_refused_in_one_line(case: str) -> None:
    given, options, message = REFUSED[case]
    with pytest.raises((DataError, ConfigError)) as caught:
        task_from_rows(given, TaskOptions(**options))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
