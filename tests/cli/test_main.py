"""The command line as a user meets it: a real run, extension, and one clear line for everything that goes wrong."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.cli._running import Running
from noisytune.lab.engines import InlineEngine, LocalEngine
from noisytune.lab.tasks.glue import OFFICIAL
from tests.support.glue_files import write_glue

QUICK = ["--epochs", "1", "--train-size", "40", "--dev-size", "30", "--max-length", "32", "--learning-rate", "1e-3"]


def noisytune(*arguments, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "noisytune", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"} | environment,
        check=False,
        cwd=cwd,
    )


@contextlib.contextmanager
def no_worker_before_its_job():
    """Commands start one while they load data, and with a command that fails it would be for nothing."""
    start, run = LocalEngine.start, LocalEngine.run

    def run_late(engine, *arguments, **options):
        start(engine)
        run(engine, *arguments, **options)

    with patch.object(LocalEngine, "start", lambda *_, **__: None), patch.object(LocalEngine, "run", run_late):
        yield


def fails(code, *arguments):
    """Run in this process; return the one line of the error."""
    with no_worker_before_its_job():
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    return line


def records(folder):
    return {
        path.stem: {
            key: value for key, value in json.loads(path.read_text()).items() if key not in ("timing", "environment")
        }
        for path in sorted((folder / "trials").glob("*.json"))
    }


@pytest.fixture(scope="module")
def first(tiny, tmp_path_factory):
    """A study of two pairs, and its run folder: not to be written to."""
    run = tmp_path_factory.mktemp("runs") / "run"
    return noisytune("compare", "--model", tiny.path, *QUICK, "--seeds", 2, "--workers", 1, "--out", run), run


@pytest.fixture
def run(first, tmp_path):
    """A run folder with a finished study of two pairs."""
    done, folder = first
    assert done.returncode == 0, done.stderr
    return Path(shutil.copytree(folder, tmp_path / "run"))


def test_a_study_is_run_shown_reported_and_extended(tiny, first, run):
    first, folder = first
    assert first.stderr == ""
    assert "4/4" in first.stdout
    assert "Inconclusive after 2 pairs" in first.stdout.replace("\n", " ")
    summary = first.stdout.partition("\n\n")[2].splitlines()
    assert max(map(len, summary)) <= max(80, len(f"Report: {folder / 'report.html'}"))
    assert (run / "report.html").exists()
    assert (run / "report.md").exists()
    before = {path: path.stat().st_mtime_ns for path in (run / "trials").iterdir()}
    more = noisytune(
        *("compare", "--model", tiny.path, *QUICK, "--seeds", 3, "--noise-lambda", "0,0.15,0.3", "--out", run),
        *("--workers", 1, "--json"),
        COLUMNS="60",
    )
    assert more.returncode == 0, more.stderr
    assert json.loads(more.stdout) == json.loads((run / "report.json").read_text())
    assert "4 of 9 trials are done already" in more.stderr
    line = re.compile(r"^ +[5-9]/9  seed \d   \S+ +accuracy +\d+\.\d\d  \d+ s", re.MULTILINE)
    assert len(line.findall(more.stderr)) == 5, "one a trial, whatever the width"
    assert len(records(run)) == 9
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())


@pytest.mark.slow
def test_glue_is_one_study_of_the_tasks_that_are_there(tiny, tmp_path):
    data = write_glue(tmp_path / "data")
    for name in ("cola", "sst2", "mrpc", "qqp", "qnli", "wnli"):
        shutil.rmtree(data / OFFICIAL[name].folder)
    options = ["--select", "best", "--protocol", "clean", "--epochs", 2, "--max-length", 32, "--workers", 1]
    done = noisytune(
        "compare", "--model", tiny.path, "--task", "glue", "--data-dir", data, "--seeds", 1, *options, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "glue/cola, glue/sst2, glue/mrpc, glue/qqp, glue/qnli, glue/wnli: no folder in" in told
    assert "glue/mnli train: 8 of 392,702 rows" in told
    assert "(select best, protocol clean)" in told
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("glue-")
    trials = list(records(run).values())
    assert sorted({trial["settings"]["task"]["name"] for trial in trials}) == ["glue/mnli", "glue/rte", "glue/stsb"]
    assert all(len(trial["epoch_scores"]) == 2 for trial in trials)
    page = (run / "report.html").read_text()
    assert "all 3 tasks" in page
    assert "select best, protocol clean" in page


def test_report_is_rendered_again_without_torch(run, tmp_path):
    page = (run / "report.html").read_text()
    (run / "report.html").unlink()
    blocked = tmp_path / "blocked" / "torch"
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text("raise ImportError('torch must not be loaded')")
    again = noisytune("report", run, PYTHONPATH=str(blocked.parent))
    assert again.returncode == 0, again.stderr
    assert (run / "report.html").read_text() == page


@pytest.mark.slow
def test_until_decided_stops_at_the_most_seeds(tiny, tmp_path):
    run = tmp_path / "run"
    arguments = ["--seeds", 1, "--until-decided", "--max-seeds", 3, "--margin", 0, "--out", run]
    done = noisytune("compare", "--model", tiny.path, *QUICK, *arguments)
    assert done.returncode == 0, done.stderr
    assert len(records(run)) == 6


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--noise-lambda", "0"], 2, "give an arm, or --noise-lambda above 0"),
        (
            ["--noise-lambda", "much"],
            2,
            "--noise-lambda must be one or several, none twice, of: a finite number >= 0, got 'much'",
        ),
        (
            ["--distribution", "normal"],
            2,
            "--distribution must be one or several, none twice, of: uniform or gaussian, got 'normal'",
        ),
        (["--learning-rate", "-1"], 2, "--learning-rate must be a finite number > 0"),
        (["--warmup", "2"], 2, "0 <= warmup < 1"),
        (["--metric", "accurracy"], 2, "no metric 'accurracy'"),
        (["--task", "topcs"], 2, "did you mean 'topics'?"),
        (["--task", "missing.csv"], 2, "missing.csv"),
        (["--task", "topics", "--language", "klingon"], 1, "klingon"),
        (["--model", "./no-such-folder"], 2, "no-such-folder"),
        (["--task", "glue/rt"], 2, "did you mean 'glue/rte'?"),
        (["--task", "glue", "--data-dir", "nowhere"], 2, "--data-dir nowhere: there is no such folder"),
        (["--task", "topics", "--data-dir", "."], 2, "--data-dir is for the tasks of glue"),
        (["--select", "worst"], 2, "--select must be last or best"),
        (["--protocol", "dirty"], 2, "--protocol must be paper or clean"),
        (["--train-size", "2"], 1, "--train-size 2 is too small"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_settings_are_one_line(arguments, code, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in fails(code, "compare", *arguments)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("text,stars\na,1\n", ["--text-columns", "body", "--label-column", "stars"], "body"),
        ("text,label\ngood,yes\nfine,yes\nnice,yes\n", [], "class"),
        ("text,label\n", [], "no rows"),
        ("", [], "no rows"),
    ],
    ids=["no such column", "one class", "no rows", "empty file"],
)
def test_wrong_files_are_one_line(text, options, words, tmp_path):
    file = tmp_path / "data.csv"
    file.write_text(text)
    line = fails(1, "compare", "--task", file, "--out", tmp_path / "run", *options)
    assert words in line
    assert "data.csv" in line


@pytest.mark.slow
def test_damaged_weights_are_one_line_naming_the_tensor(tiny, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny.path, broken)
    weights = load_file(broken / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][0, 0] = torch.nan
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    line = fails(1, "compare", "--model", broken, *QUICK, "--seeds", "1", "--out", tmp_path / "run")
    assert "encoder.layer.0.output.dense.weight" in line
    assert "NaN" in line


def test_another_study_is_not_mixed_in(tiny, run):
    before = records(run)
    line = fails(1, "compare", "--model", tiny.path, *QUICK, "--epochs", "2", "--seeds", "1", "--out", run)
    assert "its epochs is 1, not 2; choose another run folder" in line
    assert records(run) == before


def test_missing_extra_says_what_to_install(monkeypatch, tmp_path):
    import noisytune.errors

    monkeypatch.setattr(noisytune.errors, "find_spec", lambda name: None)
    line = fails(1, "compare", "--out", tmp_path / "run")
    assert "pip install 'noisytune[lab]'" in line


def test_report_of_something_else_is_refused(tmp_path):
    assert "holds no study" in fails(1, "report", tmp_path)
    (tmp_path / "study.json").write_text("{}")
    assert "not a record that noisytune wrote" in fails(1, "report", tmp_path)


def test_debug_shows_the_traceback():
    done = noisytune("compare", "--task", "topcs", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


SMALL = ["--tasks", "topics", "--train-size", "60", "--seeds", "1", "--epochs", "1"]


def keys(folder):
    return {path.stem: path.stat().st_mtime_ns for path in (folder / "trials").iterdir()}


@pytest.fixture(scope="module")
def longer(tmp_path_factory, save_tiny):
    """The tiny model with room for the studies' 128 tokens."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-long", max_position_embeddings=128)


