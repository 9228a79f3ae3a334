"""What each task of a cluster gets: processors, a part of a GPU or several, and of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from noisytune.errors import ConfigError


@dataclass(frozen=True)
class Machine:
    """What one machine of a cluster has."""

    cpus: int
    gpus: int = 0
    kind: str = ""
    """The model of its GPUs, as Ray calls it."""


@dataclass(frozen=True)
class Share:
    """What each task gets, and on which kind of GPU each runs."""

    cpus: int
    gpus: float
    kinds: tuple[str, ...]
    """One for each task that runs at a time."""


def shares_of(
    machines: Sequence[Machine], workers: int | None, trials_per_gpu: int | None, gpus_per_trial: int | None = None
) -> Share:
    """Share a cluster out. With GPUs each task has one, or as many as are asked for; processors are shared equally.

    Args:
        machines: of the cluster.
        workers: tasks at a time; None: one for each GPU, or one for each processor where there is none.
        trials_per_gpu: tasks on each GPU; None: one.
        gpus_per_trial: GPUs of each task, all of one machine; None: one.

    Raises:
        ConfigError: there is not so much room.

    >>> shares_of([Machine(8), Machine(4)], 3, None)
    Share(cpus=4, gpus=0.0, kinds=('', '', ''))
    >>> shares_of([Machine(8, 2, "A100")], None, 2)
    Share(cpus=2, gpus=0.5, kinds=('A100', 'A100', 'A100', 'A100'))
    >>> shares_of([Machine(8, 3, "A100")], None, None, gpus_per_trial=2)
    Share(cpus=8, gpus=2, kinds=('A100',))
    """
    gpus = any(machine.gpus for machine in machines)
    for name, value in {"trials_per_gpu": trials_per_gpu, "gpus_per_trial": gpus_per_trial}.items():
        if value is not None and not gpus:
            raise ConfigError(f"{name} is given, and the Ray cluster has no GPU: give workers instead")
    if trials_per_gpu is not None and gpus_per_trial is not None:
        raise ConfigError("gpus_per_trial and trials_per_gpu exclude each other: give one of them")
    each, together = trials_per_gpu or 1, gpus_per_trial or 1

    def room(machine: Machine, cpus: int) -> int:
        return min(machine.cpus // cpus, machine.gpus // together * each) if gpus else machine.cpus // cpus

    most = sum(room(machine, 1) for machine in machines)
    wanted = most if workers is None else workers
    if not 1 <= wanted <= most:
        raise ConfigError(f"workers must be at most {most}, for which the Ray cluster has room, got {wanted}")
    largest = max(machine.cpus for machine in machines)
    cpus = next(n for n in range(largest, 0, -1) if sum(room(machine, n) for machine in machines) >= wanted)
    kinds = [machine.kind for machine in machines for _ in range(room(machine, cpus))]
    share = gpus_per_trial or 1 / each
    return Share(cpus, share if gpus else 0.0, tuple(kinds[:wanted]))
