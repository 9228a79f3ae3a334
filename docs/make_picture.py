"""Writes docs/report.png and docs/report-dark.png: what the report of a run shows first, in Chromium, at 1,400 x 900.

    python docs/make_picture.py       # make picture

The run is the one in docs/first-report, of the command that the README names below the picture. Its report is rendered
anew; the build of the site does the same for the picture in its pages.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from noisytune.lab.store import STUDY, Store
from noisytune.report import write_report

DOCS = Path(__file__).resolve().parent
RUN = DOCS / "first-report"
PICTURES = {DOCS / "report.png": False, DOCS / "report-dark.png": True}
"""Each picture, and whether it is of a browser that asks for dark pages."""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COLOURS = 64
"""Of the picture: so many keep letters sharp in few bytes."""


def photograph(pictures: dict[Path, bool], browser: str) -> None:
    """Photograph the first screen of the run's report.

    Args:
        pictures: where each is written, and whether its page is dark.
        browser: Chromium.
    """
    store = Store(RUN)
    study = store.studies()[STUDY]
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900")
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(folder, study, store.records(entry["key"] for entry in study.trials))
        for picture, dark in pictures.items():
            taken = Path(folder) / picture.name
            scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
            command = [browser, *flags, scheme, f"--screenshot={taken}", page.as_uri()]
            subprocess.run(command, check=True, capture_output=True)
            Image.open(taken).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


if __name__ == "__main__":
    if CHROMIUM is None:
        raise SystemExit("no Chromium on the PATH: the picture is one of a browser")
    photograph(PICTURES, CHROMIUM)
