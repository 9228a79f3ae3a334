"""Columns whose cells hold several labels."""

from __future__ import annotations

import doctest
import json
from pathlib import Path

import pytest

from noisytune.errors import DataError
from noisytune.lab.tasks import TaskData, TaskOptions, label_sets, load_task

ROWS = [(f"text {i}", ("sport", "news", "art")[: 1 + i % 3] if i % 5 else ("art",)) for i in range(40)]


def named(task: TaskData) -> dict[str, set[str]]:
    return {
        texts[0]: {name for name, one in zip(task.labels, target, strict=True) if one}
        for split in (task.train, task.dev)
        for texts, target in zip(split.texts, split.targets, strict=True)
    }


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(label_sets).failed == 0


@pytest.mark.parametrize("shape", ["bars", "json in csv", "lists"])
def test_sets_are_read(tmp_path: Path, shape: str) -> None:
    if shape == "lists":
        file, options = tmp_path / "a.jsonl", TaskOptions()
        file.write_text("\n".join(json.dumps({"text": text, "labels": labels}) for text, labels in ROWS))
    else:
        file, options = tmp_path / "a.csv", TaskOptions(kind="multilabel")
        cells = [" | ".join(labels) if shape == "bars" else json.dumps(labels).replace('"', '""') for _, labels in ROWS]
        file.write_text(
            "text,label\n" + "\n".join(f'{text},"{cell}"' for (text, _), cell in zip(ROWS, cells, strict=True))
        )
    task = load_task(str(file), options)
    assert (task.kind, task.metric, task.labels) == ("multilabel", "micro_f1", ("art", "news", "sport"))
    assert named(task) == {text: set(labels) for text, labels in ROWS}
    assert all(any(target[i] for target in task.train.targets) for i in range(3))


def test_a_metric_of_sets_asks_for_them_and_classes_stay_classes(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(f"t{i},{'a|b' if i % 2 else 'a'}" for i in range(20)))
    assert load_task(str(tmp_path / "a.csv"), TaskOptions(metric="subset_accuracy")).kind == "multilabel"
    assert load_task(str(tmp_path / "a.csv")).labels == ("a", "a|b")


@pytest.mark.parametrize(("keep", "rows"), [(None, 20), ("keep", 30)])
def test_rows_without_labels(tmp_path: Path, keep: str | None, rows: int) -> None:
    cells = ["a|b", "a", ""] * 10
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(f"t{i},{cell}" for i, cell in enumerate(cells)))
    task = load_task(str(tmp_path / "a.csv"), TaskOptions(kind="multilabel", missing_labels=keep))
    assert len(task.train) + len(task.dev) == rows


@pytest.mark.parametrize(
    ("cells", "said"),
    [(["a"] * 9, "only the label 'a'"), (["[1, ]", "a|b"], "no JSON list"), (["[[1]]", "a"], "more than labels")],
)
def test_what_makes_no_sets_is_named(tmp_path: Path, cells: list[str], said: str) -> None:
    body = "\n".join(json.dumps({"text": f"t{i}", "label": cell}) for i, cell in enumerate(cells))
    (tmp_path / "a.jsonl").write_text(body)
    with pytest.raises(DataError, match=said) as caught:
        load_task(str(tmp_path / "a.jsonl"), TaskOptions(kind="multilabel"))
    assert "\n" not in str(caught.value)
