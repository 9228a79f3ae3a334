"""How long does a run folder of 10,000 finished trials take to open?

Makes records of a study of two arms (400 dev examples, 100 steps each), then times what every command begins with:
the study, the index, every record with its checks, and the plan of what is missing. Nothing is trained.

    python benchmarks/many_trials.py [--trials 10000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from noisytune._metrics import score
from noisytune._pretrained import Model
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import Split, TaskData
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.trial import Trial
from noisytune.records import TrialRecord

EXAMPLES, STEPS = 400, 100


class Untrained:
    """A runner that is never asked for a trial: all are finished."""

    prepare = check = run = calibrate = None


def a_study(trials: int, folder: Path) -> Study:
    """Two arms on a task of two classes."""
    (folder / "config.json").write_text("{}")
    texts, targets = tuple((f"text {i}",) for i in range(EXAMPLES)), tuple(float(i % 2) for i in range(EXAMPLES))
    split = Split(texts, targets)
    task = TaskData("many", "classification", "accuracy", ("no", "yes"), split, {"dev": split}, ())
    return Study(
        name="many",
        model=Model("none", folder, "0" * 16),
        tasks=(task,),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=range(trials // 2),
        training=TrainingSettings(learning_rate=2e-5),
        margin=1.0,
    )


def a_record(trial: Trial, rng: np.random.Generator) -> TrialRecord:
    """As a trial would leave it."""
    gold = np.arange(EXAMPLES) % 2.0
    predictions = np.where(rng.random(EXAMPLES) < 0.8, gold, 1 - gold)
    scores = score("classification", np.column_stack([predictions, gold]))
    roles = ("query", "key", "value", "attention output", "feed-forward", "layer norm", "embeddings", "head")
    return TrialRecord(
        key=trial.key,
        settings=trial.settings,
        status="ok",
        scores=scores,
        evaluations={"dev": {"status": "ok", "scores": scores}},
        loss_curve=rng.random(STEPS).tolist(),
        timing={"load": 0.2, "prepare": 0.1, "train": 20.0, "evaluate": 0.5, "total": 20.8},
        applied={},
        environment={"versions": {"torch": "2.13.0"}, "threads": 1},
        norms={role: {"elements": 1e6, "before": 3e4, "after": 3.1e4, "moved": 5e2} for role in roles},
        outputs={"dev/predictions": predictions, "dev/references": gold},
    )


def timed(what: str, do: Callable[[], Any]) -> Any:
    """Do something and print how long it took, and how long this process was at work."""
    began, at_work = perf_counter(), process_time()
    result = do()
    print(f"{what:50} {perf_counter() - began:6.2f} s, at work {process_time() - at_work:6.2f} s", flush=True)
    return result


def main() -> None:
    """Make the folder, and open it in each way."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=10_000)
    trials = parser.parse_args().trials
    os.fsync = lambda _: None  # the disk is not what is timed
    with tempfile.TemporaryDirectory() as temporary:
        folder, rng = Path(temporary), np.random.default_rng(0)
        study, run = a_study(trials, folder), folder / "run"
        store = Store(run)

        def make() -> None:
            store.write_study(study.record)
            for trial in study.plan:
                store.write(a_record(trial, rng))

        timed(f"making {trials:,} records", make)
        timed("study and index", lambda: (Store(run).read_study(), Store(run).index()))
        timed("every record, checked", lambda: Store(run).records())

        def opened(**options: Any) -> None:
            again = a_study(trials, folder)
            run_study(again, Store(run), InlineEngine(), lambda _: None, runner=Untrained(), **options)

        timed("compare: nothing is missing", opened)
        timed("compare --until-decided: nothing is missing", lambda: opened(until=lambda *_: True))


if __name__ == "__main__":
    main()
