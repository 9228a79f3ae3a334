"""The report as one HTML file that needs nothing else, and the same as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from noisytune._files import publish
from noisytune._text import html, markdown
from noisytune.errors import RunFolderError
from noisytune.records import FailureRecord, StudyRecord, TrialRecord
from noisytune.report.evidence.pairs import Evidence, gather
from noisytune.report.page.machine import json_text, told
from noisytune.report.page.view import overview, view

Report = tuple[StudyRecord, Iterable[TrialRecord], str]
"""A study, its finished trials, and the name of its page."""


@cache
def _environment(shown: Callable[[object], str]) -> Environment:
    """Templates in which every value passes ``shown``, unless it is a macro's own or marked as safe."""
    loader = PackageLoader("noisytune.report.page")
    made = Environment(
        loader=loader,
        autoescape=True,
        finalize=lambda value: value if isinstance(value, Markup) else Markup(shown(value)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # The page's policy lets this one script run, by its digest, and none that a stranger's text might bring.
    script = loader.get_source(made, "page.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    made.globals |= {"script": Markup(script), "script_hash": Markup(f"sha256-{digest}")}
    return made


def render_html(study: StudyRecord, records: Iterable[TrialRecord]) -> str:
    """One self-contained page: nothing from the network, light and dark, for a phone and for a wide screen.

    Args:
        study: the plan.
        records: finished trials in any order; the study may still be running.

    Returns:
        The same text for the same records, whenever and wherever it is rendered.

    Example: at the head of `noisytune.report`.
    """
    return _html_of(view(gather(study, records), drawn=True))


def render_markdown(study: StudyRecord, records: Iterable[TrialRecord]) -> str:
    """The same findings as Markdown, without the figures.

    Args:
        study: the plan.
        records: finished trials in any order.

    Example: at the head of `noisytune.report`.
    """
    return _markdown_of(view(gather(study, records), drawn=False))


def write_report(
    folder: str | Path,
    study: StudyRecord,
    records: Iterable[TrialRecord],
    name: str = "report",
    failures: Iterable[FailureRecord] = (),
    overview: str = "",
) -> Path:
    """Write ``NAME.html``, ``NAME.md`` and a file of JSON into a folder, each whole or not at all.

    The last is ``report.json``, or ``NAME.report.json`` under another name.

    Args:
        folder: where.
        study: the plan.
        records: finished trials in any order.
        name: of the files.
        failures: of trials that are not finished.
        overview: the name of the page on all models, which this one leads to; empty where there is none.

    Returns:
        The path of the HTML file.

    Raises:
        RunFolderError: the folder cannot be written.

    Example: at the head of `noisytune.report`.
    """
    evidence = gather(study, records, failures)
    found = view(evidence, drawn=True, overview=overview)
    data = "report.json" if name == "report" else f"{name}.report.json"
    return _write(Path(folder), name, _html_of(found), _markdown_of(found), {data: json_text(told(evidence))})


def render_overview(models: Sequence[Report]) -> str:
    """One page on several studies that differ in the model only; it leads to the page of each.

    Args:
        models: of each study its plan, its finished trials, and the name of its page's file without the ending.

    Example: at the head of `noisytune.report`.
    """
    return _environment(html).get_template("overview.html.j2").render(overview(_gathered(models), drawn=True))


def render_overview_markdown(models: Sequence[Report]) -> str:
    """The same as Markdown, without the figures."""
    return _environment(markdown).get_template("overview.md.j2").render(overview(_gathered(models), drawn=False))


def write_overview(folder: str | Path, models: Sequence[Report], name: str) -> Path:
    """Write ``NAME.html`` and ``NAME.md`` on several studies.

    Args:
        folder: where.
        models: as for `render_overview`.
        name: of the files.

    Returns:
        The path of the HTML file.

    Raises:
        RunFolderError: the folder cannot be written.

    Example: at the head of `noisytune.report`.
    """
    return _write(Path(folder), name, render_overview(models), render_overview_markdown(models))


def _html_of(found: dict[str, Any]) -> str:
    return _environment(html).get_template("page.html.j2").render(found)


def _markdown_of(found: dict[str, Any]) -> str:
    return _environment(markdown).get_template("page.md.j2").render(found)


def _gathered(models: Sequence[Report]) -> list[tuple[Evidence, str]]:
    return [(gather(study, records), page) for study, records, page in models]


def _write(folder: Path, name: str, page: str, text: str, more: dict[str, str] | None = None) -> Path:
    try:
        for file, content in (more or {}).items():
            publish(folder / file, content.encode())
        publish(folder / f"{name}.md", text.encode())
        publish(folder / f"{name}.html", page.encode())
    except OSError as e:
        raise RunFolderError(f"{folder}: cannot write the report ({e.strerror}); check the path and free space") from e
    return folder / f"{name}.html"
