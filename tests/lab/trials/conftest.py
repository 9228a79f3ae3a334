from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from transformers.utils import logging as transformers_logging


@pytest.fixture
def quiet() -> Iterator[None]:
    """As in a worker."""
    quietly: Any = transformers_logging
    before = quietly.get_verbosity()
    quietly.set_verbosity_error()
    yield
    quietly.set_verbosity(before)
