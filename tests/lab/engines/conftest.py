"""Jobs for workers of any engine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

JOBS = """
import os, signal, sys, time
from dataclasses import dataclass
from noisytune.errors import DataError

@dataclass(frozen=True)
class Do:
    label: str
    what: str
    value: object = None
    limit: float | None = None
    together: str = ""

    def __call__(self, report):
        return globals()[self.what](self.value, report)

def echo(value, report):
    return value

def count(value, report):
    for i in range(value):
        report(i)
    return "counted"

def sleep(value, report):
    report("asleep")
    time.sleep(value)
    return "slept"

def chat(value, report):
    print("this must not reach the answers")
    os.write(1, b"nor this")
    print("nor this", file=sys.stderr)
    return "chatted"

def look(value, report):
    return {name: os.environ.get(name) for name in value} | {"pid": os.getpid()}

def fail(value, report):
    raise ValueError("first line\\nsecond line")

def exit(value, report):
    sys.exit(value)

class Speechless(RuntimeError):
    def __str__(self):
        raise ValueError("no words")

def say_nothing(value, report):
    raise Speechless

def read(value, report):
    import subprocess
    child = subprocess.run(["cat"], stdout=subprocess.PIPE, timeout=20)
    return sys.stdin.read() + child.stdout.decode()

def give_up(value, report):
    raise KeyboardInterrupt("by hand")

def complain(value, report):
    raise DataError("column 'x' is empty")

def run_out(value, report):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

def who(value, report):
    return os.getpid()

def lose_its_gpu(value, report):
    from types import SimpleNamespace
    def synchronize():
        raise RuntimeError("CUDA error: device-side assert triggered")
    sys.modules["torch"] = SimpleNamespace(cuda=SimpleNamespace(is_initialized=lambda: True, synchronize=synchronize))
    raise IndexError("index out of range")

def have_children(value, report):
    # One in the worker's group that holds its pipes open, and one that has gone its own way.
    import subprocess
    if os.fork() == 0:
        time.sleep(600)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    report("asleep")
    time.sleep(600 if value is None else 0)
    if value:
        os.kill(os.getpid(), value)

def begin():
    os.environ["BEGUN"] = "yes"

def begin_badly():
    raise ImportError("not here")

def die(value, report):
    os.kill(os.getpid(), value)

def leave(value, report):
    print("last words", file=sys.stderr, flush=True)
    os._exit(3)
"""


@pytest.fixture(scope="session")
def folder_of_jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Jobs that workers can import. They find a torch that cannot be loaded: none of them needs it."""
    folder = tmp_path_factory.mktemp("jobs")
    (folder / "jobs_for_workers.py").write_text(JOBS)
    (folder / "torch.py").write_text("raise ImportError('not here')")
    return folder


@pytest.fixture(scope="session")
def ray_here(folder_of_jobs: Path) -> Iterator[None]:
    """A machine of two processors in a cluster of its own, which engines leave as it is."""
    ray = pytest.importorskip("ray", reason="ray is not installed: make test-ray")
    with pytest.MonkeyPatch.context() as patch:
        # Before the libraries: workers then find the torch that cannot be loaded.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder_of_jobs), *sys.path]))
        ray.init("local", num_cpus=2, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def do(folder_of_jobs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.syspath_prepend(folder_of_jobs)
    import jobs_for_workers  # type: ignore[import-not-found]

    yield jobs_for_workers.Do
    del sys.modules["jobs_for_workers"]
