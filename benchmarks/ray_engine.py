"""The same study by the local engine and by Ray, alternating: seconds, and how much longer Ray takes.

    python benchmarks/ray_engine.py [--trials 20] [--rounds 3]

Ray is connected before the clock starts; both start their workers anew for each study, as a command does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from noisytune._machine import available_cores
from noisytune._pretrained import Model
from noisytune.lab.engines import Engine, LocalEngine, RayEngine
from noisytune.lab.engines._ray_task import IDLE
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings


def seconds(engine: Engine, study: Study) -> float:
    """Of a study from an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        run_study(study, Store(Path(folder) / "run"), engine, lambda event: None)
        return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    study = Study(
        name="engines",
        model=Model.find(),
        tasks=(load_task("topics", TaskOptions(train_size=320, dev_size=64)),),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=range(asked.trials // 2),
        training=TrainingSettings(epochs=1, max_length=32),
        margin=1.0,
    )
    workers = available_cores()
    with LocalEngine(workers) as local, RayEngine(workers) as ray:
        engines: dict[str, Engine] = {"local": local, "ray": ray}
        for engine in engines.values():
            seconds(engine, replace(study, seeds=(1000,)))
        times: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(asked.rounds):
            for name, engine in engines.items():
                local.close()
                time.sleep(IDLE + 2)  # until Ray's workers have left, too
                times[name].append(seconds(engine, study))
    best = {name: min(found) for name, found in times.items()}
    print(f"{asked.trials} trials, {workers} workers: " + ", ".join(f"{name} {best[name]:.2f} s" for name in best))
    print(f"Ray takes {best['ray'] / best['local'] - 1:+.1%}")


if __name__ == "__main__":
    main()
