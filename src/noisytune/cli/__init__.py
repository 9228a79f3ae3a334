"""The command line."""

from noisytune.cli.main import app

__all__ = ["app"]
