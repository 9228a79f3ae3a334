"""Is the noise of a sharded model that of the whole one? Each process makes the noise of its own shards; none is sent.

    pip install "noisytune[lab]"
    torchrun --standalone --nproc-per-node 2 fsdp2.py MODEL

MODEL is a directory or an id such as bert-base-uncased.
"""

import os
import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import AutoModel

from noisytune.torch import perturb_

device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cuda":
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
dist.init_process_group()

whole = AutoModel.from_pretrained(sys.argv[1]).to(device)
perturb_(whole, noise_lambda=0.15, seed=1)

model = AutoModel.from_pretrained(sys.argv[1]).to(device)
mesh = init_device_mesh(device, (dist.get_world_size(),))
for layer in next(part for part in model.modules() if isinstance(part, torch.nn.ModuleList)):
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
perturb_(model, noise_lambda=0.15, seed=1)  # before the optimizer; before or after fully_shard is the same
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5)

same = all(
    torch.equal(shard.full_tensor(), tensor)
    for shard, tensor in zip(model.parameters(), whole.parameters(), strict=True)
)
model(input_ids=torch.arange(16, device=device).reshape(2, 8)).last_hidden_state.square().mean().backward()
optimizer.step()
if dist.get_rank() == 0:
    print(f"{dist.get_world_size()} shards, noise as in one process: {same}")
dist.destroy_process_group()
