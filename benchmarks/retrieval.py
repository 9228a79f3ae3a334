"""The search for translations against faiss: time and memory, each run in a process of its own, alternating.

    python benchmarks/retrieval.py [--sentences 20000] [--width 384] [--rounds 2] [--threads 1]

Both find the four nearest neighbours by cosine of each sentence of either side, among as many of the other side. The
rival is `faiss.IndexFlatIP`, which is exact as well (pip install faiss-cpu; without it ours runs alone). Targets: at
most faiss's time; 100,000 times 100,000 sentences within 4 GB. CPU time is the one to believe where other processes
run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
from importlib.util import find_spec
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
from describe import machine

K, SEED = 4, 0
MEMORY = 4.0
"""GB."""


def vectors(sentences: int, width: int) -> tuple[Any, Any]:
    """Two sides, each sentence of one near one of the other, all of them in one cone as sentence vectors are."""
    rng = np.random.default_rng(SEED)
    sides = rng.standard_normal((2, sentences, width), np.float32)
    one = sides[0] + 1
    return one, (one + 0.7 * sides[1])[rng.permutation(sentences)]


def ours(one: Any, other: Any) -> list[Any]:
    """The lab's."""
    from noisytune.lab.kinds.neighbours import neighbours, unit

    found = neighbours(unit(one), unit(other), K)
    return [side.places for side in found]


def faiss(one: Any, other: Any) -> list[Any]:
    """The rival's."""
    import faiss as rival

    for side in (one, other):
        rival.normalize_L2(side)
    found = []
    for queries, index_of in ((one, other), (other, one)):
        index = rival.IndexFlatIP(index_of.shape[1])
        index.add(index_of)
        found.append(index.search(queries, K)[1])
    return found


def run(search: Any, sentences: int, width: int, queue: Any) -> None:
    """In a fresh process: wall and CPU seconds, peak memory in GB, the nearest neighbours."""
    one, other = vectors(sentences, width)
    start = perf_counter(), process_time()
    found = search(one, other)
    took = perf_counter() - start[0], process_time() - start[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    queue.put((*took, peak, [places[:, 0] for places in found]))


def measured(search: Any, sentences: int, width: int) -> tuple[float, float, float, Any]:
    """One run."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=run, args=(search, sentences, width, queue))
    process.start()
    found: tuple[float, float, float, Any] = queue.get()
    process.join()
    return found


def main() -> None:
    """Run both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sentences", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    rivals = {"ours": ours} | ({"faiss": faiss} if find_spec("faiss") else {})
    print(machine())
    print(f"{options.sentences:,} x {options.sentences:,} sentences, {options.width} wide, {options.threads} thread(s)")
    runs: dict[str, list[tuple[float, float, float, Any]]] = {name: [] for name in rivals}
    for _ in range(options.rounds):
        for name, search in rivals.items():
            runs[name].append(measured(search, options.sentences, options.width))
    for name, found in runs.items():
        wall, cpu, peak = (median(values) for values in list(zip(*found, strict=True))[:3])
        print(f"  {name:6} {wall:8.2f} s wall {cpu:8.2f} s CPU {peak:6.2f} GB at the peak (target {MEMORY:g})")
    if len(runs) == 2:
        ratios = [a[1] / b[1] for a, b in zip(runs["ours"], runs["faiss"], strict=True)]
        same = [(a == b).mean() for a, b in zip(runs["ours"][0][3], runs["faiss"][0][3], strict=True)]
        print(
            f"  ours / faiss {median(ratios):.2f} of the CPU time (target at most 1), {100 * min(same):.2f} % the same"
        )


if __name__ == "__main__":
    main()
