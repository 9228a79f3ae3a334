"""The examples run as they are, on tiny models: each prints what its docstring promises."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
SAYS = {
    "trainer": "'noise_lambda': 0.15",
    "sft": "'noise_lambda': 0.1",
    "lora": "the loaded adapter says what the trained one said: True",
    "sentences": "tensor([[",
    "lightning_callback": "'seed': 1",
    "accelerate_loop": "NoisyTune: 16 of 41 tensors",
    "fsdp2": "1 shards, noise as in one process: True",
    "jax_tree": "NoisyTune: 1 of 1 tensors",
    "keras_callback": "NoisyTune: 1 of 3 tensors",
}
"""Example -> a part of what it prints."""


@pytest.fixture
def run(tiny, llama, tmp_path, monkeypatch, capsys):
    """Run an example in this process, and give what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)  # as torchrun does, for one process

    def run(name):
        folder = llama if name in ("sft", "lora") else tiny.path
        monkeypatch.setattr(sys, "argv", [f"{name}.py", str(folder)])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", SAYS)
@pytest.mark.filterwarnings("default")
def test_an_example_runs(name, run):
    assert SAYS[name] in run(name)


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda script: script.stem)
def test_an_example_is_short_and_says_how_to_run_it(script):
    text = script.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert 15 <= len(text.splitlines()) <= 55
    assert re.search(r'pip install "noisytune\[', docstring)
    assert re.search(rf"^    .*{script.name}", docstring, re.MULTILINE)
    assert f"[{script.name}]({script.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert script.stem in SAYS or script.stem.startswith("own_")  # those are run by tests/lab/studies


@pytest.mark.slow
def test_two_processes_share_the_noise(tiny, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    said = subprocess.run(
        [*torchrun, EXAMPLES / "fsdp2.py", str(tiny.path)], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "2 shards, noise as in one process: True" in said.stdout
