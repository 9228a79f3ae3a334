"""``python -m noisytune``."""

from noisytune.cli import app

if __name__ == "__main__":
    app()
