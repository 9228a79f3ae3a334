"""perturb_ against the paper's snippet: time and extra memory, alternating in one process.

    python benchmarks/perturb.py [--rounds 7] [--dtype float32] [--model bert-base] [--device cpu]

The models, of random weights: BERT-base (110M parameters) and a Llama of 1B parameters.

The snippet is the paper's, with the changes without which it does not run: ``state_dict()`` is called, random numbers
are drawn where the weights are, and tensors of no dimension do not exist in this model. A third rival is the plain
in-place scale of the same memory: the limit that the machine's bandwidth sets.
"""

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from describe import machine
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

from noisytune.torch import perturb_


def snippet(model: torch.nn.Module, noise_lambda: float) -> None:
    for name, para in model.named_parameters():
        model.state_dict()[name][:] += (
            (torch.rand(para.size(), device=para.device) - 0.5) * noise_lambda * torch.std(para)
        )


def snippet_with_one_state_dict(model: torch.nn.Module, noise_lambda: float) -> None:
    state = model.state_dict()
    for name, para in model.named_parameters():
        state[name][:] += (torch.rand(para.size(), device=para.device) - 0.5) * noise_lambda * torch.std(para)


def ours(model: torch.nn.Module, noise_lambda: float) -> None:
    perturb_(model, noise_lambda=noise_lambda, seed=1, again=True)


def scale_in_place(model: torch.nn.Module, noise_lambda: float) -> None:
    for parameter in model.parameters():
        parameter.mul_(1.0000001)


RIVALS: dict[str, Callable[[torch.nn.Module, float], None]] = {
    "noisytune.perturb_": ours,
    "paper's snippet": snippet,
    "snippet, one state_dict()": snippet_with_one_state_dict,
    "in-place scale (limit)": scale_in_place,
}


def make(name: str, dtype: torch.dtype, device: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if name == "bert-base":
        return BertModel(BertConfig()).to(device, dtype)
    with torch.device("meta"):
        model = LlamaModel(LlamaConfig(hidden_size=2048, intermediate_size=7168, num_hidden_layers=16))
    model = model.to(dtype).to_empty(device=device)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02)
    return model


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak_extra_memory(action: Callable[[], None], device: str) -> int:
    """Resident bytes above the start, sampled every 0.2 ms by another thread while the action runs; on a GPU what its
    allocator counts."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        action()
        return torch.cuda.max_memory_allocated() - start
    stop, start = threading.Event(), resident_bytes()
    peak = start

    def watch() -> None:
        nonlocal peak
        while not stop.is_set():
            peak = max(peak, resident_bytes())
            time.sleep(2e-4)

    watcher = threading.Thread(target=watch)
    watcher.start()
    action()
    stop.set()
    watcher.join()
    return peak - start


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--model", default="bert-base", choices=["bert-base", "llama-1b"])
    options = parser.parse_args()
    model = make(options.model, getattr(torch, options.dtype), options.device)
    elements = sum(p.numel() for p in model.parameters())
    print(machine() if options.device == "cpu" else torch.cuda.get_device_name())
    print(f"{options.model}, {elements:,} parameters, {options.dtype}, median of {options.rounds} alternating rounds\n")
    times: dict[str, list[float]] = {name: [] for name in RIVALS}
    for number in range(options.rounds + 1):
        for name, rival in RIVALS.items():
            start = time.perf_counter()
            rival(model, 1e-6)
            if options.device == "cuda":
                torch.cuda.synchronize()
            if number:  # the first round compiles and warms up
                times[name].append(time.perf_counter() - start)
    memory = {name: peak_extra_memory(partial(rival, model, 1e-6), options.device) for name, rival in RIVALS.items()}
    medians = {name: statistics.median(seconds) for name, seconds in times.items()}
    mine = medians["noisytune.perturb_"]
    print(f"{'':28}{'ms':>8}{'1e9 elements/s':>16}{'times ours':>12}{'extra memory':>15}")
    for name, median in medians.items():
        rate, ratio = elements / median / 1e9, median / mine
        print(f"{name:28}{median * 1e3:8.0f}{rate:16.2f}{ratio:12.2f}{memory[name] / 2**20:12.1f} MB")
    rounds = list(
        zip(times["noisytune.perturb_"], times["paper's snippet"], times["in-place scale (limit)"], strict=True)
    )
    faster = statistics.median(theirs / ours for ours, theirs, _ in rounds)
    slower = statistics.median(ours / limit for ours, _, limit in rounds)
    print(f"\nmedian of the rounds: {faster:.1f} times as fast as the snippet (target at least 10), ", end="")
    print(f"{slower:.1f} times the scale's time (target at most 4.5)")


if __name__ == "__main__":
    main()
