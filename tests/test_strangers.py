"""A run folder from somebody else can be opened: nothing in it runs, leads out of it, or repaints a terminal."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from noisytune.cli import app
from noisytune.errors import RunFolderError
from noisytune.lab.store import Store
from noisytune.lab.studies.join import join
from noisytune.lab.studies.status import status_of
from noisytune.lab.studies.study import Study
from noisytune.lab.trials.tokens import Tokens
from tests.support.runners import cheap_record


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.fixture
def folder(tiny_study: Study, tmp_path: Path) -> Path:
    store = Store(tmp_path / "run")
    store.write_study(tiny_study.record)
    for trial in tiny_study.plan[:3]:
        store.write(cheap_record(trial))
    return store.folder


def every_command(folder: Path, out: Path) -> list[Any]:
    commands = [["status", folder], ["status", folder, "--json"], ["report", folder, "--out", out / "pages"]]
    commands += [["export", folder, "--to", kind, "--out", out / f"x.{kind}"] for kind in ("csv", "json", "parquet")]
    return [CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"}) for words in commands]


def test_nothing_is_unpickled(folder: Path, tiny_study: Study, tmp_path: Path) -> None:
    bomb, made = pickle.dumps(Bomb(tmp_path / "made")), tmp_path / "made"
    key = tiny_study.plan[0].key
    for place in ("trials", "failed", "claims", "cache"):
        (folder / place).mkdir(exist_ok=True)
        for name in (f"{key}.json", f"{key}.safetensors", f"{tiny_study.plan[3].key}.json", "x.pkl"):
            (folder / place / name).write_bytes(bomb)
    for name in ("study2.json", "plan.json", "plan.pickle", ".lock"):
        (folder / name).write_bytes(bomb)
    for result in every_command(folder, tmp_path / "out"):
        assert result.exception is None or isinstance(result.exception, SystemExit)
    with pytest.raises(RunFolderError):
        Tokens.read(folder / "cache" / "x.pkl")
    assert not made.exists()


@pytest.mark.parametrize("key", ["../../secret", "/etc/passwd", "0123456789abcde", "0123456789ABCDEF", "a" * 16 + "\n"])
def test_keys_lead_nowhere(folder: Path, tmp_path: Path, key: str) -> None:
    raw = json.loads((folder / "study.json").read_text())
    raw["trials"][0]["key"] = key
    (folder / "study.json").write_text(json.dumps(raw))
    for read in (status_of, lambda one: join(tmp_path, one)):
        with pytest.raises(RunFolderError, match=r"study\.json: not a record that noisytune wrote") as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    for result in every_command(folder, tmp_path / "out"):
        assert result.exit_code == 1


def test_names_are_shown_as_text(folder: Path, tiny_study: Study, tmp_path: Path) -> None:
    """Escape sequences in a study's name, a reason, a host; nothing of them reaches the terminal."""
    red = "\x1b[31m\x1b]8;;http://e\x07\u202e\x9b"
    study = replace(tiny_study.record, name=red, model=tiny_study.record.model | {"name": red})
    Store(folder).write_study(study)
    key = tiny_study.plan[3].key
    (folder / "failed").mkdir()
    failure = {
        "format": 2,
        "key": key,
        "cause": red,
        "reason": red,
        "last_words": f"{red}\n{red}",
        "process": {"host": red},
    }
    (folder / "failed" / f"{key}.json").write_text(json.dumps(failure))
    (folder / "claims").mkdir()
    claim = {"process": {"host": red, "place": red, "pid": os.getpid(), "began": red}, "since": red}
    (folder / "claims" / f"{key}.json").write_text(json.dumps(claim))
    for result in every_command(folder, tmp_path / "out"):
        assert result.exit_code == 0, result.output
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(result.output)
    for page in (tmp_path / "out" / "pages").iterdir():
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(page.read_text())
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set((tmp_path / "out" / "x.csv").read_text())


@pytest.mark.parametrize("place", ["trials", "failed", "claims"])
def test_folders_that_are_links_are_not_written_through(folder: Path, tmp_path: Path, place: str) -> None:
    if (folder / place).exists():
        (folder / place).rename(tmp_path / "elsewhere")
    else:
        (tmp_path / "elsewhere").mkdir()
    (folder / place).symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").iterdir())
    with pytest.raises(RunFolderError, match=f"{place} is a link to"), Store(folder).lock():
        pass
    assert sorted((tmp_path / "elsewhere").iterdir()) == before
