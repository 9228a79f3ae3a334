"""Outputs of models on devices that have no float64, such as Apple's GPUs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from noisytune.lab.kinds import KINDS


class WithoutDoubles(torch.Tensor):
    """A tensor on such a device."""

    def double(self, **_: Any) -> torch.Tensor:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression", "tagging", "spans", "language"])
def test_outputs_leave_the_device_before_they_are_widened(kind: str) -> None:
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    inputs = {"attention_mask": torch.ones(2, 5), "labels": torch.ones(2, 5, dtype=torch.long)}
    both = []
    for there in (logits, logits.as_subclass(WithoutDoubles)):
        found = SimpleNamespace(logits=there, start_logits=there[..., 0], end_logits=there[..., 1])
        both.append(KINDS[kind].outputs(found, inputs))
    for one, other in zip(*both, strict=True):
        np.testing.assert_array_equal(one, other)
