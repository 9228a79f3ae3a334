"""One noise for a model, whether it is added to its files or in memory: real classes of every family in the table."""

import re
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from support.families import TYPES, config_of, head_classes, scatter
from transformers import AutoConfig, AutoModel

from noisytune._perturb.families import known
from noisytune.checkpoint import inspect_checkpoint, perturb_checkpoint, verify_checkpoint
from noisytune.errors import ConfigError
from noisytune.torch import perturb_

QUICK = (
    "bert",
    "roberta",
    "electra",
    "xlnet",
    "xlm-roberta",
    "gpt2",
    "t5",
    "llama",
    "modernbert",
    "vit",
    "bart",
    "mixtral",
)


def save(model, folder, **options):
    model.save_pretrained(folder, **options)
    return folder


def tensors(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def in_memory(model_class, folder, **settings):
    model = model_class.from_pretrained(folder)
    perturb_(model, **settings)
    return tensors(model)


def on_disk(model_class, folder, out, **settings):
    manifest = perturb_checkpoint(folder, out, **settings)
    assert verify_checkpoint(out, folder).ok
    return tensors(model_class.from_pretrained(out)), manifest


@pytest.fixture(params=[f if f in QUICK else pytest.param(f, marks=pytest.mark.slow) for f in TYPES])
def family(request):
    return request.param


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.manual_seed(0)


def test_a_base_model_gets_the_same_noise_in_one_file_in_shards_and_in_memory(family, tmp_path):
    model = scatter(AutoModel.from_config(config_of(family)))
    save(model, tmp_path / "single")
    save(model, tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    expected = in_memory(type(model), tmp_path / "single", seed=5)
    assert not same(expected, tensors(model))
    for form in ("single", "sharded"):
        found, manifest = on_disk(type(model), tmp_path / form, tmp_path / f"{form}-noisy", seed=5)
        assert same(found, expected)
        assert not manifest.notices


def test_a_model_with_a_head_gets_the_same_noise(family, tmp_path):
    for model_class in head_classes(config_of(family)):
        folder = tmp_path / model_class.__name__
        save(scatter(model_class(config_of(family))), folder)
        expected = in_memory(model_class, folder, seed=5)
        assert same(on_disk(model_class, folder, tmp_path / f"{folder.name}-noisy", seed=5)[0], expected), model_class


def test_the_body_of_a_model_with_a_head_gets_the_noise_of_the_base_model(family, tmp_path):
    model = scatter(AutoModel.from_config(config_of(family)))
    base = save(model, tmp_path / "base")
    expected, _ = on_disk(type(model), base, tmp_path / "base-noisy", seed=5)
    for model_class in head_classes(config_of(family)):
        if "shared.weight" in known(family).ties.values() and "CausalLM" in model_class.__name__:
            continue  # a decoder alone has other tensors
        headed = model_class.from_pretrained(base)
        folder = save(headed, tmp_path / model_class.__name__)
        perturb_checkpoint(folder, tmp_path / "noisy" / model_class.__name__, seed=5)
        body = model_class.from_pretrained(tmp_path / "noisy" / model_class.__name__).base_model
        found = tensors(body)
        common = {
            name for name in found.keys() & expected.keys() if "embed_positions" not in name
        }  # Marian's: not saved
        assert len(common) >= 0.6 * len(found)
        assert all(torch.equal(found[name], expected[name]) for name in common), model_class


def test_tied_copies_in_older_files_get_the_noise_of_their_source(family, tmp_path):
    for model_class in head_classes(config_of(family)):
        model = scatter(model_class(config_of(family, tie_word_embeddings=True)))
        folder = save(model, tmp_path / model_class.__name__)
        save_with_copies(model, folder)
        expected = in_memory(model_class, folder, seed=5)
        out = tmp_path / f"{folder.name}-noisy"
        found, manifest = on_disk(model_class, folder, out, seed=5)
        assert same(found, expected), model_class
        for entry in manifest.entries:
            values = [load_file(out / "model.safetensors")[name] for name in entry.own_names]
            assert all(torch.equal(value, values[0]) for value in values)


def test_untied_embeddings_get_noise_of_their_own(family, tmp_path):
    for model_class in head_classes(config_of(family)):
        model = scatter(model_class(config_of(family, tie_word_embeddings=False)))
        folder = save(model, tmp_path / model_class.__name__)
        expected = in_memory(model_class, folder, seed=5)
        assert same(on_disk(model_class, folder, tmp_path / f"{folder.name}-noisy", seed=5)[0], expected), model_class


def token_embeddings(model):
    """Names of what looks tokens up, asked of the classes themselves: every input embedding of the model's parts."""
    found = set()
    for part in model.modules():
        if hasattr(part, "get_input_embeddings"):
            try:
                table = part.get_input_embeddings()
            except NotImplementedError:
                continue
            if isinstance(table, torch.nn.Embedding):
                found.add(table.weight)
    return {name for name, value in model.named_parameters() if any(value is table for table in found)}


@pytest.mark.parametrize("tied", [True, False])
def test_token_embeddings_are_the_same_tensors_in_memory_and_on_disk(family, tied, tmp_path):
    config = config_of(family, tie_word_embeddings=tied)
    makers = [AutoModel.from_config, *head_classes(config)]
    for number, make in enumerate(makers):
        clean = scatter(make(config))
        folder, asked = save(clean, tmp_path / str(number)), {"seed": 5, "exclude": "@token_embeddings"}
        if not (left := token_embeddings(clean)):
            with pytest.raises(
                ConfigError, match="no input embeddings that are a table of tokens: give the tensor's name"
            ):
                perturb_(clean, **asked)
            with pytest.raises(ConfigError, match=r"has no token embeddings, .*: give the tensor's name"):
                perturb_checkpoint(folder, tmp_path / "never", **asked)
            continue
        expected = in_memory(type(clean), folder, **asked)
        found, manifest = on_disk(type(clean), folder, tmp_path / f"{number}-noisy", **asked)
        assert same(found, expected), type(clean)
        before = dict(clean.named_parameters())
        assert all(torch.equal(found[name], before[name]) for name in left)
        assert any(not torch.equal(found[name], value) for name, value in before.items() if name not in left)
        assert "excluded: @token_embeddings" in {entry.left_alone for entry in manifest.entries}
        only = perturb_checkpoint(folder, tmp_path / f"{number}-only", seed=5, include="@token_embeddings")
        assert {entry.name for entry in only.perturbed} == {
            entry.name for entry in manifest.entries if entry.left_alone == "excluded: @token_embeddings"
        }


def test_a_model_type_that_no_table_knows_is_asked_for_the_name(tmp_path):
    folder = save(AutoModel.from_config(config_of("bert")), tmp_path / "clean")
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"model_type": "bert"', '"model_type": "brandnew"'))
    with pytest.raises(
        ConfigError, match=r"type 'brandnew' is not one .* give the tensor's name instead \(embeddings\."
    ):
        perturb_checkpoint(folder, tmp_path / "noisy", exclude="@token_embeddings")
    config.unlink()
    with pytest.raises(ConfigError, match=r"@token_embeddings: no config.json, so nothing says which"):
        inspect_checkpoint(folder, exclude="@token_embeddings")


def test_settings_that_older_configurations_leave_out_have_the_class_defaults(family):
    defaults = AutoConfig.for_model(family)
    facts = known(family)
    if "pad_token_id" in facts.padding.values():
        assert facts.pad == defaults.pad_token_id
    if facts.ties:
        assert facts.tied == defaults.tie_word_embeddings


def save_with_copies(model, folder: Path):
    """As files were written before tied copies were left out: every name of the state dict."""
    held = load_file(folder / "model.safetensors")
    state = model.state_dict()
    copies = {name: state[name].clone() for name in model.all_tied_weights_keys if name in state}
    assert all(re.search("embed|decoder|head|proj|loss", name) for name in copies)
    save_file(held | copies, folder / "model.safetensors", {"format": "pt"})
