"""Which weights are meant, and whether they are still the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from noisytune import _pretrained as model_module
from noisytune._pretrained import (
    Model,
    configuration,
    default_model,
    find_directory,
    model_digest,
    positions,
    resolve_model,
    weight_files,
)
from noisytune.errors import DataError, MissingExtraError
from noisytune.lab.trials.head import is_fine_tuned


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "README.md"):
        (tmp_path / "m" / name).write_text(f'{{"file": "{name}"}}')
    return tmp_path / "m"


def test_the_default_model_is_there_and_has_a_name() -> None:
    found = Model.find()
    assert found.name == "all-MiniLM-L6-v2"
    assert found.path == default_model()
    assert (found.path / "model.safetensors").stat().st_size > 80_000_000


def test_a_directory_is_called_by_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    names = {Model.find(text).name for text in ("m", "./m", "m/", str(folder), "../" + folder.parent.name + "/m")}
    assert names == {"m"}


@pytest.mark.parametrize("damaged", ["", "{", "[1]", "[" * 100_000, None])
def test_a_configuration_that_cannot_be_read_says_nothing(folder: Path, damaged: str | None) -> None:
    if damaged is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(damaged)
    assert configuration(folder) == {}
    assert positions(folder) is None
    assert not is_fine_tuned(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"])
def test_whatever_the_model_reads_is_in_its_digest(folder: Path, name: str) -> None:
    before = model_digest(folder)
    (folder / name).write_text("changed")
    assert model_digest(folder) != before


def test_the_digest_looks_at_nothing_else(folder: Path) -> None:
    before = model_digest(folder)
    (folder / "README.md").write_text("changed")
    (folder / "optimizer.pt").write_text("state")
    (folder / "pytorch_model.bin").write_text("the safetensors win")
    shutil.copytree(folder, folder.parent / "copy")
    assert model_digest(folder) == before == model_digest(folder.parent / "copy")


def test_the_digest_covers_what_would_be_loaded_and_no_stray_file(folder: Path) -> None:
    stray = folder / "extra.safetensors"
    before = model_digest(folder)
    stray.write_text("a stranger's")
    assert model_digest(folder) == before
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    before = model_digest(folder)
    stray.write_text("changed")
    assert model_digest(folder) == before
    (folder / "pytorch_model.bin").write_text("changed")
    assert model_digest(folder) != before


def test_of_shards_the_digest_covers_those_of_the_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    shards = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for shard in (*shards, "extra.safetensors"):
        (folder / shard).write_text(shard)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    assert [file.name for file in weight_files(folder)] == shards
    before = model_digest(folder)
    (folder / "extra.safetensors").write_text("changed")
    assert model_digest(folder) == before
    (folder / shards[1]).write_text("changed")
    assert model_digest(folder) != before


def test_the_digest_covers_the_file_that_the_configuration_names(folder: Path) -> None:
    (folder / "config.json").write_text('{"transformers_weights": "mine.safetensors"}')
    with pytest.raises(DataError, match=r"mine\.safetensors: is missing"):
        weight_files(folder)
    (folder / "mine.safetensors").write_text("mine")
    assert [file.name for file in weight_files(folder)] == ["mine.safetensors"]
    (folder / "config.json").write_text('{"transformers_weights": "../mine.safetensors"}')
    with pytest.raises(DataError, match="of this directory"):
        weight_files(folder)


def test_digests_of_ordinary_models_stay_what_they_are(folder: Path) -> None:
    """A digest is part of every trial's key."""
    assert model_digest(folder) == "5db2b916992b6ecb"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_pointers_of_git_lfs_are_called_so(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(DataError, match=f"{name}: is a pointer of git-lfs"):
        resolve_model(str(folder))


def test_weights_in_the_old_format_count_where_there_are_no_others(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    before = model_digest(resolve_model(str(folder)))
    (folder / "pytorch_model.bin").write_text("changed")
    assert model_digest(folder) != before


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors"])
def test_a_directory_that_is_no_model_says_what_it_lacks(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(DataError, match=gone.split(".")[-1]):
        resolve_model(str(folder))


def test_weights_that_carry_noise_are_refused_when_they_are_found(tmp_path: Path, tiny: Model) -> None:
    from transformers import AutoModel

    import noisytune.torch

    model = AutoModel.from_pretrained(tiny.path)
    noisytune.torch.perturb_(model, noise_lambda=0.1, seed=7)
    model.save_pretrained(tmp_path / "noisy")
    with pytest.raises(
        DataError, match=r"noisy'.*already \(lambda 0\.1, seed 7\): give the clean checkpoint"
    ) as caught:
        Model.find(str(tmp_path / "noisy"))
    assert "again" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_carry_noise_are_found_by_those_who_accept_them(folder: Path) -> None:
    (folder / "config.json").write_text('{"noisytune": {"seed": 3}}')
    assert find_directory(str(folder)) == folder
    with pytest.raises(DataError, match=r"already \(seed 3\)"):
        resolve_model(str(folder))


def test_a_whole_model_of_the_hub_comes_without_copies_in_other_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def download(_: str, ignore_patterns: list[str], local_files_only: bool) -> str:
        asked.append(ignore_patterns)
        (tmp_path / "config.json").write_text('{"noisytune": {"seed": 3}}')
        if "pytorch_model*.bin" not in ignore_patterns:
            (tmp_path / "pytorch_model.bin").write_text("weights")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_directory("some/old-and-noisy-model", whole=True) == tmp_path
    assert ["pytorch_model*.bin" in patterns for patterns in asked] == [True, False]
    assert all("*.onnx" in patterns for patterns in asked)


@pytest.mark.parametrize("whole", [True, False])
def test_shards_of_pickles_are_downloaded_though_their_index_comes_first(
    whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    shards = {"layer": "pytorch_model-00001-of-00002.bin", "head": "pytorch_model-00002-of-00002.bin"}
    index = json.dumps({"weight_map": shards})
    there = {"config.json": "{}", "pytorch_model.bin.index.json": index, **dict.fromkeys(shards.values(), "weights")}

    def download(_: str, local_files_only: bool, **patterns: list[str]) -> str:
        for name in filter_repo_objects(there, **patterns):
            (tmp_path / name).write_text(there[name])
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_directory("some/old-and-large-model", whole=whole) == tmp_path
    assert {file.name for file in tmp_path.iterdir()} == set(there)


@pytest.mark.parametrize("text", [b"", b"{'single': 'quotes'}", b"\xff\xfe"])
def test_a_configuration_that_is_not_json_is_one_line(folder: Path, text: bytes) -> None:
    (folder / "config.json").write_bytes(text)
    with pytest.raises(DataError, match=r"config\.json is not JSON") as caught:
        resolve_model(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["./nowhere", "/no/such/place", "~/nowhere-at-all", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_up_on_the_hub(name: str) -> None:
    with pytest.raises(DataError, match="no such directory"):
        resolve_model(name)


@pytest.mark.parametrize("name", ["nobody-here/no-such-model", "no-such-model", "not a valid id!"])
def test_a_model_that_the_hub_does_not_give_is_one_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError) as caught:
        resolve_model(name)
    assert name in str(caught.value)
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_safetensors_are_preferred_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[list[str]] = []

    def download(_: str, allow_patterns: list[str], ignore_patterns: str, local_files_only: bool) -> str:
        asked.append(allow_patterns)
        (tmp_path / "config.json").write_text("{}")
        if "pytorch_model*.bin" in allow_patterns:
            (tmp_path / "pytorch_model.bin").write_text("weights")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert resolve_model("some/old-model") == tmp_path
    assert ["*.safetensors" in patterns for patterns in asked] == [True, False]
    asked.clear()
    (tmp_path / "model.safetensors").write_text("weights")
    resolve_model("some/new-model")
    assert len(asked) == 1


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noisytune.errors.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"noisytune\[demo\]"):
        model_module.default_model()


def test_a_directory_whose_name_is_no_text_gets_one_that_can_be_written(folder: Path) -> None:
    odd = folder.with_name(os.fsdecode(b"caf\xe9"))
    folder.rename(odd)
    assert Model.find(str(odd)).name == "caf\\udce9"
