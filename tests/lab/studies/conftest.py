"""Workers that start in no time."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def quick_workers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """They find the runners of `tests.support`, and a torch that cannot be loaded."""
    instead = tmp_path_factory.mktemp("instead")
    (instead / "torch.py").write_text("raise ImportError('not here')")
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.syspath_prepend(instead)
