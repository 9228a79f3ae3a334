"""What this process may use of the machine: cores, threads and GPUs."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, or fewer where its container has a CPU quota."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return math.ceil(min(bound, cpu_quota()))


@contextmanager
def thread_pool(threads: int | None = None) -> Iterator[Executor | None]:
    """Threads that share some work; None in the place of a single one.

    Args:
        threads: how many, >= 1; None takes one for each of `available_cores`.
    """
    if threads is None:
        threads = available_cores()
    if threads == 1:
        yield None
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="noisytune") as pool:
        yield pool


def cpu_quota(own: Path = Path("/proc/self/cgroup"), mounted: Path = CGROUPS) -> float:
    """The CPU time that this process's control groups grant it, in cores, > 0; infinite without a limit.

    A group's limit holds for the groups in it, so the smallest one on the way up counts.

    Args:
        own: the kernel's list of this process's groups.
        mounted: where the groups' files are.

    Source: the Linux kernel's documentation of ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` (version 1).
    """
    quotas = [math.inf]
    for folder in _groups(own, mounted):
        words = _words(folder / "cpu.max") or _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        # "max" and -1 mean no limit.
        if len(words) == 2 and all(word.isdecimal() and int(word) > 0 for word in words):
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas)


def visible_gpus() -> list[str]:
    """NVIDIA devices as CUDA_VISIBLE_DEVICES names them, found without loading torch."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device not in ("", "-1")]
    return [str(i) for i in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


def has_apple_gpu() -> bool:
    """Whether torch computes on Apple's GPU unless it is told otherwise: all processes share the one there is."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _groups(own: Path, mounted: Path) -> Iterator[Path]:
    """Folders that may hold a limit for this process. A container may see its own group as the root."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = mounted / controllers
        folder = root / path.lstrip("/")
        yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
