"""Results are written once and whole, or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisytune.errors import DamagedRecordError, RunFolderError
from noisytune.lab.store import Store, file_name, write_file
from noisytune.lab.store.outputs import check_scores, pack, unpack
from noisytune.records import FailureRecord, StudyRecord, TrialRecord, digest


def a_record(seed: int = 0, score: float = 0.5, outputs: bool = True) -> TrialRecord:
    settings = {"task": {"name": "t", "digest": "d"}, "arm": {"name": "plain", "methods": []}, "seed": seed}
    return TrialRecord(
        key=digest(settings),
        settings=settings,
        status="ok",
        scores={"accuracy": score},
        loss_curve=[0.1 + 0.2, 1e-300],
        timing={"total": 1.5},
        applied={},
        environment={"cpu": "ünïcode"},
        outputs={"dev/references": np.array([1.0, 1.0]), "dev/predictions": np.array([0, 1])} if outputs else {},
    )


KEY = a_record().key


def a_study() -> StudyRecord:
    task: dict[str, Any] = {
        "name": "topics",
        "kind": "classification",
        "metric": "accuracy",
        "metric_label": "accuracy",
    }
    task |= {"labels": ["a", "b"], "train_size": 4, "dev_size": 2, "majority": 0.5, "digest": "d"}
    return StudyRecord("s", {"name": "m", "digest": "d"}, [task], ["plain"], [0], {}, 0.5, [])


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "run")
    assert store.read_study() is None
    assert store.records() == []
    records = [a_record(seed) for seed in (2, 0, 1)]
    for record in records:
        assert not store.has(record.key)
        store.write(record)
        assert store.has(record.key)
    store.write_study(a_study())
    assert store.read_study() == a_study()
    for before, after in zip(records, store.records([r.key for r in records]), strict=True):
        assert replace(after, outputs_digest="") == before
        assert (after.predictions, after.references) == ([0, 1], [1.0, 1.0])
        assert pickle.loads(pickle.dumps(after)).predictions == [0, 1]
    assert store.index() == {r.key for r in records}
    assert [r.key for r in store.records(["f" * 16, records[0].key])] == [records[0].key]
    assert store.read(records[0].key) is store.read(records[0].key)
    assert {r.seed for r in store.records()} == {0, 1, 2}


def test_a_record_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(a_record(score=0.5))
    store.write(a_record(score=0.9))
    assert store.records()[0].scores == {"accuracy": 0.5}


def changed(path: str, value: Any) -> bytes:
    """A record's JSON with one value changed; the path's parts are separated by dots."""
    raw = json.loads(a_record(outputs=False).to_json())
    *parents, last = path.split(".")
    inner = raw
    for part in parents:
        inner = inner[part]
    inner[last] = value
    return json.dumps(raw).encode()


CHANGES: list[tuple[str, Any, str]] = [
    ("key", 7, "key"),
    ("settings", [], "settings"),
    ("settings.seed", 1, "changed since it was written"),
    ("settings.seed", -1, "seed"),
    ("settings.seed", 2**70, "seed"),
    ("settings.arm", "plain", "arm"),
    ("settings.arm.methods", [{}], "method"),
    ("settings.task", {}, "name"),
    ("settings.task.kind", ["classification"], "kind"),
    ("settings.task.select", 1, "select"),
    ("settings.task.primary", [1], "primary"),
    ("settings.task.primary", "dev", "primary"),
    ("status", "fine", "fine"),
    ("scores", {"accuracy": "high"}, "scores"),
    ("scores", {"accuracy": float("nan")}, "malformed"),
    ("scores", {"accuracy": None}, "scores"),
    ("loss_curve", "steep", "loss_curve"),
    ("evaluations", {"dev": {}}, "status"),
    ("norms", {"query": {"before": 1.0}}, "elements"),
    ("format", "2", "it has no format"),
]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a record"),
        (b'{"format": 1, "key": "0000', "not a record"),
        (b"[]", "it has no format"),
        (b"\xff\xfe", "not a record"),
        (b'{"format": 99}', "99.*update noisytune"),
        (b"[" * 100_000, "not a record"),
        (b'{"format": 2, "key": ' + b"9" * 5000 + b"}", "not a record"),
        (a_record(seed=7).to_json().encode(), a_record(seed=7).key),
        *((changed(path, value), said) for path, value, said in CHANGES),
    ],
)
def test_a_damaged_record_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    store = Store(tmp_path)
    write_file(tmp_path / "trials" / f"{KEY}.json", content)
    with pytest.raises(RunFolderError, match=said) as caught:
        store.records()
    assert f"{KEY}.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
def test_a_failed_write_leaves_nothing_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    store = Store(tmp_path)
    store.write(a_record(0))

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(RunFolderError) as caught:
        store.write(a_record(1))
    assert "\n" not in str(caught.value)
    if code in (errno.ENOSPC, errno.EDQUOT):
        assert "no space left" in str(caught.value)
    assert {file.name for file in (tmp_path / "trials").iterdir()} == {f"{KEY}.json", f"{KEY}.safetensors"}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def full(path: str, flags: int, *mode: int) -> int:
        return opened("/dev/full", os.O_WRONLY) if flags & os.O_CREAT else opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(RunFolderError, match="no space left"):
        write_file(tmp_path / "file", b"x" * 100_000)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(RunFolderError, match=r"file.*(Not a directory|exists)"),
        Store(tmp_path / "file" / "r").lock(),
    ):
        pass


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    program = """
        import sys
        from noisytune.lab.store import Store
        with Store(sys.argv[1]).lock():
            print("locked", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderError, match=f"in use by process {other.pid}"), Store(tmp_path).lock():
            pass
        other.kill()
    with Store(tmp_path).lock():
        pass


