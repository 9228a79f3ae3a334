"""The checkpoint commands as a user meets them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import typer.main
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.cli import checkpoint as _checkpoint_cli


@pytest.fixture
def run():
    def run(*arguments, code=0, columns=100):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": str(columns)})
        assert result.exit_code == code, result.output
        assert "Traceback" not in result.output
        return result

    return run


@pytest.fixture
def clean(tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        "bert.embeddings.word_embeddings.weight": rng.standard_normal((8, 4), np.float32),
        "bert.layer.0.attention.self.query.weight": 3 * rng.standard_normal((4, 4), np.float32),
        "classifier.bias": np.ones(2, np.float32),
    }
    folder = tmp_path / "clean"
    folder.mkdir()
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def test_perturb_verify_and_diff(clean, tmp_path, run):
    noisy = tmp_path / "noisy"
    done = run("perturb", clean, noisy, "--noise-lambda", 0.3, "--seed", 1, "--exclude", "*query*")
    assert "1 of 3 tensors" in done.stdout
    assert f"Written: {noisy}" in done.stdout
    assert done.stderr == ""
    assert "3 tensors" in run("verify", noisy).stdout
    assert "bit for bit" in run("verify", noisy, "--against", clean).stdout
    table = run("diff", clean, noisy, "--plot", tmp_path / "figure.png").stdout
    assert "embeddings" in table
    assert "query" in table
    assert (tmp_path / "figure.png").stat().st_size > 1000
    told = json.loads(run("diff", clean, noisy, "--json").stdout)
    roles = {role["role"]: role["relative_l1"] for role in told["roles"]}
    assert roles["query"] == roles["head"] == 0 < roles["embeddings"] < 0.2


def test_a_role_is_left_out_kept_in_the_record_and_verified(clean, tmp_path, run):
    noisy = tmp_path / "noisy"
    assert "1 of 3 tensors" in run("perturb", clean, noisy, "--exclude", "@token_embeddings").stdout
    assert json.loads((noisy / "config.json").read_text())["noisytune"]["exclude"] == ["@token_embeddings"]
    assert "excluded: @token_embeddings" in (noisy / "noisytune.json").read_text()
    assert "bit for bit" in run("verify", noisy, "--against", clean).stdout
    rows = json.loads(run("inspect", clean, "--json", "--exclude", "@token_embeddings").stdout)["tensors"]
    assert [row["left_alone"] for row in rows] == ["excluded: @token_embeddings", None, "constant"]


def test_dry_run_writes_nothing(clean, tmp_path, run):
    done = run("perturb", clean, tmp_path / "noisy", "--dry-run")
    assert "Nothing was written." in done.stdout
    assert "left: constant" in done.stdout
    assert os.listdir(tmp_path) == ["clean"]


def test_inspect_lists_sorts_and_speaks_json(clean, run):
    table = run("inspect", clean).stdout
    assert "bert.layer.0.attention.self.query.weight" in table
    assert "left: constant" in table
    rows = json.loads(run("inspect", clean, "--json", "--sort", "std").stdout)["tensors"]
    assert [row["name"].split(".")[-2] for row in rows] == ["query", "word_embeddings", "classifier"]
    assert rows[0]["scale"] == pytest.approx(0.15 * rows[0]["std"])
    assert json.loads(run("inspect", clean, "--json", "--sort", "size").stdout)["tensors"][0]["shape"] == [8, 4]


def test_inspect_shows_both_spellings_of_names(clean, run):
    lines = run("inspect", clean, "--names").stdout.splitlines()
    assert lines[0].split() == ["canonical", "name", "in", "the", "files"]
    shown = [line.split() for line in lines[1:]]
    assert ["layer.0.attention.self.query.weight", "bert.layer.0.attention.self.query.weight"] in shown


def test_inspect_shows_every_column_in_80(minilm, run):
    lines = run("inspect", minilm.path, columns=80).stdout.splitlines()
    assert lines[0].split() == ["tensor", "shape", "dtype", "std", "noise"]
    assert max(map(len, lines)) <= 80
    words = next(line for line in lines if "30522x384" in line).split()
    assert words[1:] == ["30522x384", "float32", "0.0556", "+-0.00417"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["perturb", "gone-at-all", "noisy", "--seed", "-1"], 1, "gone-at-all"),
        (["perturb", "clean", "noisy", "--seed", "-1"], 2, "--seed must be"),
        (["perturb", "clean", "noisy", "--scale", "both"], 2, "--scale must be matrix or global"),
        (["perturb", "clean", "noisy", "--include", "nothing"], 2, "matches none"),
        (["perturb", "clean", "clean/x"], 1, "own directory"),
        (["verify", "clean"], 1, "no noisytune.json"),
        (["inspect", "."], 1, "not a model's directory"),
        (["diff", "clean", "other"], 1, "other"),
    ],
)
def test_what_goes_wrong_is_one_line(arguments, code, words, clean, tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    error = run(*arguments, code=code).stderr
    assert words in error
    assert len(error.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == ["clean"]


def test_damage_is_found(clean, tmp_path, run):
    run("perturb", clean, tmp_path / "noisy")
    file = tmp_path / "noisy" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    for options in ([], ["--against", clean]):
        assert "model.safetensors: " in run("verify", tmp_path / "noisy", *options, code=1).stderr


def test_progress_is_shown_on_a_terminal_only(clean, tmp_path, run, monkeypatch):
    assert run("perturb", clean, tmp_path / "quiet").stderr == ""
    console = _checkpoint_cli.Console
    monkeypatch.setattr(_checkpoint_cli, "Console", lambda **options: console(force_terminal=True, **options))
    assert "Perturbing" in run("perturb", clean, tmp_path / "loud").stderr


@pytest.mark.parametrize("command", ["perturb", "inspect", "diff", "verify"])
def test_help_explains_every_option_within_eighty_columns(command):
    group = typer.main.get_command(app)
    assert all(getattr(parameter, "help", None) for parameter in group.commands[command].params)
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout
    assert max(map(len, shown.splitlines())) <= 80


def test_the_commands_load_nothing_heavy_before_they_are_called():
    program = (
        "import sys, noisytune.cli.checkpoint; print([m for m in ('torch', 'numba', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_weights_of_the_hub_that_carry_noise_are_inspected_and_take_more(clean, tmp_path, run, monkeypatch):
    import huggingface_hub

    run("perturb", clean, tmp_path / "noisy", "--seed", 4)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path / "noisy"))
    assert "query" in run("inspect", "someone/noisy").stdout
    assert "seed 4" in run("perturb", "someone/noisy", tmp_path / "more", code=1).stderr
    run("perturb", "someone/noisy", tmp_path / "more", "--again")
    assert json.loads((tmp_path / "more" / "config.json").read_text())["noisytune"]["earlier"]["seed"] == 4


def test_verify_says_what_it_covers(clean, tmp_path, run):
    (clean / "vocab.txt").write_text("a")
    run("perturb", clean, tmp_path / "noisy")
    assert "Other files: not looked at (--all)." in run("verify", tmp_path / "noisy").stdout
    assert "Other files: 3, as they were written." in run("verify", tmp_path / "noisy", "--all").stdout
    (tmp_path / "noisy" / "vocab.txt").write_text("b")
    assert "vocab.txt: is not what was written" in run("verify", tmp_path / "noisy", "--all", code=1).stderr
