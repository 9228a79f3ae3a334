"""A study without its weights or its data: what is asked for, by official numbers, and nothing downloaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from noisytune._pretrained import Model
from noisytune.cli import app
from noisytune.errors import ConfigError, DataError
from noisytune.lab.studies.file import Changes, paper_study
from noisytune.lab.studies.plan import Plan, plans
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.tasks.expected import Expected, expected
from noisytune.lab.tasks.xtreme import OFFICIAL
from tests.support.xtreme_files import write_xtreme


def plan_of(name: str, **changes: object) -> Plan:
    (plan,) = plans(paper_study(name), Changes(**{"models": ("nobody/nothing",), **changes}))  # type: ignore[arg-type]
    assert isinstance(plan, Plan)
    return plan


def test_the_paper_is_planned_from_official_numbers() -> None:
    plan = plan_of("table3")
    assert [one.task.name for one in plan.tasks] == [f"xtreme/{name}" for name in OFFICIAL]
    assert plan.trials == 9 * 2 * 5
    rows = {one.task.name: (one.task.train_rows, one.task.scored_rows) for one in plan.tasks}
    assert rows["xtreme/xnli"] == (392_702, 15 * 5_010)
    assert rows["xtreme/xquad"] == (87_599, 11 * 1_190)
    assert [one.task.name for one in plan.tasks if one.shares_training] == [
        "xtreme/bucc",
        "xtreme/tatoeba",
        "xtreme/mlqa",
    ]
    assert {one.training.epochs for one in plan.tasks} == {3, 5, 10}
    assert plan.parameters is None
    assert plan.lacking[-1] == "the weights of nobody/nothing, nor their configuration"
    shares = plan_of("figure4")
    assert [one.task.train_rows for one in shares.tasks] == [367, 734, 1_467, 2_201, 2_934, 3_668]
    assert shares.tasks[0].task.name == "glue/mrpc 10 %"


def test_what_is_asked_for_takes_the_place_of_the_papers() -> None:
    options = {"languages": ("de", "sw"), "train_size": 1_000, "setting": "translate-train-all"}
    plan = plan_of("table3", options=options, training={"epochs": 1}, seeds=2)
    assert "xtreme/tydiqa" in [one.task.name for one in plan.tasks]
    assert {one.task.train_rows for one in plan.tasks} == {1_000}
    assert {one.training.epochs for one in plan.tasks} == {1}
    assert plan.trials == 2 * 2 * len(plan.tasks)
    found = expected("xtreme/xnli", TaskOptions(languages=("de", "sw"), setting="translate-train-all"))
    assert found is not None
    assert (found.train_rows, found.scored_rows) == (3 * 392_702, 2 * 5_010)
    on_dev = expected("xtreme/udpos", TaskOptions(scored_split="dev"))
    assert on_dev is not None
    assert len(on_dev.languages) == 29  # Kazakh, Thai, Tagalog and Yoruba have no dev set
    assert expected("topics", TaskOptions()) is None
    with pytest.raises(ConfigError, match="XTREME has no 'xx'"):
        plan_of("table3", tasks=("xtreme/xnli",), options={"languages": ("xx",)})


def test_parameters_come_from_the_configuration_alone(tiny: Model, tmp_path: Path) -> None:
    folder = tmp_path / "configured"
    folder.mkdir()
    shutil.copy(tiny.path / "config.json", folder)
    plan = plan_of("figure5", models=(str(folder),))
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny.path)
    looked_up = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    assert plan.parameters == sum(one.numel() for one in model.parameters()) - looked_up
    (one,) = plan.tasks
    tokens = 128 * (3 * 3_668 + 408 / 3)
    assert one.flops(plan.parameters) == pytest.approx(6 * plan.parameters * tokens)
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard of"}))
    assert plan_of("figure5", models=(str(folder),)).parameters is None


def test_data_that_are_here_are_counted(tiny: Model, tmp_path: Path) -> None:
    data = write_xtreme(tmp_path / "download", ("de",))
    changes = {"options": {"data_dir": data}, "tasks": ("xtreme/xnli",)}
    (one,) = plan_of("table3", **changes).tasks
    task = load_task("xtreme/xnli", TaskOptions(data_dir=data))
    assert one.task == Expected.of(task)
    assert (one.task.train_rows, one.task.scored_rows, one.task.languages) == (12, 18, ("de", "en"))
    (study,) = plans(paper_study("table3"), Changes(models=(str(tiny.path),), **changes))  # type: ignore[arg-type]
    assert isinstance(study, Study)
    with pytest.raises(DataError, match="there is no such folder"):
        plan_of("table3", options={"data_dir": tmp_path / "nowhere"})


def test_the_terminal_shows_it() -> None:
    asked = ["reproduce", "table3", "--languages", "en,de,sw", "--dry-run"]
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "80", "NO_COLOR": "1"})
    assert done.exit_code == 0, done.output
    assert "table3 on FacebookAI/xlm-roberta-large: 90 trials" in done.output
    assert "Languages: German (de), English (en), Swahili (sw)." in done.output
    assert "So time here is unknown." in done.output
    assert max(map(len, done.output.splitlines())) <= 80
