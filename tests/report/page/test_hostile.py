"""Every string of a study and its records may come from a stranger: on page and terminal it is text."""

import io
import re
import unicodedata
from collections.abc import Callable
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from support.records import Built, synthetic

from noisytune import report
from noisytune._console import Console
from noisytune.cli.study_display import StudyDisplay, print_summary
from noisytune.lab.studies.events import StudyStarted
from noisytune.lab.trials.events import Notice, TrialFailed
from noisytune.lab.trials.trial import Trial

HOSTILE = (
    "\x1b[31m\x1b]8;;http://e\x07\u202e\x00\x9b <img src=x onerror=alert(1)> [a](http://e) ![b](http://e) **c** `d` | e"
    "\n# f\n- g\r\n</table><script>h</script>\ud800 &lt; {{ 7 * 7 }} www.e.org a@e.org [bold]:bug:[/] \u2066"
)
STRUCTURE = {"kind", "metric", "status", "method", "distribution", "select", "protocol", "format"}
"""Fields whose values decide what is shown; `everything` spoils them too."""


def spoiled(value: Any, suffix: str, kept: set[str], name: str = "") -> Any:
    """Every string with a suffix, keys of open mappings included, but not the fields that are kept."""
    match value:
        case str():
            return value if name in kept else value + suffix
        case dict():
            changed = name in ("applied", "environment", "versions", "facts", "classes", "training", "scores")
            changed &= name != "scores" or "metric" not in kept
            return {key + suffix * changed: spoiled(one, suffix, kept, key) for key, one in value.items()}
        case list() | tuple():
            return [spoiled(one, suffix, kept, name) for one in value]
        case _:
            return value


def with_suffix(built: Built, suffix: str, kept: set[str]) -> Built:
    study, records = built

    def all_fields(record: Any) -> Any:
        names = [field.name for field in fields(record) if field.name not in ("outputs", "norms", "format")]
        return replace(record, **{name: spoiled(getattr(record, name), suffix, kept, name) for name in names})

    return all_fields(study), [all_fields(record) for record in records]


@pytest.fixture(scope="module")
def built() -> Built:
    study, records = synthetic(tasks=2, arms=3, seeds=2, examples=20, steps=5)
    study.tasks[0]["facts"] = {
        "rows": [{"source": "a.csv", "rows": 9}],
        "left_out": [{"source": "a.csv", "reason": "no label", "rows": 2}],
        "lengths": {"train": {"words": {"median": 3.0}}},
        "classes": [{"name": "good", "train": 3, "dev": 4}],
    }
    records[0] = replace(records[0], status="collapsed")
    records[1] = replace(records[1], status="untrained")
    return study, records


EACH = pytest.mark.parametrize("kept", [STRUCTURE, {"format"}], ids=["names", "everything"])


def invisible(text: str) -> set[str]:
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c not in "\n\u200c\u200d"}


class Tags(HTMLParser):
    """Names of elements outside figures, and of all attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: set[str] = set()
        self.attributes: set[str] = set()
        self.figure = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.figure |= tag == "svg"
        self.inside |= {tag} if self.figure else set()
        self.tags += [] if self.figure else [tag]
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        self.figure &= tag != "svg"


def read(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


@EACH
def test_the_page_has_the_elements_that_it_has_for_harmless_names(built: Built, kept: set[str]) -> None:
    page = report.render_html(*with_suffix(built, HOSTILE, kept))
    usual, found = (read(text) for text in (report.render_html(*with_suffix(built, " usual", kept)), page))
    assert invisible(page) == set()
    page.encode()
    assert found.tags == usual.tags
    assert found.inside <= {
        "svg",
        "title",
        "desc",
        "defs",
        "style",
        "g",
        "path",
        "text",
        "tspan",
        "use",
        "rect",
        "clippath",
    }
    assert not [name for name in found.attributes if name.startswith("on")]
    assert found.attributes <= usual.attributes


@EACH
def test_markdown_has_the_parts_that_it_has_for_harmless_names(built: Built, kept: set[str]) -> None:
    text = report.render_markdown(*with_suffix(built, HOSTILE, kept))
    usual = report.render_markdown(*with_suffix(built, " usual", kept))
    assert invisible(text) == set()
    reader = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    assert [token.type for token in reader.parse(text)] == [token.type for token in reader.parse(usual)]
    inline = {child.type for token in reader.parse(text) for child in token.children or ()}
    assert inline <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}
    assert not re.search(r"(?<!\\):(?=//)|www\.|(?<!\\)@", text)


def on_a_terminal(show: Callable[[Console], None], width: int) -> str:
    out = io.StringIO()
    show(Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


@EACH
@pytest.mark.parametrize("width", [60, 400], ids=["narrow", "wide"])
def test_the_terminal_shows_names_as_text(built: Built, kept: set[str], width: int) -> None:
    study, records = with_suffix(built, HOSTILE, kept)

    def show(out: Console) -> None:
        display = StudyDisplay(out)
        display.on_event(Notice(HOSTILE))
        display.on_event(StudyStarted(study, tuple(records[:1]), (), Path("runs\x1b[31m")))
        display.on_event(TrialFailed(Trial({}), HOSTILE))
        out.print(display)
        print_summary(out, study, records, Path("runs\x1b[31m/report.html"))

    text = on_a_terminal(show, width)
    assert invisible(text) == set()
    assert "[bold]:bug:[/]" in text.replace("\n", "") or width < 100
