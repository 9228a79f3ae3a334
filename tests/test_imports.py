"""What importing a module loads, in a fresh interpreter."""

import subprocess
import sys

import pytest

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


def test_public_names_are_few_and_there():
    import noisytune

    assert len(noisytune.__all__) <= 12
    for name in noisytune.__all__:
        assert getattr(noisytune, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'perturb'"):
        noisytune.perturb  # noqa: B018
