"""The commands judge, gate and power as a user and a pipeline meet them: numbers, exit codes, files."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.records import synthetic
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.lab.store import Store
from noisytune.report import report_json, summary_rows

RUNNER = CliRunner()


def call(*arguments: object, code: int = 0) -> str:
    result = RUNNER.invoke(app, [str(one) for one in arguments], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def scores_of(folder: Path, gains: list[float], name: str = "scores.csv") -> Path:
    lines = [
        f"{seed},{arm},{70 + (seed * 7) % 5 + gain * (arm == 'noisy')}"
        for seed, gain in enumerate(gains)
        for arm in ("plain", "noisy")
    ]
    (folder / name).write_text("\n".join(["seed,arm,score", *lines]))
    return folder / name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder: two tasks, two arms beside the baseline, nine seeds."""
    study, records = synthetic(tasks=2, arms=3, seeds=9, examples=50, steps=3)
    store = Store(tmp_path_factory.mktemp("runs") / "run")
    for record in records:
        store.write(record)
    store.write_study(study)
    return store.folder


def test_judging_the_scores_of_a_run_gives_that_runs_numbers(run: Path, tmp_path: Path) -> None:
    call("export", run, "--out", tmp_path / "scores.csv")
    told = json.loads(call("judge", tmp_path / "scores.csv", "--margin", 0.5, "--out", tmp_path / "report", "--json"))
    store = Store(run)
    study = store.read_study()
    assert study is not None
    own = report_json(study, store.records([entry["key"] for entry in study.trials]))
    for mine, other in zip(own["comparisons"], told["comparisons"], strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            assert other[key] == (pytest.approx(value, abs=1e-9) if isinstance(value, float) else value), key
    assert (own["verdict"], own["arm"], own["decided"]) == (told["verdict"], told["arm"], told["decided"])
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == told
    assert "paired by seed" in (tmp_path / "report" / "report.md").read_text()
    assert "head initialisation" not in (tmp_path / "report" / "report.html").read_text()


def test_a_file_of_scores_is_judged(tmp_path: Path) -> None:
    said = call("judge", scores_of(tmp_path, [1.0, 1.2, 0.9, 1.1, 1.3, 0.8, 1.0, 1.1]), "--out", tmp_path / "out")
    assert "Helped after 8 pairs: noisy raised score on scores.csv by 1.05 points (e = " in " ".join(said.split())
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]


@pytest.mark.parametrize(
    ("gains", "codes"),
    [
        ([1.0, 1.2, 0.9, 1.1, 1.3, 0.8, 1.0, 1.1], (0, 0, 0)),
        ([-1.0, -1.2, -0.9, -1.1, -1.3, -0.8, -1.0, -1.1], (1, 1, 0)),
        ([0.1, -0.1, 0.05, 0.0, -0.12, 0.07, 0.03, -0.02], (1, 0, 0)),
        ([1.0, -1.2, 3.0, -2.0], (3, 3, 3)),
    ],
)
def test_exit_codes(tmp_path: Path, gains: list[float], codes: tuple[int, ...]) -> None:
    file = scores_of(tmp_path, gains)
    for require, code in zip(("helped", "not-worse", "decided"), codes, strict=True):
        said = call("gate", file, "--require", require, "--margin", 0.5, code=code)
        assert said.startswith(f"{require}: { {0: 'yes', 1: 'no', 3: 'undecided'}[code] }. noisy, ")


def test_a_run_folder_has_a_gate_too(run: Path) -> None:
    told = json.loads(call("gate", run, "--require", "decided", "--json", code=3))
    assert (told["schema"], told["version"], told["gate"]["require"]) == ("noisytune.report", 1, "decided")
    assert {one["answer"] for one in told["gate"]["answers"]} <= {"yes", "undecided"}
    assert "arm must be one of" in call("gate", run, "--require", "helped", "--arm", "nobody", code=2)
    call("gate", run.parent / "gone", "--require", "helped", code=2)
    call("gate", run, "--require", "better", code=2)


