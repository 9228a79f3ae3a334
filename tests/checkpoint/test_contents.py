"""What lies beside the weights: carried along, or named; and what is no file at all."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy

from noisytune.checkpoint import inspect_checkpoint, perturb_checkpoint, verify_checkpoint
from noisytune.errors import DataError

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 440449768\n"


@pytest.fixture
def clean(tmp_path):
    folder = tmp_path / "clean"
    folder.mkdir()
    weights = {"bert.pooler.dense.weight": np.eye(4, dtype=np.float32)}
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    return folder


def write(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def test_layers_in_folders_of_their_own_are_carried_along_and_exports_named(clean, tmp_path):
    layers = ("2_Dense/pytorch_model.bin", "3_Router/a/model.onnx", "4_Dense/model.safetensors", "value_head/head.pt")
    exports = ("onnx/model.onnx", "onnx/model_qint8.bin", "original/consolidated.00.pth", "openvino/model.bin")
    write(clean, *layers, *exports)
    (clean / "modules.json").write_text(json.dumps([{"path": ""}, {"path": "2_Dense"}, {"path": "3_Router"}]))
    (clean / "5_Normalize").mkdir()
    manifest = perturb_checkpoint(clean, tmp_path / "noisy")
    for name in layers:
        assert (tmp_path / "noisy" / name).read_text() == name
    assert (tmp_path / "noisy" / "5_Normalize").is_dir()
    for name in exports:
        assert not (tmp_path / "noisy" / name).exists()
        assert name in manifest.notices[0]


def test_links_to_folders_stay_links(clean, tmp_path):
    write(clean, "real/inner/vocab.txt", ".hidden/x")
    (clean / "linked").symlink_to("real/inner")
    (clean / "real" / "back").symlink_to(clean)
    (clean / "to_hidden").symlink_to(".hidden")
    manifest = perturb_checkpoint(clean, tmp_path / "noisy")
    noisy = tmp_path / "noisy"
    assert (noisy / "linked" / "vocab.txt").read_text() == "real/inner/vocab.txt"
    assert (noisy / "real" / "back").resolve() == noisy
    assert ".hidden, to_hidden" in ", ".join(manifest.notices)
    assert verify_checkpoint(noisy, clean).ok


def test_what_is_no_file_is_named(clean, tmp_path):
    os.mkfifo(clean / "pipe")
    (notice,) = perturb_checkpoint(clean, tmp_path / "noisy").notices
    assert "pipe" in notice


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "pytorch_model.bin"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(clean, name):
    (clean / "model.safetensors").unlink()
    if name == "config.json":
        (clean / name).unlink()
    os.mkfifo(clean / name)
    with pytest.raises(DataError, match=f"{name}: is a named pipe"):
        inspect_checkpoint(clean)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "spiece.model"])
def test_pointers_of_git_lfs_are_called_so(clean, name):
    (clean / name).write_text(POINTER)
    with pytest.raises(DataError, match=f"{name}: is a pointer of git-lfs.*git lfs pull"):
        inspect_checkpoint(clean)


def test_shards_that_are_pointers_are_called_so_and_other_files_are_named(clean, tmp_path):
    (clean / "figure.png").write_text(POINTER)
    assert "git-lfs" in perturb_checkpoint(clean, tmp_path / "noisy").notices[0]
    shard = "model-00001-of-00001.safetensors"
    (clean / "model.safetensors").unlink()
    (clean / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    (clean / shard).write_text(POINTER)
    with pytest.raises(DataError, match=f"{shard}: is a pointer of git-lfs"):
        inspect_checkpoint(clean)


def test_weights_in_a_subfolder_are_pointed_at(clean):
    write(clean, "0_Transformer/x")
    (clean / "model.safetensors").rename(clean / "0_Transformer" / "model.safetensors")
    with pytest.raises(DataError, match="0_Transformer has some"):
        inspect_checkpoint(clean)


def test_names_that_no_locale_can_spell_are_carried_along(clean, tmp_path):
    odd = os.fsdecode(b"caf\xe9.txt")
    (clean / odd).write_text("x")
    (clean / "README.md").write_bytes(b"caf\xe9\n")
    source = clean.rename(tmp_path / os.fsdecode(b"mod\xe8le"))
    perturb_checkpoint(source, tmp_path / "noisy")
    assert (tmp_path / "noisy" / odd).read_text() == "x"
    card = (tmp_path / "noisy" / "README.md").read_bytes()
    assert card.startswith(b"caf\xe9\n")
    assert b"mod\xe8le" in card
    assert verify_checkpoint(tmp_path / "noisy", source).ok


def test_verify_covers_the_files_beside_the_weights_where_asked(clean, tmp_path):
    write(clean, "tokenizer.json", "2_Dense/pytorch_model.bin")
    noisy = tmp_path / "noisy"
    perturb_checkpoint(clean, noisy)
    found = verify_checkpoint(noisy, every_file=True)
    assert (found.ok, found.files, found.others) == (True, 4, ())
    (noisy / "mine.py").write_text("x")
    assert verify_checkpoint(noisy, clean, every_file=True).others == ("mine.py",)
    (noisy / "2_Dense" / "pytorch_model.bin").unlink()
    (noisy / "tokenizer.json").write_text("changed")
    assert verify_checkpoint(noisy, clean).ok
    problems = verify_checkpoint(noisy, clean, every_file=True).problems
    assert sorted(problem.split("noisy/")[1] for problem in problems) == [
        "2_Dense/pytorch_model.bin: is missing",
        "tokenizer.json: is not what was written",
    ]
    record = json.loads((noisy / "noisytune.json").read_text())
    del record["files"]
    (noisy / "noisytune.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match="earlier versions"):
        verify_checkpoint(noisy, every_file=True)
    assert verify_checkpoint(noisy).ok


def test_every_suffix_that_weights_have_is_carried_or_named(clean, tmp_path):
    names = ("a.bin", "b.pt", "c.h5", "d.onnx", "sub/e.gguf", "sub/f.ckpt", "training_args.bin", "g.safetensors")
    names += ("bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.index", "saved_model.pb", "weights.npz")
    write(clean, *names)
    manifest = perturb_checkpoint(clean, tmp_path / "noisy")
    for name in names:
        assert (tmp_path / "noisy" / name).exists() != (name in manifest.notices[0])
    assert "bert_model.ckpt.data-00000-of-00001" in manifest.notices[0]
    assert "saved_model.pb" in manifest.notices[0]


def test_pickles_that_are_no_weights_are_carried_along(clean, tmp_path):
    kept, left = ("spk_dict.pt", "colbert_linear.pt", "training_args.bin"), ("optimizer.pt", "model.ckpt")
    write(clean, *kept, *left)
    (notice,) = perturb_checkpoint(clean, tmp_path / "noisy").notices
    assert all((tmp_path / "noisy" / name).read_text() == name for name in kept)
    assert all(name in notice and not (tmp_path / "noisy" / name).exists() for name in left)
