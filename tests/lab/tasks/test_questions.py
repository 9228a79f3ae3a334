"""Files of questions in the layouts that people have them, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune._pretrained import Model
from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks import TaskData, TaskOptions, load_task, task_from_rows
from noisytune.lab.tasks.questions import place, questions_of, read_questions
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import tokenise
from noisytune.lab.trials.trial import Trial

CONTEXTS = [
    f"In {year} the old house of {name} was sold, in {year}." for year, name in enumerate("ABCDEFG", start=1900)
]


def question(context: str, text: str, start: int | None = None, name: str = "q") -> dict[str, Any]:
    at = context.find(text) if start is None else start
    return {"id": name, "question": f"Which, {name}?", "answers": [{"text": text, "answer_start": at}]}


def paragraph(context: str) -> dict[str, Any]:
    return {"context": context, "qas": [question(context, context[3:7], name="when"), question(context, "old house")]}


def squad(paragraphs: list[dict[str, Any]]) -> str:
    return json.dumps({"version": "1.1", "data": [{"title": "t", "paragraphs": [one]} for one in paragraphs]})


def flat(lists: bool) -> list[dict[str, Any]]:
    rows = []
    for context in CONTEXTS:
        for one in paragraph(context)["qas"]:
            answers = {key: [answer[key] for answer in one["answers"]] for key in ("text", "answer_start")}
            rows.append({**one, "context": context, "answers": answers if lists else one["answers"]})
    return rows


def write(folder: Path, name: str, content: str) -> Path:
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def examples(task: TaskData) -> set[tuple[str, str, int, str]]:
    return {
        (asked, context, *answer)
        for split in (task.train, task.dev)
        for (asked, context), answers in zip(split.texts, split.targets, strict=True)
        for answer in answers
    }


EXPECTED = {
    (one["question"], context, context.find(one["answers"][0]["text"]), one["answers"][0]["text"])
    for context in CONTEXTS
    for one in paragraph(context)["qas"]
}


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.json", squad(list(map(paragraph, CONTEXTS))), {}),
        ("a.json", json.dumps(json.loads(squad(list(map(paragraph, CONTEXTS)))), indent=1), {"kind": "spans"}),
        ("a.json", json.dumps([{"paragraphs": list(map(paragraph, CONTEXTS))}]), {}),
        ("a.jsonl", "\n".join(map(json.dumps, flat(True))), {"kind": "spans"}),
        ("a.json", json.dumps(flat(False)), {"metric": "exact_match"}),
    ],
)
def test_every_shape_is_read(tmp_path: Path, name: str, content: str, options: dict[str, Any]) -> None:
    task = load_task(str(write(tmp_path, name, content)), TaskOptions(**options))
    assert (task.kind, task.labels, task.metric) == ("spans", (), options.get("metric", "answer_mean"))
    assert examples(task) == EXPECTED
    assert task.notices[0] == "a: spans, 12 train and 2 dev examples"
    assert not {c for _, c in task.train.texts} & {c for _, c in task.dev.texts}, "a context is on one side"
    assert task.digest == load_task(str(tmp_path / name), TaskOptions(**options)).digest


def test_rows_in_memory_and_a_dev_file(tmp_path: Path) -> None:
    dev = write(tmp_path, "dev.json", squad([paragraph(CONTEXTS[0]), paragraph("Nobody knows it, old house.")]))
    for rows in (flat(True), flat(False)):
        task = task_from_rows(rows, TaskOptions(kind="spans", dev_file=dev))
        assert (len(task.train), len(task.dev)) == (14, 4)
        assert any("1 contexts of dev are in train too" in notice for notice in task.notices)
    assert len(task_from_rows(flat(True), TaskOptions(kind="spans"), dev=flat(True)[:3]).dev) == 3


def test_answers_are_moved_to_where_they_stand(tmp_path: Path) -> None:
    context = "old house, older house, old house"
    asked = [question(context, "old house", start) for start in (0, 2, 14, 23, 99, -1)]
    asked.append(question(context, "new house", 3, "lost"))
    asked.append({"id": "none", "question": "?", "answers": []})
    asked.append({"id": "blank", "question": "?", "answers": [{"text": "", "answer_start": 0}]})
    records = [{"paragraphs": [{"context": context, "qas": asked}]}]
    found = questions_of("a.json", records)
    assert [answers[0][0] for answers in found.split.targets] == [0, 0, 24, 24, 24, 0]
    assert (found.found, found.without_answer, found.moved) == (9, 2, 5)
    assert found.ids == ("q",) * 6
    assert found.notices("a.json") == [
        "a.json: 2 of 9 questions have no answer and are left out",
        "a.json: 1 of 9 questions have their answer not in their context (the first: 'new house' of question 'lost'): "
        "left out",
        "a.json: 5 answers begin elsewhere than the file says; their nearest occurrence is taken",
    ]
    scored = questions_of("a.json", records, train=False)
    assert scored.split.targets[-1] == ((-1, "new house"),)
    assert any("scored all the same" in line for line in scored.notices("a.json"))


@given(st.text("ab ", max_size=9), st.integers(-3, 12), st.text("ab ", min_size=1, max_size=3))
def test_the_nearest_occurrence(context: str, start: int, text: str) -> None:
    found, places = place(context, start, text), [i for i in range(len(context)) if context[i:].startswith(text)]
    if not places:
        assert found == -1
    else:
        assert found in places
        assert abs(found - start) == min(abs(at - start) for at in places)


GOOD = [paragraph(context) for context in CONTEXTS]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not JSON"),
        ("{}", "has neither 'paragraphs' nor 'question'"),
        ('{"data": []}', "no question in it"),
        ('{"data": [{"title": "t"}]}', "item 1 has neither 'paragraphs' nor 'question', but title"),
        (squad([{"qas": GOOD[0]["qas"]}]), r"article 1, paragraph 1, question 1: its 'context' is missing"),
        (squad([{"context": "a"}]), r"article 1, paragraph 1: 'qas' is no list of objects"),
        (squad([GOOD[0], {"context": "a", "qas": [{"question": 3, "answers": [{"text": "a", "answer_start": 0}]}]}]),
         r"article 2, paragraph 1, question 1: its 'question' is a int"),
        (squad([{"context": "a", "qas": [{"question": "?", "answers": [{"text": "a", "answer_start": "0"}]}]}]),
         "question 1: the answer_start '0' is no whole number"),
        (squad([{"context": "a", "qas": [{"question": "?", "answers": [{"text": "a"}]}]}]), "answer_start None is no"),
        (squad([{"context": "a", "qas": [{"question": "?", "answers": "a"}]}]), "'answers' are no list of objects"),
        (squad([{"context": "a", "qas": [{"question": "?", "answers": {"text": ["a"]}}]}]), "lists of one length"),
        (squad([{"context": "a", "qas": [question("a", "b", 0)]}]), "no question has its answer in its context .*'b'"),
        (squad([{"context": "a", "qas": [question("a", "", 0)]}]), "none of its 1 questions has an answer"),
        (squad(GOOD[:4]), "4 contexts are too few"),
        ("a,b\n1,2\n", "not JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        load_task(str(write(tmp_path, "a.json", content)), TaskOptions(kind="spans"))
    assert "\n" not in str(caught.value)
    assert "a.json" in str(caught.value)


def test_other_files_and_settings_of_tables_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", squad(GOOD))
    with pytest.raises(ConfigError, match="label_column say nothing about questions"):
        load_task(str(file), TaskOptions(label_column="answers"))
    with pytest.raises(DataError, match=r"a\.csv: questions are read from JSON"):
        load_task(str(write(tmp_path, "a.csv", "a,b\n1,2\n")), TaskOptions(kind="spans"))
    with pytest.raises(DataError, match=r"none\.json: No such file"):
        read_questions(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="metric=answer_mean or metric=answer_f1 or metric=exact_match"):
        load_task(str(file), TaskOptions(metric="pearson"))


@pytest.mark.usefixtures("one_thread")
def test_a_file_is_learnt(tiny: Model, tmp_path: Path) -> None:
    """The town is the answer; some of them begin elsewhere than the file says, some have none in their context."""
    rng, paragraphs = np.random.default_rng(0), []
    for number in range(140):
        words = [str(word) for word in rng.choice(["the", "old", "house", "is", "near"], rng.integers(3, 12))]
        town = str(rng.choice(["paris", "london", "berlin"]))
        words.insert(int(rng.integers(0, len(words))), town)
        context = f"{' '.join(words)} {number}"
        asked = question(context, town, context.index(town) + (number % 5 == 0), str(number))
        asked["answers"][0]["text"] = "tokyo" if number % 50 == 49 else town
        paragraphs.append({"context": context, "qas": [asked]})
    settings = TrainingSettings(epochs=8, batch_size=16, learning_rate=5e-3, max_length=24)
    task = load_task(str(write(tmp_path, "towns.json", squad(paragraphs))))
    assert task.facts["left_out"] == [{"source": "towns.json", "reason": "no answer in the context", "rows": 2}]
    record = run_trial(Trial.resolve(tiny, task, PLAIN, 0, settings), tiny.path, tokenise(tiny.path, task, 24))
    assert record.status == "ok"
    assert record.scores["exact_match"] > 0.5


def test_tables_with_such_words_stay_tables(tmp_path: Path) -> None:
    rows = [{"text": f"{word} paragraphs {i}", "label": word} for word in ("good", "bad") for i in range(9)]
    assert load_task(str(write(tmp_path, "a.json", json.dumps(rows)))).kind == "classification"
