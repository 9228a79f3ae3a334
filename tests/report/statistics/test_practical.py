"""The probability of a practical difference, against draws from its posterior and in its limits."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noisytune.report.statistics import paired
from noisytune.report.statistics.practical import chances


@given(st.integers(2, 50), st.floats(-3, 3), st.floats(0.1, 5), st.floats(0, 3))
def test_probabilities_add_up_and_swap_with_the_arms(n: int, mean: float, sd: float, margin: float) -> None:
    found, swapped = chances(n, mean, sd, margin), chances(n, -mean, sd, margin)
    assert found.below + found.within + found.above == pytest.approx(1.0)
    assert (found.below, found.above) == pytest.approx((swapped.above, swapped.below))


def test_it_is_the_share_of_posterior_draws() -> None:
    rng = np.random.default_rng(0)
    n, mean, sd, margin = 8, 0.4, 1.1, 0.5
    variances = (n - 1) * sd**2 / rng.chisquare(n - 1, 400_000)
    means = rng.normal(mean, np.sqrt(variances / n))
    found = chances(n, mean, sd, margin)
    assert found.above == pytest.approx((means > margin).mean(), abs=0.005)
    assert found.below == pytest.approx((means < -margin).mean(), abs=0.005)


@pytest.mark.parametrize(("n", "sd"), [(0, math.nan), (1, math.nan), (9, 0.0)])
def test_without_spread_nothing_is_known(n: int, sd: float) -> None:
    assert math.isnan(chances(n, 0.0, sd, 1.0).within)


def test_the_interquartile_mean_leaves_a_quarter_out_on_each_side() -> None:
    assert paired.summarise([-100.0, 1.0, 2.0, 100.0]).iqm == 1.5
    assert paired.summarise([1.0, 2.0]).iqm == 1.5
    assert math.isnan(paired.summarise([]).iqm)
