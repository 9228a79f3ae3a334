"""Blocks, depths and initialisers on families whose layout differs from BERT's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers as tf

from noisytune.errors import ConfigError
from noisytune.methods import Run, Stack, _dropout, parse
from noisytune.methods._blocks import base_of, blocks, called, depth_of
from noisytune.methods.mixout import attach_
from noisytune.methods.reinit import reinit_

SIZES = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
CONFIGS: dict[str, Any] = {
    "albert": lambda: tf.AlbertConfig(**SIZES, embedding_size=16),
    "bart": lambda: tf.BartConfig(
        vocab_size=64, d_model=16, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32
    ),
    "canine": lambda: tf.CanineConfig(**{k: v for k, v in SIZES.items() if k != "vocab_size"}, num_hash_buckets=32),
    "deberta-v2": lambda: tf.DebertaV2Config(
        **SIZES, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm"
    ),
    "dinov3": lambda: tf.DINOv3ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=16
    ),
    "gpt2": lambda: tf.GPT2Config(vocab_size=64, n_embd=64, n_layer=4, n_head=2, n_positions=32),
    "ibert": lambda: tf.IBertConfig(**SIZES),
    "llama": lambda: tf.LlamaConfig(**SIZES, num_key_value_heads=1),
    "modernbert": lambda: tf.ModernBertConfig(**SIZES, pad_token_id=0),
    "mpnet": lambda: tf.MPNetConfig(**SIZES),
    "openai-gpt": lambda: tf.OpenAIGPTConfig(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=32),
    "opt": lambda: tf.OPTConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=32),
    "persimmon": lambda: tf.PersimmonConfig(**SIZES, attention_dropout=0.5),
    "squeezebert": lambda: tf.SqueezeBertConfig(
        **SIZES,
        embedding_size=16,
        q_groups=1,
        k_groups=1,
        v_groups=1,
        post_attention_groups=1,
        intermediate_groups=1,
        output_groups=1,
    ),
    "swin": lambda: tf.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1]),
    "t5": lambda: tf.T5Config(vocab_size=64, d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4),
    "xlm": lambda: tf.XLMConfig(vocab_size=64, emb_dim=16, n_layers=2, n_heads=2),
}


def build(family: str, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tf.AutoModel.from_config(CONFIGS[family]())


@pytest.mark.parametrize(
    "family", ["bart", "canine", "deberta-v2", "gpt2", "llama", "modernbert", "mpnet", "opt", "t5"]
)
def test_every_block_is_called(family: str) -> None:
    model = build(family)
    before = torch.get_rng_state()
    assert called(model, blocks(model)) == [True] * len(blocks(model))
    assert torch.equal(before, torch.get_rng_state())


DEPTHS = {
    "bart": {"encoder.embed_positions.weight": 5, "decoder.layernorm_embedding.bias": 5},
    "deberta-v2": {"encoder.rel_embeddings.weight": 3, "encoder.LayerNorm.weight": 3},
    "mpnet": {"encoder.relative_attention_bias.weight": 3, "pooler.dense.weight": 0},
    "opt": {"decoder.embed_positions.weight": 3, "decoder.final_layer_norm.weight": 0},
    "canine": {
        "char_embeddings.char_position_embeddings.weight": 5,
        "chars_to_molecules.conv.weight": 4,
        "projection.conv.weight": 2,
        "pooler.dense.bias": 0,
    },
    "swin": {"encoder.layers.0.downsample.norm.weight": 2, "layernorm.weight": 0},
    "t5": {"encoder.final_layer_norm.weight": 4, "decoder.final_layer_norm.weight": 0, "shared.weight": 7},
}


@pytest.mark.parametrize("family", DEPTHS)
def test_tables_lie_with_the_embeddings_and_final_norms_at_the_top(family: str) -> None:
    model = build(family)
    depth, named = depth_of(model), dict(model.named_parameters())
    assert {name: depth[named[name]] for name in DEPTHS[family]} == DEPTHS[family]


def test_blocks_that_cannot_be_told_are_refused() -> None:
    with pytest.raises(ConfigError, match="XLMModel keeps the parts of its blocks in lists of their own"):
        parse("llrd")[0].check(Run(build("xlm")))
    with pytest.raises(ConfigError, match="SqueezeBertModel does not call its blocks as modules"):
        parse("hype")[0].check(Run(build("squeezebert")))
    parse("llrd")[0].check(Run(build("squeezebert")))


def test_stages_are_no_blocks_but_hold_some() -> None:
    assert [type(block).__name__ for block in blocks(build("swin"))] == ["SwinLayer"] * 2


def test_a_base_model_holds_its_embeddings() -> None:
    """DINOv3 keeps its blocks under the name that its base model would have in a model with a head."""
    model = build("dinov3")
    assert base_of(model) is model
    assert depth_of(model)[model.embeddings.cls_token] == 3


@pytest.mark.parametrize(("family", "said"), [("ibert", "in a QuantEmbedding"), ("canine", "no get_input_embeddings")])
def test_noise_on_tokens_needs_a_table_of_tokens(family: str, said: str) -> None:
    for arm in ("neftune", "r3f"):
        with pytest.raises(ConfigError, match=said):
            parse(arm)[0].check(Run(build(family)))


def test_dropout_in_the_configuration_goes_off_and_is_saved_as_it_was() -> None:
    """Persimmon looks its attention's rate up while it runs; what is saved in the meantime must keep it."""
    model = build("persimmon").train()
    ids = torch.arange(2, 12).reshape(2, 5)
    rates = _dropout.off_(model)
    with torch.no_grad():
        assert torch.equal(model(ids)[0], model(ids)[0])
        assert model.config.attention_dropout == 0.5
        _dropout.restore_(rates)
        assert not torch.equal(model(ids)[0], model(ids)[0])


