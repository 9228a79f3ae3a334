"""What does running trials in worker processes cost? Ten short trials on two workers against their summed time / 2.

    python benchmarks/grid_overhead.py [--workers 2] [--seeds 5] [--train-size 200] [--epochs 2]

The claim: the wall time of the whole grid is at most 1.1 times the trials' summed time (load, perturb, train, evaluate,
measured inside each trial) divided by the number of workers. The wall time holds everything: starting the workers,
importing torch and transformers in them, tokenising, and writing the records. It is printed again from the first
trial's start, and against the time in the training loop alone.
"""

from __future__ import annotations

import argparse
import tempfile
from time import perf_counter

from describe import machine

from noisytune._pretrained import Model
from noisytune.lab.engines import LocalEngine
from noisytune.lab.store import Store
from noisytune.lab.studies.events import Event
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.events import TrialStarted
from noisytune.lab.trials.settings import TrainingSettings


def main() -> None:
    """Run the grid and print the two ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=5, help="two trials each")
    parser.add_argument("--train-size", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()

    study = Study(
        name="grid overhead",
        model=Model.find(),
        tasks=(load_task("topics", TaskOptions(train_size=options.train_size, dev_size=100)),),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=tuple(range(options.seeds)),
        training=TrainingSettings(epochs=options.epochs, max_length=64),
        margin=0.5,
    )
    first: list[float] = []

    def on_event(event: Event) -> None:
        if isinstance(event, TrialStarted) and not first:
            first.append(perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        began = perf_counter()
        with LocalEngine(options.workers) as engine:
            run_study(study, Store(folder), engine, on_event)
            ended = perf_counter()
        records = Store(folder).records()
    print(machine())
    threads = records[0].environment["threads"]
    print(f"{len(records)} trials on {options.workers} workers of {threads} thread(s)\n")
    for what, part in (("trials", "total"), ("training loops alone", "train")):
        share = sum(record.timing[part] for record in records) / options.workers
        print(f"summed time of the {what} / {options.workers}: {share:.1f} s")
        for name, wall in (("from nothing", ended - began), ("from the first trial", ended - first[0])):
            print(f"    wall {name:20} {wall:7.1f} s   ratio {wall / share:.3f}")


if __name__ == "__main__":
    main()
