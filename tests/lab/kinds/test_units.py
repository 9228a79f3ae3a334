"""Values there and back: nothing overflows, and only the affine part is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.lab.kinds.units import Units

values = st.lists(st.floats(-1e307, 1e307), min_size=2, max_size=20).map(np.array)


@given(values)
def test_there_and_back_is_the_same_up_to_rounding(train: np.ndarray) -> None:
    units = Units.of(train)
    there = np.array(units.standardised(train))
    assert np.isfinite(there.astype(np.float32)).all()
    assert (np.abs(units.restored(there) - train) <= 1e-9 * np.abs(train).max() + 1e-320).all()


@given(values.filter(lambda train: np.ptp(train / np.abs(train).max()) > 1e-6 if train.any() else False))
def test_the_model_sees_mean_0_and_standard_deviation_1(train: np.ndarray) -> None:
    seen = np.array(Units.of(train).standardised(train))
    assert seen.mean() == pytest.approx(0, abs=1e-6)
    assert seen.std() == pytest.approx(1, rel=1e-6)


def test_equal_values_are_left_at_0() -> None:
    assert Units.of(np.full(3, 7.0)).standardised(np.full(3, 7.0)) == [0.0, 0.0, 0.0]


def test_beyond_the_range_is_infinite_without_a_warning() -> None:
    assert Units.of(np.array([-1.7e308, 1.7e308])).restored(np.array([9.0])).tolist() == [np.inf]
