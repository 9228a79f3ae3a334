"""A run folder as runs of MLflow, for what was run without a tracker: as if it had logged while it ran."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from noisytune.errors import DataError
from noisytune.lab.studies.export import read_run
from noisytune.lab.trials.trackers import Followed, Tracker
from noisytune.lab.trials.trial import Trial


def export_mlflow(run: Path, uri: str) -> int:
    """Write a run of MLflow for each finished trial; those that are there already, by their key, are left alone.

    Args:
        run: the run folder.
        uri: of the server or the database: ``http://localhost:5000``, ``sqlite:///mlflow.db``.

    Returns:
        how many were written.

    Raises:
        MissingExtraError: MLflow is not installed.
        DataError: MLflow refused.
        RunFolderError: as `noisytune.lab.studies.export.export`.
    """
    written = 0
    for study, records, _ in read_run(run):
        tracker = Tracker("mlflow", run, study.name, warn=_refused)
        mlflow: Any = import_module("mlflow")
        mlflow.set_tracking_uri(uri)
        tracker.reached()
        there = _keys(mlflow.MlflowClient(), study.name)
        for record in records:
            if record.key not in there:
                with Followed(tracker, Trial(record.settings)) as followed:
                    for step, loss in enumerate(record.loss_curve, start=1):
                        followed.loss(step, loss)
                    followed.scores(record)
                written += 1
    return written


def _refused(reason: str) -> NoReturn:
    raise DataError(reason)


def _keys(client: Any, experiment: str) -> set[str]:
    """Of the trials that an experiment has, page by page."""
    found, page = set(), None
    known = client.get_experiment_by_name(experiment)
    while known:
        runs = client.search_runs([known.experiment_id], max_results=1000, page_token=page)
        found |= {one.data.tags.get("key", "") for one in runs}
        page = runs.token
        if not page:
            break
    return found