def test_mixout_adds_no_block() -> None:
    model = build("mpnet")
    before = blocks(model)
    attach_(model, p=0.5)
    assert blocks(model) == before


def test_a_block_that_serves_every_layer_is_not_drawn_again() -> None:
    with pytest.raises(ConfigError, match="one block serves all 2 layers of AlbertModel"):
        reinit_(build("albert"), 1)


@pytest.mark.parametrize("family", ["gpt2", "t5", "modernbert"])
def test_what_is_drawn_again_has_the_spread_of_a_new_model(family: str) -> None:
    """Some initialisers draw a child's weights from its parent: the order of transformers decides."""
    model, new = build(family), build(family, seed=1)
    drawn = reinit_(model, 1, seed=3)
    ours, theirs = dict(model.named_parameters()), dict(new.named_parameters())
    for name in drawn:
        if ours[name].numel() >= 1000:
            n = ours[name].numel()
            spread = float(theirs[name].detach().std())
            assert float(ours[name].detach().std()) == pytest.approx(spread, rel=6 / math.sqrt(n)), name


def test_what_transformers_draws_nowhere_is_drawn_as_in_the_paper() -> None:
    """OpenAI GPT's projections are drawn by their constructors: its initialiser would leave them as they are."""
    model = build("openai-gpt")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    drawn = reinit_(model, 1, seed=3)
    weight = model.h[-1].attn.c_attn.weight.detach()
    assert len(drawn) == 12
    assert abs(float(weight.mean())) < 0.01
    assert float(weight.std()) == pytest.approx(0.02, rel=0.2)
    assert bool((model.h[-1].attn.c_attn.bias == 0).all())


def test_a_model_inside_another_draws_as_it_does_alone() -> None:
    """Gemma's norms begin at 0; PaliGemma around it would set them to 1."""
    text = {**SIZES, "num_key_value_heads": 1, "head_dim": 8}
    vision = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = tf.PaliGemmaConfig(text_config=text, vision_config={**vision, "image_size": 28, "projection_dim": 16})
    model = tf.PaliGemmaModel(config)
    model.language_model.layers[-1].input_layernorm.weight.data.fill_(5)
    reinit_(model, 1)
    assert bool((model.language_model.layers[-1].input_layernorm.weight == 0).all())


def test_the_draw_is_not_the_head_s() -> None:
    """With the trial's own seed the first redrawn matrix would begin with the numbers of the new head."""
    model = build("gpt2")
    reinit_(model, 1, seed=11)
    torch.manual_seed(11)
    head = torch.empty(64, 3).normal_(std=0.02)
    redrawn = model.h[-1].attn.c_attn.weight.detach()
    assert abs(float(torch.corrcoef(torch.stack([head.flatten(), redrawn.flatten()[: head.numel()]]))[0, 1])) < 0.5


