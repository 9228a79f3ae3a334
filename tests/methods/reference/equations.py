"""What the papers say, in NumPy and bare torch. Arrays are float64; t counts steps from 1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

Array = np.ndarray[Any, np.dtype[np.float64]]


# --- Adam, RecAdam (Chen et al. 2020, algorithm 1), L2-SP (Li et al. 2018, equation 2) ---


def adam_direction(g: Array, m: Array, v: Array, t: int, b1: float = 0.9, b2: float = 0.999) -> Array:
    """Update both moments in place; returns sqrt(1-b2^t)/(1-b1^t) * m / (sqrt(v) + eps), as in RecAdam."""
    m[...] = b1 * m + (1 - b1) * g
    v[...] = b2 * v + (1 - b2) * g * g
    found: Array = math.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + 1e-8)
    return found


def weight_of_the_task(anneal: str, t: int, k: float, t0: float, w: float) -> float:
    return {"sigmoid": w / (1 + math.exp(-k * (t - t0))), "linear": w * min(1.0, t / t0), "constant": w}[anneal]


def recadam_step(
    theta: Array, star: Array | None, direction: Array, lr: float, lam: float, w: float, gamma: float, decay: float
) -> Array:
    """One step; ``star`` is the pretrained value, None of a new head."""
    if star is None:
        theta = theta - lr * direction
    else:
        theta = theta - lr * lam * direction
        theta = theta - lr * (w - lam) * gamma * (theta - star)
    return theta - lr * decay * theta


def l2sp_pull(theta: Array, star: Array | None, lr: float, strength: float, head_strength: float) -> Array:
    """After the optimizer's step."""
    return theta - lr * head_strength * theta if star is None else theta - lr * strength * (theta - star)


# --- Mixout (Lee et al. 2020, section 3), Child-Tuning (Xu et al. 2021, section 3) ---


def mixture(weight: torch.Tensor, anchor: torch.Tensor, mask: torch.Tensor, p: float) -> torch.Tensor:
    """((1-M)*u + M*W - p*u) / (1-p), as the paper writes it; M is 1 where the weight stays."""
    return ((1 - mask) * anchor + mask * weight - p * anchor) / (1 - p)


def most_informative(fisher: dict[str, Array], share: float) -> dict[str, np.ndarray[Any, np.dtype[np.bool_]]]:
    """True for the largest share of all values together, found by sorting them."""
    everything = np.sort(np.concatenate([one.ravel() for one in fisher.values()]))
    threshold = everything[-math.ceil(share * everything.size)]
    return {name: one >= threshold for name, one in fisher.items()}


# --- R-Drop (Liang et al. 2021, equation 3) and R3F (Aghajanyan et al. 2021, equation 4) ---


def divergence(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """sum p ln(p/q) + sum q ln(q/p), the mean over the examples."""
    p, q = one.exp() / one.exp().sum(1, keepdim=True), other.exp() / other.exp().sum(1, keepdim=True)
    return ((p * (p / q).log()).sum(1) + (q * (q / p).log()).sum(1)).mean()


def entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy, the mean over the examples."""
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    return -p[torch.arange(len(labels)), labels].log().mean()


# --- the mean of weights (Kingma & Ba 2015, section 7.2), SAM (Foret et al. 2021, equation 2) ---


def weighted_mean(weights: list[Array], decay: float) -> Array:
    """Of the weights after steps 1, 2, ..., T: step t counts d^(T-t)."""
    counts = [decay ** (len(weights) - 1 - t) for t in range(len(weights))]
    found: Array = sum((c * w for c, w in zip(counts, weights, strict=True)), np.zeros_like(weights[0])) / sum(counts)
    return found


def uphill(gradients: dict[str, Array], rho: float) -> dict[str, Array]:
    """rho * g / |g|, with the norm over all parameters together."""
    norm = math.sqrt(sum(float((g * g).sum()) for g in gradients.values()))
    return {name: rho * g / norm for name, g in gradients.items()}


# --- noise (Wu et al. 2022, Yuan et al. 2023, Jain et al. 2024) ---


def signs(like: torch.Tensor) -> torch.Tensor:
    """-1 or 1, each by chance."""
    return 1.0 - 2.0 * (torch.bernoulli(torch.full_like(like, 0.5)) == 0).to(like.dtype)


def uniform_between(low: float, high: float, like: torch.Tensor) -> torch.Tensor:
    return low + (high - low) * torch.rand(like.shape, dtype=like.dtype)
