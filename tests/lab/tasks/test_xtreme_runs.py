"""Every task of XTREME from its files to a record, in both settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from noisytune.lab import InlineEngine, compare
from noisytune.lab.tasks import TaskOptions, load_tasks
from noisytune.lab.tasks.xtreme import OFFICIAL
from tests.support.browser import CHROMIUM, figures_are_legible, measure
from tests.support.tiny_models import save_model
from tests.support.xtreme_files import WORDS, sentence, write_xtreme

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = {"max_steps": 2, "batch_size": 4, "max_length": 40}
GROUPS = ("xnli,bucc,tatoeba", "pawsx", "udpos", "panx", "xquad,mlqa", "tydiqa")
"""Tasks that share a training stand together."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = [sentence(code, i) for code in WORDS for i in range(60)]
    return save_model("xlm-r", tmp_path_factory.mktemp("xtreme") / "xlm-r", text)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_xtreme(tmp_path_factory.mktemp("files"), ("de", "ru", "zh"))


@pytest.mark.parametrize("setting", ["transfer", "translate-train-all"])
@pytest.mark.parametrize("names", GROUPS)
def test_a_task_is_trained_once_and_scored_in_each_language(
    names: str, setting: str, model: Path, data: Path, tmp_path: Path
) -> None:
    tasks = ",".join(f"xtreme/{name}" for name in names.split(","))
    options = TaskOptions(data_dir=data, setting=setting)  # type: ignore[arg-type]
    steps: list[str] = []
    with InlineEngine() as engine:
        result = compare(
            model,
            tasks,
            seeds=1,
            training=FEW,
            options=options,
            out=tmp_path,
            engine=engine,
            on_event=lambda event: steps.append(type(event).__name__),
        )
    assert {record.arm for record in result.records} == {"plain", "noisytune(0.15, exclude=@token_embeddings)"}
    assert {record.task for record in result.records} == set(tasks.split(","))
    for record in result.records:
        official = OFFICIAL[record.task.partition("/")[2]]
        there = [code for code in official.languages if code in WORDS]
        assert set(there) <= set(record.evaluations)
        assert official.metric in record.scores
        assert record.settings["training"]["max_length"] == FEW["max_length"]
    trained = {tuple(task["facts"]["training_rows"]) for task in result.study.tasks}
    assert {len(languages) > 1 for languages in trained} == {setting != "transfer"}
    # Two arms, whatever the number of tasks, unless their languages differ: then translations do.
    assert steps.count("TrialProgress") == 2 * FEW["max_steps"] * len(trained)
    assert len(trained) == 1 or (names, setting) == ("xquad,mlqa", "translate-train-all")


@pytest.mark.slow
def test_all_nine_in_one_study(model: Path, data: Path, tmp_path: Path) -> None:
    options = TaskOptions(data_dir=data, languages=("de", "en"))
    tasks = load_tasks("xtreme", options)
    assert [task.name for task in tasks] == [f"xtreme/{name}" for name in OFFICIAL]
    with InlineEngine() as engine:
        result = compare(model, tasks, seeds=2, training={"epochs": 1, "max_length": 48}, out=tmp_path, engine=engine)
    assert len(result.records) == 2 * 2 * len(OFFICIAL)
    rates = {record.task: record.settings["training"]["learning_rate"] for record in result.records}
    assert (rates["xtreme/xnli"], rates["xtreme/tatoeba"], rates["xtreme/mlqa"]) == (2e-5, 2e-5, 3e-5)
    assert {record.settings["training"]["epochs"] for record in result.records} == {1}
    page = result.report().read_text(encoding="utf-8")
    if CHROMIUM is None:
        pytest.skip("all but the page: no Chromium on the PATH")
    for width in (400, 1400):
        seen = measure(page, tmp_path, width)
        assert seen["page"] <= width
        assert seen["outside"] == []
        figures_are_legible(seen, page)
