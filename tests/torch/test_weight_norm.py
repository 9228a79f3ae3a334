"""Weight norm: the magnitude and the direction are what the files hold, and take noise in memory and on disk alike."""

import pytest
import safetensors.torch
import torch
from torch import nn
from transformers import Wav2Vec2Config, Wav2Vec2Model

from noisytune.checkpoint import perturb_checkpoint
from noisytune.errors import UnsupportedTensorError
from noisytune.torch import perturb_

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONV = {"conv_dim": (8, 8), "conv_stride": (2, 2), "conv_kernel": (3, 3), "num_conv_pos_embeddings": 8}
OLD = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


@pytest.mark.parametrize("is_old", [False, True])
def test_the_same_noise_in_memory_and_on_disk(tmp_path, is_old):
    config = Wav2Vec2Config(vocab_size=8, num_conv_pos_embedding_groups=2, num_feat_extract_layers=2, **SIZES, **CONV)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Wav2Vec2Model(config).save_pretrained(tmp_path / "clean")
    if is_old:
        file = tmp_path / "clean" / "model.safetensors"
        weights = safetensors.torch.load_file(file)
        for today, old in OLD.items():
            weights["encoder.pos_conv_embed.conv." + old] = weights.pop("encoder.pos_conv_embed.conv." + today)
        safetensors.torch.save_file(weights, file, {"format": "pt"})
    memory = Wav2Vec2Model.from_pretrained(tmp_path / "clean")
    clean = memory.encoder.pos_conv_embed.conv.weight.clone()
    manifest = perturb_(memory, seed=1)
    assert {f"encoder.pos_conv_embed.conv.{name}" for name in OLD} <= {entry.name for entry in manifest.perturbed}
    perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=1)
    disk = Wav2Vec2Model.from_pretrained(tmp_path / "noisy").state_dict()
    assert all(torch.equal(tensor, disk[name]) for name, tensor in memory.state_dict().items())
    assert not torch.equal(memory.encoder.pos_conv_embed.conv.weight, clean)


def test_other_parametrisations_are_refused():
    layer = nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))
    with pytest.raises(UnsupportedTensorError, match="parametrised"):
        perturb_(layer)
