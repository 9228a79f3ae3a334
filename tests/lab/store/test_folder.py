"""Results are written once and whole, or not at all."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from noisytune.errors import RunFolderError
from noisytune.lab.store import Store, write_file
from noisytune.records import StudyRecord, TrialRecord


def a_record(seed: int = 0, score: float = 0.5) -> TrialRecord:
    settings = {"task": {"name": "t"}, "arm": {"name": "plain", "methods": []}, "seed": seed}
    return TrialRecord(
        key=f"{seed:016x}",
        settings=settings,
        status="ok",
        scores={"accuracy": score},
        loss_curve=[0.1 + 0.2, 1e-300],
        predictions=[0.0, 1.0],
        references=[1.0, 1.0],
        timing={"total": 1.5},
        applied={},
        environment={"cpu": "ünïcode"},
    )


def a_study() -> StudyRecord:
    return StudyRecord("s", {"name": "m", "digest": "d"}, [], ["plain"], [0], {}, 0.5, [])


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
    assert store.records([r.key for r in records]) == records
    assert store.records(["f" * 16, records[0].key]) == records[:1]
    assert {r.seed for r in store.records()} == {0, 1, 2}


def test_a_record_is_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(a_record(score=0.5))
    store.write(a_record(score=0.9))
    assert store.records()[0].scores == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not a record"),
        (b'{"format": 1, "key": "0000', "not a record"),
        (b"[]", "not a record"),
        (b"\xff\xfe", "damaged"),
        (b'{"format": 99}', "99"),
        (a_record(seed=7).to_json().encode(), "0000000000000007"),
    ],
)
def test_a_damaged_record_is_named_in_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    store = Store(tmp_path)
    write_file(tmp_path / "trials" / f"{0:016x}.json", content)
    with pytest.raises(RunFolderError, match=said) as caught:
        store.records()
    assert f"{0:016x}.json" in str(caught.value)
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
    assert [file.name for file in (tmp_path / "trials").iterdir()] == [f"{0:016x}.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda _, *args, **kwargs: opened(Path("/dev/full"), *args, **kwargs))
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


def test_planning_and_reading_load_no_torch() -> None:
    program = """
        import sys
        import noisytune.lab.studies.study
        print(sorted({"torch", "transformers"} & set(sys.modules)))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
