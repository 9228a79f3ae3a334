"""Architectures of transformers: the same noise with and without a head, ties, fresh heads, receipts in checkpoints."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
)

from noisytune._perturb.families import Family
from noisytune.errors import AlreadyPerturbedError, ConfigError
from noisytune.torch import perturb_, receipt

BERT_LIKE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TINY = {
    "bert": BERT_LIKE,
    "roberta": BERT_LIKE,
    "electra": BERT_LIKE | {"embedding_size": 16},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48},
    "xlm-roberta": BERT_LIKE,
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "t5": {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 48, "d_kv": 16},
    "llama": BERT_LIKE,
    "modernbert": BERT_LIKE,
    "vit": BERT_LIKE | {"image_size": 32, "patch_size": 16},
}
WITH_HEAD = dict.fromkeys(["gpt2", "llama", "xlnet"], AutoModelForCausalLM) | {
    "t5": AutoModelForSeq2SeqLM,
    "vit": AutoModelForImageClassification,
}
"""A family's usual head; `AutoModelForMaskedLM` for those not named."""


@pytest.fixture(scope="module", params=TINY)
def checkpoint(request, tmp_path_factory):
    """A base model of one family, saved: (family, folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    config = AutoConfig.for_model(request.param, vocab_size=99, pad_token_id=1, **TINY[request.param])
    AutoModel.from_config(config).save_pretrained(folder)
    return request.param, folder


def classifier_of(family):
    return AutoModelForImageClassification if family == "vit" else AutoModelForSequenceClassification


def weights_by_canonical_name(model, manifest):
    return {entry.name: model.get_parameter(entry.own_names[0]).detach() for entry in manifest.entries}


def test_noise_is_the_same_with_and_without_a_head(checkpoint):
    family, folder = checkpoint
    base = AutoModel.from_pretrained(folder)
    expected = weights_by_canonical_name(base, perturb_(base, noise_lambda=0.15, seed=1))
    for auto in {classifier_of(family), WITH_HEAD.get(family, AutoModelForMaskedLM)}:
        model = auto.from_pretrained(folder)
        manifest = perturb_(model, noise_lambda=0.15, seed=1)
        found = weights_by_canonical_name(model, manifest)
        common = expected.keys() & found.keys()
        assert len(common) >= len(expected) - 2  # a base model's pooler may be missing under a head
        assert all(torch.equal(found[name], expected[name]) for name in common)
        fresh = {entry.own_names for entry in manifest.entries if entry.left_alone == "freshly initialised"}
        assert all(name.startswith("head:") for name in found if name not in expected) or family == "t5"
        assert fresh or auto is not classifier_of(family)


def test_scope_all_perturbs_the_head_too(checkpoint):
    family, folder = checkpoint
    torch.manual_seed(0)
    model = classifier_of(family).from_pretrained(folder)
    manifest = perturb_(model, noise_lambda=0.15, seed=1, scope="all")
    assert not any(entry.left_alone == "freshly initialised" for entry in manifest.entries)
    assert (
        any(name.startswith("head:") for name in (entry.name for entry in manifest.perturbed)) or not manifest.notices
    )


def test_receipt_survives_saving_and_loading(checkpoint, tmp_path):
    family, folder = checkpoint
    model = classifier_of(family).from_pretrained(folder)
    perturb_(model, noise_lambda=0.15, seed=8)
    model.save_pretrained(tmp_path)
    again = classifier_of(family).from_pretrained(tmp_path)
    assert receipt(again)["seed"] == 8
    with pytest.raises(AlreadyPerturbedError):
        perturb_(again, noise_lambda=0.15)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_tied_embeddings_have_one_entry_named_after_their_source(tmp_path):
    config = AutoConfig.for_model("bert", vocab_size=99, **TINY["bert"])
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path)
    manifest = perturb_(model, noise_lambda=0.15, seed=1)
    (entry,) = (e for e in manifest.entries if "cls.predictions.decoder.weight" in e.own_names)
    assert entry.name == "embeddings.word_embeddings.weight"
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


def test_padding_row_of_the_word_embeddings_stays(checkpoint):
    family, folder = checkpoint
    if family == "vit":
        pytest.skip("images have no words")
    clean, noisy = AutoModel.from_pretrained(folder), AutoModel.from_pretrained(folder)
    perturb_(noisy, noise_lambda=0.15, seed=1)
    table = noisy.get_input_embeddings()
    same = (table.weight == clean.get_input_embeddings().weight).all(dim=1)
    assert same.nonzero().flatten().tolist() == ([] if table.padding_idx is None else [1])


def test_two_models_in_one_module_do_not_share_noise(checkpoint):
    _, folder = checkpoint
    pair = torch.nn.ModuleDict(
        {"query": AutoModel.from_pretrained(folder), "document": AutoModel.from_pretrained(folder)}
    )
    names = {entry.name for entry in perturb_(pair, noise_lambda=0.15).entries}
    assert all(name.startswith(("query.", "document.")) for name in names)


def test_a_config_shared_with_a_clean_model_does_not_mark_it():
    config = AutoConfig.for_model("bert", vocab_size=99, **TINY["bert"])
    one, other = AutoModel.from_config(config), AutoModel.from_config(config)
    perturb_(one, noise_lambda=0.15)
    assert one.config is other.config
    assert receipt(other) is None
    perturb_(other, noise_lambda=0.15)


def test_a_copy_that_lost_its_marks_is_perturbed_whole_and_says_so(checkpoint):
    _, folder = checkpoint
    model = AutoModel.from_pretrained(folder)
    manifest = perturb_(torch.nn.ModuleDict({"query": model, "copy": copy.deepcopy(model)}), noise_lambda=0.15)
    assert not [entry for entry in manifest.entries if entry.left_alone == "freshly initialised"]
    assert "copy.: no parameter is marked as loaded" in manifest.notices[0]


def test_unmarked_tensors_of_the_base_are_left_with_a_notice(tmp_path):
    config = AutoConfig.for_model("bert", vocab_size=99, **TINY["bert"])
    AutoModelForMaskedLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    manifest = perturb_(model, noise_lambda=0.15)
    fresh = {entry.own_names[0] for entry in manifest.entries if entry.left_alone == "freshly initialised"}
    assert {"bert.pooler.dense.weight", "classifier.weight"} <= fresh
    assert "2 tensors of the base model are not marked as loaded" in manifest.notices[0]


def test_layers_around_a_pretrained_model_are_not_pretrained(checkpoint):
    _, folder = checkpoint
    module = torch.nn.ModuleDict({"encoder": AutoModel.from_pretrained(folder), "own": torch.nn.Linear(4, 2)})
    manifest = perturb_(module, noise_lambda=0.15)
    reasons = {
        entry.own_names[0]: entry.left_alone for entry in manifest.entries if entry.own_names[0].startswith("own.")
    }
    assert reasons == dict.fromkeys(["own.weight", "own.bias"], "outside the pretrained model")


@pytest.fixture
def alone(tmp_path):
    """A distributed job of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def wrapped_by_peft(model, **settings):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    return peft.get_peft_model(model, peft.LoraConfig(**{"r": 2, "target_modules": ["query"]} | settings))


