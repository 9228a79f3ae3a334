"""A user's own file as a task: columns, splits, refusals; and real benchmark files where they are at hand."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.records import digest

GLUE = Path(__file__).parents[4] / "shared" / "data" / "glue"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def write(path, rows):
    """Rows as JSON Lines: nothing to quote, types kept."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def reviews(sizes, **more):
    return [{"text": f"{name} {i}", "label": name, **more} for name, size in sizes.items() for i in range(size)]


def load(path, **options):
    return load_task(str(path), TaskOptions(**options))


def test_a_file_becomes_a_stratified_task(folder):
    task = load(write(folder / "reviews.jsonl", reviews({"good": 60, "bad": 20, "so-so": 20})))
    assert (task.name, task.kind, task.metric) == ("reviews", "classification", "accuracy")
    assert task.labels == ("bad", "good", "so-so")
    assert Counter(task.dev.targets) == {0.0: 4, 1.0: 12, 2.0: 4}
    assert len(task.train) == 80
    for split in (task.train, task.dev):
        for (text,), target in zip(split.texts, split.targets, strict=True):
            assert text.startswith(task.labels[int(target)])
    assert sum("guessed" in notice for notice in task.notices) == 2


@settings(max_examples=25)
@given(st.lists(st.integers(2, 30), min_size=2, max_size=4), st.integers(0, 3), st.integers(1, 3))
def test_no_row_is_lost_and_no_text_is_on_both_sides(folder, sizes, seed, copies):
    rows = reviews({f"class{i}": size for i, size in enumerate(sizes)}) * copies
    path = write(folder / "any.jsonl", rows)
    if sum(sizes) - max(round(0.2 * sum(sizes)), len(sizes)) < len(sizes):
        with pytest.raises(DataError, match="too few"):
            load(path, split_seed=seed)
        return
    task = load(path, split_seed=seed)
    both = [*zip(task.train.texts, task.train.targets), *zip(task.dev.texts, task.dev.targets)]  # noqa: B905
    assert Counter((text, task.labels[int(y)]) for (text,), y in both) == Counter((r["text"], r["label"]) for r in rows)
    assert not set(task.train.texts) & set(task.dev.texts)
    assert set(task.train.targets) == set(map(float, range(len(sizes))))
    absent = [name for i, name in enumerate(task.labels) if i not in task.dev.targets]
    told = [notice for notice in task.notices if "dev has no example of class" in notice]
    assert len(told) == bool(absent)
    assert all(repr(name) in told[0] for name in absent[:3])
    assert not absent or min(sizes) < 5
    assert task.digest == load(path, split_seed=seed).digest


def test_a_part_whose_values_are_all_the_same_is_refused(folder):
    rows = [{"text": f"text {i}", "score": 0.5 if i else 7} for i in range(200)]
    path = write(folder / "rare.jsonl", rows)
    assert load(path, metric="pearson", split_seed=1).kind == "regression"
    with pytest.raises(DataError, match=r"every training value is 0\.5"):
        load(path, metric="pearson", split_seed=1, train_size=2)


def test_pairs_and_values(folder):
    rows = [{"sentence1": f"a{i}", "sentence2": f"b{i}", "score": i / 7} for i in range(50)]
    task = load(write(folder / "sts.jsonl", rows))
    assert (task.kind, task.metric, task.labels, task.majority) == ("regression", "pearson", (), None)
    assert all(
        b == f"b{a[1:]}" and y == int(a[1:]) / 7 for (a, b), y in zip(task.dev.texts, task.dev.targets, strict=True)
    )
    assert len(task.dev) == 10


