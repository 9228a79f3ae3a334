"""Where results lie."""

from noisytune.lab.store.folder import STUDY, Store, file_name, write_file

__all__ = ["STUDY", "Store", "file_name", "write_file"]
