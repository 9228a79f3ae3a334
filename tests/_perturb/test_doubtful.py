"""What takes noise although somebody may not want it is said, in memory and on disk."""

import numpy as np
import pytest
import torch
import transformers as tf

from noisytune._perturb.doubtful import is_sinusoidal
from noisytune.checkpoint import perturb_checkpoint
from noisytune.torch import perturb_

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fixed_tables_are_left_alone_and_told_by_both_routes(tmp_path, dtype):
    config = tf.RoFormerConfig(**SIZES, max_position_embeddings=32, embedding_size=16)
    tf.RoFormerModel(config).to(dtype).save_pretrained(tmp_path / "clean")
    model = tf.RoFormerModel.from_pretrained(tmp_path / "clean", dtype=dtype)
    for manifest in (perturb_(model, seed=1), perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=1)):
        assert "encoder.embed_positions.weight" not in [entry.name for entry in manifest.perturbed]
        (told,) = [notice for notice in manifest.notices if "never learnt" in notice]
        assert told.startswith("encoder.embed_positions.weight is never learnt, by the model's code, and is left alone")
    model = tf.RoFormerModel.from_pretrained(tmp_path / "clean", dtype=dtype)
    manifest = perturb_(model, scope="all")
    assert "encoder.embed_positions.weight" in [entry.name for entry in manifest.perturbed]
    assert [notice for notice in manifest.notices if "sinusoidal" in notice]
    model = tf.RoFormerModel.from_pretrained(tmp_path / "clean", dtype=dtype)
    assert not [n for n in perturb_(model, scope="all", exclude="*embed_positions*").notices if "sinusoidal" in n]


def test_learnt_positions_are_not_told():
    model = tf.BertModel(tf.BertConfig(**SIZES, max_position_embeddings=32))
    assert not [notice for notice in perturb_(model).notices if "sinusoidal" in notice]
    assert not is_sinusoidal(np.random.default_rng(0).normal(size=(2, 16)))
    assert not is_sinusoidal(np.tile([0.0, 1.0], (2, 8)))


def test_each_expert_of_a_stack_counts_as_a_matrix_by_both_routes(tmp_path):
    config = tf.GptOssConfig(**SIZES, num_key_value_heads=1, head_dim=8, num_local_experts=3, num_experts_per_tok=1)
    clean = tf.GptOssModel(config)
    stack = clean.layers[0].mlp.experts.down_proj.detach()
    stack[1] *= 1000
    clean.save_pretrained(tmp_path / "clean")
    memory = tf.GptOssModel.from_pretrained(tmp_path / "clean")
    for manifest in (perturb_(memory, seed=1), perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=1)):
        (told,) = [notice for notice in manifest.notices if "experts" in notice]
        assert told.startswith("layers.0.mlp.experts.")
        assert "more) is one of the experts or layers that are stacked" in told
        assert [e.name for e in manifest.perturbed if "down_proj" in e.name and "bias" not in e.name] == [
            f"layers.0.mlp.experts.down_proj[{expert}]" for expert in range(3)
        ]
    noise = memory.layers[0].mlp.experts.down_proj.detach() - stack
    assert all(abs(noise[i].std() / stack[i].std() - 0.0433) < 0.01 for i in range(3))
    disk = tf.GptOssModel.from_pretrained(tmp_path / "noisy")
    assert all(torch.equal(a, b) for a, b in zip(memory.parameters(), disk.parameters(), strict=True))
    left = perturb_(tf.GptOssModel.from_pretrained(tmp_path / "clean"), exclude="*.experts.down_proj")
    assert sum(entry.left_alone == "excluded" for entry in left.entries) == 3
