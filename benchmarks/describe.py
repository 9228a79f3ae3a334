"""One line about the machine, for the head of every result."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """CPU, cores, Python and the libraries that matter for speed."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numba", "numpy", "transformers"))
    return f"{cpu}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, {libraries}"
