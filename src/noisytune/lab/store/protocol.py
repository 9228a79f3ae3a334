"""What a study needs of the place where its trials are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from noisytune.records import TrialRecord


class TrialStore(Protocol):
    """Finished trials by their keys, each written once and whole, or not at all.

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

    def write(self, record: TrialRecord) -> None:
        """Keep a finished trial and its outputs. One that is there already stays as it is.

        Raises:
            RunFolderError: it cannot be kept; then nothing of it is.
        """
        ...

    def claim(self, key: str) -> AbstractContextManager[bool]:
        """Reserve a trial for whoever is about to run it, among processes and machines that share the store.

        Returns:
            a context: True inside it if the trial is neither finished nor claimed by another. Whoever leaves it, or
            dies, gives the claim back. It only saves work: two runs of one trial are the same trial.
        """
        ...
