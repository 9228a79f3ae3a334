"""What importing a module loads, in a fresh interpreter."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import noisytune

HEAVY = ["torch", "jax", "transformers", "numba", "pandas", "matplotlib", "scipy", "sklearn", "optuna"]
MAY_LOAD = {
    "noisytune": [],
    "noisytune.config": [],
    "noisytune.errors": [],
    "noisytune.field": [],
    "noisytune._noise.moments": [],
    "noisytune._perturb.names": [],
    "noisytune.manifest": [],
    "noisytune.records": [],
    "noisytune._noise.kernels": ["numba", "scipy"],
    "noisytune._perturb.steps": ["numba", "scipy"],
    "noisytune.arrays": ["numba", "scipy"],
    "noisytune.checkpoint": ["numba", "scipy"],
    "noisytune.cli": [],
    "noisytune.report": [],
    "noisytune.report.page.render": ["scipy"],
    "noisytune.report.evidence.search": ["scipy"],
    "noisytune.lab.store": [],
    "noisytune.lab.tasks": [],
    "noisytune.lab.studies.study": [],
    "noisytune.lab.studies.search": [],
    "noisytune.lab.studies.tune": [],
    "noisytune.lab.studies.file": [],
    "noisytune.methods": [],
    "noisytune.methods.noisytune": [],
}


@pytest.mark.parametrize("module", MAY_LOAD)
def test_module_loads_nothing_heavy_that_it_does_not_need(module):
    program = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= set(MAY_LOAD[module])


def test_nothing_that_windows_lacks_is_imported_with_a_module():
    """Where a lock is needed its module is imported there."""
    lacking = {"fcntl", "grp", "pwd", "resource", "termios"}
    for file in Path(noisytune.__file__).parent.rglob("*.py"):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in statement.names] if isinstance(statement, ast.Import) else []
            names += [statement.module] if isinstance(statement, ast.ImportFrom) else []
            assert not lacking.intersection(names), file


def test_public_names_are_few_and_there():
    import noisytune

    assert len(noisytune.__all__) <= 12
    for name in noisytune.__all__:
        assert getattr(noisytune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'perturb'"):
        noisytune.perturb  # noqa: B018
