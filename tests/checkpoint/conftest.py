import pytest

from tests.support.checkpoints import save


@pytest.fixture
def clean(tmp_path):
    return save(tmp_path / "clean")
