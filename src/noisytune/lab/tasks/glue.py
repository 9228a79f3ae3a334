"""The nine GLUE tasks, from local files in the official layout or from the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisytune._hub import fetch
from noisytune._metrics import kinds_with
from noisytune.errors import ConfigError, DataError, NotFoundError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks._data import TaskData, TaskOptions
from noisytune.lab.tasks._decoding import decode
from noisytune.lab.tasks._labels import label_texts, number
from noisytune.lab.tasks._rows import Rows, as_split
from noisytune.lab.tasks._tables import plain_rows, read_table

HUB_ID = "nyu-mll/glue"


@dataclass(frozen=True)
class Official:
    """What the benchmark says of a task."""

    folder: str
    """In the download."""
    texts: tuple[tuple[str, int], ...]
    """Name in the header and place (from 0) of the text column, or of the two of a pair."""
    label: tuple[str, int]
    """The same of the label; -1: the last column."""
    hub_texts: tuple[str, ...]
    """The text columns on the Hub; the label is ``label`` there."""
    labels: tuple[str, ...]
    """Class names in id order; empty where values are predicted."""
    metric: str
    train_rows: int
    dev_rows: int
    header: bool = True
    """Whether the first line of a file names its columns."""
    files: tuple[tuple[str, str], ...] = (("train.tsv", "dev.tsv"),)
    """Names of the train and the dev file; the first pair of which the train file is there counts."""
    hub_dev: str = "validation"
    """The split on the Hub."""
    other_dev: tuple[str, str, int] | None = None
    """A second dev set: its file, its split on the Hub, its rows."""

    @property
    def kind(self) -> str:
        """Classes or values."""
        return kinds_with(self.metric)[0]


ENTAILMENT = ("entailment", "not_entailment")
SENTENCES = (("sentence1", 1), ("sentence2", 2))
PAIR = ("sentence1", "sentence2")
QUESTIONS = (("question1", 3), ("question2", 4))
MRPC_FILES = (("train.tsv", "dev.tsv"), ("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"))

OFFICIAL: dict[str, Official] = {
    "cola": Official(
        "CoLA",
        (("sentence", 3),),
        ("label", 1),
        ("sentence",),
        ("unacceptable", "acceptable"),
        "matthews",
        8_551,
        1_043,
        header=False,
    ),
    "sst2": Official(
        "SST-2",
        (("sentence", 0),),
        ("label", 1),
        ("sentence",),
        ("negative", "positive"),
        "accuracy",
        67_349,
        872,
    ),
    "mrpc": Official(
        "MRPC",
        (("#1 String", 3), ("#2 String", 4)),
        ("Quality", 0),
        PAIR,
        ("not_equivalent", "equivalent"),
        "accuracy",
        3_668,
        408,
        files=MRPC_FILES,
    ),
    "qqp": Official(
        "QQP",
        QUESTIONS,
        ("is_duplicate", 5),
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        "accuracy",
        363_846,
        40_430,
    ),
    "stsb": Official(
        "STS-B",
        (("sentence1", 7), ("sentence2", 8)),
        ("score", 9),
        PAIR,
        (),
        "pearson",
        5_749,
        1_500,
    ),
    "mnli": Official(
        "MNLI",
        (("sentence1", 8), ("sentence2", 9)),
        ("gold_label", -1),
        ("premise", "hypothesis"),
        ("entailment", "neutral", "contradiction"),
        "accuracy",
        392_702,
        9_815,
        files=(("train.tsv", "dev_matched.tsv"),),
        hub_dev="validation_matched",
        other_dev=("dev_mismatched.tsv", "validation_mismatched", 9_832),
    ),
    "qnli": Official(
        "QNLI",
        (("question", 1), ("sentence", 2)),
        ("label", 3),
        ("question", "sentence"),
        ENTAILMENT,
        "accuracy",
        104_743,
        5_463,
    ),
    "rte": Official("RTE", SENTENCES, ("label", 3), PAIR, ENTAILMENT, "accuracy", 2_490, 277),
    "wnli": Official("WNLI", SENTENCES, ("label", 3), PAIR, ("not_entailment", "entailment"), "accuracy", 635, 71),
}
"""By the name after ``glue/``. Layout, class ids, scores and row counts are the benchmark's."""

HIGHEST = 5.0
"""STS-B's scores are 0 to 5."""


