"""Where a study's results lie: one folder, one file a trial, each written once and whole or not at all.

::

    RUN/study.json           what was asked for; where several studies share the folder, NAME-MODEL.json each
    RUN/trials/<key>.json    one finished trial each
    RUN/cache/               tokens; may be deleted
    RUN/logs/                what --report-to tensorboard wrote
"""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from noisytune._files import TEMPORARY, publish
from noisytune.errors import RunFolderError
from noisytune.records import StudyRecord, TrialRecord

STUDY = "study"
"""The file name of the only study of a folder."""


class Store:
    """A run folder, and one study in it. Studies in one folder share their trials: a trial's key says what it is.

    Args:
        folder: made when something is written.
        study: the study's file name, without its ending.

    >>> import tempfile
    >>> Store(tempfile.mkdtemp()).records()
    []
    """

    def __init__(self, folder: str | Path, study: str = STUDY) -> None:
        self.folder = Path(folder)
        self.study_file = self.folder / f"{study}.json"
        self.trials_folder = self.folder / "trials"
        self.cache_folder = self.folder / "cache"
        self.logs_folder = self.folder / "logs"

    def studies(self, name: str | None = None) -> dict[str, StudyRecord]:
        """The studies of the folder by their files' names.

        Args:
            name: one study's, for each of its models. None: all studies.

        Raises:
            RunFolderError: a file cannot be read, or is not a study that noisytune wrote.
        """
        files = sorted(self.folder.glob("*.json" if name is None else f"{file_name(name)}-*.json"))
        found = {file.stem: StudyRecord.from_json(_read(file), str(file)) for file in files}
        return {file: study for file, study in found.items() if name in (None, study.name)}

    def read_study(self) -> StudyRecord | None:
        """The study, or None where none was begun.

        Raises:
            RunFolderError: the file cannot be read, or is not one that noisytune wrote.
        """
        if not self.study_file.exists():
            return None
        return StudyRecord.from_json(_read(self.study_file), str(self.study_file))

    def write_study(self, study: StudyRecord) -> None:
        """Write the study, in place of an earlier one.

        Raises:
            RunFolderError: no space, or no permission.
        """
        write_file(self.study_file, study.to_json().encode())

    def has(self, key: str) -> bool:
        """Whether a trial is finished."""
        return self._file(key).exists()

    def records(self, keys: Iterable[str] | None = None) -> list[TrialRecord]:
        """Finished trials.

        Args:
            keys: which, in this order; those that are not finished are left out. None: all, by key.

        Raises:
            RunFolderError: a file cannot be read, or is not the record that its name says.
        """
        if keys is None:
            keys = sorted(file.stem for file in self.trials_folder.glob("*.json"))
        return [self._record(key) for key in keys if self.has(key)]

    def write(self, record: TrialRecord) -> None:
        """Keep a finished trial. One that is there already stays as it is.

        Raises:
            RunFolderError: no space, or no permission.
        """
        if not self.has(record.key):
            write_file(self._file(record.key), record.to_json().encode())

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from running this study at the same time. Whoever dies lets go.

        Also removes what a killed process left half written.

        Raises:
            RunFolderError: another process holds the folder; or it cannot be made.
        """
        import fcntl

        with _one_line(self.folder):
            self.trials_folder.mkdir(parents=True, exist_ok=True)
            self.cache_folder.mkdir(exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
                raise RunFolderError(
                    f"{self.folder} is in use by {holder}: wait until it is done, or choose another --out"
                ) from error
            with _one_line(self.folder):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
                for folder in (self.folder, self.trials_folder, self.cache_folder):
                    for leftover in folder.glob(f"{TEMPORARY}*"):
                        leftover.unlink()
            yield
        finally:
            os.close(descriptor)

    def _file(self, key: str) -> Path:
        return self.trials_folder / f"{key}.json"

    def _record(self, key: str) -> TrialRecord:
        file = self._file(key)
        record = TrialRecord.from_json(_read(file), str(file))
        if record.key != key:
            raise RunFolderError(f"{file}: holds the record of trial {record.key}; delete it to redo the trial")
        return record


def file_name(*parts: str) -> str:
    """A name for a file made of names that may hold anything.

    >>> file_name("Table 2", "google/bert")
    'Table_2-google_bert'
    """
    return "-".join(re.sub(r"[^\w.-]+", "_", part).strip("._-") or "_" for part in parts)


def write_file(file: Path, content: bytes) -> None:
    """Write a file of a run folder, whole or not at all; its folder is made where it is missing.

    Raises:
        RunFolderError: no space, or no permission.
    """
    with _one_line(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        publish(file, content)


def _read(file: Path) -> str:
    with _one_line(file):
        content = file.read_bytes()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise RunFolderError(f"{file}: damaged ({error.reason}); delete it to redo it") from error


@contextmanager
def _one_line(place: Path) -> Iterator[None]:
    """Turn the system's errors into one line that says what to do."""
    try:
        yield
    except RunFolderError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "no space left: free some and run the same command again, finished trials are kept"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            advice = "permission denied: change it, or choose another --out"
        else:
            advice = f"{error.strerror or error}"
        raise RunFolderError(f"{place}: {advice}") from error
