"""What a study needs of the place where its trials are kept."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from noisytune.records import FailureRecord, StudyRecord, TrialRecord


class TrialStore(Protocol):
    """Finished trials by their keys, each written once and whole, or not at all; and what failed.

    A key is the digest of everything that decides a trial's outcome: whoever writes a trial first, it is the same one.
    `noisytune.lab.store.Store`, a folder, is one; a database or a bucket may be another. `tests/lab/store` has the
    contract as tests.
    """

    def index(self) -> frozenset[str]:
        """The keys of all finished trials, seen at once: what a study of thousands asks for first."""
        ...

    def has(self, key: str) -> bool:
        """Whether a trial is finished."""
        ...

    def read(self, key: str) -> TrialRecord:
        """A finished trial. A second reading gives the same object.

        Raises:
            DamagedRecordError: what is kept is not what was written; `has` still says yes.
            RunFolderError: it is not finished, or cannot be reached.
        """
        ...

    def records(self, keys: Iterable[str]) -> list[TrialRecord]:
        """Finished trials, in the order of ``keys``; those that are not finished are left out."""
        ...

    def write(self, record: TrialRecord) -> None:
        """Keep a finished trial and its outputs. One that is there already stays as it is; a failure of it is over.

        Raises:
            RunFolderError: it cannot be kept; then nothing of it is.
        """
        ...

    def set_aside(self, key: str) -> Path:
        """Give a damaged trial another name, under which it can be looked at: it counts as not finished.

        Returns:
            the new name.
        """
        ...

    def failures(self) -> dict[str, FailureRecord]:
        """By key, what failed and has not been finished since."""
        ...

    def failure(self, key: str) -> FailureRecord | None:
        """Why a trial failed last; None where it has not, or is finished."""
        ...

    def write_failure(self, failure: FailureRecord) -> None:
        """Keep that a trial failed, in place of an earlier failure of it."""
        ...

    def claim(self, key: str) -> bool:
        """Reserve a trial for whoever is about to run it, among processes and machines that share the store.

        It only saves work: two runs of one trial are the same trial. Whoever dies loses a claim after a while.

        Returns:
            whether it is reserved now; not if another has it.
        """
        ...

    def release(self, key: str) -> None:
        """Let go of what was claimed."""
        ...

    def claim_state(self, key: str) -> str:
        """``free``: nobody has claimed it. ``held``: somebody has, who is alive. ``unknown``: nothing was heard yet."""
        ...


class StudyStore(TrialStore, Protocol):
    """A `TrialStore` with a study in it."""

    @property
    def folder(self) -> Path:
        """What the store is called, for people."""
        ...

    @property
    def cache_folder(self) -> Path:
        """Where tokens are kept on this machine; may be deleted."""
        ...

    @property
    def logs_folder(self) -> Path:
        """Where trackers write."""
        ...

    def read_study(self) -> StudyRecord | None:
        """The study, or None where none was begun."""
        ...

    def write_study(self, study: StudyRecord) -> None:
        """Write the study, in place of an earlier one."""
        ...

    def lock(self) -> AbstractContextManager[str]:
        """Keep other processes from changing the study at the same time. Whoever dies lets go.

        Returns:
            a context; inside it, what the user should know about the lock, or nothing.

        Raises:
            RunFolderError: another process holds it.
        """
        ...
