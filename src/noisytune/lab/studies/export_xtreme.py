"""A run's predictions in the folders of XTREME, so that the benchmark's own ``evaluate.py`` scores them.

::

    OUT/ARM-seed0/xnli/test-ar.tsv      evaluate.py --prediction_folder OUT/ARM-seed0
    OUT/labels/xnli/test-ar.tsv                     --label_folder OUT/labels
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noisytune.errors import DataError, NotFoundError, RunFolderError
from noisytune.lab.store import Store, file_name, write_file
from noisytune.lab.tasks.xtreme.asked import XTREME
from noisytune.lab.tasks.xtreme.official import OFFICIAL
from noisytune.lab.tasks.xtreme.predictions import place, texts_of
from noisytune.lab.tasks.xtreme.source import Local
from noisytune.records import TrialRecord

LABELS = "labels"
"""The folder of what should be said."""


def export_xtreme(run: Path, data_dir: Path, out: Path) -> list[str]:
    """Write what all finished trials of XTREME's tasks say.

    Args:
        run: the run folder. Where it has several studies, each gets a folder of its own.
        data_dir: the official download that the run has read: the ids of sentences and questions are in it.
        out: made if it is not there.

    Returns:
        What was written, one line a trial.

    Raises:
        NotFoundError: no such folder.
        RunFolderError: the run has no finished trial of XTREME.
        DataError: the download lacks a file, or it is not the one of the run.
    """
    if not run.is_dir():
        raise NotFoundError(f"{run}: there is no such folder")
    source, studies, told = Local.of(data_dir), Store(run).studies(), []
    for file, study in studies.items():
        room = out / file if len(studies) > 1 else out
        tasks = {task["name"]: task for task in study.tasks if task["name"].startswith(f"{XTREME}/")}
        keys = [entry["key"] for entry in study.trials if entry["task"] in tasks]
        for record in Store(run, file).records(keys):
            told.append(_export(record, tasks[record.settings["task"]["name"]], source, room))
    if not told:
        raise RunFolderError(f"{run} holds no finished trial of XTREME: give the folder of such a study")
    return told


def _export(record: TrialRecord, task: Mapping[str, Any], source: Local, room: Path) -> str:
    """Write a trial's files, and the labels beside them."""
    name = task["name"].removeprefix(f"{XTREME}/")
    folder = room / f"{file_name(record.settings['arm']['name'])}-seed{record.settings['seed']}"
    if record.status == "diverged":
        return f"{folder}, {name}: diverged, nothing is written"
    languages, part = task["facts"]["languages"], task["facts"]["scored"]
    for code in languages:
        found = source.find(OFFICIAL[name], part, code)
        if not found:
            raise DataError(f"{source.wanted(OFFICIAL[name], part, code)}: there is no such file; the run has read it")
        said, gold = (record.outputs[f"{code}/{what}"] for what in ("predictions", "references"))
        texts = texts_of(task["kind"], said, gold, task["labels"], found[0])
        for parent, text in zip((folder, room / LABELS), texts, strict=True):
            write_file(parent / place(name, code), text.encode())
    return f"{folder}, {name}: {len(languages)} languages"
