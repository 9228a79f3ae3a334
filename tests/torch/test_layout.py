"""Where elements lie in the files: compared with what transformers writes of tensors that hold their own numbers."""

import math

import pytest
import safetensors.torch
import torch
import transformers as tf
from torch import nn
from transformers.core_model_loading import Interleave, PermuteForRope, revert_weight_conversion

from noisytune.arrays import perturb_arrays_
from noisytune.checkpoint import perturb_checkpoint
from noisytune.torch import perturb_, perturb_state_dict
from noisytune.torch._dtensor import Piece, within
from noisytune.torch._layout import Traced, in_files

SIZES = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
EXPERTS = SIZES | {"num_key_value_heads": 1, "num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2}
VISION = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
MODELS = {
    "stacked experts, gate and up joined": lambda: tf.MixtralForCausalLM(tf.MixtralConfig(**EXPERTS)),
    "experts as in the files": lambda: tf.GptOssModel(tf.GptOssConfig(**EXPERTS, head_dim=8)),
    "renamed": lambda: tf.ViTForImageClassification(tf.ViTConfig(**VISION, intermediate_size=24)),
    "gate and up split": lambda: tf.Dinov2Model(tf.Dinov2Config(**VISION, use_swiglu_ffn=True)),
    "as it is": lambda: tf.BertModel(tf.BertConfig(**SIZES)),
}


@pytest.fixture(params=MODELS.values(), ids=MODELS)
def case(request):
    """Tensors of a model that hold their own numbers, and the files' tensors of it."""
    model = request.param()
    model._weight_conversions = None
    memory, start = {}, 0
    for name, parameter in model.named_parameters():
        memory[name] = torch.arange(start, start + parameter.numel()).view(parameter.shape)
        start += parameter.numel()
    return model, memory, revert_weight_conversion(model, dict(memory))


def test_stand_ins_are_converted_as_tensors_are(case):
    model, memory, files = case
    traced = in_files(model, {name: tensor.shape for name, tensor in memory.items()})
    assert {name: each.shape for name, each in traced.items()} == {name: each.shape for name, each in files.items()}
    for name, each in traced.items():
        made = torch.full(each.shape, -1)
        for box in each.boxes:
            whole = memory[box.tensor]
            (piece,) = within(Piece(whole, whole.shape, [[range(n)] for n in whole.shape]), box, tuple(each.shape))
            for run, at in piece.runs(range(0)):
                made.view(-1)[at : at + run.stop - run.start] = piece.values.reshape(-1)[run]
        assert torch.equal(made, files[name]), name
        assert each.is_plain == any(tensor is files[name] for tensor in memory.values())


def test_parts_of_a_tensor_are_found_in_rows_and_in_runs_of_it(case):
    """As FSDP and tensor parallelism cut it, and as DeepSpeed does."""
    model, memory, files = case
    for name, each in in_files(model, {name: tensor.shape for name, tensor in memory.items()}).items():
        made = torch.full((files[name].numel(),), -1)
        for box in each.boxes:
            whole = memory[box.tensor]
            middle, half = (math.prod(whole.shape) * 2 // 3, whole.shape[-1] // 2)
            everywhere = [[range(n)] for n in whole.shape]
            pieces = [
                Piece(whole[..., :half], whole.shape, [*everywhere[:-1], [range(half)]]),
                Piece(whole[..., half:], whole.shape, [*everywhere[:-1], [range(half, whole.shape[-1])]]),
            ]
            if whole.dim() > 1:
                flat = whole.view(-1)
                pieces += [
                    Piece(flat[:middle], (flat.numel(),), [[range(middle)]]),
                    Piece(flat[middle:], (flat.numel(),), [[range(middle, flat.numel())]]),
                ]
            for piece in pieces:
                for part in within(piece, box, tuple(each.shape)):
                    for run, at in part.runs(range(0)):
                        found = part.values.reshape(-1)[run]
                        made[at : at + len(found)] = found
                        assert torch.equal(files[name].reshape(-1)[at : at + len(found)], found)
        assert torch.equal(made, files[name].reshape(-1)), name


def test_a_conversion_that_cannot_be_followed_is_told(monkeypatch):
    monkeypatch.setattr("noisytune.torch._layout.Traced.size", None)
    manifest = perturb_(MODELS["stacked experts, gate and up joined"](), seed=1, exclude="*experts*")
    (told,) = [notice for notice in manifest.notices if "cannot be followed" in notice]
    assert told.startswith("MixtralModel: what transformers does")
    assert told.endswith("noise on files may differ")


def test_the_same_base_has_the_same_names_with_a_head_and_without():
    config = tf.Gemma3Config(
        text_config=SIZES | {"num_key_value_heads": 1, "head_dim": 8},
        vision_config=VISION | {"intermediate_size": 24},
        mm_tokens_per_image=4,
    )
    base, headed = tf.Gemma3Model(config), tf.Gemma3ForConditionalGeneration(config)
    names = {entry.name for entry in perturb_(base, seed=1).entries}
    under = {entry.name for entry in perturb_(headed, seed=1).entries}
    assert under - names == set()  # the head is tied to the token embeddings
    assert names - under == set()
    assert "language_model.model.embed_tokens.weight" in names


REORDERED = {
    "deinterleaved": (Interleave(dim=1), (3, 8, 4)),
    "interleaved": (Interleave(dim=1, inverse=True), (3, 8, 4)),
    "for rotary positions": (PermuteForRope(), (12, 5)),
    "and back": (PermuteForRope(inverse=True), (12,)),
}


@pytest.mark.parametrize(("conversion", "shape"), REORDERED.values(), ids=REORDERED)
def test_rows_in_another_order_are_found(conversion, shape):
    memory = torch.arange(math.prod(shape)).view(shape)
    how = {"source_patterns": ["x"], "target_patterns": ["y"], "config": tf.BertConfig(num_attention_heads=2)}
    file = conversion.convert({"x": [memory]}, **how)["y"]
    traced = conversion.convert({"x": [Traced.of("x", shape)]}, **how)["y"]
    made = torch.full((memory.numel(),), -1)
    for box in traced.boxes:
        for part in within(Piece(memory, shape, [[range(n)] for n in shape]), box, tuple(traced.shape)):
            for run, at in part.runs(range(0)):
                found = part.values.reshape(-1)[run]
                made[at : at + len(found)] = found
    assert torch.equal(made, file.reshape(-1))


def test_experts_of_a_stack_are_matrices_in_state_dicts_and_arrays_too():
    model = MODELS["experts as in the files"]()
    for name, parameter in model.named_parameters():
        parameter.data.copy_(torch.arange(parameter.numel()).view(parameter.shape) % 97 / 97 + len(name))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    arrays = {name: value.numpy().copy() for name, value in state.items()}
    in_memory, by_name = perturb_(model, seed=2), perturb_state_dict(state, seed=2)
    of_arrays = perturb_arrays_(arrays, seed=2)
    names = [entry.name for entry in in_memory.perturbed]
    assert "layers.0.mlp.experts.down_proj[2]" in names
    assert names == [entry.name for entry in by_name.perturbed] == [entry.name for entry in of_arrays.perturbed]
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, state[name]), name
        assert torch.equal(parameter, torch.from_numpy(arrays[name])), name


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
def test_a_module_of_ones_own_has_the_noise_of_its_files(tmp_path):
    """Stacks of experts, weight norm of old files, and layer norms of BERT's first ones."""
    module = nn.ModuleDict(
        {
            "experts": nn.ParameterDict(
                {
                    "down_proj": torch.arange(60.0).view(3, 4, 5) * torch.tensor([0.01, 1, 100]).view(3, 1, 1),
                    "down_proj_bias": torch.arange(12.0).view(3, 4),
                }
            ),
            "conv": nn.utils.weight_norm(nn.Conv1d(4, 4, 3)),
            "LayerNorm": nn.ParameterDict({"gamma": torch.arange(4.0) + 0.5, "beta": torch.arange(4.0) - 2}),
        }
    )
    state = {name: value.clone() for name, value in module.state_dict().items()}
    (tmp_path / "clean").mkdir()
    safetensors.torch.save_file(state, tmp_path / "clean" / "model.safetensors")
    arrays = {name: value.numpy().copy() for name, value in state.items()}
    in_memory, by_name = perturb_(nn.DataParallel(module).cpu(), seed=2), perturb_state_dict(state, seed=2)
    perturb_arrays_(arrays, seed=2)
    perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=2)
    on_disk = safetensors.torch.load_file(tmp_path / "noisy" / "model.safetensors")
    assert {entry.name: entry.scale for entry in in_memory.perturbed} == {
        entry.name: entry.scale for entry in by_name.perturbed
    }
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter, state[name]), name
        assert torch.equal(parameter, torch.from_numpy(arrays[name])), name
        assert torch.equal(parameter, on_disk[name]), name


def test_dimensions_of_length_one_are_left_out_together():
    """As older releases of transformers part a stack of experts."""
    (one, other) = Traced.of("x", (2, 1, 3)).cut([1, 1], 0)
    assert [each.squeeze().shape for each in (one, other)] == [(3,), (3,)]
    assert [each.squeeze(0).shape for each in (one, other)] == [(1, 3), (1, 3)]


def test_the_first_of_several_chunks_is_not_the_whole():
    whole = Traced.of("conv1d.weight", (6, 1, 2))
    assert whole.is_plain
    assert not any(chunk.is_plain for chunk in whole.chunk(3))
