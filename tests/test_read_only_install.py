"""An installation that cannot be written to, as in a container: the compiled kernels are kept elsewhere, or nowhere."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import noisytune

NOBODY = 65534
RUN = """
import numpy as np
from noisytune._noise import kernels
values = np.linspace(-1, 1, 1000, dtype=np.float32)
moments = kernels.moments(values)
kernels.add_noise_(values, moments.std, 0.15, "uniform", 1, "weight", start=0)
print(values.tobytes().hex())
"""


@pytest.fixture
def run():
    """``run(home)``: what a process prints that may write to no folder but ``home``."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        site = Path(folder, "site")
        shutil.copytree(
            Path(noisytune.__file__).parent, site / "noisytune", ignore=shutil.ignore_patterns("__pycache__")
        )
        for path in [site, *site.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = ["setpriv", f"--reuid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []

        def run(home, code=RUN):
            environment = {"HOME": str(home), "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
            command = [*user, sys.executable, "-c", code]
            return subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)

        try:
            run("/nonexistent", "import numba").check_returncode()
        except (FileNotFoundError, subprocess.CalledProcessError) as error:
            pytest.skip(f"another user cannot run this Python: {error}")
        yield run
        for path in [site, *site.rglob("*")]:
            path.chmod(0o755)


@pytest.mark.slow
def test_kernels_are_kept_in_the_home_directory_or_compiled_each_time(run):
    with tempfile.TemporaryDirectory() as home:
        os.chmod(home, 0o777)
        outputs = [run(home), run(home), run("/nonexistent")]
        assert any(Path(home).rglob("*.nbc"))
    assert [done.returncode for done in outputs] == [0, 0, 0], outputs[-1].stderr
    assert len({done.stdout for done in outputs}) == 1
