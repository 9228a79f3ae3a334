"""Which worker gets which device, and which job goes to which kind of device? Pure functions, and one queue."""

from __future__ import annotations

import subprocess
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from noisytune._machine import visible_gpus
from noisytune.errors import ConfigError
from noisytune.lab.engines.protocol import Job


@dataclass(frozen=True)
class Device:
    """What a worker computes on."""

    gpu: str | None = None
    """As CUDA_VISIBLE_DEVICES names it; None: the processor."""
    kind: str = ""
    """The model of the GPU; empty where there is none, or nothing is known of it."""


def visible_devices() -> list[Device]:
    """The GPUs that this process may use, without loading torch."""
    gpus = visible_gpus()
    models = _models() if gpus else {}
    return [Device(gpu, models.get(gpu, "")) for gpu in gpus]


def _models() -> dict[str, str]:
    """Names of GPUs by their number and by their UUID; none where the driver's program is missing."""
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return {}
    rows = [[cell.strip() for cell in line.split(",", 2)] for line in lines]
    return {name: row[2] for row in rows if len(row) == 3 for name in row[:2]}


def shared_out(
    devices: Sequence[Device],
    cores: int,
    workers: int | None = None,
    trials_per_gpu: int | None = None,
    gpus_per_trial: int | None = None,
) -> list[Device]:
    """The device of each worker, one GPU after the other, so that all are equally busy.

    Args:
        devices: the GPUs; none: the processor is shared.
        cores: workers where there is no GPU.
        workers: how many; None: as many as there is room for.
        trials_per_gpu: room on each GPU; None: one.
        gpus_per_trial: how many together are the device of a worker; None: one.

    Raises:
        ConfigError: more workers than room, or room on GPUs that are not there.

    >>> two = [Device("0", "A100"), Device("1", "A100")]
    >>> [device.gpu for device in shared_out(two, 8)], [device.gpu for device in shared_out(two, 8, trials_per_gpu=2)]
    (['0', '1'], ['0', '1', '0', '1'])
    >>> [device.gpu for device in shared_out(two, 8, gpus_per_trial=2)], [device.gpu for device in shared_out([], 2)]
    (['0,1'], [None, None])
    """
    if gpus_per_trial is not None:
        if trials_per_gpu is not None:
            raise ConfigError("gpus_per_trial and trials_per_gpu exclude each other: give one of them")
        if len(devices) < gpus_per_trial:
            raise ConfigError(f"gpus_per_trial is {gpus_per_trial}, and {len(devices)} GPUs are visible here")
        devices, trials_per_gpu = _together(devices, gpus_per_trial), 1
    if trials_per_gpu is not None:
        room = len(devices) * trials_per_gpu
        if not devices:
            raise ConfigError("trials_per_gpu is given, and no GPU is visible here: give workers instead")
        if workers is not None and workers > room:
            groups = f"{len(devices)} groups of {gpus_per_trial}" if gpus_per_trial else f"{len(devices)}"
            raise ConfigError(f"workers must be at most {room}: {groups} GPUs with {trials_per_gpu} trials each")
        workers = workers or room
    workers = workers or len(devices) or cores
    return [devices[place % len(devices)] if devices else Device() for place in range(workers)]


def _together(devices: Sequence[Device], size: int) -> list[Device]:
    """So many GPUs as one device; those that are left over have none."""
    groups = [devices[start : start + size] for start in range(0, len(devices) - size + 1, size)]
    return [Device(",".join(str(one.gpu) for one in group), group[0].kind) for group in groups]


class JobQueue:
    """Jobs in their order, asked for one by one. Those that belong together go to one kind of device."""

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._kinds: dict[str, str] = {}
        self._kept: dict[str, deque[Job]] = {}
        self._more = True

    def next_for(self, kind: str, others: int = 0) -> Job | None:
        """The next job for a free worker; None where there is none for it.

        Args:
            kind: of the worker's device.
            others: jobs to keep for workers with other kinds of device, at most.
        """
        if kept := self._kept.get(kind):
            return kept.popleft()
        while self._more and sum(map(len, self._kept.values())) <= others:
            job = next(self._jobs, None)
            if job is None:
                self._more = False
                return None
            wanted = self._kinds.setdefault(job.together, kind) if job.together else kind
            if wanted == kind:
                return job
            self._kept.setdefault(wanted, deque()).append(job)
        return None
