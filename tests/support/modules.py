"""Small modules, and what noise did to them."""

import torch
from torch import nn


def small_model(dtype=torch.float32):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(50, 16, padding_idx=3), nn.Linear(16, 33), nn.LayerNorm(33), nn.Linear(33, 5))
    with torch.no_grad():
        model[2].weight.normal_(1, 0.1)
    return model.to(dtype)


def bits(module):
    return {
        name: p.detach().clone().reshape(-1).view(torch.uint8) for name, p in module.named_parameters() if p.numel()
    }


def unchanged(module, before):
    after = bits(module)
    return all(torch.equal(after[name], value) for name, value in before.items())


def left_alone(manifest):
    return {entry.own_names[0]: entry.left_alone for entry in manifest.entries if entry.left_alone}
