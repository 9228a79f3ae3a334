"""Adapters of PEFT: the base gets the noise, the adapter's folder says so, and both come back together."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, BertForSequenceClassification

from noisytune.checkpoint import perturb_checkpoint
from noisytune.config import NoisyTuneConfig
from noisytune.errors import NoisyTuneError, UnsupportedTensorError
from noisytune.integrations._record import noise_of
from noisytune.integrations.transformers import attach, check_adapter, load_adapter
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

peft = pytest.importorskip("peft", reason="adapters need peft")

# peft asks transformers for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SETTINGS = {"noise_lambda": 0.3, "seed": 5}


@pytest.fixture
def with_lora(make_model):
    def make(**options):
        usual = {"r": 4, "target_modules": ["query", "value"], "task_type": "SEQ_CLS"}
        with torch.random.fork_rng():
            torch.manual_seed(4)
            return peft.get_peft_model(make_model(), peft.LoraConfig(**usual | options))

    return make


@pytest.fixture
def trained(make_trainer, with_lora, tmp_path):
    """A trainer that has trained an adapter; its folder is run/checkpoint-4."""
    trainer = attach(make_trainer(with_lora()), **SETTINGS)
    trainer.train()
    return trainer


def logits(model, examples):
    model.eval()
    with torch.no_grad():
        return model(input_ids=torch.stack([one["input_ids"] for one in examples[:4]])).logits


def test_the_base_gets_the_noise_of_the_unwrapped_model(make_trainer, with_lora, at_start, make_model, weights):
    plain, wrapped = make_model(), with_lora()
    adapters = {name: value for name, value in weights(wrapped).items() if "lora_" in name}
    perturb_(plain, **SETTINGS)
    attach(make_trainer(wrapped, max_steps=1, callbacks=[at_start]), **SETTINGS).train()
    found = at_start.weights[0]
    for name, value in weights(plain).items():
        parts = name.removeprefix("bert.").rsplit(".", 1)
        own = [
            key for key in found if key.endswith("." + ".".join(parts)) or f"{parts[0]}.base_layer.{parts[1]}" in key
        ]
        own = own or [key for key in found if name.split(".")[-1] in key and "classifier" in key]
        assert own, name
        assert all(torch.equal(found[key], value) for key in own), name
    assert all(torch.equal(found[name], value) for name, value in adapters.items())


def test_both_copies_of_modules_to_save_get_the_same_noise(with_lora, make_model):
    """PEFT's copy loses transformers' mark of a loaded weight, and is pretrained all the same; heads are new in both"""
    model, plain = with_lora(modules_to_save=["word_embeddings", "classifier"]), make_model()
    manifest = perturb_(model, **SETTINGS)
    perturb_(plain, **SETTINGS)
    right = plain.bert.embeddings.word_embeddings.weight
    embeddings = model.base_model.model.bert.embeddings.word_embeddings
    assert torch.equal(embeddings.original_module.weight, right)
    assert torch.equal(embeddings.modules_to_save["default"].weight, right)
    assert [entry.left_alone for entry in manifest.entries if entry.name == "embeddings.word_embeddings.weight"] == [
        None,
        None,
    ]
    heads = [entry.left_alone for entry in manifest.entries if entry.name == "head:classifier.weight"]
    assert heads == ["freshly initialised"] * 2


def test_the_adapter_folder_records_the_noise_of_the_base(trained, tmp_path):
    folder = tmp_path / "run/checkpoint-4"
    assert not (folder / "model.safetensors").exists()
    manifest = Manifest.read(folder)
    assert manifest.config == NoisyTuneConfig(**SETTINGS)
    assert len(manifest.perturbed) > 10
    trained.create_model_card()
    assert "load_adapter(base_model, folder)" in (tmp_path / "run/README.md").read_text()


def test_resumed_is_uninterrupted(trained, make_trainer, with_lora, weights, same, tmp_path):
    resumed = attach(make_trainer(with_lora()), **SETTINGS)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    assert resumed.state.global_step == 4
    assert same(weights(resumed.model), weights(trained.model))


def test_load_adapter_brings_both_back(trained, make_model, examples, tmp_path):
    expected = logits(trained.model, examples)
    folder = tmp_path / "run/checkpoint-4"
    assert torch.equal(logits(load_adapter(make_model(), folder), examples), expected)
    clean = peft.PeftModel.from_pretrained(make_model(), folder)
    assert not torch.equal(logits(clean, examples), expected)


def test_an_adapter_of_the_hub_is_asked_for_its_noise(trained, make_model, examples, tmp_path, monkeypatch):
    """Its record is there too: without it the adapter would be put on clean weights, without a word."""
    import huggingface_hub

    folder, asked = tmp_path / "run/checkpoint-4", []

    def download(hub_id, local_files_only, **options):
        asked.append((hub_id, options))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = load_adapter(make_model(), "me/my-adapter", revision="v2", is_trainable=False)
    assert torch.equal(logits(found, examples), logits(trained.model, examples))
    assert asked[0] == ("me/my-adapter", {"revision": "v2"})
    check_adapter(found, "me/my-adapter")
    with pytest.raises(NoisyTuneError, match="checkpoint-4: the adapter was trained on"):
        check_adapter(make_model(), "me/my-adapter")


def test_an_adapter_with_a_name_of_its_own_has_the_record_in_its_own_folder(make_trainer, make_model, tmp_path):
    lora = peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS")
    trainer = attach(make_trainer(peft.get_peft_model(make_model(), lora, adapter_name="mine")), **SETTINGS)
    trainer.train()
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter/mine/adapter_config.json").exists()
    assert noise_of(tmp_path / "adapter/mine") == noise_of(tmp_path / "adapter") == NoisyTuneConfig(**SETTINGS)
    assert receipt(load_adapter(make_model(), tmp_path / "adapter/mine"))["seed"] == 5


def test_at_lambda_0_a_method_that_holds_copies_of_clean_weights_trains(with_lora, make_trainer):
    trainer = attach(make_trainer(with_lora(use_dora=True), max_steps=1), noise_lambda=0)
    trainer.train()
    assert receipt(trainer.model) is None


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize("saved", [["lm_head"], ["lm_head", "embed_tokens"]])
@pytest.mark.parametrize("scope", ["pretrained", "all"])
def test_the_trained_copy_of_a_tied_head_gets_the_noise_of_the_embeddings(saved, scope, language_models):
    """PEFT's copy is no longer tied, but it was made of the embeddings."""
    path = language_models["llama"].path
    plain = AutoModelForCausalLM.from_pretrained(path)
    assert plain.lm_head.weight is plain.model.embed_tokens.weight
    lora = peft.LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM", modules_to_save=saved)
    wrapped = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(path), lora)
    perturb_(plain, scope=scope, **SETTINGS)
    manifest = perturb_(wrapped, scope=scope, **SETTINGS)
    head = wrapped.base_model.model.lm_head
    for copy in (head.original_module.weight, head.modules_to_save["default"].weight):
        assert torch.equal(copy, plain.model.embed_tokens.weight)
    assert not any("resize_token_embeddings" in notice for notice in manifest.notices)
    other = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(path), lora)
    clean = other.base_model.model.lm_head.modules_to_save["default"].weight.clone()
    perturb_(other, exclude="@token_embeddings", **SETTINGS)
    assert torch.equal(other.base_model.model.lm_head.modules_to_save["default"].weight, clean)


