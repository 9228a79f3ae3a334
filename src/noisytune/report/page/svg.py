"""How does a Matplotlib figure become inline SVG that takes the page's font and colours, dark mode included?

Figures are drawn in stand-in colours, one for each CSS variable of the page, which are swapped for ``var(--name)`` in
the SVG text. Matplotlib is imported when the first figure is drawn, and its global state is left as it was.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from noisytune._text import html, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 360.0
"""Width of every figure in SVG units: a phone shows a figure about this wide, so letters of 11 units stay legible."""

INK, MUTED, RULE, PAPER, GOOD, BAD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
ARMS = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05", "#0a0a06")
"""Stand-in colours of the arms, used in turn."""
BASELINE = MUTED

_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "card",
    GOOD: "good",
    BAD: "bad",
    **{stand_in: f"arm{i + 1}" for i, stand_in in enumerate(ARMS)},
}

_SETTINGS = {
    "svg.fonttype": "none",
    # The page's own font is narrower than this one, by whose widths the layout is made.
    "font.family": "DejaVu Sans",
    "font.size": 11.5,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.labelsize": 11,
    "text.color": INK,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@contextmanager
def drawing(height: float) -> Iterator[tuple[Figure, Axes]]:
    """An empty figure of the page's width and ``height`` SVG units, with the page's style while it is being drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: Any = _SETTINGS
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # The browser's fonts have the letters that Matplotlib's own one lacks.
        warnings.filterwarnings("ignore", message="(Glyph|Matplotlib currently does not support)")
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        axes = figure.subplots()
        axes.tick_params(length=3, width=0.8)
        yield figure, axes


def inline(figure: Figure, *, key: str, title: str, description: str) -> str:
    """The figure as one ``<svg>`` element.

    Args:
        figure: made by `drawing`, still inside its ``with``.
        key: letters, digits and ``-``: keeps the ids of the page's figures apart, and the same in every rendering.
        title: what it shows, for screen readers and as a tooltip.
        description: what it says, for screen readers.
    """
    import matplotlib

    matplotlib.rcParams["svg.hashsalt"] = key
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    width, height = size.groups() if size else (str(WIDTH), str(WIDTH))
    body = re.sub(r"<metadata>.*?</metadata>", "", text[text.index(">") + 1 :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|xlink:href=")#([^")]+)', body))

    def adapted(match: re.Match[str]) -> str:
        tag = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in used else "", match[0])
        tag = re.sub(r'(url\(|href=")#', rf"\1#{key}-", tag.replace("xlink:href", "href"))
        tag = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", tag)
        return re.sub("#0[0-9a-f]{5}", lambda m: f"var(--{_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0], tag)

    body = re.sub("<[^>]*>", adapted, body)  # tags only: a name in the figure may look like any of these
    return (
        f'<svg role="img" '
        f'viewBox="0 0 {width} {height}" aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{html(title)}</title>'
        f'<desc id="{key}-desc">{html(description)}</desc>{body.strip()}'
    )


def shortened(name: str, most: int = 30) -> str:
    """A name that fits into a figure."""
    clean = plain(name)
    return clean if len(clean) <= most else clean[: most - 1] + "…"
