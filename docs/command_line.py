"""The reference of the commands, as a page, from the commands themselves."""

from itertools import groupby
from typing import Any

from typer.main import get_command

from noisytune.cli import app


def commands() -> str:
    """A section for each command: what it does, and a table of options for each group of them."""
    found: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
    return "\n".join(_section(name, command) for name, command in sorted(found.items()))


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if not one.opts[0].startswith("-")]
    usage = " ".join([f"noisytune {name}", *(one.metavar or one.name.upper() for one in arguments), "[OPTIONS]"])
    parts = [f"## {name}\n\n```\n{usage}\n```\n\n{command.help}\n"]
    options = [one for one in command.params if one.opts[0].startswith("-") and not one.hidden]
    for group, ones in groupby(options, key=lambda one: one.rich_help_panel or "Options"):
        rows = [f"| {_name(one)} | {_default(one)} | {_cell(one.help)} |" for one in ones]
        parts.append("\n".join([f"**{group}**\n", "| option | default | what it does |", "|---|---|---|", *rows, ""]))
    return "\n".join(parts)


def _name(option: Any) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return f"`{_cell('/'.join([*option.opts, *option.secondary_opts]) + value)}`"


def _default(option: Any) -> str:
    if option.default in (None, "", False) or option.show_default is False:
        return ""
    return f"`{_cell(str(getattr(option.default, 'value', option.default)))}`"


def _cell(text: str | None) -> str:
    """Text that ends no cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")
