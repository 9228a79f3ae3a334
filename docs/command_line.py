"""The reference of the commands, as a page, from the commands themselves."""

from itertools import groupby
from typing import Any

from typer.main import get_command

from noisytune.cli import app
from noisytune.cli._help import default


def commands() -> str:
    """A section for each command: what it does, a table of options for each group of them, and examples."""
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join(_section(name, command) for name, command in sorted(found.items()))


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    usage = " ".join([f"noisytune {name}", *(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"])
    parts = [f"## {name}\n\n```\n{usage}\n```\n\n{command.help}\n"]
    options = [one for one in command.params if one.opts[0].startswith("-") and not one.hidden]
    for group, ones in groupby(options, key=lambda one: one.rich_help_panel or "Options"):
        rows = [f"| {_code(_name(one))} | {_code(default(one))} | {_cell(one.help)} |" for one in ones]
        parts.append("\n".join([f"**{group}**\n", "| option | default | what it does |", "|---|---|---|", *rows, ""]))
    parts.append(f"**Examples**\n\n```\n{command.epilog}\n```\n")
    return "\n".join(parts)


def _name(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return "/".join([*option.opts, *option.secondary_opts]) + value


def _code(text: str) -> str:
    return f"`{_cell(text)}`" if text else ""


def _cell(text: str | None) -> str:
    """Text that ends no cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")