def test_an_adapter_on_a_base_with_other_noise_is_found_out(trained, make_model, tmp_path, weights, same):
    folder = tmp_path / "run/checkpoint-4"
    check_adapter(trained.model, folder)
    clean = peft.PeftModel.from_pretrained(make_model(), folder)
    with pytest.raises(NoisyTuneError, match=r"lambda 0\.3, seed 5, the model has no noise: load a clean base model"):
        check_adapter(clean, folder)
    other = make_model()
    perturb_(other, noise_lambda=0.3, seed=6)
    with pytest.raises(NoisyTuneError, match=r"seed 5, the model has noise of lambda 0\.3, seed 6"):
        load_adapter(other, folder)


def test_an_adapter_on_other_weights_is_found_out_before_anything_is_written(
    trained, make_model, tmp_path, weights, same
):
    folder = tmp_path / "run/checkpoint-4"
    other = make_model()
    with torch.no_grad():
        other.bert.pooler.dense.weight.mul_(1.01)
    before = weights(other)
    with pytest.raises(NoisyTuneError, match=r"trained on other weights: pooler\.dense\.weight was float32, standard"):
        load_adapter(other, folder)
    assert same(weights(other), before)
    other.to(torch.bfloat16).bert.pooler.dense.weight.data.mul_(1.1)
    with pytest.raises(NoisyTuneError, match=r"was float32, .* and is bfloat16"):
        load_adapter(other, folder)
    assert receipt(other) is None