@pytest.mark.slow
def test_studies_of_the_paper_share_a_folder_and_its_trials(longer, tmp_path):
    run = tmp_path / "runs" / "paper"
    plan = noisytune("reproduce", "figure6", "--models", longer, *SMALL, "--dry-run", "--out", run)
    assert plan.returncode == 0, plan.stderr
    assert "7 trials to run, 0 are done" in plan.stdout
    assert max(map(len, plan.stdout.splitlines())) <= 80
    assert not run.exists()
    done = noisytune("reproduce", "figure6", "--models", longer, *SMALL, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "How much noise" in (run / "figure6.html").read_text()
    before = keys(run)
    assert len(before) == 7
    done = noisytune("reproduce", "figure2", "--models", longer, *SMALL, "--out", run)
    assert done.returncode == 0, done.stderr
    assert "2 of 5 trials are done already" in done.stdout  # plain, and lambda 0.15
    assert keys(run).items() >= before.items()
    assert len(keys(run)) == 10
    assert "Which noise" in (run / "figure2.html").read_text()
    pages = {page: page.read_bytes() for page in run.glob("*.html")}
    for page in pages:
        page.unlink()
    again = noisytune("report", run)
    assert again.returncode == 0, again.stderr
    assert {page: page.read_bytes() for page in run.glob("*.html")} == pages


@pytest.mark.slow
def test_a_study_of_two_models_has_a_page_each_and_one_on_both(longer, tmp_path):
    other = shutil.copytree(longer, tmp_path / "other-bert")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hidden_dropout_prob": 0.2}))
    shown = CliRunner().invoke(app, ["reproduce", "figure5", "--show"]).stdout
    file = tmp_path / "my-study.yaml"
    file.write_text(shown.replace("models: [google-bert/bert-base-uncased]", f"models: [{longer}, other-bert]"))
    file.write_text(file.read_text().replace("name: figure5", "name: mine").replace("seeds: 5", "seeds: 1"))
    file.write_text(file.read_text().replace("[glue/mrpc]", "[{task: topics, train_size: 40, dev_size: 30}]"))
    run = tmp_path / "run"
    done = noisytune("run", file, "--out", run)
    assert done.returncode == 0, done.stderr
    assert len(keys(run)) == 4
    names = {f"mine-{longer.name}", "mine-other-bert"}
    assert {page.stem for page in run.glob("*.html")} == {page.stem for page in run.glob("*.md")} == names | {"mine"}
    assert {page.stem for page in run.glob("*.json")} == names | {f"{name}.report" for name in names}
    overview = (run / "mine.html").read_text()
    assert all(f'href="{name}.html"' in overview for name in names)
    assert f"Report on all models: {run / 'mine.html'}" in done.stdout
    assert {longer.name, "other-bert"} <= set(done.stdout.splitlines())
    assert "How far training moved the weights" in overview


def test_a_study_that_does_not_exist_is_one_line(tmp_path):
    assert "did you mean 'table2'" in fails(2, "reproduce", "tabel2", "--out", tmp_path)
    assert "no such directory" in fails(2, "reproduce", "figure5", "--models", tmp_path / "none", "--out", tmp_path)


@pytest.mark.parametrize(("arguments", "encoding"), [
    (["compare", "--help"], "ascii"),
    (["methods"], "cp1252"),
    (["compare", "--task", "n\u0101\u202e.csv"], "ascii"),
])  # fmt: skip
def test_any_encoding_of_the_output_will_do(arguments, encoding):
    done = noisytune(*arguments, PYTHONIOENCODING=encoding, LC_ALL="C")
    assert done.returncode == (2 if "--task" in arguments else 0)
    assert "Unicode" not in done.stderr


def test_errors_name_options_as_they_are_written():
    error = fails(2, "compare", "--max-length", "3")
    assert error == "Error: --max-length must be a whole number >= 4, got 3"
    error = fails(2, "compare", "--arm", "noisytune(much)")
    assert error == "Error: noisytune: noise_lambda must be a finite number >= 0, got 'much'"


def test_reproduce_takes_the_folders_of_glue_that_are_there(longer, tmp_path, monkeypatch):
    monkeypatch.setattr(Running, "workplace", lambda how: InlineEngine(how.workers))
    data = write_glue(tmp_path / "data")
    for name in OFFICIAL:
        if name not in ("rte", "cola"):
            shutil.rmtree(data / OFFICIAL[name].folder)
    options = ["--seeds", "1", "--epochs", "1", "--batch-size", "4", "--dry-run", "--workers", "1"]
    plan = CliRunner().invoke(app, ["reproduce", "table2", "--models", str(longer), "--data-dir", str(data), *options])
    assert plan.exit_code == 0, plan.output
    assert "4 trials to run" in plan.stdout
