"""Downloads from the Hugging Face Hub: one clear line where it gives nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from noisytune.errors import DataError, require

_LOCAL: ContextVar[bool] = ContextVar("local", default=False)


@contextmanager
def local_files_only() -> Iterator[None]:
    """Within it nothing is downloaded: what is in the cache can be had."""
    token = _LOCAL.set(True)
    try:
        yield
    finally:
        _LOCAL.reset(token)


def fetch(what: str, hub_id: str, instead: str, **settings: Any) -> Path:
    """The folder of a snapshot, downloaded unless it is in the cache.

    Args:
        what: how the message begins: ``"model 'bert' is no directory here"``.
        hub_id: ``"organisation/name"``.
        instead: what else the user may give.
        **settings: of ``huggingface_hub.snapshot_download``.

    Raises:
        DataError: the Hub did not give it.
        MissingExtraError: huggingface_hub is not installed.
    """
    require("huggingface_hub", extra="hub", needed_for=f"downloading {hub_id!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(hub_id, **settings, local_files_only=_LOCAL.get()))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise DataError(f"{what}, and the Hub did not give it{offline}; give {instead}: {reason}") from error
