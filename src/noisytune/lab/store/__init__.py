"""Where results lie."""

from noisytune.lab.store.claims import Claim
from noisytune.lab.store.files import file_name, read_file, refuse_links, run_folder, write_file
from noisytune.lab.store.folder import STUDY, Store
from noisytune.lab.store.protocol import StudyStore, TrialStore

__all__ = [
    "STUDY",
    "Claim",
    "Store",
    "StudyStore",
    "TrialStore",
    "file_name",
    "read_file",
    "refuse_links",
    "run_folder",
    "write_file",
]