def load_glue(name: str, options: TaskOptions) -> TaskData:
    """One GLUE task, trained on its training set and scored on its dev set (MNLI: the matched one).

    Files are read as the official ones are written: tab separated, quotation marks are plain characters, UTF-8 with or
    without a byte order mark, CoLA without a header. Labels are words or their official numbers. Test files are never
    needed: their labels are not public. Another number of rows than the official one is a notice.

    Args:
        name: a key of `OFFICIAL`.
        options: ``data_dir`` is read here: the folder that holds ``CoLA``, ``SST-2`` ... None: from the Hub.

    Raises:
        DataError: no such folder or file, a column is missing, a label is unknown, or the Hub did not give the data.
        ConfigError: another language than English.
        MissingExtraError: Parquet from the Hub without pyarrow.

    Source: Wang et al., "GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding", 2019;
    https://huggingface.co/datasets/nyu-mll/glue.
    """
    if options.language != "english":
        raise ConfigError(f"language is for the task topics: glue/{name} is English")
    task = OFFICIAL[name]
    parts = _local(name, options.data_dir) if options.data_dir else _from_hub(name)
    facts: dict[str, Any] = {"rows": [], "left_out": []}
    official = (task.train_rows, task.dev_rows, task.other_dev[2] if task.other_dev else 0)
    splits: list[Split] = []
    notices: list[str] = []
    for part, rows, expected in zip(("train", "dev", "mismatched dev"), parts, official, strict=False):
        split, told = _targets(rows, task)
        if len(split) != expected:
            relation = f"of {expected:,} rows" if len(split) < expected else f"rows, officially {expected:,}"
            told.append(f"{len(split):,} {relation}")
        facts["rows"].append({"source": rows.name, "rows": len(rows.labels), "official": expected})
        if missing := len(rows.labels) - len(split):
            facts["left_out"].append({"source": rows.name, "reason": "no text or label", "rows": missing})
        notices += [f"glue/{name} {part}: {text}" for text in told]
        splits.append(split)
    train, dev, *other = splits
    evaluate = {"dev": dev, **({"mismatched": other[0]} if other else {})}
    return TaskData(f"glue/{name}", task.kind, task.metric, task.labels, train, evaluate, tuple(notices), facts=facts)


def folders(data_dir: Path) -> dict[str, Path]:
    """The folder of each task that a download holds, by the task's name.

    Names are matched without case and punctuation (``SST-2``, ``sst2``), in the folder itself, in a ``glue_data`` or
    ``glue`` in it, and the folder may be a task's own.
    """
    data_dir = data_dir.expanduser()
    places = [data_dir, *(data_dir / name for name in ("glue_data", "glue", "GLUE"))]
    found = {simple(child.name): child for place in places[::-1] if place.is_dir() for child in sorted(place.iterdir())}
    found.setdefault(simple(data_dir.resolve().name), data_dir)
    return {name: found[name] for name in OFFICIAL if name in found and found[name].is_dir()}


def simple(name: str) -> str:
    """A task's name as a folder spells it: ``"SST-2"`` is ``"sst2"``."""
    return "".join(c for c in name.lower() if c.isalnum())


def _local(name: str, data_dir: Path) -> Iterator[Rows]:
    """Train, dev, and the second dev set where its file is there; from the official files or a copy of the Hub's."""
    task = OFFICIAL[name]
    if not data_dir.expanduser().is_dir():
        raise NotFoundError(f"data_dir {data_dir}: there is no such folder")
    there = folders(data_dir)
    if name not in there:
        found = ", ".join(OFFICIAL[other].folder for other in there)
        raise DataError(
            f"data_dir {data_dir}: no folder {task.folder} in it (found: {found or 'no task'}); "
            "give the folder that holds CoLA, SST-2 ... of the official download"
        )
    folder = there[name]
    train, dev = next((pair for pair in task.files if (folder / pair[0]).exists()), task.files[0])
    if not (folder / train).exists() and any(folder.glob("train-*.parquet")):
        yield from _parquet_splits(name, folder)
        return
    yield _read(folder / train, task)
    yield _read(folder / dev, task)
    if task.other_dev and (folder / task.other_dev[0]).exists():
        yield _read(folder / task.other_dev[0], task)


