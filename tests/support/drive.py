"""A process that runs, or works on, the study of a pickled file with a runner that trains nothing."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path


def main(mode: str, study_file: str, folder: str, began: str, seconds: str) -> None:
    from noisytune.lab.engines import InlineEngine, LocalEngine
    from noisytune.lab.store import Store
    from noisytune.lab.studies.attempts import Rules
    from noisytune.lab.studies.planned import work
    from noisytune.lab.studies.run import run_study
    from tests.support.runners import Cheap

    study, runner = pickle.loads(Path(study_file).read_bytes()), Cheap(Path(began), float(seconds))
    if mode == "command":
        from noisytune.cli._running import Running, stoppable

        how = Running(workers=2)
        with stoppable() as stop, how.workplace() as engine:
            told = stop.watched(lambda event: os.write(1, f"{type(event).__name__}\n".encode()))
            run_study(study, Store(folder), engine, told, runner=runner, rules=how.rules(stop))
    elif mode == "work":
        work(study, Store(folder), InlineEngine(), print, runner=runner, rules=Rules(wait_for_others=False))
    elif mode.startswith("ray "):
        from ray._private import services

        from noisytune.lab.engines import RayEngine

        # Ray takes the loopback for an outer address of the machine, where nothing answers.
        services.get_node_ip_address = lambda *_, **__: "127.0.0.1"
        with RayEngine(address=mode.removeprefix("ray ")) as engine:
            run_study(study, Store(folder), engine, print, runner=runner)
    else:
        with LocalEngine(2, 1) as engine:
            run_study(study, Store(folder), engine, print, runner=runner)


if __name__ == "__main__":
    main(*sys.argv[1:])
