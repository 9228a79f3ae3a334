"""Parts of a task as they are read: examples, and what was noticed on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from noisytune._languages import language_name
from noisytune.errors import DataError
from noisytune.lab.kinds import Split
from noisytune.lab.tasks.xtreme.official import Official
from noisytune.lab.tasks.xtreme.source import Source, digest_of

SHOWN = 4
"""More files whose rows differ from the official number are counted."""


@dataclass
class Gathered:
    """Reads parts, and keeps what there is to say of their files."""

    name: str
    """Of the task, with its benchmark: for messages."""
    task: Official
    source: Source
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Of each file: source, rows, official rows where they are known, digest."""
    unlabelled: list[str] = field(default_factory=list)
    """Languages of which a file is there, but no labels."""
    _notices: list[str] = field(default_factory=list)

    def split(self, part: str, code: str) -> Split | None:
        """The examples of a part in a language; None where the file is not there or has no labels.

        Raises:
            DataError: a file is not as the official ones are.
        """
        files = self.source.find(self.task, part, code)
        if not files:
            return None
        found = self.source.read(self.task, part, files, code)
        official = self.task.rows[part].get(code)
        counted = {"source": "/".join(files[0].parts[-2:]), "rows": found.rows}
        known = {} if official is None or found.split is None else {"official": official}
        self.rows.append({**counted, **known, "digest": digest_of(files)})
        self._notices += found.notices
        if found.split is None:
            self.unlabelled.append(code)
            return None
        return replace(found.split, language=code) if self.task.by_language else found.split

    def needed(self, part: str) -> Split:
        """The English examples of a part that has to be there.

        Raises:
            DataError: it is not.
        """
        split = self.split(part, "en")
        if split is None:
            there = self.source.find(self.task, part, "en")
            why = "it has no labels" if there else "there is no such file"
            raise DataError(f"{self.source.wanted(self.task, part, 'en')}: {why}; the official download has it")
        return split

    def say(self, notice: str) -> None:
        """Keep a notice, without the task's name."""
        self._notices.append(notice)

    def take_over(self, other: Gathered) -> None:
        """Keep what there is to say of another task's files, which are this one's too."""
        self.rows += other.rows
        self._notices += other._notices

    @property
    def notices(self) -> list[str]:
        """What the user should know, one line each."""
        differ = [row for row in self.rows if row["rows"] != row.get("official", row["rows"])]
        listed = [_compared(row) for row in differ[:SHOWN]]
        listed += [f"and {len(differ) - SHOWN} more files"] if len(differ) > SHOWN else []
        counted = [f"other numbers of rows than the official ones: {'; '.join(listed)}"] if listed else []
        return [f"{self.name}: {text}" for text in (*counted, *self._notices)]


def _compared(row: dict[str, Any]) -> str:
    relation = "of" if row["rows"] < row["official"] else "rows, officially"
    return f"{row['source']} {row['rows']:,} {relation} {row['official']:,}"


def named(codes: Iterable[str]) -> str:
    """Languages for people.

    >>> named(["de", "sw"])
    'German (de), Swahili (sw)'
    """
    return ", ".join(f"{language_name(code)} ({code})" for code in codes)