def test_the_same_task_from_every_kind_of_file(folder):
    rows = reviews({"1": 20, "0": 20})
    frame_lines = [(row["text"], row["label"]) for row in rows]
    (folder / "t.csv").write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in frame_lines))
    (folder / "t.tsv").write_text("text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in frame_lines))
    write(folder / "t.jsonl", [{"text": a, "label": int(b)} for a, b in frame_lines])
    pandas = pytest.importorskip("pandas", reason="writes the Parquet file")
    pandas.DataFrame({"text": [a for a, _ in frame_lines], "label": [int(b) for _, b in frame_lines]}).to_parquet(
        folder / "t.parquet"
    )
    assert len({load(folder / f"t.{suffix}").digest for suffix in ("csv", "tsv", "jsonl", "parquet")}) == 1


def test_labels_of_a_dev_file_are_matched_by_name(folder):
    train = write(folder / "train.jsonl", reviews({"good": 4, "bad": 4}))
    dev = write(folder / "dev.jsonl", [{"text": "x", "label": "good"}, {"text": "good 1", "label": "bad"}])
    task = load(train, dev_file=dev)
    assert task.name == folder.name
    assert [task.labels[int(target)] for target in task.dev.targets] == ["good", "bad"]
    assert any("1 of 2 dev rows have the same text" in notice for notice in task.notices)


def test_a_class_that_dev_lacks_is_said(folder):
    train = write(folder / "tr.jsonl", reviews({"good": 4, "bad": 4}))
    task = load(train, dev_file=write(folder / "dv.jsonl", [{"text": "x", "label": "good"}]))
    assert "dev has no example of class 'bad'" in task.notices


def test_incomplete_rows_are_counted(folder):
    rows = [*reviews({"good": 20, "bad": 20}), {"text": " ", "label": "good"}, {"text": "x"}, {"label": "lost"}]
    task = load(write(folder / "holes.jsonl", rows))
    assert len(task.train) + len(task.dev) == 40
    assert task.labels == ("bad", "good")
    told = "holes.jsonl: 3 of 43 rows are left out: 2 without the text, 1 without a label"
    told += "; missing_labels=keep would keep them"
    assert told in task.notices
    assert task.facts["rows"] == [{"source": "holes.jsonl", "rows": 43}]
    assert task.facts["left_out"] == [
        {"source": "holes.jsonl", "reason": "no text", "rows": 2},
        {"source": "holes.jsonl", "reason": "no label", "rows": 1},
    ]


def test_a_class_with_one_text_stays_in_train(folder):
    task = load(write(folder / "rare.jsonl", reviews({"good": 20, "bad": 20, "rare": 1})))
    assert task.labels.index("rare") in task.train.targets
    assert "dev has no example of class 'rare'" in task.notices


def test_sizes_reach_files(folder):
    task = load(write(folder / "sizes.jsonl", reviews({"good": 50, "bad": 50})), train_size=10, dev_size=4)
    assert Counter(task.train.targets) == {0.0: 5, 1.0: 5}
    assert Counter(task.dev.targets) == {0.0: 2, 1.0: 2}


GOOD = reviews({"good": 20, "bad": 20}, other="x")
REFUSED = {
    "no such text column": (GOOD, {"text_columns": ("nope",)}, "no column 'nope'; the columns are text, label, other"),
    "no such label column": (GOOD, {"label_column": "nope"}, "no column 'nope'"),
    "three texts": (GOOD, {"text_columns": ("text", "other", "label")}, "give one, or two"),
    "used twice": (GOOD, {"text_columns": ("text",), "label_column": "text"}, "used twice"),
    "no guess for the label": ([{"text": "a", "y1": 1}], {}, "label_column; the columns are text, y1"),
    "two guesses for the label": ([{"text": "a", "label": 1, "score": 1}], {}, "several could be the label"),
    "no guess for the text": ([{"a": "a", "label": 1}], {}, "text_columns; the columns are a, label"),
    "two guesses for the text": ([{"text": "a", "review": "b", "label": 1}], {}, "several could be the text"),
    "one class": (reviews({"good": 9}), {}, "only one class, 'good'"),
    "one value": ([{"text": str(i), "label": 0.5} for i in range(9)], {}, "only one value, 0.5"),
    "identifiers": ([{"text": str(i), "label": f"id{i}"} for i in range(9)], {}, "9 classes in 9 rows"),
    "no labels": ([{"text": "a", "label": None}], {}, "has no labels"),
    "no texts": ([{"text": "", "label": "x"}], {}, "no labels|lacks a text"),
    "too few": (reviews({"good": 2, "bad": 1}), {}, "too few to split"),
    "lists": ([{"text": ["a"], "label": "x"}], {}, "holds a list"),
    "words as values": (GOOD, {"metric": "pearson"}, "needs numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_task_is_refused_in_one_line(folder, case):
    rows, options, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        load(write(folder / "refused.jsonl", rows), **options)
    assert "\n" not in str(caught.value)


def test_a_class_made_of_contradictions_is_learnt_or_refused(folder):
    path = write(folder / "odd.jsonl", [*GOOD, {"text": "good 1", "label": "odd"}])
    outcomes = set()
    for seed in range(20):
        try:
            task = load(path, split_seed=seed)
            outcomes.add("learnt" if task.labels.index("odd") in task.train.targets else "lost")
        except DataError as e:
            outcomes.add("refused" if "other rows label otherwise" in str(e) else str(e))
    assert outcomes == {"learnt", "refused"}


def test_a_class_that_only_dev_has_is_refused(folder):
    train = write(folder / "a.jsonl", reviews({"good": 4, "bad": 4}))
    dev = write(folder / "b.jsonl", reviews({"good": 4, "odd": 1}))
    with pytest.raises(DataError, match=r"b\.jsonl: class 'odd' never occurs in a\.jsonl"):
        load(train, dev_file=dev)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("topic", {}, DataError, "did you mean 'topics'"),
        ("nonsense", {}, DataError, "choose topics, replies, glue/cola"),
        ("gone.csv", {}, DataError, "No such file"),
        ("topics", {"metric": "bleu"}, ConfigError, "no metric 'bleu'"),
        ("topics", {"metric": "f1"}, ConfigError, "does not fit"),
        ("topics", {"metric": "pearson"}, ConfigError, "does not fit"),
        ("topics", {"label_column": "label"}, ConfigError, "for files only"),
        ("topics", {"train_size": 3}, DataError, "train_size 3 is too small: give at least 5"),
        ("gone.csv", {"language": "german"}, ConfigError, "language is for the task topics"),
    ],
)
def test_requests_that_do_not_fit(name, options, error, message):
    with pytest.raises(error, match=message):
        load(name, **options)


def test_every_embedded_task_loads_by_its_name():
    for name in ("topics", "replies"):
        task = load(name, metric="macro_f1", dev_size=50)
        assert (task.name, task.metric, len(task.dev)) == (name, "macro_f1", 50)


@pytest.mark.parametrize(
    ("name", "columns", "label", "rows", "majority"),
    [
        ("RTE", ("sentence1", "sentence2"), "label", (2490, 277), 146 / 277),
        ("CoLA", ("3",), "1", (8551, 1043), None),
        ("WNLI", (), None, (635, 71), 40 / 71),
        ("STS-B", (), None, (5749, 1500), None),
        ("QNLI", (), None, (9999, 5463), None),
    ],
)
def test_benchmark_files_are_read_whole(name, columns, label, rows, majority):
    folder = GLUE / name
    if not folder.exists():
        pytest.skip("the benchmark's files are not at hand")
    task = load(folder / "train.tsv", text_columns=columns, label_column=label, dev_file=folder / "dev.tsv")
    assert task.name == name
    assert (len(task.train), len(task.dev)) == rows
    assert task.kind == ("regression" if name == "STS-B" else "classification")
    if majority:
        assert task.majority == pytest.approx(majority)
    if name == "STS-B":
        assert min(task.dev.targets) == 0
        assert max(task.dev.targets) == 5


PAIRS = [
    *[{"Title": f"title {i}", "body": f"body {i}", "Stars ": "ab"[i % 2]} for i in range(40)],
    {"Title": "alone", "body": "", "Stars ": "a"},
    {"Title": None, "body": "lone", "Stars ": "b"},
    {"Title": "", "body": " ", "Stars ": "a"},
]


def test_rows_with_one_text_of_a_pair_are_dropped_or_kept(folder):
    path = write(folder / "pairs.jsonl", PAIRS)
    columns = {"text_columns": ("title", "body"), "label_column": "stars"}
    dropped = load(path, **columns)
    assert len(dropped.train) + len(dropped.dev) == 40
    assert (
        "pairs.jsonl: 3 of 43 rows are left out: 3 without a text; empty_texts=keep would keep them" in dropped.notices
    )
    kept = load(path, **columns, empty_texts="keep")
    texts = {*kept.train.texts, *kept.dev.texts}
    assert len(texts) == 42
    assert {("alone", ""), ("", "lone")} <= texts
    assert kept.facts["left_out"] == [{"source": "pairs.jsonl", "reason": "no text", "rows": 1}]


def test_several_columns_make_one_text(folder):
    path = write(folder / "joined.jsonl", PAIRS)
    task = load(path, join_columns=("Title", "body"), label_column="Stars")
    texts = {*task.train.texts, *task.dev.texts}
    assert len(texts) == 42
    assert {("title 7 body 7",), ("alone",), ("lone",)} <= texts
    with pytest.raises(ConfigError, match="exclude each other"):
        load(path, join_columns=("Title", "body"), text_columns=("body",), label_column="Stars")


def test_column_names_match_in_any_case_and_only_where_that_is_clear(folder):
    rows = [{"TEXT": row["text"], "Label": row["label"]} for row in reviews({"good": 20, "bad": 20})]
    guessed = load(write(folder / "case.jsonl", rows))
    asked = load(folder / "case.jsonl", text_columns=("text",), label_column="label")
    assert guessed.digest == asked.digest
    dev = write(folder / "other-case.jsonl", [{"Text": "x", "label": "good"}])
    assert load(folder / "case.jsonl", dev_file=dev).dev.texts == (("x",),)
    twins = write(folder / "twins.jsonl", [{**row, "Text": "other"} for row in reviews({"good": 20, "bad": 20})])
    with pytest.raises(DataError, match=r"columns 'text' and 'Text' differ in case alone; say which with text_columns"):
        load(twins)
    assert load(twins, text_columns=("text",)).train.texts[0] != ("other",)
    with pytest.raises(DataError, match=r"column 'TEXT' may be 'text' or 'Text'"):
        load(twins, text_columns=("TEXT",))
    with pytest.raises(DataError, match=r"no column 'tekst'; did you mean 'text'\?"):
        load(write(folder / "near.jsonl", reviews({"good": 3})), text_columns=("tekst",))


def test_a_file_whose_name_is_no_text_gets_one_that_can_be_written(tmp_path):
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(20)]
    task = load_task(str(write(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), rows)))
    assert task.name == "caf\\udce9"
    assert len(digest({"name": task.name, "notices": task.notices})) == 16
