"""How many cores: as the kernel's files say, laid out as it lays them out."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from noisytune import _machine as hardware
from noisytune._machine import available_cores, cpu_quota

V2, V1 = "0::{path}\n", "12:memory:{path}\n4:cpu,cpuacct:{path}\n2:cpuset:{path}\n1:name=systemd:{path}\n0::/\n"

CASES: dict[str, tuple[str, str, dict[str, str], float]] = {
    "no files": (V2, "/", {}, math.inf),
    "no limit": (V2, "/", {"cpu.max": "max 100000"}, math.inf),
    "a container's own root": (V2, "/", {"cpu.max": "150000 100000"}, 1.5),
    "a service": (V2, "/system.slice/job.service", {"system.slice/job.service/cpu.max": "50000 100000"}, 0.5),
    "the group around it": (V2, "/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2.0),
    "the smallest counts": (V2, "/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "300000 100000"}, 2.0),
    "somebody else's": (V2, "/a", {"b/cpu.max": "100000 100000"}, math.inf),
    "1, no limit": (
        V1,
        "/",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
        math.inf,
    ),
    "1, a container that sees its group as the root": (
        V1,
        "/docker/0123",
        {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        2.5,
    ),
    "1, a service": (
        V1,
        "/job",
        {"cpu,cpuacct/job/cpu.cfs_quota_us": "50000", "cpu,cpuacct/job/cpu.cfs_period_us": "50000"},
        1.0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_quota_is_read_as_the_kernel_writes_it(tmp_path: Path, case: str) -> None:
    own, path, files, expected = CASES[case]
    (tmp_path / "own").write_text(own.format(path=path))
    for name, text in files.items():
        file = tmp_path / "mounted" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert cpu_quota(tmp_path / "own", tmp_path / "mounted") == expected


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "own", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cores"), [(0.1, 1), (1.0, 1), (1.5, 2), (4.0, 4), (64.0, 8), (math.inf, 8)])
def test_cores_are_rounded_up(monkeypatch: pytest.MonkeyPatch, quota: float, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(hardware, "cpu_quota", lambda: quota)
    assert available_cores() == cores


def test_this_machine_has_a_core() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
