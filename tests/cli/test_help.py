"""Help pages, examples, and what is said of a word that does not exist."""

import inspect
import os
import re
import shlex
import subprocess
import sys

import pytest
import typer.main
from typer.models import OptionInfo
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.cli._help import Rare
from noisytune.lab.trials.arm import Arm

GROUP = typer.main.get_command(app)
COMMANDS = sorted(GROUP.commands)
LONG = [name for name in COMMANDS if any(one.name == "help_all" for one in GROUP.commands[name].params)]
"""Those with rare options."""


def page(*arguments, columns=80):
    """A help page as a terminal of that width shows it."""
    return CliRunner().invoke(app, [*arguments], terminal_width=columns, env={"COLUMNS": str(columns)}).output


def options(command, rare=True):
    return [one for one in GROUP.commands[command].params if rare or not isinstance(one.rich_help_panel, Rare)]


def test_a_process_of_its_own_shows_the_same_page():
    done = subprocess.run(
        [sys.executable, "-m", "noisytune", "compare", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80"},
        check=False,
    )
    assert done.returncode == 0
    own, here = (text.partition("[OPTIONS]")[2].split() for text in (done.stdout, page("compare", "--help")))
    assert own == here


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_is_broken_in_mid_word(command, columns):
    """Every option, every word in its place and every one of its values stands whole on a line."""
    for asked in ["--help", *["--help-all"] * (command in LONG)]:
        lines = page(command, asked, columns=columns).splitlines()
        for parameter in options(command, rare=asked == "--help-all"):
            names = [*(name for name in parameter.opts if name.startswith("-")), parameter.metavar or ""]
            assert all(any(name in line for line in lines) for name in names), names
        examples = lines.index("Examples:")
        assert max(map(len, lines[:examples])) <= columns
        assert max(map(len, lines[examples:])) <= 80
        assert len(lines) < 50 or asked == "--help-all" or columns < 80, "one screen"


def test_long_pages_are_the_second_ones():
    assert {"compare", "tune", "explore", "reproduce", "run", "work", "judge"} <= set(LONG)
    assert max(map(len, page("--help").splitlines())) <= 80


def test_rare_options_are_on_the_long_page_only():
    first, whole = page("compare", "--help"), page("compare", "--help-all")
    rare = [one.opts[0] for one in options("compare") if isinstance(one.rich_help_panel, Rare)]
    assert f"Show {len(rare)} more options" in first
    assert all(f"│ {name} " not in first and f"│ {name} " in whole for name in rare)
    assert "Memory and speed" in whole
    assert "Default: 8." in first


def examples():
    for name, text in [("", GROUP.epilog), *((name, GROUP.commands[name].epilog) for name in COMMANDS)]:
        for line in text.replace("\\\n", "").split("\n"):
            yield pytest.param(name, line, id=line.partition("#")[0].strip())


@pytest.mark.parametrize(("page_of", "line"), list(examples()))
def test_examples_parse(page_of, line):
    program, command, *arguments = shlex.split(line, comments=True)
    assert program == "noisytune"
    assert page_of in ("", command)
    with GROUP.commands[command].make_context(command, arguments) as context:
        assert all(Arm.parse(arm).name for arm in context.params.get("arm") or () if command == "compare")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["cmopare"], "No such command 'cmopare'. Did you mean 'compare'? (noisytune --help)"),
        (["inspct", "x"], "Did you mean 'inspect'?"),
        (["--versoin"], "No such option: --versoin. Did you mean --version?"),
        (["compare", "--sedes", "3"], "No such option: --sedes. Did you mean --seeds or "),
        (["compare", "--epoch", "3"], "Did you mean --epochs"),
        (["inspect", "x", "--jsn"], "Did you mean --json"),
        (["inspect", "x", "--sort", "nmae"], "Invalid value for '--sort': "),
        (["compare", "--epochs", "x"], "Invalid value for '--epochs': "),
        (["compare", "--seeds", "0"], "Invalid value for '--seeds': "),
        (["compare", "\x1b[31m"], "extra argument(s) (\\x1b[31m) (noisytune compare --help)"),
        (["verify"], "Missing argument 'OUT' (noisytune verify --help)"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_one_line_with_the_nearest_one(arguments, said):
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "60"})
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert said in line


def test_shells_complete_commands_and_options():
    for line, found in (("noisytune comp", "compare"), ("noisytune compare --help-", "--help-all")):
        asked = {"_NOISYTUNE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        result = CliRunner().invoke(app, [], env=asked, prog_name="noisytune")
        assert found in result.output.split()


def test_no_color_is_heeded():
    on = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}
    coloured = CliRunner().invoke(app, ["status", "--help"], env=on | {"NO_COLOR": None}).output
    plain = CliRunner().invoke(app, ["status", "--help"], env=on | {"NO_COLOR": "1"}).output
    assert re.search(COLOUR, coloured)
    assert not re.search(COLOUR, plain)


COLOUR = r"\x1b\[(\d+;)*[34]\d"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_option_whose_value_is_called_like_it_says_its_name(command):
    """typer 0.27.0 to 0.27.3 make --TASK of an option task with a value TASK, unless a name is given."""
    for name, parameter in inspect.signature(GROUP.commands[command].callback).parameters.items():
        for known in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(known, OptionInfo) and known.metavar and known.metavar.lower() == name:
                assert str(known.default).startswith("--")  # in an annotation, its name stands there
