"""What the workers of a test run make once, for all of them."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that whoever comes first fills; the others wait for it.

    Args:
        factory: pytest's.
        name: of the folder, unlike all others of the test run.
        make: fills the folder, which exists and is empty.
    """
    place = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent
    folder, part = place / name, place / f"{name}.part"
    with FileLock(place / f"{name}.lock"):
        if not folder.exists():
            part.mkdir()
            make(part)
            part.rename(folder)
    return folder
