"""On what a trial ran: versions, machine, code."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("noisytune", "torch", "transformers", "accelerate", "tokenizers", "numpy")


def describe(threads: int) -> dict[str, Any]:
    """The environment of a trial that starts now.

    Args:
        threads: of the trial.

    Returns:
        Plain JSON values.
    """
    return _machine() | {"threads": threads, "started": datetime.now(UTC).isoformat(timespec="seconds")}


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
    try:
        commit = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", root, "diff", "--quiet", "HEAD"], capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+" if changed.returncode else "")
