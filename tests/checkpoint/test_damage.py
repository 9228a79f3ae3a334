"""Damaged, hostile and half-downloaded checkpoints: one clear line, and nothing written; never a wrong result."""

import json
import os
import random
import shutil
import string
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from noisytune import field
from noisytune._noise.kernels import DTYPES
from noisytune._pretrained import Model
from noisytune.checkpoint import perturb_checkpoint, verify_checkpoint
from noisytune.checkpoint._code import may_be_built
from noisytune.errors import DataError, NoisyTuneError
from noisytune.lab.trials.tokens import without_weights
from tests.support.checkpoints import save

RNG = np.random.default_rng(0)
WEIGHTS = {
    "a": RNG.standard_normal((3, 4), np.float32),
    "b": RNG.standard_normal(5).astype(np.float16),
    "c": np.arange(3),
}
INDEX = "model.safetensors.index.json"
MUTATIONS = 2400


@pytest.fixture
def fast():
    """A folder in memory, where there is one: every published file is synced."""
    folder = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp") / f"noisytune-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def file_of(header, data=b"\0" * 16):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


DAMAGED = {
    "empty": (b"", "truncated"),
    "no header": (b"\1\0\0", "truncated"),
    "header longer than the file": ((10**6).to_bytes(8, "little") + b"{}", "truncated"),
    "header beyond the limit": ((2**60).to_bytes(8, "little") + b"{}", "truncated"),
    "not JSON": (file_of(b"{'a'"), "not JSON"),
    "not UTF-8": (file_of(b'{"\xff": 1}'), "not JSON"),
    "nested without end": (file_of(b"[" * 100_000), "not JSON"),
    "a list": (file_of([]), "JSON object"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 1}, "x": entry()}), "__metadata__"),
    "twice": (file_of(b'{"x": 1, "x": 2}'), "'x' is there twice"),
    "no offsets": (file_of({"x": {"dtype": "F32", "shape": [4]}}), "'x'"),
    "unknown dtype": (file_of({"x": entry("F99")}), "'F99'"),
    "dtype of another type": (file_of({"x": entry(["F32"])}), "'x'"),
    "packed": (file_of({"x": entry("F4", (32,))}), "quantised"),
    "negative shape": (file_of({"x": entry(shape=(-4,))}), "'x'"),
    "shape of truth values": (file_of({"x": entry(shape=(True, 4))}), "'x'"),
    "huge shape": (file_of({"x": entry(shape=(2**62,) * 1000)}), "'x'"),
    "shape does not fit": (file_of({"x": entry(shape=(5,))}), "do not fit"),
    "out of range": (file_of({"x": entry(offsets=(0, 32), shape=(8,))}), "outside"),
    "reversed": (file_of({"x": entry(offsets=(16, 0))}), "outside"),
    "overlap": (file_of({"x": entry(), "y": entry("F16", (4,), (8, 16))}), "overlaps"),
    "hole": (file_of({"x": entry(offsets=(8, 16), shape=(2,))}), "hole"),
    "too long": (file_of({"x": entry()}, b"\0" * 17), "end at byte"),
    "no tensors": (file_of({}, b""), "no tensors"),
}


@pytest.mark.parametrize(("content", "words"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_files_are_one_line_naming_the_file(content, words, tmp_path):
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "model.safetensors").write_bytes(content)
    with pytest.raises(NoisyTuneError, match=words) as caught:
        perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy")
    assert "\n" not in str(caught.value)
    assert "clean" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert os.listdir(tmp_path) == ["clean"]


def sharded(folder):
    folder.mkdir()
    weight_map = {}
    for name, value in WEIGHTS.items():
        safetensors.numpy.save_file({name: value}, folder / f"{name}.safetensors")
        weight_map[name] = f"{name}.safetensors"
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 82}, "weight_map": weight_map}))
    return folder


