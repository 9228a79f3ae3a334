"""What was noticed about the data: counts against a count by hand, the first line, and nothing in the digest."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.errors import ConfigError
from noisytune.lab.tasks import TaskOptions, described, load_task, task_from_rows

sizes = st.dictionaries(st.sampled_from(["good", "bad", "so-so", "odd"]), st.integers(3, 40), min_size=2)


def rows_of(counts):
    return [
        {"text": f"{name} {'word ' * (i % 5)}{i}", "label": name} for name, size in counts.items() for i in range(size)
    ]


@settings(max_examples=25)
@given(sizes, st.integers(0, 3), st.integers(0, 3), st.integers(0, 2))
def test_every_row_is_accounted_for(counts, without_text, without_label, repeats):
    rows = rows_of(counts)
    given_rows = [
        *rows,
        *rows[:repeats],
        *[{"text": " ", "label": "good"}] * without_text,
        *[{"text": "x"}] * without_label,
    ]
    task = task_from_rows(given_rows)
    facts = json.loads(json.dumps(task.facts))
    left_out = {item["reason"]: item["rows"] for item in facts["left_out"]}
    assert facts["rows"] == [{"source": "rows", "rows": len(given_rows)}]
    assert left_out.get("no text", 0) == without_text
    assert left_out.get("no label", 0) == without_label
    assert facts.get("repeated", 0) == repeats
    assert sum(facts["examples"].values()) + sum(left_out.values()) == len(given_rows)
    assert facts["split_off"] == facts["examples"]["dev"]
    told = {c["name"]: c["train"] + c["dev"] for c in facts["classes"]}
    assert told == Counter(row["label"] for row in [*rows, *rows[:repeats]])
    assert facts["majority"] == task.majority
    texts = [text for (text,) in task.train.texts]
    assert facts["lengths"]["train"]["characters"]["largest"] == max(map(len, texts))
    assert facts["lengths"]["train"]["words"]["mean"] == pytest.approx(
        sum(len(t.split()) for t in texts) / len(texts), abs=0.01
    )
    assert replace(task, facts={}).digest == task.digest


def test_the_first_line_says_what_the_task_was_taken_for():
    task = task_from_rows(rows_of({"good": 60, "bad": 20}), name="reviews")
    assert task.notices[0] == (
        "reviews: classification, 64 train and 16 dev examples, 2 classes "
        "(bad 16 + 4, good 48 + 12; the largest is 75.0 % of dev)"
    )
    many = task_from_rows(rows_of({f"c{i:02d}": 5 + (i == 7) * 50 for i in range(30)}), name="intents")
    assert "30 classes (from c07 " in many.notices[0]
    assert len(many.notices[0]) < 160
    values = task_from_rows([{"text": f"t{i}", "score": i / 10} for i in range(50)], name="sts")
    assert values.notices[0].startswith("sts: regression, 40 train and 10 dev examples, values 0")
    assert (
        load_task("topics")
        .notices[0]
        .startswith("topics: classification, 265 train and 330 dev examples, 5 classes (ai ")
    )


def test_facts_are_those_of_the_part_that_is_used():
    task = task_from_rows(rows_of({"good": 60, "bad": 20}), TaskOptions(train_size=8, dev_size=4))
    assert task.facts["examples"] == {"train": 8, "dev": 4}
    assert sum(c["train"] for c in task.facts["classes"]) == 8
    smaller = described(replace(task, train=task.train.take(range(3))))
    assert smaller.facts["examples"]["train"] == 3


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"good": 90, "bad": 10}, True),
        ({"good": 60, "bad": 40}, False),
        ({"a": 70, "b": 20, "c": 10}, True),
        ({"a": 40, "b": 30, "c": 30}, False),
    ],
)
def test_accuracy_on_an_unbalanced_task_is_noticed(counts, told):
    def notices(**options):
        return [
            notice for notice in task_from_rows(rows_of(counts), TaskOptions(**options)).notices if "macro_f1" in notice
        ]

    assert bool(notices()) == told
    assert not notices(metric="macro_f1")
    assert not notices(metric="accuracy")


def test_a_metric_that_does_not_fit_names_those_that_do():
    rows = rows_of({"a": 20, "b": 20, "c": 20})
    with pytest.raises(
        ConfigError, match=r"f1 does not fit .*3 classes.*metric=accuracy or metric=macro_f1 or metric=matthews$"
    ):
        task_from_rows(rows, TaskOptions(metric="f1"))
    with pytest.raises(ConfigError, match=r"pearson does not fit .*choose metric=accuracy"):
        load_task("topics", TaskOptions(metric="pearson"))