def _read(path: Path, task: Official) -> Rows:
    """The text columns and the label of a file: by their names, or by their places under a header without them."""
    try:
        rows = plain_rows(decode(path))
    except OSError as e:
        raise DataError(f"{path}: {e.strerror or 'cannot be read'}; the official download has this file") from e
    if len(rows) <= task.header:
        raise DataError(f"{path}: no rows; the official download has them")
    first = [cell.strip() for cell in rows[0][1]]
    wanted = (*task.texts, task.label)
    named = task.header and any(name in first for name, _ in wanted)
    places = []
    for name, place in wanted:
        if name not in first if named else place >= len(first):
            known = f"the columns are {', '.join(first)}" if task.header else f"the first row has {len(first)} columns"
            where = "the last one" if place < 0 else f"number {place} counted from 0"
            raise DataError(f"{path}: no column {name!r} (officially {where}); {known}")
        places.append(first.index(name) if named else place % len(first))
    body = rows[task.header :]
    for line, cells in body:
        if any(map(str.strip, cells[len(first) :])):
            seen = f"line {line} has {len(cells)} cells, the first one {len(first)}"
            raise DataError(f"{path}: {seen}: is there a tab in a text?")
    *texts, labels = ([cells[place] if place < len(cells) else None for _, cells in body] for place in places)
    return Rows(str(path), list(zip(*texts, strict=True)), label_texts(labels), [line for line, _ in body])


def _from_hub(name: str) -> Iterator[Rows]:
    """The same from the Hub's Parquet files."""
    folder = fetch(
        f"task 'glue/{name}': no data_dir is given",
        HUB_ID,
        "the official download as data_dir",
        repo_type="dataset",
        allow_patterns=[f"{name}/{split}-*.parquet" for split in _hub_splits(OFFICIAL[name])],
    )
    yield from _parquet_splits(name, folder / name)


def _hub_splits(task: Official) -> list[str]:
    return ["train", task.hub_dev, *([task.other_dev[1]] if task.other_dev else [])]


def _parquet_splits(name: str, folder: Path) -> Iterator[Rows]:
    """The splits of a folder with files as the Hub has them."""
    task = OFFICIAL[name]
    for split in _hub_splits(task):
        files = sorted(folder.glob(f"{split}-*.parquet"))
        if not files:
            raise DataError(
                f"task 'glue/{name}': no {split}-*.parquet of {HUB_ID} in {folder}; try again, or give data_dir"
            )
        parts = [_read_parquet(file, task) for file in files]
        texts = [row for part in parts for row in part.texts]
        labels = [label for part in parts for label in part.labels]
        yield Rows(str(files[0]), texts, labels, list(range(1, len(texts) + 1)))


def _read_parquet(path: Path, task: Official) -> Rows:
    """One Parquet file; its labels by the names that the file gives them."""
    import pyarrow.parquet

    columns = read_table(path).columns
    for column in (*task.hub_texts, "label"):
        if column not in columns:
            raise DataError(f"{path}: no column {column!r}; the columns are {', '.join(columns)}")
    about = json.loads((pyarrow.parquet.read_schema(path).metadata or {}).get(b"huggingface", b"{}"))
    names = about.get("info", {}).get("features", {}).get("label", {}).get("names")
    labels = columns["label"]
    if names:
        labels = [names[i] if isinstance(i, int) and 0 <= i < len(names) else i for i in labels]
    texts = zip(
        *([None if cell is None else str(cell) for cell in columns[name]] for name in task.hub_texts), strict=True
    )
    return Rows(str(path), list(texts), label_texts(labels))


def _targets(rows: Rows, task: Official) -> tuple[Split, list[str]]:
    """The examples, and what to say about the rows that are none.

    Raises:
        DataError: a label is none of the task's, or no row is whole.
    """
    ids = {label: float(i) for i, label in enumerate(task.labels)}
    ids |= {str(i): float(i) for i in range(len(task.labels))}

    def target(label: str | None) -> float | None:
        if label is None:
            return None
        value = ids.get(label) if task.labels else number(label)
        if value is None or not (task.labels or 0 <= value <= HIGHEST):
            allowed = " or ".join(task.labels) if task.labels else f"a number, 0 to {HIGHEST:g}"
            line = rows.lines[rows.labels.index(label)]
            raise DataError(f"{rows.where}: line {line}: the label {label!r} is unknown; it must be {allowed}")
        return value

    split, out = as_split(rows, target)
    if not split.targets:
        raise DataError(
            f"{rows.where}: none of the {len(out.places)} rows has its texts and a label; is it a test file?"
        )
    if not out.places:
        return split, []
    first = rows.lines[out.places[0]]
    return split, [f"{len(out.places)} rows lack a text or a label and are left out (the first: line {first})"]
