"""The Ray engine: held to the contract of engines, on two raylets of this machine, one of which is killed."""

from __future__ import annotations

import os
import pickle
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from noisytune.errors import ConfigError, DataError
from noisytune.lab.engines import JobFailed, RayEngine
from noisytune.lab.engines.luggage import packed, unpacked
from noisytune.lab.engines.shares import Machine, shares_of
from noisytune.lab.store import Store
from noisytune.lab.studies.run import run_study
from noisytune.lab.studies.study import Study
from noisytune.lab.trials import environment
from noisytune.lab.trials.events import TrialDone, TrialFailed
from tests.support.killing import Bench, kill_drivers, kill_workers
from tests.support.runners import Cheap


@pytest.mark.parametrize(
    ("machines", "workers", "trials_per_gpu", "said"),
    [
        ([Machine(4)], 5, None, "workers must be at most 4"),
        ([Machine(4)], None, 2, "has no GPU"),
        ([Machine(8, 2), Machine(8)], 5, 2, "workers must be at most 4"),
        ([Machine(2, 4)], 3, None, "workers must be at most 2"),
    ],
)
def test_more_than_there_is_room_for_is_refused(
    machines: list[Machine], workers: int | None, trials_per_gpu: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        shares_of(machines, workers, trials_per_gpu)


@pytest.mark.parametrize("workers", range(1, 14))
def test_processors_are_shared_out_as_far_as_they_go(workers: int) -> None:
    machines = [Machine(8), Machine(5)]
    share = shares_of(machines, workers, None)
    assert len(share.kinds) == workers
    assert sum(machine.cpus // share.cpus for machine in machines) >= workers
    assert sum(machine.cpus // (share.cpus + 1) for machine in machines) < workers


def test_files_are_taken_from_their_place_or_sent_and_checked(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    for name in ("b", "a"):
        (home / name).write_bytes(name.encode() * 9)
    trunk, content = packed(home.iterdir())
    assert trunk.names == ("a", "b")

    def fetch(asked: Any) -> Any:
        fetched.append(asked)
        return asked

    fetched: list[Any] = []
    assert unpacked(trunk, fetch, root) == home
    (home / "a").write_bytes(b"other")
    with pytest.raises(DataError, match="not on this machine"):
        unpacked(trunk, fetch, root)
    assert not fetched
    sent = replace(trunk, content={"a": b"a" * 9, "b": b"b" * 9})
    place = unpacked(sent, fetch, root)
    assert {file.name: file.read_bytes() for file in place.iterdir()} == sent.content
    assert unpacked(sent, fetch, root) == place
    assert len(fetched) == 1
    (place / "b").write_bytes(b"damaged")
    assert unpacked(sent, fetch, root) == place
    assert len(fetched) == 2
    with pytest.raises(DataError, match="other bytes arrived"):
        unpacked(replace(sent, content=content() | {"b": b"?"}), fetch, tmp_path / "another")
    assert place.stat().st_mode & 0o777 in (0o755, 0o700)
    assert root.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one processor each, as far as Ray knows."""
    pytest.importorskip("ray", reason="ray is not installed: make test-ray")
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    # Ray takes the loopback for an outer address of the machine, where nothing answers.
    monkeypatch.setattr("ray._private.services.get_node_ip_address", lambda *_, **__: "127.0.0.1")
    size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    head = size | {"node_ip_address": "127.0.0.1"}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.second = cluster.add_node(**size, node_ip_address="127.0.0.1")
    cluster.wait_for_nodes()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_machine_that_is_killed_loses_nothing(do: Any, cluster: Any, tiny_study: Study, tmp_path: Path) -> None:
    study = replace(tiny_study, seeds=tuple(range(10)))
    runner, events, killed = Cheap(tmp_path / "began", seconds=0.5), list[Any](), list[set[str]]()

    def on_event(event: Any) -> None:
        events.append(event)
        done = {one.record.key for one in events if isinstance(one, TrialDone)}
        if len(done) == 5 and not killed:
            killed.append(done)
            cluster.remove_node(cluster.second, allow_graceful=False)

    with RayEngine(address=cluster.address) as engine:
        assert engine.workers == 2
        run_study(study, Store(tmp_path / "run"), engine, on_event, runner=runner)
    done = Counter(event.record.key for event in events if isinstance(event, TrialDone))
    assert done == Counter(trial.key for trial in study.plan), "each once"
    failed = [event for event in events if isinstance(event, TrialFailed)]
    assert len(failed) <= 1
    assert all("went with its machine" in event.message and event.again for event in failed)
    began = Counter(runner.labels())
    stored = {trial.label for trial in study.plan if trial.key in killed[0]}
    assert all(began[label] == 1 for label in stored), "what was stored is not trained again"
    assert sum(began.values()) <= len(study.plan) + len(failed)
    assert not list((tmp_path / "run").glob("failures/*"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kill", [kill_drivers, kill_workers])
def test_thirty_kills_of_a_study_of_forty(
    tiny_study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, kill: Any
) -> None:
    one = Bench(replace(tiny_study, seeds=tuple(range(20))), tmp_path, seconds=0.3)
    one.began_by = f"NOISYTUNE_TEST={uuid.uuid4()}"
    monkeypatch.setenv(*one.began_by.split("=", 1))
    monkeypatch.syspath_prepend(tmp_path)  # the workers load no torch either
    one.mode = f"ray {request.getfixturevalue('cluster').address}"
    kill(one, 30)
    one.finish()
    sys.stdout.write(one.check())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_another_library_on_a_machine_is_refused(do: Any, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisytune.lab.engines.ray.versions", lambda: environment.versions() | {"numpy": "0.1"})
    answers: list[Any] = []
    with RayEngine(address=cluster.address) as engine:
        engine.run([do("a", "echo", 1)], answers.append)
    (failure,) = answers
    assert isinstance(failure, JobFailed)
    assert isinstance(failure.error, ConfigError)
    assert "has numpy" in str(failure.error)


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_one_line() -> None:
    pytest.importorskip("ray", reason="ray is not installed: make test-ray")
    with pytest.raises(ConfigError, match="no Ray cluster at") as caught, RayEngine(address="127.0.0.1:9") as engine:
        engine.start()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("ids", "together"), [([], None), ([3], None), ([0, 1], 2)])
def test_a_trial_sees_all_gpus_that_ray_has_given_it(
    ids: list[int], together: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray is played by two lines: there is no GPU here."""
    from noisytune.lab.engines import _ray_task

    made: list[tuple[int, int, int | None]] = []

    class Recorded:
        def __init__(self, workers: int, threads: int, gpus_per_trial: int | None = None) -> None:
            made.append((workers, threads, gpus_per_trial))

        def start(self, first: object) -> None: ...

        def run(self, jobs: object, told: object) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(_ray_task, "import_module", lambda _: SimpleNamespace(get_gpu_ids=lambda: ids))
    monkeypatch.setattr(_ray_task, "LocalEngine", Recorded)
    order: Any = SimpleNamespace(threads=4, first=pickle.dumps(None), stay=0.0)
    _ray_task._Workers().carry_out(Any, order, SimpleQueue())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ",".join(map(str, ids))
    assert made == [(1, 4, together)]