WRAPPERS = {
    "bare": lambda model: model,
    "DataParallel": torch.nn.DataParallel,
    "DDP": torch.nn.parallel.DistributedDataParallel,
    "FSDP2": fully_shard,
    "compile": lambda model: torch.compile(model, backend="eager"),
    "all": lambda model: torch.nn.DataParallel(torch.compile(wrapped_by_peft(model), backend="eager")),
    "LoRA on the table": lambda model: wrapped_by_peft(model, target_modules=["word_embeddings", "query"]),
    "a trained copy of the table": lambda model: wrapped_by_peft(model, modules_to_save=["word_embeddings"]),
    "part of a module": lambda model: torch.nn.ModuleDict({"encoder": model, "own": torch.nn.Embedding(4, 2)}),
}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_token_embeddings_are_found_under_wrappers(alone, wrap):
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(AutoConfig.for_model("xlm-roberta", vocab_size=99, **BERT_LIKE))
    manifest = perturb_(wrap(model), noise_lambda=0.1, exclude="@token_embeddings")
    left = [entry for entry in manifest.entries if entry.left_alone == "excluded: @token_embeddings"]
    assert {entry.name.removeprefix("encoder.") for entry in left} == {"embeddings.word_embeddings.weight"}
    assert all(entry.name != left[0].name for entry in manifest.perturbed)
    assert len(manifest.perturbed) > 10


def test_token_embeddings_of_each_part_are_meant(tmp_path):
    from transformers import EncoderDecoderModel

    for name, decodes in (("encoder", False), ("decoder", True)):
        config = AutoConfig.for_model(
            "bert", vocab_size=99, is_decoder=decodes, add_cross_attention=decodes, **BERT_LIKE
        )
        (AutoModelForCausalLM if decodes else AutoModel).from_config(config).save_pretrained(tmp_path / name)
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(tmp_path / "encoder", tmp_path / "decoder")
    manifest = perturb_(model, noise_lambda=0.1, include="@token_embeddings", scope="all")
    assert [entry.own_names[0] for entry in manifest.perturbed] == [
        "encoder.embeddings.word_embeddings.weight",
        "decoder.bert.embeddings.word_embeddings.weight",
    ]


def test_a_table_without_a_model_around_it_is_no_input_embedding():
    with pytest.raises(
        ConfigError, match=r"Sequential has no input embeddings .*: give the tensor's name instead \(0\.weight"
    ):
        perturb_(torch.nn.Sequential(torch.nn.Embedding(9, 4)), exclude="@token_embeddings")


@pytest.mark.parametrize("pad", [0, 3, 9, -1, -10, 10, -11, None])
def test_the_padding_row_is_the_one_that_pytorch_keeps_at_zero(pad: int | None) -> None:
    try:
        wanted = torch.nn.Embedding(10, 2, padding_idx=pad).padding_idx
    except AssertionError:
        wanted = None
    family = Family((), padding={"w": "pad_token_id"})
    assert family.padding_row("w", 10, {"pad_token_id": pad}) == wanted