WRONG_INDEX = {
    "missing file": ({"a": "gone.safetensors"}, "is missing"),
    "absolute": ({"a": "/etc/x.safetensors"}, "a file of this directory"),
    "upwards": ({"a": "../a.safetensors"}, "a file of this directory"),
    "below": ({"a": "sub/a.safetensors"}, "a file of this directory"),
    "with a backslash": ({"a": "..\\a.safetensors"}, "a file of this directory"),
    "another kind": ({"a": "a.bin"}, "a file of this directory"),
    "no string": ({"a": 1}, "a file of this directory"),
    "tensor not in its file": ({"a": "b.safetensors", "b": "b.safetensors"}, "'a' is not in b.safetensors"),
    "tensor not in the index": ({"a": "a.safetensors", "b": "b.safetensors", "c": "b.safetensors"}, "'c'"),
    "empty": ({}, "no weight_map"),
}


@pytest.mark.parametrize(("weight_map", "words"), WRONG_INDEX.values(), ids=WRONG_INDEX)
def test_an_index_that_does_not_fit_is_refused(weight_map, words, tmp_path):
    folder = sharded(tmp_path / "clean")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(DataError, match=words) as caught:
        perturb_checkpoint(folder, tmp_path / "noisy")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["clean"]


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = sharded(tmp_path / "clean")
    safetensors.numpy.save_file({"a": WEIGHTS["a"], "b": WEIGHTS["b"]}, folder / "b.safetensors")
    with pytest.raises(DataError, match="'a'"):
        perturb_checkpoint(folder, tmp_path / "noisy")


def test_links_out_of_the_directory_are_refused_and_the_hub_s_cache_is_fine(tmp_path):
    secret = tmp_path / "secret.safetensors"
    safetensors.numpy.save_file(WEIGHTS, secret)
    folder = tmp_path / "clean"
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(secret)
    with pytest.raises(DataError, match="link out of the directory"):
        perturb_checkpoint(folder, tmp_path / "noisy")
    (folder / "model.safetensors").unlink()
    shutil.copy(secret, folder / "model.safetensors")
    (folder / "vocab.txt").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="link out of the directory"):
        perturb_checkpoint(folder, tmp_path / "noisy")

    cache = tmp_path / "models--someone--bert"
    snapshot = cache / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    shutil.copy(secret, cache / "blobs" / "123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/123")
    perturb_checkpoint(snapshot, tmp_path / "noisy")
    assert not (tmp_path / "noisy" / "model.safetensors").is_symlink()
    assert "someone/bert" in (tmp_path / "noisy" / "README.md").read_text()
    (snapshot / "vocab.txt").symlink_to("../../blobs/gone")
    with pytest.raises(DataError, match="does not exist"):
        perturb_checkpoint(snapshot, tmp_path / "other")


def test_folders_without_a_model_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such directory"):
        perturb_checkpoint(tmp_path / "gone", tmp_path / "noisy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a model's directory"):
        perturb_checkpoint(tmp_path / "empty", tmp_path / "noisy")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="adapter"):
        perturb_checkpoint(tmp_path / "empty", tmp_path / "noisy")


ODD = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**400,
    0.5,
    "",
    "F32",
    "BF16",
    "I8",
    [],
    {},
    [0],
    [0, 0],
    [10**9, 4],
    {"a": 1},
]


def mutated(content, rng):
    """One of: changed bytes, a cut, a splice, or the JSON with one value replaced."""
    kind = rng.randrange(5)
    changed = bytearray(content)
    if kind == 0:
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(min(len(changed), 400))] = rng.randrange(256)
    elif kind == 1:
        del changed[rng.randrange(len(changed)) :]
    elif kind == 2:
        at = rng.randrange(len(changed))
        changed[at:at] = rng.choice(string.printable).encode() * rng.randint(1, 9)
    elif kind == 3:
        changed[0:8] = rng.choice([0, 1, 7, 2**20, 2**40, 2**63, 2**64 - 1, len(content)]).to_bytes(8, "little")
    else:
        start = 8 if content[:1] != b"{" else 0
        length = int.from_bytes(content[:8], "little") if start else len(content)
        text = json.dumps(replaced(json.loads(content[start : start + length]), rng)).encode()
        head = len(text).to_bytes(8, "little") if start else b""
        return head + text + content[start + length :]
    return bytes(changed)


