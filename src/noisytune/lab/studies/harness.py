"""Scores example by example out of what two evaluation tools write: lm-evaluation-harness and Inspect."""

from __future__ import annotations

import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from noisytune.errors import DataError, NotFoundError
from noisytune.lab.studies.scores import Score

_DATED = re.compile(r"samples_(?P<task>.+?)(?:_\d{4}-\d\d-\d\dT[\w.:-]+)?\.jsonl")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's letters: correct, incorrect, partial, no answer."""


def read_results(place: Path, arm: str, run: str) -> list[Score]:
    """Every example's scores of one run.

    Args:
        place: a folder with lm-evaluation-harness's ``samples_TASK_DATE.jsonl`` (``--log_samples``), or with Inspect's
            logs (``.eval`` or ``.json``), at any depth; or one such file. Of several files on one task the last counts.
        arm: whose it is.
        run: which of the arm's runs.

    Raises:
        NotFoundError: nothing there.
        DataError: no such files, or one that cannot be read; names it.
    """
    if not place.exists():
        raise NotFoundError(f"{place}: there is no such folder or file")
    files = sorted(file for file in place.rglob("*") if file.is_file()) if place.is_dir() else [place]
    by_task: dict[str, list[Score]] = {}
    for file in files:
        try:
            if found := _DATED.fullmatch(file.name):
                by_task[found["task"]] = list(_harness(file, found["task"], arm, run))
            elif file.suffix in (".eval", ".json"):
                header, samples = _log(file)
                if header:
                    task = str(header["task"])
                    by_task[task] = _inspect(file, samples, task, arm, run)
        except (ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{file}: not a log of examples that lm-evaluation-harness or Inspect wrote ({error}); remove it, or "
                "write it again"
            ) from error
    if not by_task:
        raise DataError(
            f"{place}: no samples_*.jsonl of lm-evaluation-harness (run it with --log_samples) and no log of Inspect"
        )
    return [score for scores in by_task.values() for score in scores]


def _harness(file: Path, task: str, arm: str, run: str) -> Iterator[Score]:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        row = json.loads(line)
        names = row.get("metrics") or [key for key in row if isinstance(row[key], bool | int | float)]
        way = str(row.get("filter") or "none")
        for name in names:
            if name == "doc_id" or not isinstance(row[name], bool | int | float):
                continue
            metric = name if way == "none" else f"{name},{way}"
            yield Score(
                arm, float(row[name]), run, task, metric, str(row["doc_id"]), "", "ok", str(row.get("doc_hash", "")),
                f"{file}, line {number}",
            )  # fmt: skip


def _log(file: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """An Inspect log's ``eval`` and its samples; None for other JSON."""
    if file.suffix == ".json":
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or "eval" not in content:
            return None, []
        return content["eval"], content.get("samples") or []
    with zipfile.ZipFile(file) as packed:
        header = json.loads(packed.read("header.json"))
        names = sorted(name for name in packed.namelist() if name.startswith("samples/") and name.endswith(".json"))
        return header["eval"], [json.loads(packed.read(name)) for name in names]


def _inspect(file: Path, samples: Iterable[Mapping[str, Any]], task: str, arm: str, run: str) -> list[Score]:
    """The epochs of an example are averaged."""
    each: dict[tuple[str, str], list[float]] = defaultdict(list)
    for sample in samples:
        for scorer, score in (sample.get("scores") or {}).items():
            value = score["value"]
            parts = value.items() if isinstance(value, dict) else [("", value)]
            for part, one in parts:
                grade = _GRADES.get(one) if isinstance(one, str) else float(one)
                if grade is None:
                    raise ValueError(f"sample {sample['id']}: {one!r} is neither a number nor C, I, P or N")
                each[str(sample["id"]), f"{scorer}.{part}" if part else scorer].append(grade)
    return [
        Score(arm, sum(grades) / len(grades), run, task, metric, item, where=f"{file}, sample {item}")
        for (item, metric), grades in each.items()
    ]
