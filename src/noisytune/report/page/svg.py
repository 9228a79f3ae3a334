"""How does a Matplotlib figure become inline SVG that takes the page's font and colours, dark mode included?

Figures are drawn in stand-in colours, one for each CSS variable of the page, which are swapped for ``var(--name)`` in
the SVG text. Matplotlib is imported when the first figure is drawn, and its global state is left as it was.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from noisytune._text import html, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 360.0
"""Width of every figure in SVG units: a phone shows a figure about this wide, so letters of 11 units stay legible."""

LINE = 15.0
"""Height of a line of text, SVG units."""

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


def legend(figure: Figure, labels: Sequence[str]) -> None:
    """The legend above the axes, in as many columns as fit; beyond three lines the figure grows with it.

    Args:
        figure: made by `drawing`.
        labels: of the artists that it names, for their lengths.
    """
    longest = max(len(line) for label in labels for line in label.split("\n"))
    columns = 3 if longest <= 10 else 2 if longest <= 16 else 1
    lines = math.ceil(sum(label.count("\n") + 1 for label in labels) / columns)
    figure.set_figheight(figure.get_figheight() + max(0, lines - 3) * LINE / 72)
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.2, columnspacing=1.2)


def shortened(name: str, most: int = 30) -> str:
    """A name that fits on a line of a figure, its middle left out if need be.

    >>> shortened("noisytune(0.15)+recadam", 13)
    'noisyt…ecadam'
    """
    clean = plain(name)
    kept = most - 1
    return clean if len(clean) <= most else f"{clean[: kept - kept // 2]}…{clean[len(clean) - kept // 2 :]}"


def told_apart(names: Sequence[str], width: int = 28, most: int = 4) -> list[str]:
    r"""Names that fit into a figure, broken into lines where need be; those that differ stay different.

    Args:
        names: of arms or tasks.
        width: letters on a line.
        most: lines. A longer name loses its middle; if it then looks like another, both get a number.

    >>> told_apart(["noisytune(0.15)+recadam", "plain"], width=16)
    ['noisytune(0.15)+\nrecadam', 'plain']
    """
    cut = {name: shortened(name, most * (width - 6)) for name in names}
    alike = Counter(cut.values())
    numbered = {
        name: f"{label} [{i}]" if alike[label] > 1 else label for i, (name, label) in enumerate(cut.items(), start=1)
    }
    return [_lines(numbered[name], width) for name in names]


def _lines(text: str, width: int) -> str:
    """Broken after spaces and signs where possible."""
    lines = [""]
    for piece in re.findall(r"[^\s+,/·-]*[\s+,/·-]*", text):
        if lines[-1] and len(lines[-1]) + len(piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
        while len(lines[-1].rstrip()) > width:
            lines[-1:] = lines[-1][:width], lines[-1][width:]
    return "\n".join(line.rstrip() for line in lines)
