"""What programs read: with --json one object of a documented shape on standard output, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import typer.main
from support.records import synthetic
from typer.testing import CliRunner

from noisytune.checkpoint import perturb_checkpoint
from noisytune.cli import app
from noisytune.lab.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def call(*arguments: object, code: int = 0) -> tuple[dict[str, Any], str]:
    """The object on standard output, and what standard error says."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], env={"COLUMNS": "60"})
    assert result.exit_code == code, result.output
    told = json.loads(result.stdout)
    assert told["schema"].startswith("noisytune.")
    assert told["version"] == 1
    assert "Traceback" not in result.stderr
    return told, result.stderr


def documented() -> dict[str, tuple[list[str], list[str]]]:
    """Of each schema on the page its commands, and the names among its fields."""
    rows = re.findall(r"^\| `noisytune\.(\w+)` \| (.*?) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        schema: (re.findall(r"`(\w+)`", commands), re.findall(r"`(\w+)`", fields)) for schema, commands, fields in rows
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder."""
    store = Store(tmp_path_factory.mktemp("runs") / "run")
    study, records = synthetic(seeds=8, examples=20, steps=3)
    for record in records:
        store.write(record)
    store.write_study(study)
    return store.folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and one with noise."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "clean").mkdir()
    weights = {"bert.query.weight": np.random.default_rng(0).standard_normal((4, 4), np.float32)}
    safetensors.numpy.save_file(weights, folder / "clean" / "model.safetensors")
    (folder / "clean" / "config.json").write_text('{"model_type": "bert"}')
    perturb_checkpoint(folder / "clean", folder / "noisy")
    return folder / "clean", folder / "noisy"


def test_the_page_has_every_command_that_speaks_json() -> None:
    speaking = {name for name, command in COMMANDS.items() if any(one.name == "as_json" for one in command.params)}
    assert {name for commands, _ in documented().values() for name in commands} == speaking


@pytest.mark.parametrize("command", ["inspect", "diff", "verify", "status", "power"])
def test_an_object_has_the_fields_of_the_page(command: str, run: Path, checkpoints: tuple[Path, Path]) -> None:
    clean, noisy = checkpoints
    arguments = {
        "inspect": [clean],
        "diff": [clean, noisy],
        "verify": [noisy, "--against", clean, "--all"],
        "status": [run],
        "power": ["--from", run],
    }
    told, said = call(command, *arguments[command])
    assert said == ""
    assert told["schema"] == f"noisytune.{command}"
    mine = dict.fromkeys(key for key in told if key not in ("schema", "version"))
    lists = [told[name] for name in ("tensors", "roles", "studies") if isinstance(told.get(name), list)]
    mine |= dict.fromkeys(key for rows in lists for key in rows[0])
    assert set(mine) == set(documented()[command][1])


def test_report_prints_what_the_file_holds(run: Path, tmp_path: Path) -> None:
    told, said = call("report", run, "--out", tmp_path)
    assert said == ""
    assert told == json.loads((tmp_path / "report.json").read_text())
    gated, _ = call("gate", run, "--require", "decided", code=0 if told["decided"] else 3)
    assert gated.pop("gate")["require"] == "decided"
    assert gated == told


def test_several_studies_are_one_object_too(tmp_path: Path) -> None:
    rows = [f"{seed},{70 + seed},{71 + seed},{metric}" for metric in ("f1", "recall") for seed in range(8)]
    (tmp_path / "scores.csv").write_text("\n".join(["seed,plain,noisy,metric", *rows]))
    told, _ = call("judge", tmp_path / "scores.csv", "--out", tmp_path / "out")
    assert told["schema"] == "noisytune.reports"
    assert [one["schema"] for one in told["reports"]] == ["noisytune.report"] * 2
    gated, _ = call("gate", tmp_path / "scores.csv", "--require", "helped")
    assert [one["gate"]["answers"][0]["answer"] for one in gated["reports"]] == ["yes", "yes"]


def test_what_fails_is_told_and_is_one_line_too(checkpoints: tuple[Path, Path], tmp_path: Path) -> None:
    _, noisy = checkpoints
    told, said = call("verify", noisy, "--against", noisy, code=1)
    assert not told["ok"]
    assert said == f"Error: {told['problems'][0]}\n"
    for arguments, code in ((["inspect", tmp_path / "gone"], 2), (["run", "x.yaml", "--dry-run"], 2), (["status"], 2)):
        result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
        assert (result.exit_code, result.stdout) == (code, "")
        assert len(result.stderr.splitlines()) == 1