def test_an_adapter_of_float32_goes_on_the_same_base_in_bfloat16(trained, make_model, examples, tmp_path):
    model = load_adapter(make_model(dtype=torch.bfloat16), tmp_path / "run/checkpoint-4")
    difference = logits(model, examples).float() - logits(trained.model, examples)
    assert difference.abs().max() < 0.02
    assert receipt(model)["seed"] == 5


def test_a_card_of_an_adapter_says_which_noise(trained, tmp_path):
    trained.save_model(tmp_path / "run/checkpoint-4")
    for folder in ("run/checkpoint-2", "run/checkpoint-4"):
        card = (tmp_path / folder / "README.md").read_text()
        assert card.count("## Fine-tuned with NoisyTune") == 1
        assert "load_adapter(base_model, folder)" in card


def test_a_base_that_was_saved_with_its_noise_is_used_as_it_is(trained, make_model, examples, tmp_path):
    base = make_model()
    perturb_(base, **SETTINGS)
    base.save_pretrained(tmp_path / "base")
    reloaded = BertForSequenceClassification.from_pretrained(tmp_path / "base")
    model = load_adapter(reloaded, tmp_path / "run/checkpoint-4")
    assert torch.equal(logits(model, examples), logits(trained.model, examples))


def test_an_adapter_without_noise_is_loaded_on_the_clean_base(make_trainer, with_lora, make_model, examples, tmp_path):
    trainer = make_trainer(with_lora())
    trainer.train()
    folder = tmp_path / "run/checkpoint-4"
    assert torch.equal(logits(load_adapter(make_model(), folder), examples), logits(trainer.model, examples))
    noised = make_model()
    perturb_(noised, **SETTINGS)
    with pytest.raises(NoisyTuneError, match="with no noise, the model has noise of lambda"):
        load_adapter(noised, folder)


@pytest.fixture
def on_a_noised_folder(make_model, encoder, make_trainer, tmp_path):
    """``noisytune perturb``, and PEFT on that folder: the adapter's folder says nothing of noise, its base does."""
    perturb_checkpoint(encoder, tmp_path / "noised", **SETTINGS)
    base = make_model(tmp_path / "noised")
    config = peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS")
    trainer = make_trainer(peft.get_peft_model(base, config))
    trainer.train()
    assert not (tmp_path / "run/checkpoint-4/noisytune.json").exists()
    return trainer


def test_the_record_of_the_base_counts_for_an_adapter_without_one(
    on_a_noised_folder, make_model, make_trainer, examples, tmp_path, same, weights
):
    trained, adapter = on_a_noised_folder, tmp_path / "run/checkpoint-4"
    check_adapter(trained.model, adapter)
    loaded = load_adapter(make_model(tmp_path / "noised"), adapter)
    assert torch.equal(logits(loaded, examples), logits(trained.model, examples))
    clean = make_model()
    with pytest.raises(NoisyTuneError, match=r"lambda 0\.3, seed 5, the model has no noise"):
        check_adapter(clean, adapter)
    with pytest.raises(NoisyTuneError, match=r"on .*noised, whose weights carry .* seed 5: load the base model"):
        load_adapter(clean, adapter)
    assert receipt(clean) is None
    config = peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS")
    again = attach(make_trainer(peft.get_peft_model(make_model(tmp_path / "noised"), config)), **SETTINGS)
    again.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    assert same(weights(again.model), weights(trained.model))


