"""Would a copy of the clean weights, kept by a worker, begin a trial sooner than loading them again? Alternating.

python benchmarks/trial_start.py --model DIR [--class AutoModelForCausalLM] [--rounds 7]

Both give a new module with the clean weights. Loading maps the files, which the system keeps in memory, once for all
workers, and may drop when memory is short; a kept copy takes that memory in every worker.
"""

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import torch
import transformers
from describe import machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--class", dest="name", default="AutoModelForCausalLM")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    made: Any = getattr(transformers, asked.name)

    def load() -> Any:
        return made.from_pretrained(asked.model, dtype=torch.float32)

    kept = load()
    ways: dict[str, Callable[[], Any]] = {"loaded again": load, "copied from a kept one": lambda: copy.deepcopy(kept)}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    busy: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(asked.rounds + 1):
        for name, way in ways.items():
            began, used = perf_counter(), process_time()
            model = way()
            # What a trial does first: it reads every weight.
            for parameter in model.parameters():
                parameter.sum().isfinite()
            wall[name].append(perf_counter() - began)
            busy[name].append(process_time() - used)
            del model
    size = sum(parameter.numel() for parameter in kept.parameters())
    print(machine())
    print(
        f"{asked.model.name}, {size / 1e6:.0f}M parameters, from files in memory, {asked.rounds} rounds, alternating:"
    )
    for name in ways:
        print(f"  {name}: {median(wall[name][1:]):.2f} s, {median(busy[name][1:]):.2f} s of CPU")
    print(f"  the copy takes {4 * size / 1e9:.2f} GB in each worker")


if __name__ == "__main__":
    main()
