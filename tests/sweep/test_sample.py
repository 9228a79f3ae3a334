"""Noise in memory and on disk for a sample of model types: a few each time, all of them among the slow tests."""

import pytest
from sweep.pairings import EQUAL, MEMORY, TOLD, UNBUILT, findings_of
from sweep.sample import QUICK, SAMPLE

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers, about models and trainers


@pytest.mark.parametrize("model_type", QUICK)
def test_the_same_noise_with_and_without_a_head(model_type: str) -> None:
    assert not differing(findings_of(model_type, is_brief=True))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", SAMPLE)
def test_the_same_noise_in_every_pairing(model_type: str) -> None:
    assert not differing(findings_of(model_type))


def differing(findings):
    """What is not equal; a class that cannot be built, or runs on no input that is known, does not count.

    Neither does what files with the names of memory hold apart, where it is told.
    """
    found = list(findings)
    assert any(each.result == EQUAL for each in found)
    return [
        each for each in found if each.result not in (EQUAL, UNBUILT) and (each.pairing, each.result) != (MEMORY, TOLD)
    ]
