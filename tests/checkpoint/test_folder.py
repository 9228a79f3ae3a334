"""The new folder's place: locks that are not there, planted links, other users' folders, signals."""

import errno
import fcntl
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from noisytune._files import publish
from noisytune.checkpoint import perturb_checkpoint, verify_checkpoint
from noisytune.errors import DataError


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    weights = {f"bert.layer.{i}.weight": np.random.default_rng(i).standard_normal((300, 300)) for i in range(4)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def refuse_locks(monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_mount_point_is_refused_before_anything_is_done(clean, tmp_path, monkeypatch):
    """It is empty, so that it looks like a good place, and cannot be replaced."""
    out = tmp_path / "mounted"
    out.mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(out))
    with pytest.raises(DataError, match=r"mounted: is a mount point.* give a new folder inside it"):
        perturb_checkpoint(clean, out)
    perturb_checkpoint(clean, out / "noisy")


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EBADF", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_a_notice(code, clean, tmp_path, monkeypatch):
    refuse_locks(monkeypatch, getattr(errno, code))
    manifest = perturb_checkpoint(clean, tmp_path / "noisy")
    assert "knows no locks" in manifest.notices[-1]
    assert verify_checkpoint(tmp_path / "noisy", clean).ok
    assert sorted(os.listdir(tmp_path)) == ["clean", "noisy"]


def test_without_locks_another_writer_s_folder_is_left_alone(clean, tmp_path, monkeypatch):
    refuse_locks(monkeypatch, errno.ENOLCK)
    theirs = tmp_path / ".noisy.noisytune-tmp" / "0123"
    theirs.mkdir(parents=True)
    (theirs / "model.safetensors").write_text("half")
    perturb_checkpoint(clean, tmp_path / "noisy")
    assert (theirs / "model.safetensors").read_text() == "half"


def test_no_permission_to_lock_is_not_another_process(clean, tmp_path, monkeypatch):
    refuse_locks(monkeypatch, errno.EACCES)
    with pytest.raises(DataError, match="cannot be locked") as caught:
        perturb_checkpoint(clean, tmp_path / "noisy")
    assert "another process" not in str(caught.value)
    assert os.listdir(tmp_path) == ["clean"]


def test_a_system_without_fcntl_is_a_notice(clean, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert "knows no locks" in perturb_checkpoint(clean, tmp_path / "noisy").notices[-1]


def test_a_system_that_holds_no_folders_says_what_to_do_instead(clean, tmp_path, monkeypatch):
    monkeypatch.delattr(os, "O_DIRECTORY")
    with pytest.raises(DataError, match=r"Linux and macOS only.*perturb_\(model\), and save it"):
        perturb_checkpoint(clean, tmp_path / "noisy", noise_lambda=0.1)
    assert not list(tmp_path.glob("*noisy*"))


def test_a_planted_link_leads_nowhere(clean, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("mine")
    (tmp_path / ".noisy.noisytune-tmp").symlink_to(victim)
    with pytest.raises(DataError, match=r"\.noisy\.noisytune-tmp: is no folder of this user"):
        perturb_checkpoint(clean, tmp_path / "noisy")
    assert os.listdir(victim) == ["precious"]


def test_published_files_follow_no_link_and_guess_no_name(tmp_path):
    victim, target = tmp_path / "victim", tmp_path / "target"
    victim.write_text("mine")
    target.symlink_to(victim)
    for name in (f".noisytune-tmp-target-{os.getpid()}", f".noisytune-tmp-{os.getpid()}"):
        (tmp_path / name).symlink_to(victim)
    publish(target, b"new")
    assert (victim.read_text(), target.read_bytes(), target.is_symlink()) == ("mine", b"new", False)


def test_an_unreadable_source_is_not_called_unwritable(clean, tmp_path, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(DataError, match=r"clean/model\.safetensors: cannot be read at byte"):
        perturb_checkpoint(clean, tmp_path / "noisy")
    assert os.listdir(tmp_path) == ["clean"]


def test_a_disk_that_reserves_no_space_is_written_all_the_same(clean, tmp_path, monkeypatch):
    def unable(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unable, raising=False)
    perturb_checkpoint(clean, tmp_path / "noisy")
    assert verify_checkpoint(tmp_path / "noisy", clean).ok


SLOW = """
import os, signal, sys, time
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests may run under nohup
signal.signal(signal.SIGINT, signal.default_int_handler)  # or in the background of a script
from noisytune.checkpoint import _job
_job.Meter.advance = lambda self, count: (os.write(1, b"reading\\n"), time.sleep(1))
from noisytune.cli import app
app(sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGUSR1"])
def test_every_signal_that_can_be_caught_leaves_nothing(name, clean, tmp_path):
    command = [sys.executable, "-c", SLOW, "perturb", clean, tmp_path / "noisy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "reading\n"
        assert len(os.listdir(tmp_path)) == 2
        process.send_signal(getattr(signal, name))
        _, said = process.communicate()
    assert process.returncode == 128 + getattr(signal, name)
    assert "Nothing was left half written." in said
    assert "trials" not in said
    assert os.listdir(tmp_path) == ["clean"]
