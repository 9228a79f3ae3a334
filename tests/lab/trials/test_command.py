"""A command as the trial: what it gets, what is read, and what scripts that misbehave come to."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

import pytest

from noisytune._processes import marked
from noisytune.checkpoint import verify_checkpoint
from noisytune.errors import ConfigError, NotFoundError, TrialError
from noisytune.lab.studies.compare import arms_of
from noisytune.lab.studies.own import OwnStudy, OwnTask, own_model
from noisytune.lab.trials.command import Command, CommandRunner
from noisytune.lab.trials.logged import FIRST, LAST
from noisytune.lab.trials.scores import Scoring
from tests.support.scripts import HONEST, written

ACCURACY = Scoring(score="eval_accuracy")


def study_of(
    command: Command, model: Path, scoring: Scoring = ACCURACY, seeds: int = 2, arms=("noisytune",)
) -> OwnStudy:
    return OwnStudy(
        name="own",
        model=own_model(str(model)),
        tasks=(OwnTask.of(command.name, scoring),),
        arms=arms_of(*arms),
        seeds=range(seeds),
        margin=1.0,
        own=command.told(),
        scoring=scoring,
    )


@pytest.fixture
def weights(tiny, tmp_path):
    return Path(shutil.copytree(tiny.path, tmp_path / "weights"))


@pytest.fixture
def run(weights, tmp_path):
    """Runs a script as the first trial of a study (or another), and gives its record."""

    def run(script, place=0, scoring=ACCURACY, **options):
        command = options.pop("command", None) or written(tmp_path / "code", script)
        asked = Command(command=command, **options)
        runner = CommandRunner.of(weights, asked, scoring, tmp_path / "run")
        trial = study_of(asked, weights, scoring).plan[place]
        (record,) = runner.run(trial, [trial], lambda *_: None)
        return record

    return run


def log_of(folder):
    (log,) = (folder / "run" / "logs").glob("*.log")
    return log.read_bytes()


def test_a_script_that_behaves(run, tmp_path):
    record = run(HONEST)
    assert record.status == "ok"
    (file,) = (tmp_path / "run" / "outputs").glob("*/all_results.json")
    written_ = json.loads(file.read_text())
    assert record.scores == {"eval_accuracy": written_["eval_accuracy"]}
    assert record.evaluations["eval"]["chosen"]["numbers"] == written_
    right = record.outputs["eval/predictions"] == record.outputs["eval/references"]
    assert right.mean() == record.scores["eval_accuracy"]
    assert record.timing["total"] == record.timing["prepare"] + record.timing["train"]
    assert record.environment["command"]["python"] == ".".join(map(str, sys.version_info[:3]))
    record.to_json()


def test_what_is_filled_in_and_what_the_environment_says(run, weights, tmp_path):
    (tmp_path / "there").mkdir()
    script = (
        "import json, os, sys; from pathlib import Path\n"
        "told = {'argv': sys.argv[1:], 'cwd': os.getcwd(), **{k: v for k, v in os.environ.items() if k in "
        "('NOISYTUNE_MODEL', 'NOISYTUNE_SEED', 'NOISYTUNE_OUT', 'NOISYTUNE_ARM', 'NOISYTUNE_NOISE_LAMBDA', 'MINE')}}\n"
        "Path(os.environ['NOISYTUNE_OUT'], 'told').write_text(json.dumps(told))\n"
        "print('eval_accuracy: 0.5')\n"
    )
    (tmp_path / "code.py").write_text(script)
    command = (
        f"{sys.executable} -S {tmp_path / 'code.py'} {{model}} '{{arm}} {{noise_lambda}}' --x={{seed}} {{out}} '{{{{}}'"
    )
    for place, arm, strength, seed in ((0, "plain", "0", "0"), (3, "noisytune(0.15)", "0.15", "1")):
        run("", place, command=command, env=("MINE=a=b {seed}",), cwd=tmp_path / "there")
        (told,) = (json.loads(file.read_text()) for file in (tmp_path / "run/outputs").glob("*/told"))
        model, both, given_seed, out, braces = told["argv"]
        assert (both, given_seed, braces) == (f"{arm} {strength}", f"--x={seed}", "{{}")
        assert told["cwd"] == str((tmp_path / "there").resolve())
        assert told["MINE"] == f"a=b {seed}"
        assert [told[f"NOISYTUNE_{name}"] for name in ("MODEL", "SEED", "OUT", "ARM", "NOISE_LAMBDA")] == [
            model, seed, out, arm, strength
        ]  # fmt: skip
        assert (model == str(weights)) == (arm == "plain")
        shutil.rmtree(tmp_path / "run")


def test_the_noise_is_that_of_perturb_and_goes_with_the_trial(run, weights, tmp_path):
    keep = f"import shutil, os; shutil.copytree(os.environ['NOISYTUNE_MODEL'], {str(tmp_path / 'seen')!r})\n"
    record = run(keep + "print('eval_accuracy: 0.5')", 3)
    assert verify_checkpoint(tmp_path / "seen", weights).ok
    manifest = json.loads((tmp_path / "seen/noisytune.json").read_text())
    assert (manifest["config"]["noise_lambda"], manifest["config"]["seed"]) == (0.15, 1)
    assert record.applied["noisytune"]["perturbed"] > 10
    assert not (tmp_path / "run/checkpoints").exists()


def test_some_checkpoints_are_kept(run, tmp_path):
    for place in (1, 3):
        run(HONEST, place, keep_checkpoints=1)
    (kept,) = (tmp_path / "run/checkpoints").iterdir()
    assert "seed1" in kept.name
    assert verify_checkpoint(kept).ok


def test_a_long_program_on_the_command_line_names_no_file(run):
    program = "; ".join(["import os"] * 60 + ["os.environ['NOISYTUNE_MODEL']; print(str(dict(eval_accuracy=0.75)))"])
    record = run("", command=f'{sys.executable} -S -c "{program}"')
    assert record.scores == {"eval_accuracy": 0.75}


def test_braces_after_a_dollar_are_the_shells(run):
    record = run("", command="seed=0.25; test -d {model} && echo eval_accuracy: ${seed}", shell=True)
    assert record.scores == {"eval_accuracy": 0.25}


def test_a_shell_reads_the_command_where_it_is_asked_for(run, tmp_path):
    record = run("", command="test -d {model} && echo 'x\neval_accuracy:' 0.$((2 + 3)) | cat", shell=True)
    assert record.scores == {"eval_accuracy": 0.5}
    with pytest.raises(TrialError, match=r"cannot be started|ended with code"):
        run("", command="test -d {model} && echo 1")


def test_scores_of_an_attempt_that_failed_are_not_the_next_ones(run, tmp_path):
    script = (
        "import os, sys; from pathlib import Path\n"
        f"again = Path({str(tmp_path / 'again')!r})\n"
        "if again.exists(): sys.exit(0)\n"
        "again.touch(); Path(os.environ['NOISYTUNE_OUT'], 'metrics.json').write_text('{\"eval_accuracy\": 1}')\n"
        "sys.exit(3)\n"
    )
    with pytest.raises(TrialError, match=r"ended with code 3"):
        run(script)
    with pytest.raises(TrialError, match=r"without a score"):
        run(script)


def test_where_a_score_is_looked_for(run):
    hide = "import os; from pathlib import Path; out = Path(os.environ['NOISYTUNE_OUT'], 'deep'); out.mkdir()\n"
    script = (
        hide + "(out / 'r.json').write_text('{\"a\": {\"eval_accuracy\": 0.25}}'); print('eval_accuracy: 0.5 acc=0.75')"
    )
    deep = Scoring(score="a.eval_accuracy")
    assert run(script, scoring=deep, metrics_file="deep/r.json").scores == {"a.eval_accuracy": 0.25}
    assert run(script).scores == {"eval_accuracy": 0.5}
    assert run(script, score_pattern=r"acc=([0-9.]+)").scores == {"eval_accuracy": 0.75}
    with pytest.raises(TrialError, match=r"looked for eval_f1 in other.json of .*; it ends with: eval_accuracy: 0.5"):
        run(script, scoring=Scoring(score="eval_f1"), metrics_file="other.json")
    with pytest.raises(TrialError, match=r"no predictions: .*p.jsonl is not there"):
        run(script, predictions="p.jsonl")


TELLS = "import os; os.environ['NOISYTUNE_MODEL']\n"
HOSTILE = {
    "stdin": ("input('password: ')", "ended with code 1: EOFError: EOF when reading a line"),
    "no score": ("print('all done')", r"without a score: looked for eval_accuracy in metrics.json, .*: all done"),
    "silent": ("", r"it ends with: \(it said nothing\)"),
    "half a JSON": (
        "open(os.environ['NOISYTUNE_OUT'] + '/metrics.json', 'w').write('{\"eval_accuracy\": 0.')",
        r"metrics.json: is corrupt, not JSON",
    ),
    "a signal": ("os.kill(os.getpid(), 11)", "was ended by signal 11"),
    "percent": ("print('eval_accuracy: 83.1')", "no fraction"),
    "an exception": ("raise ValueError('bad \\x1b[31m data')", "ended with code 1: ValueError: bad .* data"),
    "damaged predictions": (
        "open(os.environ['NOISYTUNE_OUT'] + '/predictions.jsonl', 'w').write('{}'); print('eval_accuracy: 1')",
        "prediction 1: expected an object",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_script_that_misbehaves_is_one_clear_line(run, what):
    script, said = HOSTILE[what]
    with pytest.raises(TrialError, match=said) as error:
        run(TELLS + script)
    assert str(error.value).startswith("train.py-plain-seed0 failed: ")
    assert "\n" not in str(error.value)
    assert ".log" in str(error.value)


def test_nan_is_a_run_that_diverged(run):
    record = run(TELLS + "open(os.environ['NOISYTUNE_OUT'] + '/metrics.json', 'w').write('{\"eval_accuracy\": NaN}')")
    assert (record.status, record.scores) == ("diverged", {})
    record.to_json()


def test_a_script_that_changes_its_directory(run, tmp_path):
    script = TELLS + f"os.chdir({str(tmp_path)!r}); open(os.environ['NOISYTUNE_OUT'] + '/metrics.json', 'w').write"
    assert run(script + "('{\"eval_accuracy\": 0.5}')").scores == {"eval_accuracy": 0.5}


def test_a_script_that_prints_without_end_leaves_a_small_log(run, tmp_path):
    much = (
        TELLS
        + "import sys\nprint('eval_accuracy: 0.25')\nfor i in range(64): sys.stdout.write(('x' * 999 + '\\n') * 1000)\n"
    )
    assert run(much + "print('the end')").scores == {"eval_accuracy": 0.25}
    log = log_of(tmp_path)
    assert len(log) < FIRST + LAST + 200
    assert log.startswith(b"eval_accuracy: 0.25\n")
    assert log.endswith(b"the end\n")
    assert b" bytes are left out here" in log


def test_one_line_without_end_is_no_trouble(run):
    assert run(TELLS + "print('y' * 2**24, end=''); print('\\neval_accuracy: 0.5')").scores == {"eval_accuracy": 0.5}


FORKS = (
    "import sys, time\n"
    "for i in range(3):\n"
    "    if os.fork() == 0:\n"
    "        os.setsid()\n"
    "        if i: os.fork()\n"
    "        time.sleep(600)\n"
    "print('eval_accuracy: 0.5', flush=True)\n"
)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()"])
def test_children_of_a_script_do_not_outlive_it(run, end, monkeypatch):
    """They have sessions of their own, and hold its output open."""
    monkeypatch.setenv("OWN_TEST", f"{os.getpid()}-{time.time_ns()}")
    began = time.monotonic()
    if "abort" in end:
        with pytest.raises(TrialError, match=r"signal 6"):
            run(TELLS + FORKS + end)
    else:
        assert run(TELLS + FORKS + end).scores == {"eval_accuracy": 0.5}
    assert time.monotonic() - began < 60
    assert [pid for pid in marked(f"OWN_TEST={os.environ['OWN_TEST']}") if pid != os.getpid()] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"command": "python 'train.py"}, "cannot be read"),
        ({"command": "python train.py {modell}"}, "did you mean {model}"),
        ({"command": "a", "env": ("=3",)}, "env must be NAME=VALUE"),
        ({"command": "a", "keep_checkpoints": -1}, "keep_checkpoints must be"),
        ({"command": "a", "metrics_file": "a", "score_pattern": "(b)"}, "two places of one score"),
    ],
)
def test_commands_that_cannot_be(options, said):
    with pytest.raises(ConfigError, match=said):
        Command(**options)


def test_a_folder_that_is_not_there():
    with pytest.raises(NotFoundError, match=r"there is no such folder"):
        Command(command="a", cwd=Path("nowhere/at all"))


def test_a_command_that_does_not_know_its_model(weights, tmp_path):
    with pytest.raises(ConfigError, match=r"does not say where its model is"):
        CommandRunner.of(weights, Command(command="echo {seed}"), ACCURACY, tmp_path)
    (tmp_path / "t.sh").write_text("echo $NOISYTUNE_MODEL")
    CommandRunner.of(weights, Command(command="sh t.sh", cwd=tmp_path), ACCURACY, tmp_path)


def test_another_script_or_variable_is_another_trial(weights, tmp_path):
    command = written(tmp_path, HONEST)

    def key(**options):
        return study_of(Command(command=command, **options), weights).plan[0].key

    before = key()
    assert key() == before == key(cwd=tmp_path, keep_checkpoints=3)
    assert len({before, key(env=("A=1",)), key(env=("A=2",)), key(metrics_file="x")}) == 4
    (tmp_path / "train.py").write_text(HONEST + "\n# changed")
    assert key() != before


def test_files_of_a_command_are_found_in_its_folder(tmp_path):
    for name in ("t.py", "conf.json"):
        (tmp_path / name).write_text("1")
    found = Command(command="python t.py --config=conf.json --data {out} missing.txt", cwd=tmp_path).files
    assert sorted(found) == ["conf.json", "t.py"]


def test_only_noise_can_be_put_into_a_checkpoint(weights, tmp_path):
    command = Command(command=written(tmp_path, HONEST))
    runner = CommandRunner.of(weights, command, ACCURACY, tmp_path)
    study = study_of(command, weights, arms=("noisytune", "noisytune+recadam", "noisytune(include=nothing*)"))
    _, noise, both, unmatched = (arm.methods for arm in study.arms)
    runner.check(study.plan[0], [noise])
    with pytest.raises(ConfigError, match=r"recadam works while a model trains"):
        runner.check(study.plan[0], [both])
    with pytest.raises(ConfigError, match=r"nothing"):
        runner.check(study.plan[0], [unmatched])
    assert not (tmp_path / "checkpoints").exists()
