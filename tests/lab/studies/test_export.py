"""What is exported scores as the run does, by XTREME's arithmetic written out here on the files alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seqeval.metrics
from torchmetrics.functional.text import squad
from typer.testing import CliRunner

from noisytune._metrics import score
from noisytune._pretrained import Model
from noisytune.cli import app
from noisytune.errors import DataError, NotFoundError, RunFolderError
from noisytune.lab.kinds import TokenSplit
from noisytune.lab.store import Store
from noisytune.lab.studies.export_xtreme import export_xtreme
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import load_tokenizer
from noisytune.records import TrialRecord
from tests.support.xtreme_files import write_xtreme

CODES = ("de", "en", "zh")
NAMES = ("xnli", "pawsx", "udpos", "panx", "bucc", "tatoeba", "xquad", "mlqa", "tydiqa")


def said_of(task: TaskData, data: TokenSplit, rng: np.random.Generator) -> np.ndarray:
    """Random answers, half of them right."""
    gold, right = task.of_kind.references(data), rng.random(len(task.of_kind.references(data))) < 0.5
    if task.kind == "classification":
        return np.where(right, gold, rng.integers(0, len(task.labels), len(gold)).astype(float))
    if task.kind == "tagging":
        other = rng.integers(0, len(task.labels), gold.shape).astype(float)
        return np.where(gold < 0, gold, np.where(right[:, None], gold, other))
    if task.kind == "spans":
        return np.where(right[:, None], gold, np.tile([2.0, 9.0], (len(gold), 1)))
    line = np.where(right, np.arange(len(gold)), rng.permutation(len(gold))).astype(float)
    none = np.full(len(gold), np.nan)
    if task.name.endswith("tatoeba"):
        return np.column_stack([line, none, none, none, line])
    partner = np.where(right, len(gold) - 1 - np.arange(len(gold)), rng.permutation(len(gold))).astype(float)
    said = (rng.random(len(gold)) < 0.7).astype(float)
    return np.column_stack([none, partner, said, none, partner])


def record_of(study: Study, task: TaskData, splits: dict[str, TokenSplit]) -> TrialRecord:
    rng, outputs, evaluations = np.random.default_rng(0), {}, {}
    (trial,) = (one for one in study.plan if one.task == task.name)
    for name, data in splits.items():
        said = said_of(task, data, rng)
        items = task.of_kind.items(said, data, task.labels)
        outputs |= {f"{name}/predictions": said, f"{name}/references": task.of_kind.references(data)}
        outputs |= {f"{name}/items": items} if task.of_kind.keeps_items else {}
        evaluations[name] = {"status": "ok", "scores": score(task.kind, items)}
    return TrialRecord(trial.key, trial.settings, "ok", {}, [1.0], {"total": 1.0}, {}, {}, evaluations, outputs=outputs)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Model) -> dict[str, Any]:
    """A run of all nine tasks whose predictions are drawn, and its export."""
    folder = tmp_path_factory.mktemp("export")
    download = write_xtreme(folder / "download", CODES)
    options = TaskOptions(data_dir=download, languages=CODES)
    tasks = tuple(load_task(f"xtreme/{name}", options) for name in NAMES)
    training = TrainingSettings(epochs=1, max_length=48)
    study = Study(name="x", model=tiny, tasks=tasks, arms=(PLAIN,), seeds=(0,), training=training, margin=0.5)
    store, tokenizer = Store(folder / "run"), load_tokenizer(tiny.path)
    store.write_study(study.record)
    found = {}
    for task in tasks:
        scored = {name: task.evaluate[name] for name in task.primary}
        splits = {name: task.of_kind.encode(tokenizer, one, 48, None, name) for name, one in scored.items()}
        found[task.name.removeprefix("xtreme/")] = record_of(study, task, splits)
    for record in found.values():
        store.write(record)
    told = export_xtreme(folder / "run", download, folder / "out")
    return {"records": found, "out": folder / "out", "told": told, "download": download, "run": folder / "run"}


def files(run: dict[str, Any], name: str, code: str, ending: str = "tsv") -> tuple[str, str]:
    """Predictions and labels."""
    place = f"{name}/test-{code}.{ending}"
    return tuple((run["out"] / room / place).read_text(encoding="utf-8") for room in ("plain-seed0", "labels"))


def ours(run: dict[str, Any], name: str, code: str, metric: str) -> float:
    return run["records"][name].evaluations[code]["scores"][metric]


@pytest.mark.parametrize(
    ("name", "metric", "codes"),
    [("xnli", "accuracy", "de en zh"), ("pawsx", "accuracy", "de en zh"), ("tatoeba", "retrieval_accuracy", "de zh")],
)
def test_accuracies(run: dict[str, Any], name: str, metric: str, codes: str) -> None:
    for code in codes.split():
        said, gold = (text.split("\n")[:-1] for text in files(run, name, code))
        assert len(said) == len(gold)
        assert np.mean([a == b for a, b in zip(said, gold, strict=True)]) == pytest.approx(
            ours(run, name, code, metric)
        )


def test_labels_are_those_of_the_download(run: dict[str, Any]) -> None:
    for code in CODES:
        lines = (run["download"] / "xnli" / f"test-{code}.tsv").read_text(encoding="utf-8").splitlines()
        assert files(run, "xnli", code)[1].splitlines() == [line.rpartition("\t")[2] for line in lines]
    assert files(run, "tatoeba", "de")[1].split() == [str(i) for i in range(30)]
    gold = (run["download"] / "bucc2018" / "de-en.test.gold").read_text(encoding="utf-8")
    assert files(run, "bucc2018", "de")[1] == gold


def test_tags(run: dict[str, Any]) -> None:
    for name in ("panx", "udpos"):
        said, gold = ([s.split("\n") for s in text[:-2].split("\n\n")] for text in files(run, name, "zh"))
        assert [len(s) for s in said] == [len(s) for s in gold]
        right = np.mean([a == b for x, y in zip(said, gold, strict=True) for a, b in zip(x, y, strict=True)])
        assert right == pytest.approx(ours(run, name, "zh", "token_accuracy"))
        if name == "panx":
            assert seqeval.metrics.f1_score(gold, said) == pytest.approx(ours(run, name, "zh", "entity_f1"))


def test_mined_pairs(run: dict[str, Any]) -> None:
    for code in ("de", "zh"):
        said, gold = (set(text.split("\n")[:-1]) for text in files(run, "bucc2018", code))
        both = len(said & gold)
        assert 2 * both / (len(said) + len(gold)) == pytest.approx(ours(run, "bucc", code, "mining_f1"))


@pytest.mark.parametrize("name", ["xquad", "mlqa", "tydiqa"])
def test_answers(run: dict[str, Any], name: str) -> None:
    said, gold = (json.loads(text) for text in files(run, name, "en", "json"))
    asked = [one for article in gold["data"] for part in article["paragraphs"] for one in part["qas"]]
    assert set(said) == {one["id"] for one in asked}
    answers = [{"id": id, "prediction_text": text} for id, text in said.items()]
    given = [
        {"id": one["id"], "answers": {"text": [a["text"] for a in one["answers"]], "answer_start": [0]}}
        for one in asked
    ]
    found = squad(answers, given)
    assert float(found["f1"]) / 100 == pytest.approx(ours(run, name, "en", "answer_f1"))
    assert float(found["exact_match"]) / 100 == pytest.approx(ours(run, name, "en", "exact_match"))


def test_the_command_writes_the_same(run: dict[str, Any], tmp_path: Path) -> None:
    options = ["--to", "xtreme", "--data-dir", str(run["download"]), "--out", str(tmp_path)]
    found = CliRunner().invoke(app, ["export", str(run["run"]), *options])
    assert found.exit_code == 0, found.output
    assert f"labels: {tmp_path / 'labels'}" in found.output
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("*/*/*"))
    assert written == sorted(path.relative_to(run["out"]) for path in run["out"].glob("*/*/*"))
    assert all((tmp_path / path).read_bytes() == (run["out"] / path).read_bytes() for path in written)


def test_what_is_told_and_refused(run: dict[str, Any], tmp_path: Path) -> None:
    assert len(run["told"]) == len(NAMES)
    assert run["told"][0] == f"{run['out'] / 'plain-seed0'}, xnli: 3 languages"
    with pytest.raises(NotFoundError, match="there is no such folder"):
        export_xtreme(tmp_path / "none", run["download"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunFolderError, match=r"no finished trial of XTREME"):
        export_xtreme(tmp_path / "empty", run["download"], tmp_path / "out")
    other = write_xtreme(tmp_path / "download", ("de",))
    with pytest.raises(DataError, match=r"test-zh.tsv: there is no such file; the run has read it"):
        export_xtreme(run["run"], other, tmp_path / "out")
