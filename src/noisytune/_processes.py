"""Processes: which one is this, is another one still alive, and what has one started?"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from noisytune.errors import ConfigError

PROC = Path("/proc")
MARK = "NOISYTUNE_WORKER"
"""The variable by which a worker, and all that it starts, are known."""
CHILD = "NOISYTUNE_CHILD"
"""The variable by which what a trial starts is known."""


@dataclass(frozen=True)
class Process:
    """Who holds something: named so that other machines can tell people, and this one can tell whether it lives."""

    host: str
    """For people."""
    place: str
    """The boot of a machine, and the container in it: numbers of processes mean something inside one place only."""
    pid: int
    began: str
    """When it began, as its system counts: another process of the same number began at another time."""

    @classmethod
    def this(cls) -> Self:
        """This one."""
        return cls(socket.gethostname(), _place(), os.getpid(), _began(os.getpid()))

    @classmethod
    def of(cls, told: Any) -> Self | None:
        """From what `told` gave; None where that is something else."""
        kinds = {"host": str, "place": str, "pid": int, "began": str}
        if not isinstance(told, dict) or any(type(told.get(name)) is not kind for name, kind in kinds.items()):
            return None
        return cls(**{name: told[name] for name in kinds}) if told["pid"] > 0 else None

    @property
    def told(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    @property
    def is_gone(self) -> bool:
        """Whether it has certainly ended. Of another machine or container nothing is certain."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # somebody else's
            return False
        return _began(self.pid) != self.began

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@cache
def _place() -> str:
    boot = _words(PROC / "sys/kernel/random/boot_id")
    try:
        inside = os.readlink(PROC / "self/ns/pid")
    except OSError:
        inside = ""
    return f"{boot[0] if boot else socket.gethostname()} {inside}".strip()


def _began(pid: int) -> str:
    """The 22nd word of the kernel's line on a process; the second, its name, may hold anything."""
    words = " ".join(_words(PROC / str(pid) / "stat")).rpartition(")")[2].split()
    return words[19] if len(words) > 19 else ""


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(errors="replace").split()
    except OSError:
        return []


def refuse_other_systems(what: str) -> None:
    """Raise where processes have no groups that could be ended as one.

    Raises:
        ConfigError: this system is neither Linux nor macOS.
    """
    if not hasattr(os, "killpg"):
        raise ConfigError(
            f"{what} runs on Linux and macOS only, where all that a process starts can be ended with it: on this "
            "system take lab.InlineEngine(), or the Windows Subsystem for Linux"
        )


def end_family(leader: int, mark: str, spared: Collection[int] = ()) -> None:
    """Kill a process group, and everything that carries a mark in its environment: children of children inherit it.

    Args:
        leader: of the group, which may have ended already.
        mark: ``NAME=value``, as in the environment.
        spared: processes that live on.
    """
    if not spared:
        with suppress(OSError):
            os.killpg(leader, signal.SIGKILL)
    deadline = time.monotonic() + 5
    # Whoever is killed last may have started another one just before.
    while time.monotonic() < deadline and (found := [pid for pid in marked(mark) if pid not in spared]):
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)


def wait_for(process: subprocess.Popen[bytes], mark: str) -> int:
    """Wait until a process has ended; then end what it started: a child may hold its pipes open, and its memory.

    Args:
        process: the leader of its own group.
        mark: as for `end_family`.

    Returns:
        its exit code.
    """
    if hasattr(os, "waitid"):  # its number stays its own until it is waited for
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        end_family(process.pid, mark)
    return process.wait()


class Family:
    """A process in a group of its own, without input, and all that it starts: nothing of it outlives the process."""

    def __init__(self, command: Sequence[str], variables: Mapping[str, str], **pipes: Any) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            variables: of its environment, beside this process's own.
            pipes: ``stdout``, ``stderr`` and ``cwd``, as for ``subprocess.Popen``.

        Raises:
            ConfigError: this system is neither Linux nor macOS.
            OSError: it cannot be started.
            ValueError: likewise, for what no program can be given.
        """
        refuse_other_systems(command[0])
        value = uuid.uuid4().hex
        self._mark = f"{CHILD}={value}"
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables, CHILD: value},
            start_new_session=True,
            **pipes,
        )
        self._watching = threading.Thread(target=wait_for, args=(self.process, self._mark), daemon=True)
        self._watching.start()

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is left."""
        return not self._watching.is_alive()

    def wait(self) -> int:
        """Wait for its end. Returns the exit code of the process."""
        self._watching.join()
        return self.process.wait()

    def end(self) -> None:
        """End it, whatever it is doing."""
        if not self.has_ended:
            end_family(self.process.pid, self._mark)
        self._watching.join()


def marked(mark: str) -> list[int]:
    """The living processes of this user whose environment holds ``NAME=value``; none where the system cannot say."""
    wanted, found = mark.encode(), []
    try:
        names = os.listdir(PROC)
    except OSError:
        return []
    for name in names:
        if re.fullmatch("[0-9]+", name):
            with suppress(OSError):
                if wanted in (PROC / name / "environ").read_bytes().split(b"\0"):
                    found.append(int(name))
    return found