FIELDS = {
    "schema", "version", "study", "model", "baseline", "margin", "trials_planned", "trials_done", "trials_failed",
    "verdict", "arm", "decided", "sentence", "notes", "comparisons",
}  # fmt: skip
OF_COMPARISON = {
    "task", "arm", "primary", "pooled", "verdict", "verdict_by_interval", "pairs", "pairs_planned", "baseline", "score",
    "difference", "sd", "interquartile_mean", "e", "e_needed", "anytime_low", "anytime_high", "fixed_low", "fixed_high",
    "wins", "ties", "losses", "p", "p_holm", "detectable", "probability_below_margin", "probability_within_margin",
    "probability_above_margin", "failed",
}  # fmt: skip


def test_the_schema_of_the_report_is_an_interface() -> None:
    study, records = synthetic(tasks=2, seeds=3, examples=20, steps=3)
    told = report_json(study, records)
    assert (told["schema"], told["version"]) == ("noisytune.report", 1)
    assert set(told) == FIELDS
    assert all(set(one) == OF_COMPARISON for one in told["comparisons"])
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    rows = {(row.task, row.arm): row for row in summary_rows(study, records)}
    for one in told["comparisons"]:
        row = rows[one["task"], one["arm"]]
        assert (one["verdict"], one["pairs"], one["difference"]) == (row.verdict.value, row.n, row.difference)


def test_the_report_of_a_task_called_trials_leaves_the_run_folder_readable(tmp_path: Path) -> None:
    store = Store(tmp_path)
    study, _ = synthetic(seeds=2, examples=20, steps=3)
    store.write_study(study)
    (tmp_path / "report.json").write_text(json.dumps({"task": "trials"}))
    assert list(store.studies()) == ["study"]


def test_power_in_words_and_as_json(run: Path) -> None:
    said = call("power", "--sd", 1.2, "--effect", 0.5)
    assert "looked at once: 48 pairs find it in 80% of studies" in said
    assert "--until-decided --max-seeds 50 --margin 1: stops after" in said
    told = json.loads(call("power", "--from", run, "--effect", 2, "--json"))
    assert (told["schema"], told["version"], told["comparisons"]) == ("noisytune.power", 1, 2)
    assert (told["pilot"]["trials"], told["pilot"]["waits_for"]) == (6, 4), "three arms, two tasks"
    assert sum(told["stops"]["shares"].values()) == pytest.approx(1.0)
    said = call("power", "--from", run)
    assert "time: until decided" in said
    assert "one comparison, where --until-decided waits for 4 (each arm on each task), at most 50" in said
    assert "9 pairs know their spread roughly" in said
    assert "--effect must be given, in points" in call("power", code=2)
    assert "sd must be a finite number > 0" in call("power", "--sd", 0, "--effect", 1, code=2)
    for options in (["--sd", 1e300, "--effect", 1], ["--sd", 1, "--effect", "inf"]):
        assert "is not a number up to 1,000,000" in call("power", *options, code=2)
    assert "--max-seeds" in call("power", "--sd", 1, "--effect", 1, "--max-seeds", 100_000, code=2)


def test_result_folders_need_an_arm_each(tmp_path: Path) -> None:
    assert "give one file of scores, or ARM=RESULTS" in call("judge", "a.csv", "b.csv", code=2)
    assert "no such folder" in call("judge", "a=gone", "b=gone", code=2)


@pytest.mark.parametrize("margin", ["inf", "nan", "1e308", "-1"])
def test_a_margin_is_a_finite_number(tmp_path: Path, margin: str) -> None:
    file = scores_of(tmp_path, [1.0, 1.2])
    for command in (["judge", file, "--out", tmp_path / "out"], ["gate", file, "--require", "decided"]):
        assert "Invalid value for '--margin'" in call(*command, "--margin", margin, code=2)
    assert not (tmp_path / "out").exists()


def test_a_report_needs_a_folder(tmp_path: Path) -> None:
    file = scores_of(tmp_path, [1.0, 1.2])
    before = file.read_bytes()
    assert f"{file}: cannot be made (File exists); give another --out" in call("judge", file, "--out", file, code=1)
    assert file.read_bytes() == before


def test_a_file_of_losses_has_a_gate(tmp_path: Path) -> None:
    file = scores_of(tmp_path, [-1.0, -1.2, -0.9, -1.1, -1.3, -0.8, -1.0, -1.1])
    call("gate", file, "--require", "helped", code=1)
    call("gate", file, "--require", "helped", "--lower-is-better", code=0)


