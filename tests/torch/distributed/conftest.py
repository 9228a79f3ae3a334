import pytest

from tests.support import ranks


@pytest.fixture
def passes_on_ranks(tmp_path):
    """``passes_on_ranks(module_file, ranks, functions)`` fails unless all of them pass on every rank."""
    return lambda module, n, functions: ranks.check(module, n, [f.__name__ for f in functions], tmp_path)
