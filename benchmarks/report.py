"""How long does the report of a large study take, and how large is the page? Synthetic records, no training.

python benchmarks/report.py [TASKSxARMSxSEEDS[xLANGUAGES]]
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.records import CODES, MULTILINGUAL, multilingual, synthetic

from noisytune.report import write_report


def main(shape: str = "10x10x100") -> None:
    """Write one report; print seconds and bytes."""
    tasks, arms, seeds, *languages = map(int, shape.split("x"))
    if languages:
        names = ["plain", *(f"noisytune({(i + 1) / 20:g}, exclude=@token_embeddings)" for i in range(arms - 1))]
        study, records = multilingual([*MULTILINGUAL][:tasks], names, seeds, CODES[: languages[0]])
    else:
        study, records = synthetic(tasks, arms, seeds)
    with tempfile.TemporaryDirectory() as folder:
        start, processor = time.perf_counter(), time.process_time()
        page = write_report(folder, study, records)
        took, worked = time.perf_counter() - start, time.process_time() - processor
        sizes = {file.suffix: file.stat().st_size / 1e6 for file in (page, page.with_suffix(".md"))}
    print(f"{len(records):,} records ({shape}): {took:.1f} s ({worked:.1f} s of processor time)", end="")
    print("".join(f", {size:.2f} MB {suffix}" for suffix, size in sizes.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
