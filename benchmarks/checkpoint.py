"""perturb_checkpoint against copying the files, and against load + snippet + save: alternating, in fresh processes.

    python benchmarks/checkpoint.py [--gigabytes 2] [--dtype float32] [--rounds 3] [--folder /tmp]

``cp`` is followed by fsync of the copies and of their folder, as the checkpoint is. The slow rival is what people do
today: ``from_pretrained``, the paper's snippet (with one ``state_dict()``, the faster form), ``save_pretrained``. Each
round runs all of them once, in a process each; the ratio is taken within a round. It is shown with the whole process
(start of Python, imports, loading of compiled kernels) and for the call alone, after the imports. Peak memory is the
process's own (VmHWM). Needs about three times the checkpoint's size of disk, and deletes what it wrote.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from describe import machine


def make(folder: Path, gigabytes: float, dtype: str) -> None:
    """A sharded Llama-style checkpoint of random weights; its largest tensors have the usual sizes."""
    import torch
    from transformers import LlamaConfig, LlamaModel

    width, of_one_layer = 2048, 2048 * 2048 * 4 + 2048 * 5504 * 3
    bytes_each = torch.empty(0, dtype=getattr(torch, dtype)).element_size()
    layers = max(1, round((gigabytes * 1e9 / bytes_each - 32000 * width) / of_one_layer))
    config = LlamaConfig(
        hidden_size=width, intermediate_size=5504, num_attention_heads=16, num_hidden_layers=layers, vocab_size=32000
    )
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    LlamaModel(config).save_pretrained(folder, max_shard_size="500MB")


def copy(source: Path, out: Path) -> None:
    """``cp``, then fsync of every file and of the folder."""
    subprocess.run(["cp", "-r", source, out], check=True)
    for path in [*out.iterdir(), out, out.parent]:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def ours(source: Path, out: Path) -> None:
    """One call."""
    from noisytune.checkpoint import perturb_checkpoint

    perturb_checkpoint(source, out, noise_lambda=0.15, seed=1)


def snippet(source: Path, out: Path) -> None:
    """Load, the paper's lines, save."""
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source)
    state = model.state_dict()
    with torch.no_grad():
        for name, para in model.named_parameters():
            state[name][:] += (torch.rand(para.size()) - 0.5) * 0.15 * torch.std(para)
    model.save_pretrained(out, max_shard_size="500MB")


RIVALS: dict[str, Callable[[Path, Path], None]] = {
    "cp + fsync": copy,
    "noisytune": ours,
    "load, snippet, save": snippet,
}


def one_tensor(source: Path) -> None:
    """A checkpoint of one float32 tensor of 1 GB, written without holding it."""
    import json

    import numpy as np

    source.mkdir()
    entry = {"dtype": "F32", "shape": [250_000, 1000], "data_offsets": [0, 10**9]}
    header = json.dumps({"weight": entry}).encode()
    with (source / "model.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for seed in range(250):
            stream.write(np.random.default_rng(seed).standard_normal(10**6, np.float32).tobytes())


class Measured(NamedTuple):
    """One run of one rival in a process of its own."""

    process: float
    """Wall seconds, start and imports included."""
    call: float
    """Wall seconds of the call alone."""
    memory: float
    """Peak resident MB."""


def measured(name: str, source: Path, out: Path) -> Measured:
    os.sync()
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, __file__, "--run", name, str(source), str(out)], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    call, memory = done.stdout.split()[-2:]
    return Measured(seconds, float(call), float(memory))


def load(name: str) -> None:
    """What a rival's process does once, however many checkpoints it works on."""
    if name == "noisytune":
        import numpy as np

        import noisytune.checkpoint  # noqa: F401
        from noisytune._noise import kernels

        for dtype in (np.dtype(np.float32), kernels.BFLOAT16):
            weights = np.arange(10).astype(dtype)
            kernels.add_noise_(weights, kernels.moments(weights).std, 0.15, "uniform", 1, "weight")
    elif name != "cp + fsync":
        import transformers

        transformers.AutoModel  # noqa: B018  imported when it is looked up


def run(name: str, source: Path, out: Path) -> None:
    load(name)
    start = time.perf_counter()
    RIVALS[name](source, out)
    print(time.perf_counter() - start)
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--run", nargs=3, metavar=("RIVAL", "SOURCE", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run[0], Path(options.run[1]), Path(options.run[2]))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make(folder / "clean", options.gigabytes, options.dtype)
        files = list((folder / "clean").glob("*.safetensors"))
        size = sum(file.stat().st_size for file in files)
        print(machine())
        print(f"{size / 1e9:.2f} GB {options.dtype} in {len(files)} files, {options.rounds} alternating rounds\n")
        found: dict[str, list[Measured]] = {rival: [] for rival in RIVALS}
        measured("noisytune", folder / "clean", folder / "out")  # compiles, and brings the files into the page cache
        for _ in range(options.rounds):
            for rival in RIVALS:
                found[rival].append(measured(rival, folder / "clean", folder / "out"))
        print(f"{'':22}{'process':>9}{'ours / theirs':>20}{'call':>11}{'ours / theirs':>20}{'peak memory':>14}")
        for rival, results in found.items():
            cells = []
            for what in ("process", "call"):
                mine, theirs = ([getattr(one, what) for one in runs] for runs in (found["noisytune"], results))
                ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
                spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
                cells.append(f"{statistics.median(theirs):7.2f} s{spread:>20}")
            print(f"{rival:22}{'  '.join(cells)}{max(one.memory for one in results):11.0f} MB")
        print("\ntargets: cp + fsync at most 1.3; load, snippet, save at most 0.2; memory at most 600 MB")
        shutil.rmtree(folder / "clean")
        one_tensor(folder / "one")
        one = measured("noisytune", folder / "one", folder / "out")
        print(f"one tensor of 1 GB: {one.process:.2f} s, peak {one.memory:.0f} MB")


if __name__ == "__main__":
    main()
