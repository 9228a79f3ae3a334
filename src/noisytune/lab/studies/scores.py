"""Scores that exist: which column of a table says what? Long (a row a score) or wide (a column an arm)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from noisytune.errors import ConfigError, DataError
from noisytune.lab.tasks._tables import Table, read_table

ROLES: dict[str, tuple[str, ...]] = {
    "seed": ("seed", "run", "trial", "fold", "repeat"),
    "arm": ("arm", "method", "system", "variant", "condition"),
    "score": ("score", "value"),
    "task": ("task", "dataset", "benchmark"),
    "metric": ("metric", "measure"),
    "item": ("item", "example", "sample", "sample_id", "doc_id", "id"),
    "group": ("group", "cluster"),
    "status": ("status",),
}
"""What a column says, and what it is called unless the user names it. Case does not matter."""
NOT_SCORES = re.compile(r"|index|epoch|step|unnamed: \d+", re.IGNORECASE)
"""Columns of numbers that are neither an arm nor a metric: a data frame's index, how long a run has been trained."""
STATUSES = ("ok", "collapsed", "diverged", "untrained")
"""Of runs that have ended; rows of others are left out."""
_ENDED_WELL = ("", "ok", "finished", "completed")
"""What trackers call ``ok``."""


@dataclass(frozen=True)
class Score:
    """One number, as it was given."""

    arm: str
    value: float | None
    """None: undefined, of a run that collapsed or diverged."""
    run: str = ""
    """Which run of the arm: a seed, mostly. Empty where there is one run only."""
    task: str = ""
    metric: str = "score"
    item: str = ""
    """Which example; empty for the score of a whole run."""
    group: str = ""
    """What the example belongs to."""
    status: str = "ok"
    check: str = ""
    """Equal for the same example, whatever the run; empty where nobody says."""
    where: str = ""
    """For error messages."""


def read_scores(path: Path, named: Mapping[str, str]) -> list[Score]:
    """The scores of a CSV, TSV, Parquet or JSONL file.

    Long: columns ``arm`` and ``score``, or ``arm`` and a column for each metric. Wide: a column for each arm. Besides,
    as far as they are there: ``seed``, ``task``, ``metric``, ``item``, ``group``, ``status``.

    Args:
        path: the file.
        named: columns that the user names, by what they say (the keys of `ROLES`).

    Raises:
        DataError: a column is missing, or a cell is no number; says which row.
    """
    table = read_table(path)
    columns = _columns(table, named)
    found = list(_rows(table, columns))
    if not found:
        cells = table.columns[columns["status"]] if "status" in columns else ()
        out = ", ".join(sorted({_status(cell) for cell in cells} - {*STATUSES}))
        about = f": all with the status {out} are left out; it must be one of {', '.join(STATUSES)}" if out else ""
        raise DataError(f"{path}: no row has a score{about}")
    return found


def _columns(table: Table, named: Mapping[str, str]) -> dict[str, str]:
    """The columns that say something, by what they say."""
    folded = {name.strip().casefold(): name for name in table.columns}
    found = {}
    for role, usual in ROLES.items():
        if role in named:
            if named[role].strip().casefold() not in folded:
                raise ConfigError(f"{table.path}: {role}_column: no column {named[role]!r}; it has {table.names}")
            found[role] = folded[named[role].strip().casefold()]
        else:
            known = [folded[name] for name in usual if name in folded]
            found |= {role: known[0]} if known else {}
    if "arm" in found and not {"seed", "item"} & found.keys():
        raise DataError(
            f"{table.path}: no column says which scores belong together: name it with seed_column or item_column "
            f"(it has {table.names})"
        )
    return found


def _rows(table: Table, columns: dict[str, str]) -> Iterator[Score]:
    taken, size = set(columns.values()), len(next(iter(table.columns.values())))
    wide = "arm" not in columns
    values = [columns["score"]] if "score" in columns and not wide else _numeric(table, taken)
    if len(values) < 1 + wide:
        what = "two columns of numbers, one an arm" if wide else "a column of scores"
        raise DataError(f"{table.path}: needs {what}, or columns arm and score; it has {table.names}")
    for i in range(size):
        said = {role: _text(table.columns[name][i]) for role, name in columns.items()}
        status = _status(said.get("status"))
        if status not in STATUSES:
            continue
        where = f"{table.path}, row {i + 1}"
        for name in values:
            value = _number(table.columns[name][i], status, f"{where}, column {name.strip()}")
            if value is None and status == "ok":
                continue
            if not wide and not said["arm"]:
                raise DataError(f"{where}: no arm; fill the cell")
            told = said.get("metric") or "score"
            yield Score(
                arm=name.strip() if wide else said["arm"],
                value=value,
                run=said.get("seed") or ("" if said.get("item") else str(i)),
                task=said.get("task", ""),
                metric=told if wide or "score" in columns else name.strip(),
                item=said.get("item", ""),
                group=said.get("group", ""),
                status=status,
                where=where,
            )


def _status(cell: object) -> str:
    status = _text(cell).casefold()
    return "ok" if status in _ENDED_WELL else status


def _text(cell: object) -> str:
    """Names are text: a seed read as 3.0 beside empty cells is 3."""
    if cell is None or cell != cell:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _numeric(table: Table, taken: set[str]) -> list[str]:
    """The columns of scores: at least half of their cells are numbers, so that one NA is an error and no arm less."""
    found = []
    for name, cells in table.columns.items():
        filled = [str(cell) for cell in cells if not _empty(cell)]
        numbers = sum(_parsed(cell.strip().removesuffix("%").replace(",", ".")) is not None for cell in filled)
        if name not in taken and not NOT_SCORES.fullmatch(name.strip()) and numbers and 2 * numbers >= len(filled):
            found.append(name)
    return found


def _empty(cell: object) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _parsed(cell: object) -> float | None:
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


def _number(cell: object, status: str, where: str) -> float | None:
    """A finite number; None for an empty cell."""
    if _empty(cell):
        return None
    value = _parsed(cell)
    if value is None or not math.isfinite(value):
        if status != "ok":
            return None
        raise DataError(
            f"{where}: {str(cell)!r} is not a finite number; give one, or a column status that says "
            "collapsed or diverged"
        )
    return value
