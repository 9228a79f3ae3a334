"""Run every benchmark, one after the other, and keep what each prints in ``benchmarks/results/``."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RUNS = {
    "perturb-float32": ["perturb.py", "--dtype", "float32"],
    "perturb-bfloat16": ["perturb.py", "--dtype", "bfloat16"],
    "perturb-1b-float32": ["perturb.py", "--dtype", "float32", "--model", "llama-1b", "--rounds", "3"],
    "perturb-1b-bfloat16": ["perturb.py", "--dtype", "bfloat16", "--model", "llama-1b", "--rounds", "3"],
    "checkpoint-float32": ["checkpoint.py", "--dtype", "float32", "--rounds", "5"],
    "checkpoint-bfloat16": ["checkpoint.py", "--dtype", "bfloat16", "--rounds", "5"],
    "attach": ["attach.py"],
    "recadam": ["recadam.py"],
    "grid-overhead": ["grid_overhead.py"],
    "glue": ["glue.py"],
    "studies": ["studies.py"],
    "language": ["language.py"],
}


def main() -> None:
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    for name, (script, *arguments) in RUNS.items():
        print(f"--- {name}", flush=True)
        done = subprocess.run(
            [sys.executable, HERE / script, *arguments], stdout=subprocess.PIPE, text=True, check=True
        )
        print(done.stdout)
        (results / f"{name}.txt").write_text(done.stdout)


if __name__ == "__main__":
    main()
