"""Documentation is executed: snippets run, command lines parse, links lead somewhere, docstring examples hold."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import typer.main

import noisytune
from noisytune._perturb.names import ROLES
from noisytune._settings import settings_of
from noisytune.cli import app
from noisytune.lab.engines import InlineEngine
from noisytune.lab.store import STUDY, Store
from noisytune.lab.studies import file
from noisytune.lab.tasks import TaskOptions
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.records import Status
from noisytune.report import summary_rows
from noisytune.report.statistics.paired import Verdict

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "evidence/README.md", "examples/README.md")]
DOCS = ROOT / "docs"
PAGES += sorted(DOCS.glob("**/*.md"))
ELSEWHERE = {"noisytune.integrations.axolotl"}
"""Needs a host that is not installed here: it brings a torch of its own."""
MODULES = [m.name for m in pkgutil.walk_packages(noisytune.__path__, "noisytune.") if m.name not in ELSEWHERE]


def fenced(language):
    found = []
    for page in PAGES:
        blocks = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
        found += [pytest.param(block, id=f"{page.stem}-{i}") for i, block in enumerate(blocks)]
    return found


def written_by(name):
    """A module in docs/ that writes pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name != "tutorials"], ids=lambda page: page.stem)
@pytest.mark.filterwarnings("default")
def test_python_of_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch, tiny, llama):
    torch = pytest.importorskip("torch", reason="the snippets perturb torch modules")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr("noisytune._comparison.LocalEngine", InlineEngine)  # what workers do is tested elsewhere
    example = {"input_ids": torch.arange(2000, 2008), "labels": torch.tensor(1)}
    folder = llama if page.stem == "trl" else tiny.path
    namespace = {"model": torch.nn.Linear(8, 4), "MODEL": str(folder), "train_dataset": [example] * 8}
    text = page.read_text(encoding="utf-8").replace('"google-bert/bert-base-uncased"', "MODEL")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        exec(compile(block, page.name, "exec"), namespace)  # noqa: S102


@pytest.mark.parametrize("block", fenced("console"))
def test_command_lines_parse(block):
    """Every option exists and every value has the right type; nothing is run."""
    group = typer.main.get_command(app)
    for line in block.replace("\\\n", " ").strip().splitlines():
        program, command, *arguments = shlex.split(line)
        assert program == "noisytune"
        group.commands[command].make_context(command, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_inside_the_repository_lead_somewhere(page):
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")(?!https?:)([^)\"#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_words_below_the_picture_of_a_report_are_those_of_its_run():
    store = Store(DOCS / "first-report")
    study = store.studies()[STUDY]
    weak, strong = summary_rows(study, store.records(entry["key"] for entry in study.trials))
    assert (weak.verdict, strong.verdict) == (Verdict.INCONCLUSIVE, Verdict.HURT)
    low, high, weaker, stronger = (
        f"{number:+.2f}".replace("-", "\N{MINUS SIGN}")
        for number in (weak.low, weak.high, weak.difference, strong.difference)
    )
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"The stronger noise hurts: {strong.losses} pairs of {strong.n}, {stronger} points." in words
    assert f"stays inconclusive: {weaker} points, {low} to {high}." in words


NEXT = re.compile(r"\*\*Next:\*\* (?=.*\]\().+\n\Z", re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if page.is_relative_to(DOCS)], ids=lambda page: page.stem)
def test_a_page_of_the_site_is_in_the_menu_and_ends_with_what_to_read_next(page):
    place = page.relative_to(DOCS).with_suffix("").as_posix()
    menu = re.findall(r"^```\{toctree\}\n(.*?)^```$", (DOCS / "index.md").read_text(), re.DOTALL | re.MULTILINE)
    assert place == "index" or place in "\n".join(menu).split()
    last = page.read_text(encoding="utf-8").rpartition("\n\n")[2]
    assert NEXT.match(last), f"end {page.name} with a paragraph  **Next:** [...](...)"


def test_the_word_list_has_every_word_that_a_verdict_a_trial_or_a_role_is_told_by():
    words = {title.strip("`") for title in re.findall(r"^### (.*)$", (DOCS / "words.md").read_text(), re.MULTILINE)}
    assert {*map(str, Verdict), *get_args(Status), "failed"} <= words
    assert {"arm", "pair", "seed", "trial", "study", "baseline", "kind", "cost", "budget", "protocol"} <= words
    assert all(f"`{role}`" in (DOCS / "words.md").read_text() for role in ROLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_that_speaks_of_arms_or_verdicts_leads_to_the_word_list(page):
    text = re.sub(r"^```.*?^```$|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    speaks = page.is_relative_to(DOCS) and page.stem != "words" and re.search(r"\b(arms?|verdicts?)\b", text)
    assert not speaks or "words.md" in text


def test_the_reference_of_study_files_has_every_key():
    module = written_by("study_keys")
    assert set(module.OF_A_STUDY) == set(file._KEYS)
    page = module.keys()
    assert all(f"| `{name}` |" in page for name in (*settings_of(TaskOptions), *settings_of(TrainingSettings)))


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
    module = written_by("make_methods")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run  python docs/make_methods.py"