def replaced(value, rng):
    """The value with one part of it, at any depth, replaced by an odd one, renamed or removed."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(ODD)
    copy = dict(value) if isinstance(value, dict) else list(value)
    key = rng.choice(list(copy)) if isinstance(copy, dict) else rng.randrange(len(copy))
    action = rng.random()
    if action < 0.1:
        del copy[key]
    elif action < 0.2 and isinstance(copy, dict):
        copy[rng.choice(["a", "x", "", "__metadata__", "../x"])] = copy.pop(key)
    else:
        copy[key] = replaced(copy[key], rng)
    return copy


def outcome(folder, out):
    """The names that were written, or None for a refusal; either must be right."""
    try:
        perturb_checkpoint(folder, out, seed=1, threads=1)
    except NoisyTuneError as error:
        text = str(error)
        return None if "\n" not in text and not out.exists() else f"a refusal of several lines or with an OUT: {text}"
    return sorted(path.name for path in out.glob("*.safetensors"))


def is_right(before, after):
    """Against the safetensors library and the plain NumPy specification."""
    clean, noisy = safetensors.numpy.load_file(before), safetensors.numpy.load_file(after)
    for name, values in clean.items():
        expected = values
        if values.dtype in DTYPES and values.size > 1 and (values != values.flat[0]).any():
            std = float(np.std(values.astype(np.float64), ddof=1))
            expected = field.add_noise(values, std, 0.15, "uniform", 1, name)
        pair = (noisy[name].astype(np.float64), expected.astype(np.float64))
        if not np.allclose(*pair, rtol=1e-2, atol=1e-6):
            return False
    return clean.keys() == noisy.keys()


@pytest.mark.parametrize("part", range(4))
def test_mutated_headers_and_indices_never_crash_nor_give_a_wrong_checkpoint(part, fast):
    rng = random.Random(part)
    folder = sharded(fast / "clean")
    contents = {name: (folder / name).read_bytes() for name in (INDEX, "a.safetensors", "b.safetensors")}
    seen = {"refused": 0, "written": 0}
    limit = sys.getrecursionlimit()
    for number in range(MUTATIONS // 4):
        name = rng.choice(list(contents))
        content = mutated(contents[name], rng)
        (folder / name).write_bytes(content)
        written = outcome(folder, fast / "noisy")
        if written is None:
            seen["refused"] += 1
        else:
            assert written == sorted(set(json.loads((folder / INDEX).read_text())["weight_map"].values()))
            assert all(is_right(folder / file, fast / "noisy" / file) for file in written), (number, content)
            seen["written"] += 1
            shutil.rmtree(fast / "noisy")
        assert sorted(os.listdir(fast)) == ["clean"], (number, content)
        (folder / name).write_bytes(contents[name])
    assert seen["refused"] > 300
    assert seen["written"] > 10
    assert sys.getrecursionlimit() == limit


def test_an_adapter_beside_the_model_is_refused(tmp_path):
    """transformers lays it over the model, whose noise would be that of other weights; a copy would lack its file."""
    folder = save(tmp_path / "both", config={"model_type": "bert"})
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(DataError, match="an adapter beside the model: merge it, or remove adapter_config"):
        perturb_checkpoint(folder, tmp_path / "noisy")
    with pytest.raises(DataError, match="an adapter beside the model"):
        Model.find(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match="is an adapter, not a model"):
        Model.find(str(folder))


def test_a_configuration_without_bottom_is_refused(tmp_path):
    deep = '{"model_type": "x", "a": ' * 300 + "{}" + "}" * 300
    folder = save(tmp_path / "clean")
    (folder / "config.json").write_text(deep)
    with pytest.raises(DataError, match=r"config\.json: is corrupt: more than 100 objects and lists lie in each other"):
        perturb_checkpoint(folder, tmp_path / "noisy")


@pytest.mark.parametrize("earlier", ["x", 3, [1]])
def test_a_record_of_earlier_noise_that_is_none_is_refused(earlier, tmp_path):
    perturb_checkpoint(save(tmp_path / "clean"), tmp_path / "noisy")
    file = tmp_path / "noisy" / "noisytune.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"earlier": earlier}))
    with pytest.raises(DataError, match=r"noisytune\.json: says nothing about a checkpoint's files"):
        verify_checkpoint(tmp_path / "noisy")


def test_a_pickle_that_repeats_one_value_without_end_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="writes torch's own files")
    folder = save(tmp_path / "clean")
    (folder / "model.safetensors").unlink()
    torch.save({"a": torch.zeros(1).expand(1 << 42)}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"'a', shape \(4398046511104,\), has more values than the file holds"):
        perturb_checkpoint(folder, tmp_path / "noisy")
    values = torch.randn(800, 800)
    for times, fits in ((6, True), (200, False)):  # a layer that serves several times
        torch.save({f"{i}.weight": values for i in range(times)}, folder / "pytorch_model.bin")
        if fits:
            assert len(perturb_checkpoint(folder, tmp_path / "noisy").perturbed) >= 1
        else:
            with pytest.raises(DataError, match="the same values more than 100 times"):
                perturb_checkpoint(folder, tmp_path / "again")


@pytest.mark.parametrize("shape", [(10**9, 2, 0), (2, 2, 0), (0, 4, 3)])
def test_a_stack_of_no_elements_has_no_parts(shape, tmp_path):
    """So few bytes of a header would otherwise make a billion names."""
    weights = WEIGHTS | {"model.layers.0.mlp.experts.gate_up_proj": np.zeros((2, 2, 0), np.float32)}
    folder = save(tmp_path / "clean", weights, {"model_type": "mixtral"})
    file = folder / "model.safetensors"
    content = file.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["model.layers.0.mlp.experts.gate_up_proj"]["shape"] = list(shape)
    file.write_bytes(file_of(header, content[8 + size :]))
    manifest = perturb_checkpoint(folder, tmp_path / "noisy")
    assert not [entry for entry in manifest.perturbed if "experts" in entry.name]


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_who_may_read_the_weights_is_who_could_before(file, tmp_path):
    folder = save(tmp_path / "clean")
    (folder / "run.sh").write_text("true\n")
    if file.endswith(".bin"):
        torch = pytest.importorskip("torch", reason="writes torch's own files")
        torch.save({"a": torch.randn(4, 3)}, folder / file)
        (folder / "model.safetensors").unlink()
    for name, mode in ((file, 0o600), ("run.sh", 0o755)):
        (folder / name).chmod(mode)
    mask = os.umask(0o022)
    try:
        perturb_checkpoint(folder, tmp_path / "noisy")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "noisy").iterdir()}
    assert (modes["model.safetensors"], modes["run.sh"]) == (0o600, 0o755)


STRANGE = [
    {"model_type": "timm_wrapper", "architecture": "resnet18", "model_args": {"checkpoint_path": "evil.pth"}},
    {"model_type": "gemma3n", "vision_config": {"model_type": "timm_wrapper", "model_args": {}}},
    {"model_type": "emu3", "text_config": {"num_hidden_layers": 10**8}},
    {"model_type": "cvt", "depth": [10**8, 1, 1]},
    {"model_type": "albert", "inner_group_num": 10**8},
]


@pytest.mark.parametrize("config", STRANGE, ids=lambda config: config["model_type"])
def test_a_configuration_whose_model_must_not_be_built_is_not(config, tmp_path, monkeypatch):
    """Building it would read a file that it names, a pickle perhaps, or never end."""
    transformers = pytest.importorskip("transformers", reason="builds models")
    built = []
    monkeypatch.setattr(transformers.AutoModel, "from_config", lambda *args, **settings: built.append(args))
    folder = save(tmp_path / "clean", config=config)
    perturb_checkpoint(folder, tmp_path / "noisy")
    assert without_weights(folder) is None
    assert not built
    assert not may_be_built(config, 1000)


def test_names_of_classes_say_nothing_about_what_is_built():
    config = {
        "model_type": "convnext",
        "label2id": {"depth": 5437, "layers": 10**6},
        "depth_multiplier_channels": 10**6,
    }
    assert may_be_built(config, 344)


def test_a_strangers_code_is_neither_run_nor_asked_about(tmp_path, monkeypatch):
    pytest.importorskip("transformers", reason="builds models")
    monkeypatch.setattr("builtins.input", lambda *said: pytest.fail(f"asked {said}"))
    folder = save(tmp_path / "clean", config={"model_type": "vitmatte", "auto_map": {"AutoModel": "evil.Model"}})
    perturb_checkpoint(folder, tmp_path / "noisy")
    assert without_weights(folder) is None
