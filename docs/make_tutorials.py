"""Runs the tutorials from top to bottom, and writes what they print into their pages and notebooks: make tutorials.

    python docs/make_tutorials.py [NAME ...]
    python docs/make_tutorials.py --notebooks    # runs nothing: after a change of words

The blocks of bash and Python of a page run in an empty folder, one after the other; a block of output follows each that
printed something. The notebook beside a page is the page itself, made by jupytext. Without a name all tutorials run.
"""

import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jupytext
from nbformat.v4 import new_output

TUTORIALS = Path(__file__).with_name("tutorials")
SITE = "https://github.com/noisytune/noisytune/blob/main/docs/tutorials/"
CELL = re.compile(
    r"^```(?P<language>bash|python)\n(?P<source>.*?)^```\n(?:\n^```output\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
"""A block, and what it printed when it was last run."""
PYTHON = """---
jupyter:
  kernelspec: {name: python3, display_name: Python 3, language: python}
---

"""
"""Before a page, it tells jupytext that cells are Python where nothing else is said."""
COLUMNS = "90"
"""Of the terminal that the commands believe to write to."""


def with_outputs(page: str, run: Callable[[str, str], str]) -> str:
    """The page with what its blocks print now.

    Args:
        page: the text of a page.
        run: gets language and source of a block, runs it, and gives what it printed.
    """

    def written(found: re.Match[str]) -> str:
        said = tidy(run(found["language"], found["source"]))
        return block(found) + (f"\n```output\n{said}\n```\n" if said else "")

    return CELL.sub(written, page)


def block(found: re.Match[str]) -> str:
    """A block without its output."""
    return f"```{found['language']}\n{found['source']}```\n"


def tidy(said: str) -> str:
    r"""What a terminal shows at the end: without colours, and without what a carriage return has overwritten.

    >>> tidy("\n1/2\r2/2\n\x1b[1mdone\x1b[0m  \n")
    '2/2\ndone'
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    lines = [line.rstrip().split("\r")[-1].rstrip() for line in plain.split("\n")]
    return "\n".join(lines).strip("\n")


def as_reader(folder: Path) -> Callable[[str, str], str]:
    """Runs blocks as a reader does: bash in the folder, Python in one interpreter that knows all blocks before.

    An installation is left out: this environment has everything.
    """
    namespace: dict[str, object] = {"__name__": "__main__"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"COLUMNS": COLUMNS, "NO_COLOR": "1", "PATH": path}

    def run(language: str, source: str) -> str:
        if source.startswith("pip install"):
            return ""
        if language == "bash":
            command = ["bash", "-e", "-u", "-o", "pipefail", "-c", source]
            done = subprocess.run(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            if done.returncode:
                raise SystemExit(f"{source}\n{done.stdout}\nended with {done.returncode}")
            return done.stdout.replace(f"{folder}/", "")  # where it lay is nobody's business
        said = io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(action="ignore"),  # they are about this machine
        ):
            exec(compile(source, "tutorial", "exec"), namespace)  # noqa: S102
        return said.getvalue()

    return run


def notebook(page: str) -> str:
    """The page as a notebook: its blocks are cells that have been run."""
    made = jupytext.reads(PYTHON + CELL.sub(block, page), fmt="md")
    outputs = (found["output"] for found in CELL.finditer(page))
    for number, cell in enumerate(made.cells):
        cell["id"] = f"cell-{number}"
        if cell.cell_type == "markdown":
            cell.source = elsewhere(cell.source)
        elif said := next(outputs):
            cell.outputs = [new_output("stream", name="stdout", text=said)]
    return str(jupytext.writes(made, fmt="ipynb")) + "\n"


def elsewhere(text: str) -> str:
    """A page's text for a notebook, which is read without the site around it."""
    text = re.sub(r" The same as a \[notebook\]\([^)]+\)\.", "", text)
    return re.sub(r"\]\((?!https?:|#)([^)]+)\)", rf"]({SITE}\1)", text).replace(".png)", ".png?raw=true)")


def main(names: list[str]) -> None:
    """Run tutorials, print how long each takes, and write them anew."""
    running = names != ["--notebooks"]
    for file in sorted(TUTORIALS.glob("*.md")):
        if running and names and file.stem not in names:
            continue
        page, begun = file.read_text(encoding="utf-8"), time.monotonic()
        if running:
            with tempfile.TemporaryDirectory() as folder:
                page = with_outputs(page, as_reader(Path(folder)))
            file.write_text(page, encoding="utf-8")
            sys.stdout.write(f"{file.stem}: {time.monotonic() - begun:.0f} s\n")
        file.with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
