"""A run folder for other programs: one row a trial as CSV or Parquet, everything as JSON, or runs of MLflow."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from noisytune._text import cell
from noisytune.errors import NotFoundError, RunFolderError, require
from noisytune.lab.store import Store, write_file
from noisytune.records import FailureRecord, StudyRecord, TrialRecord

Row = dict[str, Any]


def export(run: Path, to: str, out: Path) -> int:
    """Write the trials of a run folder into one file.

    Args:
        run: the run folder.
        to: one of `FORMATS`.
        out: the file; its folder is made where it is missing.

    Returns:
        how many trials, failed ones included.

    Raises:
        NotFoundError: no such folder.
        RunFolderError: it holds no study, a record is damaged, or the file cannot be written.
        MissingExtraError: a library is not installed.
    """
    found = read_run(run)
    write_file(out, FORMATS[to](found))
    return sum(len(records) + len(failures) for _, records, failures in found)


Found = list[tuple[StudyRecord, list[TrialRecord], list[FailureRecord]]]
"""Studies with their finished trials, and with those that failed."""


def read_run(run: Path) -> Found:
    """The studies of a run folder, with what came of their trials; raises as `export`."""
    if not run.is_dir():
        raise NotFoundError(f"{run}: there is no such folder")
    store = Store(run)
    studies, failures = store.studies(), store.failures()
    if not studies:
        raise RunFolderError(f"{run} holds no study: give a folder that noisytune compare, run or plan wrote")
    found = []
    for study in studies.values():
        keys = [entry["key"] for entry in study.trials]
        found.append((study, store.records(keys), [failures[key] for key in keys if key in failures]))
    return found


def rows(found: Found) -> list[Row]:
    """One for each trial that is finished or failed; scores are fractions, and absent where they are undefined."""
    lines = []
    for study, records, failures in found:
        metrics = {task["name"]: task["metric"] for task in study.tasks}
        plan = {entry["key"]: entry for entry in study.trials}
        shared = {"study": study.name, "model": study.model["name"]}
        for record in records:
            line = {**shared, "task": record.task, "arm": record.arm, "seed": record.seed, "status": record.status}
            line |= {"metric": metrics[record.task], "score": record.scores.get(metrics[record.task]), "reason": None}
            line |= {"seconds": record.timing.get("total"), "key": record.key, **_scores(record)}
            lines.append(line)
        for failure in failures:
            entry = plan[failure.key]
            line = {**shared, "task": entry["task"], "arm": entry["arm"], "seed": entry["seed"], "status": "failed"}
            line |= {"metric": metrics[entry["task"]], "score": None, "reason": failure.reason}
            lines.append(line | {"seconds": None, "key": failure.key})
    return lines


def _scores(record: TrialRecord) -> dict[str, float]:
    """Of every split and metric: ``dev/accuracy``."""
    return {
        f"{split}/{metric}": score
        for split, found in record.evaluations.items()
        for metric, score in found["scores"].items()
    }


def _columns(lines: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line))


def _csv(found: Found) -> bytes:
    """For spreadsheets too: a name that one would take for a formula gets an apostrophe before it."""
    lines, text = rows(found), io.StringIO()
    names = _columns(lines)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, names))
    writer.writerows([_cell(line.get(name)) for name in names] for line in lines)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    return cell(value) if isinstance(value, str) else value


def _parquet(found: Found) -> bytes:
    require("pyarrow", extra="report", needed_for="noisytune export --to parquet")
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines, sink = rows(found), io.BytesIO()
    names = _columns(lines)
    columns = {name: [line.get(name) for line in lines] for name in names}
    numbers = {name: pa.float64() for name in names if "/" in name or name in ("score", "seconds")}
    types = {name: numbers.get(name, pa.int64() if name == "seed" else pa.string()) for name in names}
    pq.write_table(pa.table({name: pa.array(columns[name], types[name]) for name in names}), sink)
    return sink.getvalue()


def _json(found: Found) -> bytes:
    """Studies, trials and failures as the run folder has them; without predictions."""
    studies = [
        {"study": _plain(study), "trials": list(map(_plain, records)), "failed": list(map(_plain, failures))}
        for study, records, failures in found
    ]
    return json.dumps(studies, ensure_ascii=False, allow_nan=False, indent=1).encode("utf-8", "backslashreplace")


def _plain(record: Any) -> Mapping[str, Any]:
    return {one.name: getattr(record, one.name) for one in fields(record) if one.name != "outputs"}


FORMATS: dict[str, Callable[[Found], bytes]] = {"csv": _csv, "parquet": _parquet, "json": _json}
"""What `export` writes."""
