"""The table of model types, made from transformers' own code: it says what the code says, and both sides go by it."""

import copy
import json
from pathlib import Path

import pytest
import torch
import transformers as tf
from families import facts_of
from safetensors.torch import load_file

from noisytune._perturb import families
from noisytune._perturb.families import Family, generated, known
from noisytune.checkpoint import _code, inspect_checkpoint, perturb_checkpoint, verify_checkpoint
from noisytune.torch import _canonical, perturb_

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
TWELVE = ("qwen3", "qwen3_moe", "llama4", "gemma3", "gemma3_text", "mistral3", "deepseek_v3", "glm4_moe", "gpt_oss")
TWELVE += ("smollm3", "phi3", "olmo3", "granite")


@pytest.fixture(autouse=True)
def quiet():
    tf.logging.set_verbosity_error()
    tf.logging.disable_progress_bar()
    torch.manual_seed(0)


def read(model_type):
    table = Path(families.__file__).with_name("families.json")
    return json.loads(table.read_text(encoding="utf-8"))["families"][model_type]


OTHERS = ("bert", "t5", "bart", "swin", "whisper")


@pytest.mark.parametrize(
    "model_type", ["gpt_neox", *(pytest.param(each, marks=pytest.mark.slow) for each in (*TWELVE, *OTHERS))]
)
def test_the_table_says_what_the_code_says(model_type):
    assert json.loads(json.dumps(facts_of(model_type))) == read(model_type)


def test_the_table_has_the_newest_families_of_language_models():
    assert all(known(model_type) for model_type in TWELVE)
    assert len(generated()) > 700


def test_a_release_that_names_tensors_otherwise_than_the_table_is_told(monkeypatch):
    model = tf.BertModel(tf.BertConfig(**SIZES))
    monkeypatch.setattr(_canonical, "release", lambda: "5.0.0")
    assert not [notice for notice in perturb_(copy.deepcopy(model)).notices if "otherwise" in notice]
    table = Family(("bert",), renames={"": (("pooler.", "summary."),)})
    monkeypatch.setattr(_canonical, "known", lambda model_type: table)
    (told,) = [notice for notice in perturb_(model).notices if "otherwise" in notice]
    assert f"transformers {tf.__version__} calls 2 tensors (pooler.dense." in told


def deepseek():
    config = tf.DeepseekV3Config(
        **SIZES,
        num_key_value_heads=2,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=8,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=8,
    )
    model = tf.DeepseekV3ForCausalLM(config)
    for name, buffer in model.named_buffers():
        if "e_score_correction_bias" in name:
            buffer.normal_()
    return model


BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"


@pytest.mark.parametrize("asked", ["table", "code", "nobody"])
def test_buffers_are_left_alone_on_disk_by_the_table_and_by_the_code(asked, tmp_path, monkeypatch):
    deepseek().save_pretrained(tmp_path / "clean")
    if asked != "table":
        monkeypatch.setattr(families, "generated", dict)
    if asked == "nobody":
        monkeypatch.setattr(_code, "find_spec", lambda name: None)
    manifest = perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=3)
    left = {entry.own_names[0] for entry in manifest.entries if entry.left_alone == "buffer"}
    assert left == ({BIAS} if asked != "nobody" else set())
    told = [notice for notice in manifest.notices if "buffers are told by usual names only" in notice]
    assert bool(told) == (asked == "nobody")
    if asked != "nobody":
        memory = tf.DeepseekV3ForCausalLM.from_pretrained(tmp_path / "clean")
        perturb_(memory, seed=3)
        memory.save_pretrained(tmp_path / "memory")
        expected, found = (load_file(tmp_path / name / "model.safetensors") for name in ("memory", "noisy"))
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in found)
    assert verify_checkpoint(tmp_path / "noisy", tmp_path / "clean").ok


def test_a_head_that_came_later_has_one_name_in_memory_and_in_the_files(tmp_path):
    """transformers writes GPT-NeoX's new head as memory calls it, where no file had one; else as older files do."""
    config = tf.GPTNeoXConfig(**SIZES)
    tf.GPTNeoXModel(config).save_pretrained(tmp_path / "base")
    tf.GPTNeoXForCausalLM.from_pretrained(tmp_path / "base").save_pretrained(tmp_path / "later")
    tf.GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "new")
    names = {}
    for folder in ("later", "new"):
        (head,) = (e for e in inspect_checkpoint(tmp_path / folder).entries if e.name.startswith("head:"))
        names[head.own_names[0]] = head.name
    assert names == {"lm_head.weight": "head:embed_out.weight", "embed_out.weight": "head:embed_out.weight"}


def test_canonical_names_are_globs_on_both_sides(tmp_path):
    tf.ViTForImageClassification(tf.ViTConfig(**VISION, intermediate_size=24)).save_pretrained(tmp_path / "clean")
    memory = tf.ViTForImageClassification.from_pretrained(tmp_path / "clean")
    asked = {"include": "encoder.layer.0.attention.attention.query.weight"}
    in_memory, on_disk = perturb_(memory, **asked), perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", **asked)
    assert [e.name for e in in_memory.perturbed] == [e.name for e in on_disk.perturbed] == [asked["include"]]


def test_padding_of_a_model_inside_is_looked_up_there():
    family = Family((), padding={"words": "text_config.pad_token_id"}, pad=3)
    assert family.padding_row("words", 9, {"text_config": {"pad_token_id": 5}}) == 5
    assert family.padding_row("words", 9, {"text_config": {}}) == 3
    assert family.padding_row("words", 9, {"text_config": {"pad_token_id": None}}) is None
