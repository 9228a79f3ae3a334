"""Whether the page's colours can be told apart, in both modes: the contrast of WCAG 2.2 from relative luminance."""

import re
from pathlib import Path

import pytest

from noisytune.report import page
from noisytune.report.page.languages import DEEPEST

CSS = (Path(page.__file__).parent / "templates" / "page.css").read_text(encoding="utf-8")
PAPER = ("bg", "card")
TEXT = ("ink", "muted", "good", "bad", "same", "mixed", "arm1")
"""Words are written in these; the last is that of links."""


def palettes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    read = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", text)) for text in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def luminance(colour: tuple[float, ...]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def rgb(colour: str) -> tuple[float, ...]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_black_on_white_is_21_to_1() -> None:
    assert contrast(rgb("#000000"), rgb("#ffffff")) == pytest.approx(21)
    assert contrast(rgb("#777777"), rgb("#ffffff")) == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_words_and_lines_stand_out(mode: str) -> None:
    palette = palettes()[mode]
    for paper in PAPER:
        for ink in TEXT:
            assert contrast(rgb(palette[ink]), rgb(palette[paper])) >= 4.5, (ink, paper)
        for arm in (f"arm{i}" for i in range(1, 7)):
            assert contrast(rgb(palette[arm]), rgb(palette[paper])) >= 3, (arm, paper)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_numbers_stand_out_on_the_strongest_shade_of_a_map(mode: str) -> None:
    palette = palettes()[mode]
    shades = [float(shade) for shade in re.findall(r"--shade: ([\d.]+);", CSS)]
    share = DEEPEST / 100 * shades[mode == "dark"]
    for shade in ("good", "bad"):
        mixed = tuple(
            share * a + (1 - share) * b for a, b in zip(rgb(palette[shade]), rgb(palette["card"]), strict=True)
        )
        assert contrast(rgb(palette["ink"]), mixed) >= 4.5
