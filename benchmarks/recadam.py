"""RecAdam's step against AdamW's, on the parameters of a BERT-base encoder (86M), float32, alternating.

python benchmarks/recadam.py [--rounds 9] [--layers 12]
"""

import argparse
from statistics import median
from time import perf_counter

import torch
from describe import machine

from noisytune.methods.recadam import RecAdam

SHAPES = [(768, 768)] * 4 + [(3072, 768), (768, 3072)] + [(768,)] * 9 + [(3072,)]
"""One block of BERT-base."""
TARGET = 1.6
"""RecAdam's step may take so many times that of AdamW."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--layers", type=int, default=12)
    arguments = parser.parse_args()
    print(machine())

    def parameters() -> list[torch.nn.Parameter]:
        found = [torch.nn.Parameter(torch.randn(shape) * 0.02) for _ in range(arguments.layers) for shape in SHAPES]
        for parameter in found:
            parameter.grad = torch.randn_like(parameter) * 1e-3
        return found

    ours, foreach, fused = parameters(), parameters(), parameters()
    optimizers = {
        "RecAdam": RecAdam(ours, {p: p.detach().clone() for p in ours}, lr=2e-5),
        "AdamW foreach": torch.optim.AdamW(foreach, lr=2e-5, foreach=True),
        "AdamW fused": torch.optim.AdamW(fused, lr=2e-5, fused=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in optimizers}
    for round_ in range(arguments.rounds + 1):
        for name, optimizer in optimizers.items():
            start = perf_counter()
            optimizer.step()
            if round_:  # the first one makes the state
                seconds[name].append(perf_counter() - start)
    middle = {name: median(times) for name, times in seconds.items()}
    print(f"{sum(p.numel() for p in ours) / 1e6:.0f}M parameters, {arguments.rounds} rounds, median of a step:")
    for name, value in middle.items():
        print(f"  {name:14} {1000 * value:7.1f} ms   RecAdam / it: {middle['RecAdam'] / value:.2f}")
    ratio = median(a / b for a, b in zip(seconds["RecAdam"], seconds["AdamW fused"], strict=True))
    print(f"RecAdam / AdamW fused, median of rounds: {ratio:.2f} (target {TARGET})")


if __name__ == "__main__":
    main()