def test_the_lock_clears_away_what_a_killed_process_left(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from noisytune.lab.store import write_file
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        write_file(Path(sys.argv[1]) / "trials" / "0.json", b"half")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False)
    assert len(list((tmp_path / "trials").iterdir())) == 1
    store = Store(tmp_path)
    assert store.records() == []
    with store.lock():
        assert list((tmp_path / "trials").iterdir()) == []


def test_outputs_that_are_not_those_of_the_record_are_not_believed(tmp_path: Path) -> None:
    store, other = Store(tmp_path), a_record(1)
    store.write(a_record())
    store.write(replace(other, outputs={"dev/predictions": np.array([1, 1]), "dev/references": np.array([1.0, 1.0])}))
    file = tmp_path / "trials" / f"{KEY}.safetensors"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:-1] + b"\x07", file.with_name(f"{other.key}.safetensors").read_bytes(), None):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DamagedRecordError, match=f"{KEY}.safetensors") as caught:
            Store(tmp_path).read(KEY)
        assert "\n" not in str(caught.value)
        file.write_bytes(whole)
    assert Store(tmp_path).read(KEY).predictions == [0, 1]
    with pytest.raises(DamagedRecordError, match="do not belong together"):
        unpack(pack({"dev/predictions": np.zeros(2), "dev/references": np.zeros(3)}), "here")


@pytest.mark.parametrize("items", [np.zeros((2, 1)), np.zeros(2), np.full((2, 2), -1.5), np.zeros((2, 2, 2))])
@pytest.mark.parametrize(("kind", "metric"), [("classification", "macro_f1"), ("tagging", "entity_f1")])
def test_items_that_no_metric_can_reduce_are_damage(kind: str, metric: str, items: np.ndarray) -> None:
    settings = {"task": {"name": "t", "digest": "d", "kind": kind}, "arm": {"name": "p", "methods": []}, "seed": 0}
    told = {"dev": {"status": "ok", "scores": {metric: 0.123}}}
    record = replace(a_record(outputs=False), key=digest(settings), settings=settings, evaluations=told)
    with pytest.raises(DamagedRecordError, match="here"):
        check_scores(record, {"dev/items": items}, "here")


