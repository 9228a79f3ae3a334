"""Tensors that no checkpoint held: left alone, and looked at all the same: their initialisation may be bad."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

import noisytune.torch
from noisytune.errors import NonFiniteError

NAN = float("nan")


@pytest.fixture
def model(request):
    """A tiny BERT with a new head, marked as transformers marks what it loads; or with no marks at all."""
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    built = BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, num_labels=2, **sizes))
    if getattr(request, "param", "marked") == "marked":
        for parameter in built.bert.parameters():
            parameter._is_hf_initialized = True
    return built


def spoil(parameter, value=NAN):
    with torch.no_grad():
        parameter.view(-1)[0] = value


@pytest.mark.parametrize("scope", ["pretrained", "all"])
@pytest.mark.parametrize("noise_lambda", [0, 0.15])
def test_nan_in_a_new_head_is_a_bad_initialisation(model, scope, noise_lambda):
    spoil(model.classifier.weight)
    before = model.bert.pooler.dense.weight.detach().clone()
    with pytest.raises(NonFiniteError, match=r"classifier.weight .* has 1 values .* a bad initialisation"):
        noisytune.torch.perturb_(model, noise_lambda=noise_lambda, scope=scope)
    assert torch.equal(model.bert.pooler.dense.weight, before)
    assert noisytune.torch.receipt(model) is None


def test_one_element_of_a_new_head_is_enough(model):
    model.classifier.bias = torch.nn.Parameter(torch.tensor([NAN]))
    with pytest.raises(NonFiniteError, match=r"classifier.bias .* bad initialisation"):
        noisytune.torch.perturb_(model)


def test_nan_in_what_was_loaded_is_damage(model):
    spoil(model.bert.pooler.dense.weight)
    with pytest.raises(NonFiniteError, match=r"pooler.dense.weight .* infinite: the checkpoint is damaged$"):
        noisytune.torch.perturb_(model)


@pytest.mark.parametrize("model", ["unmarked"], indirect=True)
def test_where_nobody_can_tell_both_are_named(model):
    spoil(model.classifier.weight)
    with pytest.raises(NonFiniteError, match=r"damaged or, if it is new, its initialisation is bad"):
        noisytune.torch.perturb_(model)


def test_a_head_outside_the_pretrained_model_is_looked_at(model):
    outer = torch.nn.ModuleDict({"body": model.bert, "head": torch.nn.Linear(8, 2)})
    spoil(outer["head"].weight, float("inf"))
    with pytest.raises(NonFiniteError, match=r"head.weight .* bad initialisation"):
        noisytune.torch.perturb_(outer)


def test_excluded_tensors_and_large_numbers_in_a_new_head_are_nobodys_business(model):
    spoil(model.classifier.weight)
    noisytune.torch.perturb_(model, exclude="classifier.*")
    spoil(model.classifier.weight, 1e30)
    manifest = noisytune.torch.perturb_(model, again=True)
    (entry,) = [entry for entry in manifest.entries if entry.name == "head:classifier.weight"]
    assert (entry.left_alone, entry.std) == ("freshly initialised", None)


def test_a_head_on_the_meta_device_is_left_alone(model):
    model.classifier.to("meta")
    manifest = noisytune.torch.perturb_(model)
    assert {e.name for e in manifest.entries if e.left_alone == "freshly initialised"} >= {"head:classifier.weight"}


@pytest.mark.parametrize("resized", [False, True])
def test_an_output_layer_that_resizing_made_is_named(tmp_path, resized):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=20, tie_word_embeddings=False, **sizes)).save_pretrained(tmp_path)
    model = LlamaForCausalLM.from_pretrained(tmp_path)
    if resized:
        model.resize_token_embeddings(23)
    manifest = noisytune.torch.perturb_(model)
    left = {entry.own_names[0] for entry in manifest.entries if entry.left_alone == "freshly initialised"}
    named = any("lm_head.weight is not marked as loaded" in notice for notice in manifest.notices)
    assert (left, named) == (({"lm_head.weight"}, True) if resized else (set(), False))


def test_a_bias_with_the_name_of_a_mask_is_a_parameter():
    module = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleList([torch.nn.ModuleDict({"attention": torch.nn.Linear(8, 8)})])}
    )
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    noisytune.torch.perturb_state_dict(state, seed=1)
    noisytune.torch.perturb_(module, seed=1)
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())