def test_the_unit_of_a_file_can_be_said_and_that_of_a_run_folder_is_known(run: Path, tmp_path: Path) -> None:
    """Losses of 2.1 nats are no points: at a margin of 1 a difference of 0.3 is 30 points and matters."""
    rows = [f"{seed},{2.1 + seed % 3 / 50},{1.8 + seed % 3 / 40}" for seed in range(8)]
    (tmp_path / "nats.csv").write_text("\n".join(["seed,plain,noisy", *rows]))
    losses = ["--require", "helped", "--lower-is-better"]
    told = json.loads(call("gate", tmp_path / "nats.csv", *losses, "--score-unit", "fractions", "--json"))
    assert told["comparisons"][0]["difference"] == pytest.approx(29.5, abs=1.0)
    told = json.loads(call("gate", tmp_path / "nats.csv", *losses, "--json"))
    assert told["comparisons"][0]["difference"] == pytest.approx(0.295, abs=0.01)
    assert "a run folder knows its unit" in call("gate", run, *losses, code=2)


def test_a_file_may_say_its_baseline_last(run: Path, tmp_path: Path) -> None:
    """An arm that hurts does not pass because its column stands first."""
    for name, said in (("plain", []), ("none", ["--baseline", "none"])):
        rows = [f"{seed},{69 + seed % 5},{70 + seed % 5 + seed / 100}" for seed in range(12)]
        (tmp_path / "pivot.csv").write_text("\n".join([f"seed,noisy,{name}", *rows]))
        asked = call("gate", tmp_path / "pivot.csv", "--require", "not-worse", "--margin", 0.5, *said, code=1)
        assert "noisy, pivot.csv: hurt" in asked
    assert "knows its unit, its baseline" in call("gate", run, "--require", "helped", "--baseline", "plain", code=2)


def test_gains_of_any_scale_are_judged_alike(tmp_path: Path) -> None:
    gains = np.random.default_rng(0).normal(0.4, 0.5, 12).round(3).tolist()
    points = json.loads(call("judge", scores_of(tmp_path, gains), "--out", tmp_path / "a", "--json"))
    text = (tmp_path / "scores.csv").read_text().splitlines()
    fractions = [line.rsplit(",", 1) for line in text[1:]]
    (tmp_path / "f.csv").write_text(
        "\n".join([text[0], *(f"{head},{float(value) / 100}" for head, value in fractions)])
    )
    told = json.loads(call("judge", tmp_path / "f.csv", "--out", tmp_path / "b", "--json"))
    assert told["comparisons"][0]["e"] == pytest.approx(points["comparisons"][0]["e"])
    assert told["comparisons"][0]["difference"] == pytest.approx(points["comparisons"][0]["difference"])


@pytest.mark.parametrize(
    ("gains", "code", "warns"), [([0.4] * 4 + [0.5] * 4, 0, False), ([-1.0] * 8, 1, False), ([3.0, -3.0], 0, True)]
)
def test_the_action_of_the_documentation_runs(tmp_path: Path, gains: list[float], code: int, warns: bool) -> None:
    page = (Path(__file__).parents[2] / "docs" / "judge.md").read_text()
    (action,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (script,) = [step["run"] for step in yaml.safe_load(action)["jobs"]["gate"]["steps"] if step.get("name") == "gate"]
    scores_of(tmp_path, gains)
    here = f'noisytune() {{ "{sys.executable}" -m noisytune "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-e", "-c", here + script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    assert ("::warning::" in done.stdout) == warns


def test_scores_whose_names_differ_by_signs_have_a_report_each(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    rows = [f"{arm},{seed},{seed + (arm == 'noisy')},{seed * 2}" for arm in ("plain", "noisy") for seed in range(4)]
    file.write_text("\n".join(["arm,seed,f1 (a),F1 [a]", *rows]) + "\n")
    call("judge", file, "--out", tmp_path / "out")
    pages = sorted(page.name for page in (tmp_path / "out").glob("*.html"))
    assert len(pages) == 2
    texts = [(tmp_path / "out" / page).read_text() for page in pages]
    assert len({page.casefold() for page in pages}) == 2
    assert ["f1 (a)" in text for text in texts] != ["F1 [a]" in text for text in texts]
