"""Run functions of a test module on several gloo processes: imported it launches them, as a script it is the ranks.

A start costs seconds, so that all functions for one number of ranks share a process group, and are one test. A list
of lists of functions is a process group after another, in new processes.
"""

import contextlib
import gc
import importlib.util
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Where the package of the tests lies."""
TIMEOUT = 120.0
"""Seconds for everything in one launch; then all ranks are killed."""


def launch(module, ranks, folder):
    """Run the functions of ``module.CASES[ranks]`` on so many processes.

    Returns:
        for each function, None or the traceback of each rank that finished it; and what the ranks printed.
    """
    command = [sys.executable, __file__, module, str(ranks), str(folder)]
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths}
    logs = [folder / f"log-{rank}.txt" for rank in range(ranks)]
    with (folder / "log.txt").open("w") as log:
        parent = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            parent.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
            parent.wait()
    outcomes = {}
    for log in filter(Path.exists, logs):
        for line in log.read_text().splitlines():
            if line.startswith("case: "):
                name, problem = json.loads(line.removeprefix("case: "))
                outcomes.setdefault(name, []).append(problem)
    return outcomes, "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("log*.txt"))


def check(module, ranks, names, folder):
    """Fail unless all functions of ``module.CASES[ranks]``, which have these names, pass on every rank."""
    outcomes, logs = launch(module, ranks, folder)
    problems = [
        f"{name}, rank {rank} of {ranks}: {problem}"
        for name, found in outcomes.items()
        for rank, problem in enumerate(found)
        if problem
    ]
    assert not problems, "\n".join(problems)
    late = [name for name in names if len(outcomes.get(name, [])) < ranks]
    assert not late, f"not finished on {ranks} ranks within {TIMEOUT:g} s: {', '.join(late)}\n{logs}"


def fork_ranks(module, ranks, folder):
    """Import once, then fork: the imports take longer than the tests, and no rank looks for garbage in what was
    imported."""
    gc.disable()
    spec = importlib.util.spec_from_file_location("cases_of_ranks", module)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    gc.freeze()
    gc.enable()
    cases = loaded.CASES[ranks]
    for number, functions in enumerate(cases if isinstance(cases[0], list) else [cases]):
        children = []
        for rank in range(ranks):
            if not (child := os.fork()):
                with (folder / f"log-{rank}.txt").open("a") as log:
                    os.dup2(log.fileno(), 1)
                    os.dup2(log.fileno(), 2)
                    run_rank(functions, rank, ranks, folder / f"meet-{number}")
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)


def run_rank(functions, rank, ranks, meeting):
    from datetime import timedelta

    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=ranks, timeout=timedelta(seconds=20)
    )
    for function in functions:
        try:
            function()
            problem = None
        except BaseException:
            problem = traceback.format_exc()
        sys.stdout.write(f"\ncase: {json.dumps([function.__name__, problem])}\n")
        sys.stdout.flush()
    dist.destroy_process_group()


if __name__ == "__main__":
    fork_ranks(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
