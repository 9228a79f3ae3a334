"""GLUE from files in the official layout and from Parquet: every row in its place, one clear line for what is wrong."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from noisytune.errors import ConfigError, DataError, NoisyTuneError
from noisytune.lab.tasks import TaskData, TaskOptions, load_task, load_tasks
from noisytune.lab.tasks.glue import OFFICIAL
from tests.support.glue_files import HEADERS, LABELS, PAIRS, write_glue

REAL = Path(__file__).parents[4] / "shared" / "data" / "glue"
NAMES = list(OFFICIAL)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_glue(tmp_path / "data")


def load(name: str, folder: Path, **options: Any) -> TaskData:
    return load_task(f"glue/{name}", TaskOptions(data_dir=folder, **options))


def words(task: TaskData) -> list[str]:
    return [task.labels[int(target)] for target in task.train.targets]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_the_official_layout_is_read(name: str, data: Path) -> None:
    """Quotation marks are plain characters, the byte order mark is none, and the header is no example."""
    task = load(name, data)
    assert task.name == f"glue/{name}"
    texts = [pair[: len(task.train.texts[0])] for pair in PAIRS]
    assert list(task.train.texts) == texts * 2
    assert list(task.dev.texts) == texts
    assert len(task.train.texts[0]) == (1 if name in ("cola", "sst2") else 2)
    if name == "stsb":
        assert (task.kind, task.metric, task.labels) == ("regression", "pearson", ())
        assert list(task.train.targets[:4]) == [0.0, 2.5, 5.0, 3.8]
    else:
        assert (task.kind, task.metric) == ("classification", "matthews" if name == "cola" else "accuracy")
        meant = {"0": 0, "1": 1} | {word: i for i, word in enumerate(task.labels)}
        assert [int(target) for target in task.train.targets[:4]] == [meant[label] for label in LABELS[name]]
    assert f"glue/{name} train: 8 of {OFFICIAL[name].train_rows:,} rows" in task.notices
    assert f"glue/{name} dev: 4 of {OFFICIAL[name].dev_rows:,} rows" in task.notices


def test_the_other_dev_set_of_mnli_is_kept_beside(data: Path) -> None:
    task = load("mnli", data)
    assert list(task.evaluate) == ["dev", "mismatched"]
    assert [text[0] for text in task.evaluate["mismatched"].texts] == ["mismatched"] * 4
    (data / "MNLI" / "dev_mismatched.tsv").unlink()
    without = load("mnli", data)
    assert list(without.evaluate) == ["dev"]
    assert without.digest != task.digest
    assert len(load("mnli", write_glue(data), dev_size=3).evaluate["mismatched"]) == 3


def test_mrpc_as_microsoft_gives_it(data: Path) -> None:
    one = load("mrpc", data)
    for ours, theirs in (("train.tsv", "msr_paraphrase_train.txt"), ("dev.tsv", "msr_paraphrase_test.txt")):
        (data / "MRPC" / ours).rename(data / "MRPC" / theirs)
    assert load("mrpc", data).digest == one.digest


@pytest.mark.parametrize("name", [name for name in NAMES if name != "stsb"])
def test_labels_are_words_or_their_official_numbers(name: str, data: Path) -> None:
    official = load(name, data)
    names = official.labels
    numbers = {label: str(names.index(label)) if label in names else label for label in LABELS[name]}
    as_words = {label: names[int(label)] if label.isdigit() else label for label in LABELS[name]}
    for spelling in (numbers, as_words):
        folder = write_glue(data.parent / f"other{len(list(data.parent.iterdir()))}", spell=spelling)
        assert load(name, folder).digest == official.digest


def test_short_rows_are_left_out_and_counted(data: Path) -> None:
    file = data / "QQP" / "train.tsv"
    file.write_text(file.read_text() + "9\t1\t2\tonly one question\n10\t1\t2\tno\tlabel\t\n\n11\t\t\tempty\t\t1\t\n")
    task = load("qqp", data)
    assert len(task.train) == 9
    assert task.train.texts[-1] == ("empty", "")
    assert "glue/qqp train: 2 rows lack a text or a label and are left out (the first: line 10)" in task.notices


def test_more_rows_than_official_are_told(data: Path) -> None:
    file = data / "WNLI" / "dev.tsv"
    file.write_text(file.read_text() + "".join(f"{i}\ta\tb\t0\n" for i in range(4, 99)))
    assert "glue/wnli dev: 99 rows, officially 71" in load("wnli", data).notices


def test_columns_are_found_by_their_names_wherever_they_are(data: Path) -> None:
    official = load("qnli", data)
    for file in (data / "QNLI").glob("*.tsv"):
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8-sig").splitlines()]
        file.write_text("".join("\t".join([row[3], row[2], row[0], row[1]]) + "\n" for row in rows))
    assert load("qnli", data).digest == official.digest


def test_a_header_without_the_official_names_is_read_by_place(data: Path) -> None:
    official = {name: load(name, data).digest for name in NAMES}
    write_glue(data, header=lambda names: [f"column{i}" for i in range(len(names))])
    assert {name: load(name, data).digest for name in NAMES} == official


def without_column(folder: Path, place: int) -> None:
    for file in folder.glob("*.tsv"):
        rows = [line.split("\t") for line in file.read_text(encoding="utf-8-sig").splitlines()]
        file.write_text("".join("\t".join([c for i, c in enumerate(row) if i != place]) + "\n" for row in rows))


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_column_is_one_line(name: str, data: Path) -> None:
    task = OFFICIAL[name]
    for column, place in (*task.texts, task.label):
        width = len(HEADERS[name]) if name != "mnli" else 12
        folder = write_glue(data.parent / column.replace("#", "")) / task.folder
        without_column(folder, place % width)
        with pytest.raises(DataError) as caught:
            load(name, folder.parent)
        said = f"no column '{column}'" if task.header else "no column"
        assert said in str(caught.value)
        assert "train.tsv" in str(caught.value)
        assert "\n" not in str(caught.value)


WRONG: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "unknown word": ("glue/rte", lambda d: append(d / "RTE/dev.tsv", "4\ta\tb\tmaybe"), r"dev.tsv: line 6: .*'maybe'"),
    "unknown number": ("glue/cola", lambda d: append(d / "CoLA/train.tsv", "x\t2\t\ta"), "'2' is unknown; it must be"),
    "no number": ("glue/stsb", lambda d: append(d / "STS-B/dev.tsv", "\t" * 7 + "a\tb\thigh"), "'high'.*0 to 5"),
    "out of range": ("glue/stsb", lambda d: append(d / "STS-B/dev.tsv", "\t" * 7 + "a\tb\t5.5"), "'5.5'.*0 to 5"),
    "a tab in a text": (
        "glue/rte",
        lambda d: append(d / "RTE/dev.tsv", "4\ta\t\tb\tentailment"),
        "line 6 has 5 cells, the first one 4: is there a tab",
    ),
    "a tab in a sentence": (
        "glue/cola",
        lambda d: append(d / "CoLA/dev.tsv", "x\t1\t\ta\tb"),
        "is there a tab in a text",
    ),
    "no dev file": ("glue/sst2", lambda d: (d / "SST-2/dev.tsv").unlink(), "dev.tsv: No such file"),
    "a folder of another": ("glue/rte", lambda d: (d / "RTE").rename(d / "rte-data"), "no folder RTE in it"),
    "empty": ("glue/rte", lambda d: (d / "RTE/train.tsv").write_text("\n"), "train.tsv: no rows"),
    "only a header": ("glue/rte", lambda d: (d / "RTE/train.tsv").write_text("\t".join(HEADERS["rte"])), "no rows"),
    "a test file": ("glue/rte", lambda d: (d / "RTE/dev.tsv").write_text("i\ta\tb\tl\n0\ta\tb\n"), "is it a test file"),
    "latin": ("glue/rte", lambda d: (d / "RTE/train.tsv").write_bytes(b"\xe9\n"), "not UTF-8"),
    "typo": ("glue/rt", lambda d: None, "did you mean 'glue/rte'"),
    "without glue/": ("rte", lambda d: None, "did you mean 'glue/rte'"),
    "other spelling": ("GLUE/STSB", lambda d: None, "did you mean 'glue/stsb'"),
}


def append(file: Path, row: str) -> None:
    file.write_text(file.read_text(encoding="utf-8") + row + "\n", encoding="utf-8")


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(case: str, data: Path) -> None:
    name, spoil, said = WRONG[case]
    spoil(data)
    options = TaskOptions(data_dir=data if name.startswith("glue/") else None)
    with pytest.raises(DataError, match=said) as caught:
        load_task(name, options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("glue/rte", {"data_dir": Path("no-such-place")}, "there is no such folder"),
        ("topics", {"data_dir": Path()}, "data_dir is for the tasks of glue"),
        ("glue/rte", {"label_column": "label"}, "for files only"),
        ("glue/rte", {"language": "german"}, "is English"),
        ("glue/stsb", {"metric": "accuracy"}, "does not fit"),
    ],
)
def test_options_that_do_not_fit_are_one_line(name: str, options: dict[str, Any], said: str, data: Path) -> None:
    with pytest.raises(NoisyTuneError, match=said) as caught:
        load_task(name, TaskOptions(**{"data_dir": data} | options) if name != "topics" else TaskOptions(**options))
    assert "\n" not in str(caught.value)


def test_glue_is_all_nine_or_those_that_are_there(data: Path) -> None:
    assert [task.name for task in load_tasks("glue", TaskOptions(data_dir=data))] == [f"glue/{n}" for n in NAMES]
    for folder in ("SST-2", "MRPC"):
        (data / folder).rename(data / f"{folder}-gone")
    tasks = load_tasks("glue", TaskOptions(data_dir=data))
    assert [task.name for task in tasks] == [f"glue/{n}" for n in NAMES if n not in ("sst2", "mrpc")]
    notices = [notice for task in tasks for notice in task.notices if "left out" in notice]
    assert notices == [f"glue/sst2, glue/mrpc: no folder in {data}, left out"]
    with pytest.raises(DataError, match=r"found: no task\)"):
        load_tasks("glue", TaskOptions(data_dir=data.parent))


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "small letters": lambda d: (d / "SST-2").rename(d / "sst2").parent,
    "as the download script leaves it": lambda d: d.rename(d.parent / "glue_data").parent,
    "the task's own folder": lambda d: d / "SST-2",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folder_of_a_task_is_found_in_every_layout(layout: str, data: Path) -> None:
    official = load("sst2", data).digest
    assert load("sst2", LAYOUTS[layout](data)).digest == official


def test_a_copy_of_the_hubs_files_is_read(hub: Path, data: Path) -> None:
    for name in NAMES:
        assert load(name, hub).digest == load(name, data).digest
    (hub / "rte" / "train-00000-of-00002.parquet").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )
    with pytest.raises(DataError, match=r"train-00000-of-00002.parquet: a Git LFS pointer.*git lfs pull"):
        load("rte", hub)


def test_tasks_may_be_listed(data: Path) -> None:
    tasks = load_tasks("glue/rte, glue/cola", TaskOptions(data_dir=data, train_size=4))
    assert [(task.name, len(task.train)) for task in tasks] == [("glue/rte", 4), ("glue/cola", 4)]
    odd = data / "one,two.jsonl"
    odd.write_text("".join(json.dumps({"text": f"t{i}", "label": "ab"[i % 2]}) + "\n" for i in range(20)))
    assert [task.name for task in load_tasks(str(odd))] == ["one,two"]


@pytest.fixture
def hub(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Parquet files as on the Hub; the snapshot's function is replaced, nothing else."""
    folder = tmp_path / "snapshot"
    asked: list[dict[str, Any]] = []
    for name, task in OFFICIAL.items():
        local = load(name, data)
        splits = {"train": local.train, task.hub_dev: local.dev}
        if task.other_dev:
            splits[task.other_dev[1]] = local.evaluate["mismatched"]
        (folder / name).mkdir(parents=True)
        for split, rows in splits.items():
            columns: dict[str, Any] = dict(zip(task.hub_texts, map(list, zip(*rows.texts, strict=True)), strict=True))
            # Another order of the classes than ours, which only the names tell.
            ids = [len(local.labels) - 1 - int(t) for t in rows.targets] if local.labels else list(rows.targets)
            columns |= {"label": ids, "idx": list(range(len(rows)))}
            feature = {"names": list(reversed(local.labels)), "_type": "ClassLabel"} if local.labels else {}
            about = {b"huggingface": json.dumps({"info": {"features": {"label": feature}}}).encode()}
            table = pa.table(columns).replace_schema_metadata(about)
            half = len(rows) // 2
            for part, piece in enumerate((table[:half], table[half:])):
                pyarrow.parquet.write_table(piece, folder / name / f"{split}-0000{part}-of-00002.parquet")

    def download(repo: str, **settings: Any) -> str:
        asked.append({"repo": repo} | settings)
        assert (repo, settings["repo_type"]) == ("nyu-mll/glue", "dataset")
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_hub_gives_the_same_task_as_the_files(name: str, hub: Path, data: Path) -> None:
    online = load_task(f"glue/{name}")
    assert online.digest == load(name, data).digest


