"""Where the benchmark's files lie: in a folder with the official layout, or on the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from noisytune._hub import fetch
from noisytune._languages import language_name
from noisytune.errors import DataError, NotFoundError
from noisytune.lab.tasks.xtreme.bitexts import companions, read_bitext, read_hub_bitext
from noisytune.lab.tasks.xtreme.official import CODES_OF_THREE, OFFICIAL, TRAINED_ON, HubSplit, Official
from noisytune.lab.tasks.xtreme.pairs import read_hub_pairs, read_pairs
from noisytune.lab.tasks.xtreme.part import Part
from noisytune.lab.tasks.xtreme.questions import read_hub_squad, read_squad
from noisytune.lab.tasks.xtreme.tags import read_hub_tags, read_tags

READERS: dict[str, Callable[[Path, Sequence[str], str, bool], Part]] = {
    "classification": read_pairs,
    "tagging": read_tags,
    "spans": read_squad,
    "retrieval": read_bitext,
}
"""Kind -> what reads a file of the official layout: path, labels, code of the language, whether it is trained on."""
HUB_READERS: dict[str, Callable[[Sequence[Path], Sequence[str], str, bool], Part]] = {
    "classification": read_hub_pairs,
    "tagging": read_hub_tags,
    "spans": read_hub_squad,
    "retrieval": read_hub_bitext,
}
"""The same for the Parquet files of a split."""


class Source(Protocol):
    """Finds and reads the parts of tasks."""

    def find(self, task: Official, part: str, code: str) -> list[Path]:
        """The files of a part in a language; empty where there are none."""
        ...

    def wanted(self, task: Official, part: str, code: str) -> str:
        """What was looked for, for messages."""
        ...

    def read(self, task: Official, part: str, files: Sequence[Path], code: str) -> Part:
        """What the files of a part hold.

        Raises:
            DataError: they are not as the official ones are; names file and line.
        """
        ...


@dataclass(frozen=True)
class Local:
    """The official folder ``download``."""

    root: Path

    @classmethod
    def of(cls, data_dir: Path) -> Local:
        """The folder itself, a ``download`` in it, or the one that it is a task's folder of.

        Raises:
            NotFoundError: there is no such folder, or none of the benchmark's is in it.
        """
        given = data_dir.expanduser()
        if not given.is_dir():
            raise NotFoundError(f"data_dir {data_dir}: there is no such folder")
        names = dict.fromkeys(_folder(file) for task in OFFICIAL.values() for file in task.files.values())
        for root in (given, given / "download", given.resolve().parent):
            if any((root / name).is_dir() for name in names):
                return cls(root)
        raise NotFoundError(f"data_dir {data_dir}: none of XTREME's folders is in it ({', '.join(names)})")

    def find(self, task: Official, part: str, code: str) -> list[Path]:
        """One file, and those that belong to it."""
        path = self.root / task.files[part].format(code=code) if part in task.files else None
        if path is None or not path.is_file():
            return []
        return [path, *(companions(path) if task.kind == "retrieval" else [])]

    def wanted(self, task: Official, part: str, code: str) -> str:
        """Its path."""
        return str(self.root / task.files[part].format(code=code))

    def read(self, task: Official, part: str, files: Sequence[Path], code: str) -> Part:
        """By the reader of the task's kind."""
        try:
            return READERS[task.kind](files[0], task.labels, code, part in TRAINED_ON)
        except OSError as error:
            raise DataError(f"{files[0]}: {error.strerror or 'cannot be read'}") from error


@dataclass(frozen=True)
class Hub:
    """The Parquet files of the Hub, downloaded once for each data set."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    """Id -> where its files lie on this machine."""

    @classmethod
    def of(cls, name: str, needed: Iterable[tuple[Official, str, str]]) -> Hub:
        """Download what is needed.

        Args:
            name: of the task, for messages.
            needed: tasks, parts and languages.

        Raises:
            DataError: the Hub cannot be reached, or its copy cannot be scored.
        """
        patterns: dict[str, list[str]] = {}
        for task, part, code in needed:
            if task.hub_lacks:
                raise DataError(f"task {name!r}: {task.hub_lacks}; give the official download as data_dir")
            if split := task.hub.get(part):
                patterns.setdefault(split.id, []).append(f"{_hub_folder(split, code)}/{split.split}-*.parquet")
        what, instead = f"task {name!r}: no data_dir is given", "the official download as data_dir"
        return cls(
            {id: fetch(what, id, instead, repo_type="dataset", allow_patterns=found) for id, found in patterns.items()}
        )

    def find(self, task: Official, part: str, code: str) -> list[Path]:
        """The files of a split, in order."""
        split = task.hub.get(part)
        if split is None or split.id not in self.folders:
            return []
        return sorted((self.folders[split.id] / _hub_folder(split, code)).glob(f"{split.split}-*.parquet"))

    def wanted(self, task: Official, part: str, code: str) -> str:
        """Its place in the data set."""
        split = task.hub.get(part)
        return f"{split.id}, {_hub_folder(split, code)}/{split.split}-*.parquet" if split else "the Hub"

    def read(self, task: Official, part: str, files: Sequence[Path], code: str) -> Part:
        """By the reader of the task's kind."""
        return HUB_READERS[task.kind](files, task.labels, code, part in TRAINED_ON)


def digest_of(files: Iterable[Path]) -> str:
    """SHA-256 of the files' contents, one after the other, first 16 hexadecimal digits."""
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()[:16]


def _folder(file: str) -> str:
    return file.partition("/")[0]


def _hub_folder(split: HubSplit, code: str) -> str:
    return split.folder.format(code=code, name=language_name(code), code3=CODES_OF_THREE.get(code, code))
