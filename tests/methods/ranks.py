"""One of two gloo processes: trains each arm under DDP on data of its own, and leaves the weights for the test."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent))
from conftest import batches, start, state_of

rank, checkpoint, folder, *arms = sys.argv[1:]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=int(rank), world_size=2)
ends = {}
for arm in arms:
    loop = start(Path(checkpoint), arm, data=batches(seed=int(rank)))
    loop.module = DistributedDataParallel(loop.stack.run.model)
    torch.manual_seed(int(rank))
    loop.run(3)
    ends[arm] = state_of(loop.stack.run.model)
torch.save(ends, Path(folder) / f"{rank}.pt")
dist.destroy_process_group()
