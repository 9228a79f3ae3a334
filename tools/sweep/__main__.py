"""``python -m sweep [TYPE ...] [--part 1/2] [--brief] [--out FOLDER]``: a process for each type, results as JSON."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import time
from pathlib import Path

MEMORY = 8 * 2**30
"""Bytes that the process of one type may take."""
SECONDS = 600
"""That one type may take."""


def main() -> int:
    """Run what was asked for; results that are there already are kept."""
    options = argparse.ArgumentParser(prog="python -m sweep", description=__doc__)
    options.add_argument("types", nargs="*", help="model types, or sample; all where none is given")
    options.add_argument("--part", default="1/1", help="which part of the types, such as 1/2")
    options.add_argument("--brief", action="store_true", help="the base model and one class with a head, stored once")
    options.add_argument("--out", type=Path, default=Path("sweep-results"), help="folder of the results")
    asked = options.parse_args()
    part, parts = map(int, asked.part.split("/"))
    _import_once()
    from sweep.configs import model_types
    from sweep.sample import SAMPLE

    asked.out.mkdir(parents=True, exist_ok=True)
    known = model_types()
    asked_for = [each for each in SAMPLE if each in known] if asked.types == ["sample"] else asked.types or known
    if unknown := sorted({*asked_for} - {*known}):
        options.error(f"transformers registers no type {unknown[0]!r}")
    types = asked_for[part - 1 :: parts]
    for number, model_type in enumerate(types, 1):
        file = asked.out / f"{model_type}.json"
        if asked.types or not file.exists():
            _run(model_type, file, asked.brief)
        found = json.loads(file.read_text())
        print(f"{number}/{len(types)} {model_type}: {found['result']} {found['reason'][:150]}", flush=True)
    return 0


def _import_once() -> None:
    """What every type needs, loaded before the processes part."""
    import numpy as np
    import torch
    import transformers

    import sweep.pairings
    from noisytune.arrays import perturb_arrays

    torch.set_num_threads(1)
    logging.getLogger("noisytune").setLevel(logging.ERROR)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    del sweep.pairings
    perturb_arrays({"w": np.arange(8, dtype=np.float32)})


def _run(model_type: str, file: Path, is_brief: bool) -> None:
    """One type in a process of its own; what kills the process is the result."""
    started = time.monotonic()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(model_type, file, is_brief))
    worker.start()
    worker.join(SECONDS)
    if worker.is_alive():
        worker.kill()
        worker.join()
        _write(file, model_type, [], "fails", f"took more than {SECONDS} seconds", started, is_brief)
    elif worker.exitcode:
        _write(file, model_type, [], "fails", f"the process ended with {worker.exitcode}", started, is_brief)


def _work(model_type: str, file: Path, is_brief: bool) -> None:
    from sweep.pairings import EQUAL, UNBUILT, WORST_FIRST, findings_of

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    started = time.monotonic()
    findings = list(findings_of(model_type, is_brief=is_brief))
    counted = [each for each in findings if each.result != UNBUILT] or findings
    worst = min(counted, key=lambda each: WORST_FIRST.index(each.result))
    reason = "" if worst.result == EQUAL else f"{worst.model_class}, {worst.pairing}: {worst.reason}"
    _write(file, model_type, [each.to_dict() for each in findings], worst.result, reason, started, is_brief)


def _write(
    file: Path,
    model_type: str,
    findings: list[dict[str, str]],
    result: str,
    reason: str,
    started: float,
    is_brief: bool,
) -> None:
    import transformers

    found = {
        "type": model_type,
        "result": result,
        "reason": reason,
        "transformers": transformers.__version__,
        "is_brief": is_brief,
        "seconds": round(time.monotonic() - started, 1),
        "findings": findings,
    }
    file.with_suffix(".new").write_text(json.dumps(found, indent=1))
    file.with_suffix(".new").replace(file)


if __name__ == "__main__":
    sys.exit(main())
