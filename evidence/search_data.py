"""Writes a GLUE download whose dev files are training rows: settings are searched on it, and dev is not looked at.

    python evidence/search_data.py evidence/data/glue evidence/data/search

The last 1,000 rows of each training file become the dev file, the rows before them the training file.
"""

import sys
from pathlib import Path

HELD_OUT = 1000
TASKS = {"RTE": "dev", "CoLA": "dev", "STS-B": "dev", "QNLI": "dev", "MNLI": "dev_matched"}
"""The dev file that is scored."""
NO_HEADER = ("CoLA",)


def split(glue: Path, out: Path, task: str) -> None:
    """Write the files of one task.

    Args:
        glue: the official download.
        out: the folder to write, in the same layout.
        task: one of `TASKS`.
    """
    lines = (glue / task / "train.tsv").read_bytes().splitlines(keepends=True)
    header = [] if task in NO_HEADER else [lines.pop(0)]
    (out / task).mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", lines[:-HELD_OUT]), (TASKS[task], lines[-HELD_OUT:])):
        (out / task / f"{name}.tsv").write_bytes(b"".join(header + rows))


if __name__ == "__main__":
    for task in TASKS:
        split(Path(sys.argv[1]), Path(sys.argv[2]), task)
