"""Files with the names and shapes of memory, as state dicts have and `save_pretrained` may: the noise of memory."""

import pytest
import torch
import transformers as tf

from noisytune._perturb import families
from noisytune.checkpoint import diff_checkpoints, inspect_checkpoint, perturb_checkpoint, verify_checkpoint
from noisytune.torch import perturb_

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
TEXT = SIZES | {"num_key_value_heads": 1, "head_dim": 8}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
MOE = SIZES | {"num_key_value_heads": 1, "num_local_experts": 3, "num_experts_per_tok": 2}
EYES = VISION | {"intermediate_size": 24}
MODELS = {
    "experts joined": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**MOE)),
    "renamed": lambda: tf.ViTForImageClassification(tf.ViTConfig(**EYES)),
    "renamed, and tied": lambda: tf.Gemma3ForConditionalGeneration(
        tf.Gemma3Config(text_config=TEXT, vision_config=EYES, mm_tokens_per_image=4)
    ),
    "base alone": lambda: tf.Gemma3Model(tf.Gemma3Config(text_config=TEXT, vision_config=EYES, mm_tokens_per_image=4)),
}
NOISE = {"noise_lambda": 0.15, "seed": 4}


@pytest.fixture(autouse=True)
def quiet():
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.manual_seed(0)


@pytest.fixture
def as_safetensors(tmp_path):
    """``as_safetensors(model)``: the folder of a checkpoint with the names of memory."""

    def save(model):
        for number, (name, parameter) in enumerate(model.named_parameters()):
            if "norm" not in name:
                rows = torch.arange(len(parameter)).view(-1, *[1] * (parameter.ndim - 1))
                parameter.data.mul_(1 + number % 5).add_(0.01 * rows)
        model.save_pretrained(tmp_path / "clean", save_original_format=False)
        return tmp_path / "clean"

    return save


@pytest.fixture
def as_state_dict(tmp_path):
    """The same as a pickled state dict, every copy of a tied tensor in it."""

    def save(model):
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(tmp_path / "clean")
        state = {name: value.clone() for name, value in model.state_dict().items()}
        torch.save(state, tmp_path / "clean" / "pytorch_model.bin")
        return tmp_path / "clean"

    return save


def same_on_disk(model_class, clean, noisy):
    memory, disk = model_class.from_pretrained(clean), model_class.from_pretrained(noisy)
    manifest = perturb_(memory, **NOISE)
    other = dict(disk.named_parameters(remove_duplicate=False))
    differ = [n for n, p in memory.named_parameters(remove_duplicate=False) if not torch.equal(p, other[n])]
    return manifest, differ


@pytest.mark.parametrize("asked", ["table", "code"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_noise_is_that_of_memory(kind, asked, as_safetensors, tmp_path, monkeypatch):
    if asked == "code":
        monkeypatch.setattr(families, "generated", dict)
    model = MODELS[kind]()
    clean, noisy = as_safetensors(model), tmp_path / "noisy"
    on_disk = perturb_checkpoint(clean, noisy, **NOISE)
    in_memory, differ = same_on_disk(type(model), clean, noisy)
    assert differ == []
    assert {entry.name for entry in on_disk.perturbed} == {entry.name for entry in in_memory.perturbed}
    assert verify_checkpoint(noisy).ok
    assert verify_checkpoint(noisy, clean).ok


def test_a_state_dict_with_every_copy_keeps_its_ties(as_state_dict, tmp_path):
    model = MODELS["renamed, and tied"]()
    clean, noisy = as_state_dict(model), tmp_path / "noisy"
    perturb_checkpoint(clean, noisy, **NOISE)
    _, differ = same_on_disk(type(model), clean, noisy)
    assert differ == []
    loaded = type(model).from_pretrained(noisy)
    assert torch.equal(loaded.lm_head.weight, loaded.get_input_embeddings().weight)


def test_usual_files_and_those_with_the_names_of_memory_have_one_set_of_names(as_safetensors, tmp_path):
    model = MODELS["experts joined"]()
    clean = as_safetensors(model)
    model.save_pretrained(tmp_path / "usual")
    own, usual = inspect_checkpoint(clean), inspect_checkpoint(tmp_path / "usual")
    assert {entry.name: entry.shape for entry in own.entries} == {entry.name: entry.shape for entry in usual.entries}
    (last,) = (entry for entry in own.entries if entry.name == "layers.1.block_sparse_moe.experts.2.w3.weight")
    assert last.own_names == ("model.layers.1.mlp.experts.gate_up_proj[5]",)
    assert diff_checkpoints(clean, tmp_path / "usual").total().changed == 0


@pytest.mark.parametrize("glob", ["*.mlp.experts.gate_up_proj", "*experts.*.w1.weight"])
def test_globs_name_what_the_files_hold_or_what_it_is(glob, as_safetensors):
    entries = inspect_checkpoint(as_safetensors(MODELS["experts joined"]()), exclude=glob).entries
    assert sum(entry.left_alone == "excluded" for entry in entries) == (12 if "gate_up" in glob else 6)


def test_damage_in_a_part_is_found(as_safetensors, tmp_path):
    perturb_checkpoint(as_safetensors(MODELS["experts joined"]()), tmp_path / "noisy", **NOISE)
    file = tmp_path / "noisy" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (problem,) = verify_checkpoint(tmp_path / "noisy").problems
    assert problem.endswith("is not what was written")


def test_what_usual_files_hold_as_one_tensor_is_told(as_safetensors, tmp_path):
    """Query, key and value lie apart in memory and in one tensor of usual files, whose standard deviation counts."""
    model = tf.NomicBertModel(tf.NomicBertConfig(**SIZES))
    clean, noisy = as_safetensors(model), tmp_path / "noisy"
    (told,) = [notice for notice in perturb_checkpoint(clean, noisy, **NOISE).notices if "differs" in notice]
    assert told.startswith("6 tensors (layers.0.self_attn.")
    _, differ = same_on_disk(type(model), clean, noisy)
    assert len(differ) == 6
    model.save_pretrained(tmp_path / "usual")
    assert not [notice for notice in inspect_checkpoint(tmp_path / "usual").notices if "differs" in notice]
