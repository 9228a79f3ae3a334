"""Killed, out of space, two at once, or read-only: OUT is whole or absent, and the source untouched."""

import errno
import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.numpy

from noisytune.checkpoint import _folder, _write, perturb_checkpoint, verify_checkpoint
from noisytune.checkpoint._safetensors import make_header
from noisytune.errors import DataError

PROGRAM = """
import sys
from noisytune.checkpoint import perturb_checkpoint
from noisytune.errors import NoisyTuneError
print("ready", flush=True)
sys.stdin.readline()
try:
    perturb_checkpoint(sys.argv[1], sys.argv[2], seed=1)
except NoisyTuneError as error:
    sys.exit(str(error))
"""


def save(folder, megabytes):
    """Several shards' worth of tensors in one file, written without holding them."""
    folder.mkdir()
    each = 4_000_000
    count = max(1, megabytes * 10**6 // each)
    header = make_header([(f"layer.{i}.weight", "float32", (1000, 1000), each) for i in range(count)])
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        for seed in range(count):
            file.write(np.random.default_rng(seed).standard_normal(10**6, np.float32).tobytes())
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def start(source, out):
    """A process that is about to perturb; it waits for a line."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, source, out], stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def killed_at_random(folder, megabytes, times):
    source, out = save(folder / "clean", megabytes), folder / "noisy"
    begin = time.perf_counter()
    start(source, out).communicate("go\n")
    whole = time.perf_counter() - begin
    shutil.rmtree(out)
    rng, absent = random.Random(0), 0
    for _ in range(times):
        process = start(source, out)
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, whole))
        process.kill()
        process.communicate()
        if out.exists():
            assert verify_checkpoint(out, source).ok
            shutil.rmtree(out)
        else:
            absent += 1
    perturb_checkpoint(source, out, seed=1)
    assert verify_checkpoint(out, source).ok
    assert sorted(os.listdir(folder)) == ["clean", "noisy"]
    return absent


def test_a_killed_run_leaves_nothing_or_everything(tmp_path):
    killed_at_random(tmp_path, 40, 4)


@pytest.mark.slow
def test_forty_killed_runs_of_a_large_checkpoint(tmp_path):
    assert killed_at_random(tmp_path, 1000, 40) > 5


def test_a_leftover_is_cleaned(tmp_path):
    source = save(tmp_path / "clean", 4)
    leftover = tmp_path / ".noisy.noisytune-tmp"
    (leftover / "sub").mkdir(parents=True)
    (leftover / "model.safetensors").write_text("half")
    (leftover / "sub" / "x").touch()
    (leftover / "link").symlink_to(source)
    perturb_checkpoint(source, tmp_path / "noisy")
    assert sorted(os.listdir(tmp_path)) == ["clean", "noisy"]
    assert verify_checkpoint(tmp_path / "noisy", source).ok
    assert sorted(os.listdir(tmp_path / "noisy")) == ["README.md", "config.json", "model.safetensors", "noisytune.json"]


@pytest.mark.slow
def test_of_two_writers_one_wins_and_the_other_says_so(tmp_path):
    source, out = save(tmp_path / "clean", 40), tmp_path / "noisy"
    for _ in range(3):
        processes = [start(source, out) for _ in range(3)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate()[1] for process in processes]
        assert sorted(process.returncode for process in processes) == [0, 1, 1]
        for error in filter(None, errors):
            assert "another process is writing there" in error or "holds something" in error
        assert verify_checkpoint(out, source).ok
        assert sorted(os.listdir(tmp_path)) == ["clean", "noisy"]
        shutil.rmtree(out)


def test_an_out_that_appears_meanwhile_is_not_touched(tmp_path, monkeypatch):
    source, out = save(tmp_path / "clean", 4), tmp_path / "noisy"
    make_durable = _folder._make_durable

    def someone_else_comes_first(folder):
        make_durable(folder)
        out.mkdir()
        (out / "theirs").touch()

    monkeypatch.setattr(_folder, "_make_durable", someone_else_comes_first)
    with pytest.raises(DataError, match="was not there before"):
        perturb_checkpoint(source, out)
    assert os.listdir(out) == ["theirs"]
    assert sorted(os.listdir(tmp_path)) == ["clean", "noisy"]


def test_too_little_space_is_said_before_anything_is_read(tmp_path, monkeypatch):
    source = save(tmp_path / "clean", 4)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=3_000_000))
    monkeypatch.setattr(
        "noisytune.checkpoint._stream.in_threads", lambda *arguments: pytest.fail("the weights were read")
    )
    with pytest.raises(DataError, match=r"needs 0\.01 GB, but the disk has only 0\.00 GB free"):
        perturb_checkpoint(source, tmp_path / "noisy")
    assert os.listdir(tmp_path) == ["clean"]


def test_long_files_are_synced_while_they_are_written(tmp_path, monkeypatch):
    source, synced = save(tmp_path / "clean", 4), []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), sync(handle))[1])
    monkeypatch.setattr(_write, "_SYNC_AFTER", 1 << 20)
    perturb_checkpoint(source, tmp_path / "noisy")
    assert len(synced) > os.path.getsize(source / "model.safetensors") >> 20
    assert verify_checkpoint(tmp_path / "noisy", source).ok


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync", "rename", "mkdir"])
def test_a_disk_that_fills_up_leaves_nothing(call, tmp_path, monkeypatch):
    source = save(tmp_path / "clean", 8)
    calls = []

    def full(*arguments, **options):
        calls.append(arguments)
        if call != "mkdir" and len(calls) < 2 and call != "rename":
            return original(*arguments, **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    original = getattr(os, call)
    monkeypatch.setattr(os, call, full)
    if call == "posix_fallocate":
        calls.append(None)
    with pytest.raises(DataError, match="the disk is full"):
        perturb_checkpoint(source, tmp_path / "noisy")
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["clean"]


def test_a_small_disk(tmp_path, monkeypatch):
    source, disk = save(tmp_path / "clean", 20), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        with pytest.raises(DataError, match=r"has only 0\.02 GB free"):
            perturb_checkpoint(source, disk / "noisy")
        monkeypatch.setattr("noisytune.checkpoint.check_space", lambda place, needed: None)
        with pytest.raises(DataError, match="the disk is full"):
            perturb_checkpoint(source, disk / "noisy")
        assert os.listdir(disk) == []
    finally:
        subprocess.run(["umount", disk], check=True)


def test_an_interruption_by_the_user_leaves_nothing(tmp_path):
    source = save(tmp_path / "clean", 40)

    def interrupt(done, total):
        if done > 0.7 * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        perturb_checkpoint(source, tmp_path / "noisy", progress=interrupt)
    assert os.listdir(tmp_path) == ["clean"]


def test_a_read_only_source_is_enough_and_stays_as_it_was(tmp_path):
    source = save(tmp_path / "clean", 4)
    safetensors.numpy.save_file({"x": np.ones(2)}, source / "other.safetensors")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.iterdir()}
    for path in [*source.iterdir(), source]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        perturb_checkpoint(source, tmp_path / "noisy")
        with (tmp_path / "noisy" / "config.json").open("a"):
            pass
    finally:
        source.chmod(0o755)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in source.iterdir()} == before


def test_memory_does_not_grow_with_the_tensor(tmp_path):
    source = tmp_path / "clean"
    source.mkdir()
    size = 300_000_000
    header = make_header([("weight", "float32", (size // 4000, 1000), size)])
    with (source / "model.safetensors").open("wb") as file:
        file.write(header)
        rows = np.random.default_rng(0).standard_normal(10**6, np.float32).tobytes()
        for _ in range(size // 4_000_000):
            file.write(rows)
    program = (
        "import sys; from noisytune.checkpoint import perturb_checkpoint as p; p(*sys.argv[1:3]);"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    if not os.path.exists("/proc/self/status"):
        pytest.skip("the peak of resident memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "-c", program, source, tmp_path / "noisy"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 280_000
