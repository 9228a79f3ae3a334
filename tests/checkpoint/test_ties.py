"""Copies of a tied tensor in an older file: one tensor with one noise, as in memory; whoever knows of the tie."""

import json

import numpy as np
import pytest
import safetensors.numpy

from noisytune._perturb import families
from noisytune.checkpoint import _ties, inspect_checkpoint, perturb_checkpoint, verify_checkpoint

WORDS = np.random.default_rng(0).standard_normal((9, 4), np.float32)
OTHER = np.random.default_rng(1).standard_normal((9, 4), np.float32)


def save(folder, weights, **config):
    folder.mkdir()
    safetensors.numpy.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


@pytest.mark.parametrize("model_type", ["t5", "mt5", "umt5"])
def test_t5_shares_its_embeddings_whatever_the_flag_says(model_type, tmp_path):
    names = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    weights = dict.fromkeys(names, WORDS) | {"lm_head.weight": OTHER}
    for held in (names, names[1:]):  # transformers writes the first; other tools write the others
        folder = tmp_path / str(len(held))
        kept = {name: weights[name] for name in (*held, "lm_head.weight")}
        save(folder, kept, model_type=model_type, tie_word_embeddings=False)
        perturb_checkpoint(folder, tmp_path / f"{folder.name}-noisy")
        found = load(tmp_path / f"{folder.name}-noisy")
        assert len({found[name].tobytes() for name in held}) == 1
        assert (found[held[0]] != WORDS).any()
        assert (found["lm_head.weight"] - OTHER != found[held[0]] - WORDS).any()
        assert verify_checkpoint(tmp_path / f"{folder.name}-noisy", folder).ok
    entries = inspect_checkpoint(tmp_path / "2").entries
    assert [entry.name for entry in entries if len(entry.own_names) == 2] == ["shared.weight"]


def test_an_unknown_type_is_asked_about_in_its_class(tmp_path, monkeypatch):
    """FNet ties its decoder to the embeddings; two other tensors that happen to be equal are not tied."""
    torch = pytest.importorskip("torch", reason="makes a model")
    import transformers

    from noisytune.torch import perturb_

    monkeypatch.setattr(families, "generated", dict)
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    model = transformers.FNetForMaskedLM(transformers.FNetConfig(**sizes, max_position_embeddings=20))
    layers = model.fnet.encoder.layer
    layers[1].intermediate.dense.weight.data.copy_(layers[0].intermediate.dense.weight)
    model.save_pretrained(tmp_path / "clean")
    tied = "cls.predictions.decoder.weight"
    weights = load(tmp_path / "clean")
    assert tied not in weights
    weights[tied] = model.state_dict()[tied].numpy().copy()
    safetensors.numpy.save_file(weights, tmp_path / "clean" / "model.safetensors", {"format": "pt"})

    manifest = perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=3)
    memory = transformers.FNetForMaskedLM.from_pretrained(tmp_path / "clean")
    perturb_(memory, seed=3)
    disk = transformers.FNetForMaskedLM.from_pretrained(tmp_path / "noisy")
    assert disk.cls.predictions.decoder.weight is disk.fnet.embeddings.word_embeddings.weight
    for (name, ours), theirs in zip(disk.named_parameters(), memory.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert not any("are equal" in notice for notice in manifest.notices)
    assert verify_checkpoint(tmp_path / "noisy", tmp_path / "clean").ok


@pytest.mark.parametrize("config", [{}, {"model_type": "brand-new"}, {"model_type": "brand-new", "num_layers": 10**9}])
def test_where_nobody_can_be_asked_equal_tensors_are_one_and_a_notice_names_them(config, tmp_path, monkeypatch):
    long = np.random.default_rng(2).standard_normal((1500, 2), np.float32)
    nearly = long.copy()
    nearly[0, 0] += 1  # outside of the sample
    ones = np.ones(4, np.float32)
    weights = {"emb.weight": WORDS, "head.weight": WORDS, "a": long, "b": nearly, "n1": ones, "n2": ones}
    folder = save(tmp_path / "clean", weights, **config)
    manifest = perturb_checkpoint(folder, tmp_path / "noisy")
    found = load(tmp_path / "noisy")
    assert (found["emb.weight"] == found["head.weight"]).all()
    assert (found["emb.weight"] != WORDS).any()
    assert (found["a"] - long != found["b"] - nearly).any()
    (notice,) = [notice for notice in manifest.notices if "are equal" in notice]
    assert "emb.weight and head.weight" in notice
    monkeypatch.setattr(_ties, "find_ties", lambda *_: pytest.fail("the manifest says which are copies"))
    assert verify_checkpoint(tmp_path / "noisy", folder).ok


def test_the_owner_of_equal_tensors_is_inside_the_base_model(tmp_path):
    """Also where a head comes first in the file."""
    weights = {"lm_head.weight": WORDS, "model.embed.weight": WORDS}
    more = {"model.a.weight": OTHER, "model.b.weight": OTHER + 1}
    found = inspect_checkpoint(save(tmp_path / "new", weights | more, model_type="brand-new"))
    (tied,) = [entry for entry in found.entries if len(entry.own_names) == 2]
    assert tied.name == "embed.weight"
