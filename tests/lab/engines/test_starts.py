"""How often workers start: whoever looks at the arms and makes the tokens of a study runs its trials, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noisytune.lab.engines import LocalEngine, RayEngine
from noisytune.lab.engines._ray_task import IDLE
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from tests.support.runners import Noting


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [
        (LocalEngine, 0.2),
        pytest.param(RayEngine, IDLE + 1, marks=[pytest.mark.slow, pytest.mark.filterwarnings("ignore")]),
    ],
)
def test_a_study_starts_each_worker_once(
    kind: Any, seconds: float, do: Any, tiny_study: Study, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if kind is RayEngine:
        request.getfixturevalue("ray_here")
    runner = Noting(tmp_path / "began", seconds)
    with kind(workers=2) as engine:
        run_study(tiny_study, Store(tmp_path / "run"), engine, lambda _: None, runner=runner)
    did = runner.processes()
    assert len(did["run"]) == 2
    assert did["check"] | did["prepare"] <= did["run"]
    assert len(did["check"]) == len(did["prepare"]) == 1
