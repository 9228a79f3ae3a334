"""One of two gloo processes: trains each arm on data of its own, and leaves the weights for the test.

Under DDP; and arms that hold on to weights sharded by FSDP2 after they have begun, on the same data as the other rank.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
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
    with loop.stack.evaluated():
        ends[arm] = state_of(loop.stack.run.model)
for arm in arms:
    if arm.startswith(("recadam", "l2sp", "child_tuning", "mixout", "ema")):
        loop = start(Path(checkpoint), arm, wrap=lambda model: fully_shard(model, mesh=init_device_mesh("cpu", (2,))))
        torch.manual_seed(0)
        loop.run(3)
        with loop.stack.evaluated():
            state = state_of(loop.stack.run.model)
        ends[f"sharded {arm}"] = {name: tensor.full_tensor() for name, tensor in state.items()}
torch.save(ends, Path(folder) / f"{rank}.pt")
dist.destroy_process_group()
