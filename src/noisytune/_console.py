"""The one way to a terminal: a Rich console that shows text as it stands."""

from __future__ import annotations

from typing import Any

from rich import console
from rich.text import Text

from noisytune._text import terminal


class Console(console.Console):
    """Rich's console, for which ``[bold]`` and ``:bug:`` are text like any other.

    Every string that is printed, cells of tables included, passes `noisytune._text.terminal` line by line. A
    `rich.text.Text` is shown as it was made: make one of `terminal` too.

    Args:
        options: of `rich.console.Console`, for example ``stderr=True``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False} | options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A string as what is shown of it; called by Rich wherever it meets one."""
        return super().render_str("\n".join(map(terminal, text.split("\n"))), **options)
