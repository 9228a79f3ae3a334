"""Where results lie."""

from noisytune.lab.store.files import file_name, read_sealed, write_file, write_sealed
from noisytune.lab.store.folder import STUDY, Store
from noisytune.lab.store.protocol import TrialStore

__all__ = ["STUDY", "Store", "TrialStore", "file_name", "read_sealed", "write_file", "write_sealed"]
