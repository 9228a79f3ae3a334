"""What becomes of a model's outputs: predictions, or a status that says why not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from noisytune.lab.kinds import KINDS, Ragged, TokenSplit
from noisytune.lab.kinds.units import Units

EMPTY = Ragged.of([], np.int32)


def judge(kind: str, outputs: list[list[float]], units: Units | None = None) -> tuple[str, list[float]]:
    data = TokenSplit({"input_ids": EMPTY}, np.zeros(len(outputs)))
    status, predictions = KINDS[kind].judge([np.array(row) for row in outputs], data, units)
    return status, predictions.tolist()


@pytest.mark.parametrize(
    ("kind", "outputs", "status"),
    [
        ("regression", [[1.0], [1.0 + 1e-8]], "collapsed"),
        ("regression", [[1.0], [1.1]], "ok"),
        ("regression", [[1.0], [math.nan]], "diverged"),
        ("classification", [[1.0, 0.0], [math.inf, 1.0]], "diverged"),
        ("classification", [[1.0, 0.0], [0.0, 1.0]], "ok"),
        ("classification", [[1.0, 0.0], [2.0, 1.0]], "collapsed"),
    ],
)
def test_outputs_are_judged(kind: str, outputs: list[list[float]], status: str) -> None:
    found, predictions = judge(kind, outputs)
    assert found == status
    assert len(predictions) == (0 if status == "diverged" else len(outputs))


def test_values_far_from_zero_do_not_count_as_collapsed() -> None:
    status, predictions = judge("regression", [[-1.0], [1.0]], Units.of(np.array([1e9, 1e9 + 1])))
    assert status == "ok"
    assert predictions == pytest.approx([1e9, 1e9 + 1], abs=1e-3)
