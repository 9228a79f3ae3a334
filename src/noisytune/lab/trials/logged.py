"""A command runs: its output goes to a file that stays small, and nothing that it started is left behind."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from noisytune._processes import Family
from noisytune.errors import TrialError

FIRST, LAST = 2**22, 2**20
"""Bytes of an output that are kept, from its begin and from its end."""
_LINE = 2**16
"""Bytes up to which a line is looked at as a whole."""
_PATIENCE = 5.0
"""Seconds for what is still in the pipe when the command has ended."""


class Output:
    """What a command says: written to a file as far as there is room, and searched.

    Args:
        log: the file, open.
        pattern: what to look for in lines; the last match counts.
    """

    def __init__(self, log: BinaryIO, pattern: re.Pattern[bytes]) -> None:
        self._log, self._pattern = log, pattern
        self._written = self._dropped = 0
        self._end = bytearray()
        self._line = b""
        self._lock = threading.Lock()
        self._closed = False
        self.found: str | None = None
        """The first group of the last match."""

    def take(self, said: bytes) -> None:
        """Keep some more, and look for the score in the lines that are whole. Once closed, nothing more is taken."""
        with self._lock:
            if self._closed:
                return
            room = max(0, FIRST - self._written)
            self._log.write(said[:room])
            self._log.flush()
            self._written += len(said[:room])
            self._end += said[room:]
            if len(self._end) > 2 * LAST:
                self._cut()
            self._search(said)

    def close(self) -> None:
        """Write the end, after a line that counts what was left out."""
        with self._lock:
            self._closed = True
            self._search(b"\n")
            self._cut()
            if self._dropped:
                self._log.write(f"\n... {self._dropped:,} bytes are left out here ...\n".encode())
            self._log.write(self._end)
            self._log.flush()

    def _cut(self) -> None:
        more = max(0, len(self._end) - LAST)
        self._dropped += more
        del self._end[:more]

    def _search(self, said: bytes) -> None:
        text = self._line + said
        whole = max(text.rfind(b"\n"), text.rfind(b"\r")) + 1
        for match in self._pattern.finditer(text, 0, whole):
            self.found = (match[1] or b"").decode(errors="replace")
        self._line = text[whole:][-_LINE:]


def run_logged(
    command: Sequence[str], log: Path, pattern: re.Pattern[bytes], cwd: Path | None, variables: Mapping[str, str]
) -> tuple[int, str | None]:
    """Run a command in a process group of its own, without input, until it and all that it started have ended.

    Args:
        command: the program and its arguments.
        log: the file for what it says on stdout and stderr; longer output keeps its begin and its end.
        pattern: what to look for in it.
        cwd: where it runs; None: here.
        variables: of its environment, beside this process's own.

    Returns:
        its exit code, and the first group of the last match.

    Raises:
        TrialError: it cannot be started.
    """
    with log.open("wb") as file:
        output = Output(file, pattern)
        try:
            family = Family(command, variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=cwd)
        except (OSError, ValueError) as error:
            raise TrialError(f"the command cannot be started: {error}") from error
        reader = threading.Thread(target=_read, args=(family.process, output), daemon=True)
        reader.start()
        try:
            code = family.wait()
        finally:
            family.end()
            reader.join(_PATIENCE)
            output.close()
    return code, output.found


def _read(process: subprocess.Popen[bytes], output: Output) -> None:
    with process.stdout as pipe:  # type: ignore[union-attr]
        while said := os.read(pipe.fileno(), _LINE):
            output.take(said)


def last_lines(log: Path, most: int = 20) -> list[str]:
    """The last lines of a log that are not empty, without what terminals draw over."""
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _LINE))
        text = file.read().decode(errors="replace")
    lines = (line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n"))
    return [line for line in lines if line][-most:]
