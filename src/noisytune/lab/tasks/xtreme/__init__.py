"""XTREME: nine tasks in forty languages, from local files in the official layout or from the Hub."""

from noisytune.lab.tasks.xtreme.asked import XTREME, lacks, only_what_fits
from noisytune.lab.tasks.xtreme.load import NothingToScoreError, load_xtreme
from noisytune.lab.tasks.xtreme.official import OFFICIAL, TRAINED, Official

__all__ = ["OFFICIAL", "TRAINED", "XTREME", "NothingToScoreError", "Official", "lacks", "load_xtreme", "only_what_fits"]
