"""Where a study's results lie: one folder, one file a trial, each written once and whole or not at all.

::

    RUN/study.json                 what was asked for; where several studies share the folder, NAME-MODEL.json each
    RUN/trials/<key>.json          one finished trial each
    RUN/trials/<key>.safetensors   what its model answered, example by example
    RUN/failed/<key>.json          why a trial has no record yet
    RUN/claims/<key>.json          who is running a trial
    RUN/cache/                     tokens; may be deleted
    RUN/logs/                      what tensorboard wrote; of a training of one's own, what its command said
    RUN/outputs/, checkpoints/     of a training of one's own: what it wrote; the noisy weights
    RUN/packages-<digest>.txt      what is installed in the Python of one
    RUN/plan.json                  of a planned study, its file
    RUN/optuna.db                  of `tune`, its searches
    RUN/report.html, .md, .json    the report
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from noisytune._files import leftovers
from noisytune.errors import DamagedRecordError, RunFolderError
from noisytune.lab.store.claims import Claims
from noisytune.lab.store.files import (
    content_digest,
    file_name,
    keys_in,
    one_line,
    read_file,
    refuse_links,
    write_file,
)
from noisytune.lab.store.lock import hold
from noisytune.lab.store.outputs import StoredOutputs, check_scores, pack
from noisytune.records import TRIAL_ADVICE, FailureRecord, StudyRecord, TrialRecord

STUDY = "study"
"""The file name of the only study of a folder."""

REPORT = "report"
"""The file name of what a report says to programs; where several studies share the folder, NAME-MODEL.report each."""

_MOST_BYTES = 2**28
"""Of a record."""


class Store:
    """A run folder, and one study in it. Studies in one folder share their trials: a trial's key says what it is.

    A `noisytune.lab.store.protocol.TrialStore` that also keeps what was asked for. Records are read once and kept.

    Args:
        folder: made when something is written.
        study: the study's file name, without its ending.

    >>> import tempfile
    >>> from noisytune.records import digest
    >>> task, arm = {"name": "mine", "digest": "0f"}, {"name": "plain", "methods": []}
    >>> settings = {"task": task, "arm": arm, "seed": 3}
    >>> record = TrialRecord(digest(settings), settings, "ok", {"accuracy": 0.5}, [], {}, {}, {})
    >>> store = Store(tempfile.mkdtemp())
    >>> with store.lock():
    ...     store.write(record)
    ...     store.write_failure(FailureRecord("0123456789abcdef", "error", "no such file"))
    >>> [(one.arm, one.seed, one.scores) for one in store.records()]
    [('plain', 3, {'accuracy': 0.5})]
    >>> store.has(record.key), store.index() == {record.key}, store.read_study()
    (True, True, None)
    >>> {key: failure.reason for key, failure in store.failures().items()}
    {'0123456789abcdef': 'no such file'}
    """

    def __init__(self, folder: str | Path, study: str = STUDY) -> None:
        self.folder = Path(folder)
        self.study_file = self.folder / f"{study}.json"
        self.trials_folder = self.folder / "trials"
        self.failed_folder = self.folder / "failed"
        self.claims = Claims(self.folder / "claims")
        self.cache_folder = self.folder / "cache"
        self.logs_folder = self.folder / "logs"
        self._known: dict[str, TrialRecord] = {}

    def studies(self, name: str | None = None) -> dict[str, StudyRecord]:
        """The studies of the folder by their files' names. Other files of JSON are left alone.

        Args:
            name: one study's, for each of its models. None: all studies.

        Raises:
            RunFolderError: a file cannot be read, or is a damaged study.
        """
        found = {}
        for file in sorted(self.folder.glob("*.json" if name is None else f"{file_name(name)}-*.json")):
            if file.stem == REPORT or file.suffixes == [f".{REPORT}", ".json"]:
                continue  # what it holds may be called anything
            # Copies by browsers ("study (1)") and by file systems ("._study") are not the study.
            if file.stem != STUDY and (file.name.startswith(".") or file_name(file.stem) != file.stem):
                continue
            content = read_file(file, _MOST_BYTES)
            if file != self.study_file and file.stem != STUDY and b'"trials"' not in content:
                continue
            study = StudyRecord.from_json(content, str(file))
            if name in (None, study.name):
                found[file.stem] = study
        return found

    def read_study(self) -> StudyRecord | None:
        """The study, or None where none was begun.

        Raises:
            RunFolderError: the file cannot be read, or is not one that noisytune wrote.
        """
        if not self.study_file.exists():
            return None
        return StudyRecord.from_json(read_file(self.study_file, _MOST_BYTES), str(self.study_file))

    def write_study(self, study: StudyRecord) -> None:
        """Write the study, in place of an earlier one.

        Args:
            study: the plan.

        Raises:
            RunFolderError: no space, or no permission.
        """
        write_file(self.study_file, study.to_json().encode())

    def index(self) -> frozenset[str]:
        """The keys of all finished trials."""
        return keys_in(self.trials_folder)

    def has(self, key: str) -> bool:
        """Whether a trial is finished.

        Args:
            key: of a trial, sixteen hexadecimal digits.
        """
        return key in self._known or self._file(key).exists()

    def read(self, key: str) -> TrialRecord:
        """A finished trial, checked: its key is that of its settings, its outputs are those that were written, and they
        give its scores.

        Args:
            key: of the trial, sixteen hexadecimal digits.

        Raises:
            DamagedRecordError: it is not what was written.
            RunFolderError: there is none, or its file cannot be read.
        """
        if key not in self._known:
            self._known[key] = self._checked(key)
        return self._known[key]

    def records(self, keys: Iterable[str] | None = None) -> list[TrialRecord]:
        """Finished trials.

        Args:
            keys: which, in this order; those that are not finished are left out. None: all, by key.

        Raises:
            RunFolderError: a file cannot be read, or is not the record that its name says.
        """
        if keys is None:
            return [self.read(key) for key in sorted(self.index())]
        return [self.read(key) for key in keys if self.has(key)]

    def write(self, record: TrialRecord) -> None:
        """Keep a finished trial, its outputs first. One that is there already stays as it is.

        Args:
            record: of the trial.

        Raises:
            RunFolderError: no space, or no permission.
        """
        if self.has(record.key):
            return
        content, earlier = b"", b""
        if record.outputs:
            content, file = pack(record.outputs), self._outputs_file(record.key)
            record = replace(record, outputs_digest=content_digest(content))
            earlier = read_file(file) if file.exists() else b""
            if content != earlier:
                write_file(file, content)
            record = replace(record, outputs=StoredOutputs(file, record.outputs_digest))
        if not write_file(self._file(record.key), record.to_json().encode(), first=True):
            # Another finished it meanwhile, on other hardware perhaps: then its outputs are the record's.
            if earlier and content != earlier:
                write_file(self._outputs_file(record.key), earlier)
            return
        self._known[record.key] = record
        with one_line(self.failed_folder), suppress(FileNotFoundError):
            (self.failed_folder / f"{record.key}.json").unlink()

    def set_aside(self, key: str) -> Path:
        """Rename the files of a damaged trial, so that it counts as not finished, and nothing of it is lost.

        Args:
            key: of the trial, sixteen hexadecimal digits.

        Returns:
            the new name of its record.

        Raises:
            RunFolderError: no permission.
        """
        self._known.pop(key, None)
        with one_line(self._file(key)):
            for file in (self._outputs_file(key), self._file(key)):
                with suppress(FileNotFoundError):
                    os.replace(file, _damaged(file))
        return _damaged(self._file(key))

    def failures(self, keys: Iterable[str] | None = None) -> dict[str, FailureRecord]:
        """By key, what failed and has not been finished since; of a damaged file, that it is damaged.

        Args:
            keys: to look at; None: all.
        """
        found = {}
        for key in sorted(keys_in(self.failed_folder) - self.index()) if keys is None else keys:
            file = self.failed_folder / f"{key}.json"
            try:
                found[key] = FailureRecord.from_json(read_file(file, _MOST_BYTES), str(file))
            except DamagedRecordError as error:
                found[key] = FailureRecord(key, "error", str(error))
            except RunFolderError as error:
                if not isinstance(error.__cause__, FileNotFoundError):  # another process has finished it meanwhile
                    raise
        return found

    def write_failure(self, failure: FailureRecord) -> None:
        """Keep that a trial failed, in place of an earlier failure of it.

        Args:
            failure: what is known of it.

        Raises:
            RunFolderError: no space, or no permission.
        """
        refuse_links(self.failed_folder)
        write_file(self.failed_folder / f"{failure.key}.json", failure.to_json().encode())

    def failure(self, key: str) -> FailureRecord | None:
        """Why a trial failed last; None where it has not, or is finished.

        Args:
            key: of a trial, sixteen hexadecimal digits.
        """
        return self.failures([key]).get(key)

    def claim(self, key: str) -> bool:
        """Reserve a trial among the processes and machines that share the folder, unless another has.

        Args:
            key: of a trial, sixteen hexadecimal digits.

        >>> import tempfile
        >>> store, key = Store(tempfile.mkdtemp()), "0123456789abcdef"
        >>> store.claim(key), store.claim_state(key), store.has(key)
        (True, 'held', False)
        >>> store.release(key)
        >>> store.claim_state(key)
        'free'
        """
        refuse_links(self.claims.folder)
        return self.claims.take(key)

    def release(self, key: str) -> None:
        """Let go of a claim.

        Args:
            key: of a trial, sixteen hexadecimal digits.
        """
        self.claims.give_back(key)

    def claim_state(self, key: str) -> str:
        """Who has it: "free" (nobody), "held" (somebody, who is alive), or "unknown" (nothing was heard yet).

        Args:
            key: of a trial, sixteen hexadecimal digits.
        """
        return self.claims.state(key)

    @contextmanager
    def lock(self) -> Iterator[str]:
        """Keep other processes from running this study at the same time. Whoever dies lets go.

        Also removes what a killed process left half written.

        Returns:
            a context; inside it, what the user should know about the lock, or nothing.

        Raises:
            RunFolderError: another process holds the folder; or it cannot be made; or a part of it is a link.
        """
        ours = (
            self.trials_folder,
            self.failed_folder,
            self.claims.folder,
            self.cache_folder,
            self.logs_folder,
        )
        refuse_links(*ours)
        with one_line(self.folder):
            self.trials_folder.mkdir(parents=True, exist_ok=True)
            self.cache_folder.mkdir(exist_ok=True)
        with hold(self.folder / ".lock") as found:
            if not found.ours:
                raise RunFolderError(
                    f"{self.folder} is in use by {found.holder}: wait until it is done, choose another run folder, or "
                    f"help with a planned study:  noisytune work {self.folder}"
                )
            with one_line(self.folder):
                for folder in (self.folder, *ours):
                    for leftover in leftovers(folder):
                        leftover.unlink(missing_ok=True)
                for key in keys_in(self.claims.folder) & self.index():
                    self.claims.forget(key)
            yield found.notice

    @cached_property
    def _reported(self) -> frozenset[str]:
        """The metrics that studies of the folder report: the scores worth checking. None where there is no study."""
        with suppress(RunFolderError):  # whoever needs the study will say so
            return frozenset(task["metric"] for study in self.studies().values() for task in study.tasks)
        return frozenset()

    def _file(self, key: str) -> Path:
        return self.trials_folder / f"{key}.json"

    def _outputs_file(self, key: str) -> Path:
        return self.trials_folder / f"{key}.safetensors"

    def _checked(self, key: str) -> TrialRecord:
        file = f"{self.trials_folder}{os.sep}{key}.json"  # ten thousand joined paths take a quarter of a second
        record = TrialRecord.from_json(read_file(file, _MOST_BYTES), file)
        if record.key != key:
            raise DamagedRecordError(f"{file}: holds the record of trial {record.key}; {TRIAL_ADVICE}")
        if record.outputs_digest:
            outputs = StoredOutputs(file.removesuffix("json") + "safetensors", record.outputs_digest)
            check_scores(record, outputs.read(), file, self._reported)
            return replace(record, outputs=outputs)
        check_scores(record, record.outputs, file, self._reported)
        return record


def _damaged(file: Path) -> Path:
    """A name under which nobody takes a file for a record; a later one replaces an earlier one."""
    return file.with_name(f"{file.name}.damaged")
