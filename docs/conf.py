"""How the site is built from these pages: make docs."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from noisytune import __version__

os.environ.setdefault("KERAS_BACKEND", "jax")  # of the development environment

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
from command_line import commands  # noqa: E402 (beside this file)
from make_picture import CHROMIUM, photograph  # noqa: E402
from study_keys import keys  # noqa: E402

WRITTEN = {
    "reference/command-line": ("<!-- the commands -->", commands),
    "reference/study-files": ("<!-- the keys -->", keys),
}
"""Page: where in it something is written by the build, and what."""

REPOSITORY = "https://github.com/noisytune/noisytune"

project, author = "noisytune", "The noisytune developers"
copyright = "The noisytune developers, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
    "sphinx_copybutton",
    "sphinx_llms_txt",
]
exclude_patterns = ["_build", "first-report"]
suppress_warnings = ["myst.header", "config.cache"]
smartquotes = False  # options begin with two hyphens

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring, napoleon_numpy_docstring = True, False

html_theme = "furo"
html_title = "noisytune"
html_baseurl = f"https://noisytune.github.io/noisytune/{os.environ.get('VERSION', 'latest')}/"  # in llms.txt
html_show_sourcelink = False
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
        "versions.html",
    ]
}
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "top_of_page_buttons": [],
}
llms_txt_title = "noisytune"
llms_txt_summary = (
    "Noise on a pretrained model's weights before fine-tuning, done right, and evidence whether it helped."
)
highlight_language = "none"  # of blocks that name no language: trees, equations, messages
html_static_path, html_css_files = ["_static"], ["site.css"]
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"  # nobody types what a command prints
copybutton_prompt_text = r"^\$ "
copybutton_prompt_is_regexp = True


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Where the source of a name is, for the links beside it."""
    if domain != "py" or not info["module"]:
        return None
    place = Path("src", *info["module"].split("."))
    for file in (place / "__init__.py", place.with_suffix(".py")):
        if (DOCS.parent / file).exists():
            return f"{REPOSITORY}/blob/main/{file}"
    return None


def _written(app: object, name: str, source: list[str]) -> None:
    """Fill the pages that are written from the code."""
    if name in WRITTEN:
        place, content = WRITTEN[name]
        source[0] = source[0].replace(place, content())


def _lead_out(app: object, name: str, source: list[str]) -> None:
    """Let links that leave this folder lead into the repository."""

    def absolute(found: re.Match[str]) -> str:
        file = (DOCS / name).parent.joinpath(found[1]).resolve()
        if file.is_relative_to(DOCS):
            return found[0]
        anchor = found[2] or ""
        return f"]({REPOSITORY}/blob/main/{file.relative_to(DOCS.parent)}{anchor})"

    source[0] = re.sub(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", absolute, source[0])


def _take_picture(app: Any, error: Exception | None) -> None:
    """Show the report as it looks now; where no browser is there, as it looked when its picture was last made."""
    if error is None and app.builder.format == "html" and CHROMIUM:
        photograph({Path(app.outdir, "_images", "report.png"): False}, CHROMIUM)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    for change in (_lead_out, _written):
        app.connect("source-read", change)
    app.connect("build-finished", _take_picture)
