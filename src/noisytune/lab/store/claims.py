"""Who is running which trial: a file for each, which names host, process and time, and expires.

::

    RUN/claims/<key>.json    {"process": {"host": ..., "pid": ...}, "since": "2026-01-01T00:00:00+00:00"}

Whoever holds a claim touches its file every `BEAT` seconds. Others watch it: a file that stays as it is for `EXPIRE`
seconds of their own time is nobody's any more. No two clocks are compared, so none needs to be right. A file is taken
by a hard link, or made where it must not exist: both are one step on every file system, NFS included.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from noisytune._files import create_first
from noisytune._processes import Process
from noisytune.errors import RunFolderError
from noisytune.lab.store.files import keys_in, one_line, read_file

BEAT, EXPIRE = 15.0, 120.0
"""Seconds. NFS may show a change a minute late."""

_MOST_BYTES = 10_000


@dataclass(frozen=True)
class Claim:
    """A trial that somebody runs, or ran when last heard of."""

    process: Process | None
    """Whose it is; None: the file does not say."""
    since: str
    """When it was taken, by the clock of whoever took it; UTC."""
    silent: float
    """Seconds since its file was touched, by the clock of the file system: for people."""

    @property
    def is_over(self) -> bool:
        """Whether its process has certainly ended, or nothing was heard of it for long."""
        return bool(self.process and self.process.is_gone) or self.silent > EXPIRE

    @property
    def holder(self) -> str:
        """For people."""
        return str(self.process) if self.process else "an unknown process"


class Claims:
    """The claims of a folder: those of this process, and what it has seen of others."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is made or read yet.

        Args:
            folder: of the claims.
            clock: seconds, never set back.
        """
        self.folder = folder
        self._clock = clock
        self._mine: dict[str, int] = {}
        """Inodes by key."""
        self._seen: dict[str, tuple[tuple[int, ...], float]] = {}
        """What a file was like, and since when, by key."""
        self._alive = set[tuple[str, int]]()
        """Keys and inodes of files that were seen to be touched."""
        self._lock = threading.Lock()
        self._beating: threading.Thread | None = None

    def take(self, key: str) -> bool:
        """Claim a trial, unless another holds it.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        content = {"process": Process.this().told, "since": datetime.now(UTC).isoformat(timespec="seconds")}
        file = self._file(key)
        with one_line(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for _ in range(2):
                try:
                    inode = create_first(file, json.dumps(content).encode())
                except FileExistsError:
                    if self.state(key) != "free" or not self._cleared(key):
                        return False
                else:
                    self._keep(key, inode)
                    return True
        return False

    def give_back(self, key: str) -> None:
        """Let go of a claim; one that another has taken over meanwhile stays."""
        with self._lock:
            inode = self._mine.pop(key, None)
        with suppress(OSError):
            if inode is not None and os.stat(self._file(key)).st_ino == inode:
                self._file(key).unlink()

    def forget(self, key: str) -> None:
        """Remove the claim of a finished trial, whose process was killed before it could."""
        self._file(key).unlink(missing_ok=True)

    def state(self, key: str) -> str:
        """``free``: nobody holds it. ``held``: somebody does, who is alive. ``unknown``: nothing was heard yet."""
        try:
            like, process = self._look(key)
        except FileNotFoundError:
            self._seen.pop(key, None)
            return "free"
        before, since = self._seen.get(key, ((), 0.0))
        if before != like:
            if before and before[0] == like[0]:
                self._alive.add((key, like[0]))
            since = self._clock()
            self._seen[key] = like, since
        if (process and process.is_gone) or self._clock() - since > EXPIRE:
            return "free"
        here = process is not None and process.place == Process.this().place
        return "held" if here or (key, like[0]) in self._alive else "unknown"

    def all(self) -> dict[str, Claim]:
        """Every claim by its key, for people."""
        found = {}
        now = self._file_system_time() if (keys := keys_in(self.folder)) else 0.0
        for key in sorted(keys):
            with suppress(FileNotFoundError):
                content, status = self._read(key)
                since = content.get("since")
                silent = max(0.0, now - status.st_mtime)
                found[key] = Claim(Process.of(content.get("process")), since if isinstance(since, str) else "", silent)
        return found

    def _look(self, key: str) -> tuple[tuple[int, ...], Process | None]:
        content, status = self._read(key)
        return (status.st_ino, status.st_mtime_ns), Process.of(content.get("process"))

    def _read(self, key: str) -> tuple[dict[str, Any], os.stat_result]:
        """What a claim says, if it can be read, and what its file is like: opening it asks the server."""
        file = self._file(key)
        try:
            content = json.loads(read_file(file, _MOST_BYTES))
        except (ValueError, RecursionError):
            content = None
        except RunFolderError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise error.__cause__ from None
            content = None
        return content if isinstance(content, dict) else {}, os.stat(file)

    def _cleared(self, key: str) -> bool:
        """Take an expired claim out of the way, if it is still the one that was looked at."""
        before, _ = self._seen.pop(key, ((), 0.0))
        aside = self.folder / f".over-{os.urandom(8).hex()}"
        try:
            os.rename(self._file(key), aside)
        except FileNotFoundError:
            return True
        status = os.stat(aside)
        same = (status.st_ino, status.st_mtime_ns) == before
        if not same:  # another was faster, and has claimed it anew: it gets its claim back
            with suppress(OSError):
                os.link(aside, self._file(key))
        aside.unlink(missing_ok=True)
        return same

    def _file_system_time(self) -> float:
        """The clock that dates the files; this machine's where nothing can be written."""
        probe = self.folder / f".now-{os.urandom(8).hex()}"
        try:
            probe.touch()
            now = probe.stat().st_mtime
            probe.unlink()
        except OSError:
            return time.time()
        return now

    def _keep(self, key: str, inode: int) -> None:
        """Touch what is claimed, in a thread of its own, as long as anything is."""
        with self._lock:
            self._mine[key] = inode
            if self._beating is None:
                self._beating = threading.Thread(target=self._touch, daemon=True)
                self._beating.start()

    def _touch(self) -> None:
        while True:
            time.sleep(BEAT)
            with self._lock:
                mine = list(self._mine)
                if not mine:
                    self._beating = None
                    return
            for key in mine:
                with suppress(OSError):
                    os.utime(self._file(key))

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.json"