def test_a_part_that_the_hub_lacks_is_one_line(hub: Path) -> None:
    for file in (hub / "rte").glob("validation*"):
        file.unlink()
    with pytest.raises(DataError, match=r"no validation-\*\.parquet of nyu-mll/glue in .*rte"):
        load_task("glue/rte")


def test_without_network_and_data_dir_one_line_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set.*data_dir") as caught:
        load_task("glue/wnli")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_real_files_are_what_pythons_reader_finds(name: str) -> None:
    """Against the csv module without quoting, and against the official counts."""
    task = OFFICIAL[name]
    if not (REAL / task.folder).exists():
        pytest.skip("the benchmark's files are not at hand")
    got = load(name, REAL)
    for file, split in ((task.files[0][0], got.train), (task.files[0][1], got.dev)):
        with (REAL / task.folder / file).open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))[task.header :]
        assert list(split.texts) == [tuple(row[place] for _, place in task.texts) for row in rows]
        labels = [row[task.label[1]] for row in rows]
        if task.labels and not labels[0].isdigit():
            assert [task.labels[int(target)] for target in split.targets] == labels
        else:
            assert list(split.targets) == [float(label) for label in labels]
    complete = {"cola", "stsb", "rte", "wnli"}
    assert (f"glue/{name} train" not in " ".join(got.notices)) == (name in complete)


def test_options_are_checked_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match="no metric"):
        load_task("glue/rte", TaskOptions(metric="mathews"))
