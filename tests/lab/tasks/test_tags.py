"""Files of tagged sentences in the shapes that people have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from noisytune.errors import ConfigError, DataError
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


def universal() -> str:
    """CoNLL-U with what stands beside the words: comments, a span of several words, an empty node."""
    blocks = []
    for number, sentence in enumerate(SENTENCES, start=1):
        rows = [f"# sent_id = {number}", "# text = " + " ".join(word for word, _ in sentence)]
        rows.append("\t".join(["1-2", "du", *"_" * 8]))
        for place, (word, tag) in enumerate(sentence, start=1):
            rows.append("\t".join([str(place), word, word.lower(), tag, "XX", "_", "0", "root", "_", "SpaceAfter=No"]))
        rows.append("\t".join([f"{len(sentence)}.1", "unsaid", *"_" * 8]))
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks) + "\n\n"


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
        ("a.conllu", universal(), {}),
        ("a.conllu", universal().replace("\n", "\r\n"), {"text_columns": ("1",), "label_column": "3"}),
        ("a.json", "[" + as_json().replace("\n", ",") + "]", {"kind": "tagging"}),
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
    assert not any("begin with O" in notice for notice in task.notices)
    other = read(tmp_path, "b.conll", content.replace("NOUN", "ORG"))
    assert any("ORG begin with O, as O they never count" in notice for notice in other.notices)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.conll", "Maria B-PER\nCurie\n", r"a\.conll: line 2 has no tag"),
        ("a.tsv", "Maria\tB-PER\nCurie\t\n", r"a\.tsv: line 2 has no tag"),
        (
            "a.jsonl",
            '{"tokens": ["a"], "tags": ["O"]}\n{"tokens": ["a", "b"], "tags": ["O"]}\n',
            "sentence 2: 2 tokens and 1",
        ),
        ("a.jsonl", '{"tokens": "a b", "tags": ["O"]}\n', "sentence 1: 'tokens' is no list"),
        ("a.jsonl", '{"x": 1}\n', "sentence 1: none of tokens"),
        ("a.jsonl", "{\n", "the file is not JSON"),
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


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_number_sign_is_a_word_where_it_has_a_tag(tmp_path: Path, separator: str) -> None:
    first = f"#{separator}O\n#NLP{separator}B-LOC\n\n"
    task = read(tmp_path, "a.conll", "# newdoc id = 1\n" + first + "# sent_id = 2\n" + conll(separator))
    assert sentences(task) == {*map(tuple, SENTENCES), (("#", "O"), ("#NLP", "B-LOC"))}


def test_other_breaks_of_unicode_are_characters_of_words(tmp_path: Path) -> None:
    odd = [("a\u2028b", "O"), ("c\x85d", "B-LOC"), ("e\xa0f", "O")]
    expected = {*map(tuple, SENTENCES), tuple(odd)}
    record = json.dumps({"tokens": [w for w, _ in odd], "tags": [t for _, t in odd]}, ensure_ascii=False)
    task = read(tmp_path, "a.jsonl", record + "\n" + as_json(), kind="tagging")
    assert sentences(task) == expected
    for separator in " \t":
        rows = "\n".join(separator.join(one) for one in odd)
        assert sentences(read(tmp_path, "a.conll", rows + "\n\n" + conll(separator))) == expected


def test_one_sentence_alone_in_a_json_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text('{"tokens": ["Maria", "left"], "tags": ["B-PER", "O"]}')
    task = read(tmp_path, "a.jsonl", as_json(), kind="tagging", dev_file=tmp_path / "dev.json")
    assert task.dev.texts == (("Maria", "left"),)


def test_a_training_file_is_named_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "wnut").mkdir()
    assert read(tmp_path / "wnut", "train.conll", conll()).name == "wnut"


def test_a_number_in_the_first_line_names_no_column(tmp_path: Path) -> None:
    first = [("7", "0"), ("x", "B-LOC")]
    task = read(tmp_path, "a.conll", "\n".join(map(" ".join, first)) + "\n\n" + conll())
    assert tuple(first) in sentences(task)


@pytest.mark.parametrize("given", [{"join_columns": ("a", "b")}, {"missing_labels": "keep"}, {"empty_texts": "keep"}])
def test_settings_of_tables_say_nothing_about_sentences(tmp_path: Path, given: dict[str, Any]) -> None:
    file = tmp_path / "train.conll"
    file.write_text("\n\n".join(f"Rome B-LOC\nat O\n{i} O" for i in range(10)))
    with pytest.raises(ConfigError, match=f"{next(iter(given))} say nothing about tagged sentences"):
        load_task(str(file), TaskOptions(**given))
    assert load_task(str(file)).facts["rows"] == [{"source": "train.conll", "rows": 10}]
