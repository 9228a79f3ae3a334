"""On what a trial ran: versions, machine, code."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("noisytune", "torch", "transformers", "accelerate", "tokenizers", "numpy")


def describe(threads: int, processes: int = 1) -> dict[str, Any]:
    """The environment of a trial that starts now.

    Args:
        threads: of each of its processes.
        processes: that train it together.

    Returns:
        Plain JSON values.
    """
    together = {"processes": processes} if processes > 1 else {}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return _machine() | {"threads": threads, **together, "started": started}


def accelerator() -> dict[str, str]:
    """The name of what torch trains on in this process (``NVIDIA H200``); nothing where that is the processor."""
    import torch

    if not torch.accelerator.is_available():
        return {}
    device = torch.accelerator.current_accelerator()
    name = getattr(torch.get_device_module(device), "get_device_name", lambda: str(device))
    return {"accelerator": name()}


def versions() -> dict[str, str | None]:
    """Of the libraries that have a part in a trial; None where one is missing."""
    return {name: _version(name) for name in LIBRARIES}


@lru_cache(maxsize=1)
def _machine() -> dict[str, Any]:
    return {
        "versions": versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "commit": _commit(Path(__file__).parents[2]),
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit(package: Path) -> str | None:
    """The commit of the checkout that ``package`` lies in, with ``+`` if it was changed since.

    None for an installed package, even if somebody's own checkout surrounds it.
    """
    root = package.parents[1]
    if package != root / "src" / "noisytune" or not (root / ".git").exists():
        return None
    return revision(root)


def revision(folder: Path) -> str | None:
    """The commit of the checkout around a folder, with ``+`` if it was changed since; None where there is none."""
    try:
        commit = subprocess.run(["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", folder, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.returncode else "")


_ASK = """
import importlib.metadata as found, json, platform
packages = sorted({"%s==%s" % (one.metadata["Name"], one.version) for one in found.distributions()})
print(json.dumps([platform.python_version(), packages]))
"""


@lru_cache(maxsize=8)
def python_of(program: str, folder: Path) -> tuple[str, tuple[str, ...]] | None:
    """The version of the Python that a program is, or is written for, and what is installed in it.

    Args:
        program: ``python``, or a script such as ``torchrun`` whose first line names one.
        folder: where it is run.

    Returns:
        None where it is something else, or does not say.
    """
    found = shutil.which(program)
    if found is None or not (command := _interpreter(Path(found))):
        return None
    try:
        told = subprocess.run(
            [*command, "-c", _ASK], capture_output=True, text=True, check=True, cwd=folder, timeout=60
        )
        version_, packages = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return str(version_), tuple(map(str, packages))


def _interpreter(program: Path) -> list[str]:
    """What runs a program, if that is Python."""
    if program.name.startswith("python"):
        return [str(program)]
    with program.open("rb") as stream:
        first = stream.readline(200)
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    return words if any("python" in word for word in words) else []