@pytest.mark.parametrize("where", ["scores", "evaluations"])
def test_a_score_that_the_predictions_do_not_give_is_not_believed(tmp_path: Path, where: str) -> None:
    settings = {"task": {"name": "t", "digest": "d", "kind": "classification"}, "arm": {"name": "p", "methods": []}}
    scores, key = {"accuracy": 0.5, "of a later version": 2.0}, digest(settings | {"seed": 0})
    told = {"key": key, "settings": settings | {"seed": 0}, "evaluations": {"dev": {"status": "ok", "scores": scores}}}
    Store(tmp_path).write(replace(a_record(), **told, scores=scores))  # type: ignore[arg-type]
    assert Store(tmp_path).read(key).scores == scores
    file = tmp_path / "trials" / f"{key}.json"
    raw = json.loads(file.read_text())
    (raw if where == "scores" else raw["evaluations"]["dev"])["scores"]["accuracy"] = 0.75
    file.write_text(json.dumps(raw))
    with pytest.raises(DamagedRecordError, match=r"accuracy.* is 0\.75, its predictions give 0\.5"):
        Store(tmp_path).read(key)


def test_a_record_without_its_outputs_is_not_there_yet(tmp_path: Path) -> None:
    """A crash between the two files leaves outputs alone, and the trial counts as unfinished."""
    store = Store(tmp_path)
    store.write(a_record())
    (tmp_path / "trials" / f"{KEY}.json").unlink()
    again = Store(tmp_path)
    assert not again.has(KEY)
    assert again.records() == []
    again.write(a_record())
    assert again.read(KEY).predictions == [0, 1]


def test_a_damaged_trial_is_set_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(a_record())
    before = {file.name: file.read_bytes() for file in store.trials_folder.iterdir()}
    assert store.set_aside(KEY).name == f"{KEY}.json.damaged"
    assert not store.has(KEY)
    assert {f"{name}.damaged": content for name, content in before.items()} == {
        file.name: file.read_bytes() for file in store.trials_folder.iterdir()
    }


