"""Writes docs/report.png: what the report of a run shows first, in Chromium, at 1,400 x 900.

    python docs/make_picture.py RUN

RUN is the run folder of the command that the README names below the picture. Its report is rendered anew.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

from noisytune.lab.store import STUDY, Store
from noisytune.report import write_report

PICTURE = Path(__file__).with_name("report.png")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
COLOURS = 64
"""Of the picture: so many keep letters sharp in few bytes."""


def main(run: Path) -> None:
    """Photograph the first screen of a run's report.

    Args:
        run: the run folder.
    """
    if CHROMIUM is None:
        sys.exit("no Chromium on the PATH: the picture is one of a browser")
    store = Store(run)
    study = store.studies()[STUDY]
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(folder, study, store.records(entry["key"] for entry in study.trials))
        taken = Path(folder) / "report.png"
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1400,900")
        subprocess.run([CHROMIUM, *flags, f"--screenshot={taken}", page.as_uri()], check=True, capture_output=True)
        Image.open(taken).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
