"""Downloads from the Hugging Face Hub: one clear line where it gives nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from noisytune.errors import DataError, require


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
    require("huggingface_hub", extra="lab", needed_for=f"downloading {hub_id!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(snapshot_download(hub_id, **settings))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0") else ""
        raise DataError(f"{what}, and the Hub did not give it{offline}; give {instead}: {reason}") from error
