"""What takes noise although somebody may not want it is said, in memory and on disk."""

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers as tf

from noisytune._perturb.doubtful import is_sinusoidal
from noisytune.checkpoint import perturb_checkpoint
from noisytune.torch import perturb_

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fixed_tables_are_told_by_both_routes(tmp_path, dtype):
    config = tf.RoFormerConfig(**SIZES, max_position_embeddings=32, embedding_size=16)
    tf.RoFormerModel(config).to(dtype).save_pretrained(tmp_path / "clean")
    model = tf.RoFormerModel.from_pretrained(tmp_path / "clean", dtype=dtype)
    for manifest in (perturb_(model, seed=1), perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=1)):
        (told,) = [notice for notice in manifest.notices if "sinusoidal" in notice]
        assert told.startswith("encoder.embed_positions.weight is a fixed table")
    model = tf.RoFormerModel.from_pretrained(tmp_path / "clean", dtype=dtype)
    assert not [n for n in perturb_(model, exclude="*embed_positions*").notices if "sinusoidal" in n]


def test_learnt_positions_are_not_told():
    model = tf.BertModel(tf.BertConfig(**SIZES, max_position_embeddings=32))
    assert not [notice for notice in perturb_(model).notices if "sinusoidal" in notice]
    assert not is_sinusoidal(np.random.default_rng(0).normal(size=(2, 16)))
    assert not is_sinusoidal(np.tile([0.0, 1.0], (2, 8)))


def test_stacks_of_experts_are_told_by_both_routes(tmp_path):
    config = tf.MixtralConfig(**SIZES, max_position_embeddings=32, num_key_value_heads=1, num_local_experts=2)
    told = [notice for notice in perturb_(tf.MixtralModel(config)).notices if "stacks experts" in notice]
    assert told
    assert "(and 1 more)" in told[0]
    weights = {"layers.0.mlp.experts.gate_up_proj": np.random.default_rng(0).normal(size=(2, 4, 4)).astype(np.float32)}
    safetensors.numpy.save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "gpt_oss"}')
    manifest = perturb_checkpoint(tmp_path, tmp_path.parent / "noisy")
    assert any("stacks experts" in notice for notice in manifest.notices)
