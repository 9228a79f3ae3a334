"""Files of tagged sentences in the shapes that people have them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from noisytune.errors import DataError
from noisytune.lab.tasks import TaskData, TaskOptions, load_task

SENTENCES = [
    [("Maria", "B-PER"), ("Curie", "I-PER"), ("lives", "O")],
    [("Peter", "B-PER"), ("saw", "O"), ("Paris", "B-LOC")],
    [("Rome", "B-LOC"), ("is", "O"), ("old", "O")],
    [("Anna", "B-PER"), ("left", "O"), ("Oslo", "B-LOC")],
    [("nothing", "O"), ("happened", "O")],
    [("Bonn", "B-LOC"), ("sleeps", "O")],
]


def conll(separator: str = " ", between: str = "") -> str:
    return "\n\n".join(
        "\n".join(separator.join([w, *([between] if between else []), t]) for w, t in s) for s in SENTENCES
    )


def read(folder: Path, name: str, content: str, **options: object) -> TaskData:
    (folder / name).write_text(content, encoding="utf-8")
    return load_task(str(folder / name), TaskOptions(**options))  # type: ignore[arg-type]


def sentences(task: TaskData) -> set[tuple[tuple[str, str], ...]]:
    splits = (task.train, task.dev)
    return {
        tuple((word, task.labels[int(tag)]) for word, tag in zip(words, tags, strict=True))
        for split in splits
        for words, tags in zip(split.texts, split.targets, strict=True)
    }


def as_json(words: str = "tokens", tags: str = "tags") -> str:
    return "\n".join(json.dumps({words: [w for w, _ in s], tags: [t for _, t in s]}) for s in SENTENCES)


@pytest.mark.parametrize(
    ("name", "content", "options"),
    [
        ("a.conll", conll(), {}),
        ("a.conll", "-DOCSTART- -X- O\n\n" + conll(between="NNP"), {}),
        ("a.txt", "# a comment\n" + conll("\t"), {"kind": "tagging"}),
        ("a.tsv", "token\ttag\n" + conll("\t") + "\n\n\n", {"kind": "tagging"}),
        ("a.tsv", conll("\t").replace("\n", "\r\n"), {"metric": "entity_f1"}),
        ("a.conll", conll("\t", "_") + "\n", {"text_columns": ("0",), "label_column": "2"}),
        ("a.jsonl", as_json(), {"kind": "tagging"}),
        ("a.jsonl", as_json("words", "ner_tags"), {"kind": "tagging"}),
        ("a.jsonl", as_json("w", "t"), {"kind": "tagging", "text_columns": ("w",), "label_column": "t"}),
    ],
)
def test_every_shape_is_read(tmp_path: Path, name: str, content: str, options: dict[str, object]) -> None:
    task = read(tmp_path, name, content, **options)
    assert (task.kind, task.metric) == ("tagging", "entity_f1")
    assert task.labels[0] == "O"
    assert sentences(task) == set(map(tuple, SENTENCES))
    assert len(task.dev) == 1
    counted = {one["name"]: one["train"] + one["dev"] for one in task.facts["classes"]}
    assert counted == {"O": 8, "B-PER": 3, "I-PER": 1, "B-LOC": 4}


def test_plain_tags_are_scored_as_such(tmp_path: Path) -> None:
    content = conll().replace("B-PER", "PROPN").replace("I-PER", "PROPN").replace("B-LOC", "NOUN")
    task = read(tmp_path, "a.conll", content)
    assert task.metric == "tag_f1"
    assert any("plain tags" in notice for notice in task.notices)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "Maria B-PER\nCurie\n", r"a\.conll: line 2 has no tag"),
        ("a.tsv", "Maria\tB-PER\nCurie\t\n", r"a\.tsv: line 2 has no tag"),
        (
            "a.jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n',
            "line 2: 2 tokens and 1",
        ),
        ("a.jsonl", '{"tokens": "a b", "tags": ["O"]}\n', "line 1: 'tokens' is no list"),
        ("a.jsonl", '{"x": 1}\n', "line 1: none of tokens"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.conll", "\n\n", "no sentence"),
        ("a.conll", "a O\n\nb O\n", "too few"),
        ("a.conll", "\n\n".join(f"a{i} O" for i in range(9)), "every word has the tag 'O'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, name: str, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, name, content, kind="tagging")
    assert "\n" not in str(caught.value)


def test_a_tag_that_only_dev_has_is_told(tmp_path: Path) -> None:
    (tmp_path / "dev.conll").write_text("Maria B-NEW\nlives O\n")
    task = read(tmp_path, "a.conll", conll(), dev_file=tmp_path / "dev.conll")
    assert task.labels[-1] == "B-NEW"
    assert any("never occur in train (B-NEW)" in notice for notice in task.notices)
