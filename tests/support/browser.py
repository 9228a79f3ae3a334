"""A page in headless Chromium: its elements, what it logged, and where everything stands."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
# Runs inside the frame; its findings go into the outer page's title, which --dump-dom prints.
MEASURE = """<script>
const told = document.getElementById('verdict') || document.querySelector('.models');
const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
const scrolls = e => e.closest('.scroll') !== null;
const figures = [...document.querySelectorAll('figure svg')].map(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  const texts = [...svg.querySelectorAll('text')].map(t => [box(t), parseFloat(getComputedStyle(t).fontSize) * scale]);
  return {box: box(svg), texts};
});
const shapes = [...document.querySelectorAll('svg path, svg use')].map(e => getComputedStyle(e));
parent.document.title = JSON.stringify({
  width: innerWidth, page: document.documentElement.scrollWidth, title: document.title,
  verdict: told.innerText, at: box(told), figures,
  look: [...document.querySelectorAll('#verdict, .next, .top > figure svg')].map(e => box(e)),
  columns: [...document.querySelectorAll('details[open] .scroll')].map(e => {
    e.scrollLeft = 60;
    return [...e.querySelectorAll('tr')].map(row => box(row.cells[0])[0] - box(e)[0]);
  }),
  outside: [...document.querySelectorAll('main *')].filter(e => !scrolls(e) && !e.closest('svg')
    && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80)),
  colours: [...new Set(shapes.flatMap(s => [s.stroke, s.fill]))],
});
</script>"""


def opened(page: str, folder: Path, *flags: str) -> tuple[str, str]:
    """The page's elements after loading, and what Chromium logged."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    command = [
        CHROMIUM or "",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--enable-logging=stderr",
        "--v=0",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1500,1300",
        *flags,
        "--dump-dom",
        file.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=True)
    return done.stdout, done.stderr


def measure(page: str, folder: Path, width: int, *flags: str) -> dict[str, Any]:
    """What `MEASURE` finds in the page at this width: in a frame, for windows are never as narrow as a phone."""
    # The page's policy forbids scripts, this one too.
    allowed = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    inner = html.escape(allowed.replace("</body>", MEASURE + "</body>"))
    frame = f'<iframe style="width: {width}px; height: 1200px; border: 0" srcdoc="{inner}"></iframe>'
    dom, log = opened(f'<!doctype html><meta charset="utf-8"><title></title>{frame}', folder, *flags)
    assert "CONSOLE" not in log
    title = re.search(r"<title>(.*?)</title>", dom, flags=re.DOTALL)
    assert title is not None
    measured: dict[str, Any] = json.loads(html.unescape(title[1]))
    return measured


def figures_are_legible(seen: dict[str, Any], page: str) -> None:
    """Every figure is there and big enough, and none of its texts is cut."""
    assert len(seen["figures"]) == page.count("<svg ")
    for figure in seen["figures"]:
        left, top, right, bottom = figure["box"]
        assert right - left >= 300
        assert bottom - top >= 100
        for (x0, y0, x1, y1), size in figure["texts"]:
            assert size >= 9.5
            assert left - 1 <= x0 <= x1 <= right + 1
            assert top - 1 <= y0 <= y1 <= bottom + 1
