"""Documentation is executed: snippets run, command lines parse, links lead somewhere, docstring examples hold."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer.main

import noisytune
from noisytune.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "evidence/README.md", "examples/README.md")]
PAGES += sorted((ROOT / "docs").glob("**/*.md"))
ELSEWHERE = {"noisytune.integrations.axolotl"}
"""Needs a host that is not installed here: it brings a torch of its own."""
MODULES = [m.name for m in pkgutil.walk_packages(noisytune.__path__, "noisytune.") if m.name not in ELSEWHERE]


def fenced(language):
    found = []
    for page in PAGES:
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found += [pytest.param(block, id=f"{page.stem}-{i}") for i, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("default")
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, tiny, llama):
    torch = pytest.importorskip("torch", reason="the snippets perturb torch modules")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr("noisytune.lab.engines.local.available_cores", lambda: 1)  # one worker is enough for it
    example = {"input_ids": torch.arange(2000, 2008), "labels": torch.tensor(1)}
    folder = llama if page.stem == "trl" else tiny.path
    namespace = {"model": torch.nn.Linear(8, 4), "MODEL": str(folder), "train_dataset": [example] * 8}
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        exec(compile(block, page.name, "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("block", fenced("console"))
def test_command_lines_parse(block):
    """Every option exists and every value has the right type; nothing is run."""
    group = typer.main.get_command(app)
    for line in block.strip().splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "noisytune"
        group.commands[command].make_context(command, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("command", sorted(typer.main.get_command(app).commands))
def test_every_option_is_explained(command):
    group = typer.main.get_command(app)
    for parameter in group.commands[command].params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0


def test_the_page_of_methods_is_what_their_modules_say():
    spec = importlib.util.spec_from_file_location("make_methods", ROOT / "docs" / "make_methods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run  python docs/make_methods.py"
