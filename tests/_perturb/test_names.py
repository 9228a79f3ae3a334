"""Canonical names and globs."""

import pytest

from noisytune._perturb import names
from noisytune.errors import ConfigError

WRAPPED = [
    "module.{}",
    "_orig_mod.{}",
    "module._orig_mod.{}",
    "_fsdp_wrapped_module.{}",
    "base_model.model.{}",
    "_orig_mod.module.base_model.model.{}",
]


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["encoder.layer.0.attention.self.query.weight", "weight", "h.0.mlp.c_fc.bias"])
def test_wrappers_leave_no_trace(wrapper, name):
    assert names.without_wrappers(wrapper.format(name)) == name


def test_wrappers_inside_a_name_leave_no_trace():
    inside = "encoder._fsdp_wrapped_module.layer.0._checkpoint_wrapped_module.query.base_layer.weight"
    assert names.without_wrappers(inside) == "encoder.layer.0.query.weight"
    saved = "base_model.model.classifier.modules_to_save.default.weight"
    assert names.without_wrappers(saved) == "classifier.weight"
    assert names.without_wrappers("classifier.original_module.weight") == "classifier.weight"


def test_only_whole_parts_of_a_name_are_wrappers():
    for name in ("submodule.weight", "modules.weight", "base_layers.weight", "my_orig_mod.weight"):
        assert names.without_wrappers(name) == name


def test_base_model_and_model_with_a_head_agree():
    assert names.canonical("bert.encoder.weight", "bert") == names.canonical("encoder.weight", None)


def test_head_has_a_namespace_of_its_own():
    assert names.canonical("encoder.weight", "bert") == "head:encoder.weight"
    assert names.canonical("bert.encoder.weight", "bert") == "encoder.weight"


def test_adapters_are_told_from_the_base():
    assert names.is_adapter("base_model.model.q.lora_A.default.weight")
    assert names.is_adapter("q.lora_magnitude_vector.default.weight")
    assert not names.is_adapter("base_model.model.q.base_layer.weight")
    assert not names.is_adapter("floral_ora.weight")
    assert names.is_adapter("layers.0.q.kernel_lora_a")  # qwix
    assert names.is_adapter("layers.0.attn.q_einsum.w_lora_b")
    assert not names.is_adapter("flora_a")
    assert not names.is_adapter("layers.0.q_lora_a.weight")


def test_globs():
    assert names.match(["a.bias", "b"], ("*.bias",))
    assert not names.match(["a.Bias"], ("*.bias",))
    names.check_globs(["a.weight", "a.bias"], ("*.weight",), ("a.*",))
    with pytest.raises(ConfigError, match=r"exclude: '\*wrod\*' matches none of the 2 tensor names \(a.weight, a.bias"):
        names.check_globs(["a.weight", "a.bias"], (), ("*wrod*",))


def test_prompts_of_segmentation_are_no_adapter():
    assert not names.is_adapter("prompt_encoder.point_embed.0.weight")
    assert not names.is_adapter("prompt_encoder.mask_embed.conv1.weight")
    assert names.is_adapter("prompt_encoder.default.embedding.weight")


ROLES = {
    "embeddings.LayerNorm.weight": {"@norms"},
    "h.0.ln_1.bias": {"@norms", "@biases"},
    "layers.0.input_layernorm.weight": {"@norms"},
    "blocks.0.ln2.weight": {"@norms"},
    "layers.0.self_attn.q_norm.weight": {"@norms"},
    "stages.0.bn1.weight": {"@norms"},
    "embeddings.position_embeddings.weight": {"@positions"},
    "wpe.weight": {"@positions"},
    "decoder.embed_positions.weight": {"@positions"},
    "encoder.rel_embeddings.weight": {"@positions"},
    "encoder.relative_attention_bias.weight": {"@positions"},
    "encoder.layers.0.blocks.0.attention.self.relative_position_bias_table": {"@positions"},
    "embeddings.word_embeddings.weight": set(),
    "wte.weight": set(),
    "layers.0.mlp.gate.weight": {"@routers"},
    "layers.0.mlp.router.bias": {"@routers", "@biases"},
    "layers.0.mlp.shared_expert_gate.weight": {"@routers"},
    "layers.0.block_sparse_moe.router.layer.weight": {"@routers"},
    "layers.0.mlp.experts.3.gate_proj.weight": set(),
    "layers.0.mixer.A_log": set(),
    "layers.0.mixer.dt_bias": {"@biases"},
    "head:classifier.bias": {"@biases"},
}


@pytest.mark.parametrize("name", ROLES)
def test_roles_that_names_tell(name):
    vector = name.endswith("bias") or "norm" in name.lower() or "ln" in name or "bn" in name
    assert set(names.roles_by_name(name, 1 if vector else 2)) == ROLES[name]