def test_methods_that_would_do_nothing_say_so() -> None:
    still = tf.BertModel(tf.BertConfig(**SIZES, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    with pytest.raises(ConfigError, match="BertModel has no active dropout"):
        parse("rdrop")[0].check(Run(still))
    parse("rdrop(alpha=0)")[0].check(Run(still))
    half = build("llama").to(torch.bfloat16)
    for arm in ("hype", "r3f"):
        (notice,) = parse(arm)[0].notices(Run(half))
        assert "lost in the rounding of bfloat16" in notice
        assert parse(arm)[0].notices(Run(build("llama"), precision="float32")) == []
        assert "rounding of float16" in parse(arm)[0].notices(Run(build("llama"), precision="fp16"))[0]
    with pytest.raises(ConfigError, match=r"l2sp diverges: .* is above 2; lower the strength below 1000"):
        parse("l2sp(strength=5000)")[0].check(Run(half, learning_rate=2e-3))
    (notice,) = parse("mixout")[0].notices(Run(build("squeezebert")))
    assert (
        "only 6% of the weights of SqueezeBertModel's layers are mixed, and its dropout is off all the same" in notice
    )
    assert parse("mixout")[0].notices(Run(build("gpt2"))) == []
    (notice,) = parse("l2sp")[0].notices(Run(build("mpnet"), total_steps=51, learning_rate=2e-4))
    assert "next to nothing" in notice
    assert parse("l2sp(strength=100)")[0].notices(Run(build("mpnet"), total_steps=51, learning_rate=2e-4)) == []


def test_anchors_go_by_name_and_a_mismatch_is_an_error() -> None:
    """FSDP2 puts other parameters in the place of those that were copied: by object, nothing would be pulled."""
    for arm in ("recadam", "l2sp"):
        model = build("mpnet")
        stack = Stack(parse(arm), Run(model))
        stack.begin_()
        layer = model.pooler.dense
        layer.weight = torch.nn.Parameter(layer.weight.detach() + 1)
        groups = [{"params": list(model.parameters()), "lr": 1e-4, "weight_decay": 0.0}]
        optimizer = stack.optimizer(groups, torch.optim.AdamW)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        assert bool((layer.weight < stack.run.anchors["noised"]["pooler.dense.weight"] + 1).all())
        layer.weight = torch.nn.Parameter(torch.zeros(16, 17))
        with pytest.raises(ConfigError, match=r"pooler.dense.weight has shape \(16, 17\), and had \(16, 16\)"):
            stack.optimizer(groups, torch.optim.AdamW)
        del layer.weight
        with pytest.raises(ConfigError, match=r"1 of 39 pretrained parameters have other names .*pooler.dense.weight"):
            stack.optimizer(groups, torch.optim.AdamW)


def test_a_model_that_lost_its_marks_keeps_its_head_apart() -> None:
    """Sharding drops the marks of loading: the head would be pulled to where it began."""
    model = tf.BertForSequenceClassification(tf.BertConfig(**SIZES))
    stack = Stack(parse("recadam"), Run(model))
    stack.begin_()
    assert set(stack.run.anchors["noised"]) == {f"bert.{name}" for name, _ in model.bert.named_parameters()}


def test_mixout_with_two_passes_refuses_gradient_checkpointing() -> None:
    model = tf.BertForSequenceClassification(tf.BertConfig(**SIZES))
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    stack = Stack(parse("mixout(p=0.5)+r3f"), Run(model))
    stack.begin_()
    with pytest.raises(ConfigError, match=r"mixout\+r3f under gradient checkpointing"):
        stack.loss({"input_ids": torch.ones(1, 4, dtype=torch.long)}, lambda inputs: model(**inputs))


def test_mixout_keeps_its_anchors_out_of_the_buffers_and_to_the_linear_weights() -> None:
    model = build("mpnet")
    buffers = {name for name, _ in model.named_buffers()}
    stack = Stack(parse("mixout(p=0.5)"), Run(model))
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, torch.nn.Linear)}
    stack.begin_()
    assert {name for name, _ in model.named_buffers()} == buffers
    assert set(stack.run.anchors["noised"]) == linear
