"""What goes wrong is one line, in the words of the command line, and an exit code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer

from noisytune._console import Console
from noisytune._text import terminal
from noisytune.errors import ConfigError, NoisyTuneError, TrialError

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130
"""Exit codes."""

_UsageError: Any = typer.BadParameter.__base__
"""typer has no name of its own for it."""

_OPTIONS: ContextVar[frozenset[str]] = ContextVar("options", default=frozenset())
"""The settings that are options of the running command."""


@contextmanager
def one_line_errors(options: Iterable[str], debug: bool) -> Iterator[None]:
    """Leave with one line and a code: 1 failed, 2 wrong usage, 130 interrupted.

    Args:
        options: the settings that are options of the command: see `spelled`.
        debug: let errors through, with their tracebacks.
    """
    token = _OPTIONS.set(frozenset(options))
    try:
        yield
    except KeyboardInterrupt:
        message = "Interrupted. Finished trials are kept: the same command goes on from there."
        code = INTERRUPTED
    except typer.Exit:
        raise
    except NoisyTuneError as error:
        if debug:
            raise
        # A worker's traceback, or its last words, are notes of the error.
        more = " (--debug shows where)" if isinstance(error, TrialError) and hasattr(error, "__notes__") else ""
        message, code = f"Error: {spelled(str(error))}{more}", WRONG_USAGE if isinstance(error, ConfigError) else FAILED
    except Exception as error:
        if debug:
            raise
        message, code = f"Error: {type(error).__name__}: {error} (--debug shows where)", FAILED
    else:
        return
    finally:
        _OPTIONS.reset(token)
    Console(stderr=True, soft_wrap=True).print(terminal(message))
    raise typer.Exit(code)


@contextmanager
def one_line_usage() -> Iterator[None]:
    """The same for words that are no option, command or value: said in one line, with the nearest one."""
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # it has shown the page
            raise
        message = error.format_message().rstrip(".")
        if near := getattr(error, "possibilities", None):  # the nearest first
            message = f"{error.message}. Did you mean {' or '.join(near)}?"
        page = f" ({error.ctx.command_path} --help)" if error.ctx else ""
        Console(stderr=True, soft_wrap=True).print(terminal(f"Error: {message}{page}"))
        raise typer.Exit(WRONG_USAGE) from error


def spelled(text: str) -> str:
    """A message of the library as the command line says it: settings that are options of the command become flags.

    A setting is a name with an underscore, a name that something ``must be``, or one in ``name=value``; ``name=True``
    is the flag alone. Names inside quotes, parentheses of an arm, paths and the settings of a method (``recadam: t0``)
    stay as they are.

    >>> token = _OPTIONS.set(frozenset({"max_length", "kind", "select", "noise_lambda", "again"}))
    >>> spelled("max_length must be a whole number >= 4, got 3")
    '--max-length must be a whole number >= 4, got 3'
    >>> spelled("say which with kind=classification or kind=regression")
    'say which with --kind classification or --kind regression'
    >>> spelled("perturb the clean checkpoint, or say again=True")
    'perturb the clean checkpoint, or say --again'
    >>> spelled("select must be last or best, got 'max_length'"), spelled("noisytune: noise_lambda must be ...")
    ("--select must be last or best, got 'max_length'", 'noisytune: noise_lambda must be ...')
    >>> _OPTIONS.reset(token)
    """
    names = "|".join(sorted(map(re.escape, _OPTIONS.get()), key=len, reverse=True))
    if not names:
        return text
    setting = re.compile(
        rf"'[^']*'|\([^()]*=[^()]*\)|^\w+: \w+ must be"
        rf"|(?<![\w./=-])(?P<name>{names})(?:(?P<on>=True\b)|(?P<value>=)(?=\w)|(?![\w./(-]))"
    )

    def flag(found: re.Match[str]) -> str:
        name, rest = found["name"], text[found.end() :]
        if name is None or not ("_" in name or found["value"] or found["on"] or rest.startswith(" must be")):
            return found[0]
        return f"--{name.replace('_', '-')}{' ' if found['value'] else ''}"

    return setting.sub(flag, text)