def test_a_base_that_is_not_here_cannot_be_asked(on_a_noised_folder, make_model, tmp_path, caplog):
    adapter = tmp_path / "run/checkpoint-4"
    (tmp_path / "noised").rename(tmp_path / "moved")
    check_adapter(make_model(tmp_path / "moved"), adapter)
    assert "which is not here: whether its weights carried noise of lambda 0.3, seed 5" in caplog.text


def test_the_best_adapter_at_the_end_stands_on_the_noise(make_trainer, with_lora, examples, make_model, tmp_path):
    trainer = attach(
        make_trainer(
            with_lora(),
            eval_dataset=examples,
            eval_strategy="steps",
            eval_steps=2,
            load_best_model_at_end=True,
        ),
        **SETTINGS,
    )
    trainer.train()
    best = load_adapter(make_model(), trainer.state.best_model_checkpoint)
    assert torch.equal(logits(best, examples), logits(trainer.model, examples))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use_dora": True}, "has DoRA magnitudes of the clean weights: perturb before get_peft_model"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa', which changes the base weights: perturb before"),
        ({"init_lora_weights": "olora"}, "init_lora_weights='olora', which changes the base weights: perturb before"),
    ],
)
def test_adapters_that_know_the_clean_weights_are_refused(make_trainer, with_lora, weights, same, options, words):
    model = with_lora(**options)
    before = weights(model)
    with pytest.raises(UnsupportedTensorError, match=words):
        attach(make_trainer(model), **SETTINGS).train()
    assert same(weights(model), before)
    assert receipt(model) is None


@pytest.mark.parametrize("options", [{"use_dora": True}, {"init_lora_weights": "pissa"}])
def test_they_train_on_a_base_that_was_perturbed_before(make_trainer, make_model, options, caplog, tmp_path):
    base = make_model()
    perturb_(base, **SETTINGS)
    config = peft.LoraConfig(r=4, target_modules=["query"], task_type="SEQ_CLS", **options)
    trainer = attach(make_trainer(peft.get_peft_model(base, config), max_steps=1), **SETTINGS)
    trainer.train()
    assert "already: none was added" in caplog.text
    assert json.loads((tmp_path / "run/checkpoint-1/noisytune.json").read_text())["config"]["seed"] == 5


def test_a_merged_adapter_is_refused(with_lora):
    model = with_lora()
    model.merge_adapter()
    with pytest.raises(UnsupportedTensorError, match="has an adapter merged into its weights: unmerge it first"):
        perturb_(model)
    model.unmerge_adapter()
    perturb_(model)


def test_a_quantised_base_is_refused(with_lora, make_trainer):
    """QLoRA: transformers leaves its quantizer on the model that it quantised."""
    model = with_lora()
    trainer = attach(make_trainer(model), **SETTINGS)
    model.base_model.model.hf_quantizer = object()
    with pytest.raises(UnsupportedTensorError, match=r"is quantised .*: perturb the model before quantising"):
        trainer.train()


def test_settings_that_add_nothing_are_no_noise(tmp_path):
    Manifest(NoisyTuneConfig(noise_lambda=0.0), ()).write(tmp_path)
    assert noise_of(tmp_path) is None


def test_a_configuration_that_is_no_mapping_says_nothing_of_noise(tmp_path):
    (tmp_path / "config.json").write_text("[]")
    assert noise_of(tmp_path) is None
    (tmp_path / "config.json").write_text('{"noisytune": [0.15]}')
    with pytest.raises(NoisyTuneError, match="no mapping of settings"):
        noise_of(tmp_path)
