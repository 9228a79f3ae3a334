"""What a trial's record says of the machine."""

from __future__ import annotations

import pytest
import torch

from noisytune.lab.trials.environment import accelerator


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for a machine whose torch trains on the processor")
def test_a_processor_is_no_accelerator() -> None:
    assert accelerator() == {}


@pytest.mark.parametrize(("kind", "name"), [("cuda", "NVIDIA H200"), ("xpu", "Intel Data Center GPU Max 1550")])
def test_an_accelerator_goes_by_its_makers_name(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device(kind))
    monkeypatch.setattr(getattr(torch, kind), "get_device_name", lambda: name)
    assert accelerator() == {"accelerator": name}


def test_one_whose_maker_gives_no_name_goes_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    assert accelerator() == {"accelerator": "mps"}
