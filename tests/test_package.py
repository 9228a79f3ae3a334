"""What people install: built the same each time, whole, readable on a package index, and enough without the extras."""

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import noisytune

ROOT = Path(__file__).resolve().parent.parent


def built(folder: Path) -> dict[str, Path]:
    """The wheel and the source distribution, by the end of their names."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", folder], cwd=ROOT, check=True, capture_output=True
    )
    return {file.suffix: file for file in folder.iterdir()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("hatchling", reason="builds the package")
    return built(tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def metadata(distributions):
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(wheel.read(name))


def test_a_second_build_has_the_same_bytes(distributions, tmp_path):
    second = built(tmp_path)
    assert {kind: file.read_bytes() for kind, file in second.items()} == {
        kind: file.read_bytes() for kind, file in distributions.items()
    }


def test_both_hold_every_file_of_the_package(distributions):
    package = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src").rglob("*") if file.is_file()}
    package = {name for name in package if "__pycache__" not in name}
    with zipfile.ZipFile(distributions[".whl"]) as wheel:
        assert package == {name for name in wheel.namelist() if ".dist-info/" not in name}
    with tarfile.open(distributions[".gz"]) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    assert {f"src/{name}" for name in package} | {"README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff"} <= inside


def test_the_version_is_said_in_one_place_and_cited(metadata):
    assert metadata["Version"] == noisytune.__version__
    assert f"\nversion: {noisytune.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_links_and_pictures_work_outside_the_repository(metadata):
    targets = re.findall(r"\]\(([^)]+)\)", metadata.get_payload())
    assert len(targets) > 10
    for target in targets:
        assert target.startswith("https://"), target
        here = re.fullmatch(r"https://[a-z.]+/noisytune/noisytune/(?:blob/)?main/([^#]+).*", target)
        assert not here or (ROOT / here[1]).exists(), target


def test_nothing_is_asked_for_where_it_does_not_exist(metadata):
    """There is no Triton but for Linux."""
    asked = [one for one in metadata.get_all("Requires-Dist") if one.startswith("triton")]
    assert asked
    assert all("sys_platform == 'linux'" in one for one in asked)


@pytest.fixture(scope="module")
def environment(distributions, tmp_path_factory):
    """Install the wheel, with extras, into an environment of its own; a function that runs Python in it."""

    def install(extras: str = ""):
        folder = tmp_path_factory.mktemp("environment")
        venv.create(folder, with_pip=True)
        python = str(folder / "bin" / "python")
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        wheel = f"{distributions['.whl']}{extras}"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *constraints, wheel], check=True)

        def run(*arguments: str) -> str:
            done = subprocess.run([python, *arguments], cwd=folder, capture_output=True, text=True, env={"PATH": ""})
            assert done.returncode == 0, done.stderr
            return done.stdout

        return run

    return install


@pytest.mark.slow
def test_without_extras_a_checkpoint_gets_its_noise(environment, tiny, tmp_path):
    from noisytune.checkpoint import perturb_checkpoint

    run = environment()
    told = run("-m", "noisytune", "perturb", str(tiny.path), str(tmp_path / "noisy"), "--noise-lambda", "0.1")
    assert "perturbed" in told
    loaded = run("-c", "import importlib.util as u; print(*[m for m in ('torch', 'scipy', 'jax') if u.find_spec(m)])")
    assert set(loaded.split()) <= {"scipy"}, "the base brings neither torch nor jax"
    perturb_checkpoint(tiny.path, tmp_path / "here", noise_lambda=0.1)
    name = "model.safetensors"
    assert (tmp_path / "noisy" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.slow
def test_the_report_needs_no_lab(environment, tmp_path):
    scores = tmp_path / "scores.csv"
    scores.write_text("seed,plain,noisy\n" + "".join(f"{seed},{70 + seed},{71 + seed}\n" for seed in range(8)))
    run = environment("[report]")
    assert "helped" in run("-m", "noisytune", "judge", str(scores), "--out", str(tmp_path / "run"))
    assert (tmp_path / "run" / "report.html").exists()
    assert not run("-c", "import importlib.util as u; print(*[m for m in ('torch', 'jax') if u.find_spec(m)])").split()


WITHOUT_POSIX = """
import os, sys, subprocess, multiprocessing, tempfile, shutil
import torch, accelerate, safetensors.torch
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments
for module in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None
for name in ("fork", "killpg", "getuid", "geteuid", "getpgid", "setsid", "sched_getaffinity", "pread", "preadv",
             "pwrite", "posix_fallocate", "waitid", "O_DIRECTORY", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
import noisytune.torch, noisytune.cli, noisytune.lab, noisytune.checkpoint
from noisytune.integrations.transformers import attach
from noisytune.errors import NoisyTuneError

model = AutoModelForSequenceClassification.from_pretrained(sys.argv[1])
arguments = TrainingArguments(sys.argv[2], max_steps=1, report_to="none", use_cpu=True, disable_tqdm=True)
rows = [{"input_ids": torch.arange(5, 13), "labels": 1}] * 2
attach(Trainer(model, arguments, train_dataset=rows), noise_lambda=0.1, seed=1).train()
print(len(noisytune.torch.receipt(model)) > 0)
for refused in (
    lambda: noisytune.checkpoint.perturb_checkpoint(sys.argv[1], sys.argv[2] + "/out", noise_lambda=0.1),
    lambda: noisytune.lab.compare(task="topics", model=sys.argv[1], seeds=1, out=sys.argv[2] + "/run"),
):
    try:
        refused()
    except NoisyTuneError as error:
        print(error)
"""


@pytest.mark.slow
def test_a_trainer_gets_its_noise_where_there_is_no_posix(tiny, tmp_path):
    """And what needs it says so."""
    command = [sys.executable, "-c", WITHOUT_POSIX, str(tiny.path), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    noise, *refused = [line for line in done.stdout.splitlines() if not line.startswith("{")]
    assert noise == "True"
    assert len(refused) == 2
    assert all("Linux" in line and "macOS" in line for line in refused), refused