def test_a_failure_that_another_process_clears_away_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between looking whether it is there and reading it: the trial has been finished."""
    from noisytune.lab.store import folder

    store, record = Store(tmp_path), a_record()
    read, failure = folder.read_file, FailureRecord(record.key, "time", "too long")
    store.write_failure(failure)

    def finished_first(file: Path, *arguments: Any) -> bytes:
        if Path(file).parent.name == "failed":
            Path(file).unlink(missing_ok=True)
        return read(file, *arguments)

    monkeypatch.setattr(folder, "read_file", finished_first)
    assert store.failure(record.key) is None
    store.write_failure(failure)
    assert store.failures() == {}


def test_other_files_of_json_are_left_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_study(a_study())
    for name in ("._study.json", "study (1).json", "package.json", "list.json"):
        (tmp_path / name).write_text('{"name": "x"}' if name != "list.json" else "[1]")
    (tmp_path / "study (2).json").write_bytes((tmp_path / "study.json").read_bytes())
    assert list(store.studies()) == ["study"]
    for content in ("", "{}", "[]", '{"format": 2, "trials": []}', a_study().to_json().replace("[0]", "[99999999999]")):
        (tmp_path / "study.json").write_text(content)
        for read in (store.studies, store.read_study):
            with pytest.raises(RunFolderError, match=r"study\.json") as caught:
                read()
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["???", "_x_", "a b", "-"])
def test_a_study_of_any_name_is_found_again(tmp_path: Path, name: str) -> None:
    study = replace(a_study(), name=name)
    Store(tmp_path, file_name(name, "model")).write_study(study)
    assert list(Store(tmp_path).studies(name).values()) == [study]


def test_a_study_whose_plan_contradicts_it_is_refused(tmp_path: Path) -> None:
    entry = {"key": "0" * 16, "task": "t", "arm": "plain", "seed": 0}
    with pytest.raises(DamagedRecordError, match="has the task 't', which the study has not"):
        StudyRecord.from_json(replace(a_study(), trials=[entry]).to_json(), "here")


def test_a_study_without_tasks_or_with_a_winner_that_did_not_run_is_refused() -> None:
    with pytest.raises(DamagedRecordError, match="tasks"):
        StudyRecord.from_json(replace(a_study(), tasks=[]).to_json(), "here")
    trial = {"number": 0, "seed": 0, "key": "0" * 16, "settings": {}, "value": None}
    arm = {"asked": "plain", "arm": "plain", "winner": 0, "trials": [trial]}
    search = {"protocol": "clean", "sampler": "random", "budget": 1, "space": {}, "trained_on": 1, "chosen_on": 1}
    good = replace(a_study(), search=search | {"arms": [arm]})
    assert StudyRecord.from_json(good.to_json(), "here") == good
    with pytest.raises(DamagedRecordError, match=r"here: .*winner of 'plain' is trial 1 of 1"):
        StudyRecord.from_json(replace(good, search=search | {"arms": [arm | {"winner": 1}]}).to_json(), "here")


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "somebody's file", "pipe"])
def test_a_planted_lock_is_refused_and_nothing_is_overwritten(tmp_path: Path, kind: str) -> None:
    precious, run = tmp_path / "precious", tmp_path / "run"
    precious.write_text("precious")
    run.mkdir()
    lock = run / ".lock"
    if kind == "link":
        lock.symlink_to(precious)
    elif kind == "dangling link":
        lock.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        lock.hardlink_to(precious)
    elif kind == "somebody's file":
        lock.write_text("keep me")
    else:
        os.mkfifo(lock)
    with pytest.raises(RunFolderError, match=r"\.lock"), Store(run).lock():
        pass
    assert precious.read_text() == "precious"
    assert not (tmp_path / "new").exists()
    if kind == "somebody's file":
        assert lock.read_text() == "keep me"


@pytest.mark.parametrize("name", ["trials", "cache", "logs"])
def test_folders_that_are_links_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / ".noisytune-tmp-mine").write_text("keep me")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=f"{name} is a link to"), Store(tmp_path / "run").lock():
        pass
    assert [file.name for file in (tmp_path / "elsewhere").iterdir()] == [".noisytune-tmp-mine"]


@pytest.mark.parametrize("name", ["ENOSYS", "ENOLCK", "EBADF", "EOPNOTSUPP", "EACCES", "no fcntl"])
def test_a_file_system_that_cannot_lock_is_a_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def flock(*_: object) -> None:
        raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

    if name == "no fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", flock)
    if name == "EACCES":
        with pytest.raises(RunFolderError, match="cannot be locked"), Store(tmp_path).lock():
            pass
        return
    with Store(tmp_path).lock() as notice:
        assert "cannot lock files" in notice
        assert "claimed one by one instead" in notice


def test_of_two_that_finish_a_trial_at_once_the_first_one_counts(tmp_path: Path, monkeypatch: Any) -> None:
    """Even where they computed something else: outputs stay those of the record."""
    first, second = Store(tmp_path), Store(tmp_path)
    other = replace(a_record(), outputs={"dev/predictions": np.array([1, 1]), "dev/references": np.array([1.0, 1.0])})
    has = second.has

    def before_it_looked(key: str) -> bool:
        found = has(key)
        first.write(a_record())
        return found

    monkeypatch.setattr(second, "has", before_it_looked)
    second.write(other)
    assert Store(tmp_path).read(KEY).predictions == [0, 1]
    assert {file.name for file in (tmp_path / "trials").iterdir()} == {f"{KEY}.json", f"{KEY}.safetensors"}


def test_planning_and_reading_load_no_torch() -> None:
    program = """
        import sys
        import noisytune.lab.studies.study
        print(sorted({"torch", "transformers"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
