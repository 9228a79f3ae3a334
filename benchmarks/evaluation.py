"""Scoring ten languages against ten bare prediction loops over the same batches: alternating.

    python benchmarks/evaluation.py [--rows 64] [--languages 10] [--batch-size 16] [--rounds 3] [--threads 1]

Same model (all-MiniLM-L6-v2) in one process, for sentence pairs and for tagged sentences. A bare loop gets batches that
are padded and sorted by length beforehand, calls the model and keeps its logits; ours also sorts, collates, takes the
padding away, reads classes or tags from the logits, and scores them. Target: at most 1.1 times as long. CPU time is the
one to believe where other processes run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from describe import machine
from glue import Clock, Seconds, made
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification, AutoTokenizer
from transformers.utils import logging

from noisytune._pretrained import default_model
from noisytune.lab.kinds import KINDS, Split, TokenSplit
from noisytune.lab.trials.evaluate import Evaluator

TARGET, MAX_LENGTH = 1.1, 128
TAGS = ("DET", "NOUN", "VERB")


def pairs(rows: int, tokenizer: Any) -> Split:
    """Two texts an example, as long as RTE's."""
    return made("rte", rows, tokenizer).train


def tagged(rows: int, tokenizer: Any) -> Split:
    """The same words, each with a tag."""
    words = tuple(tuple(" ".join(texts).split()) for texts in pairs(rows, tokenizer).texts)
    return Split(words, tuple(tuple(float(len(word) % len(TAGS)) for word in sentence) for sentence in words))


def bare(model: Any, evaluator: Evaluator, splits: dict[str, TokenSplit]) -> Callable[[], Seconds]:
    """Loops over batches that are made beforehand."""
    loops = []
    for data in splits.values():
        order = np.argsort(data.lengths, kind="stable")
        starts = range(0, len(order), evaluator.batch_size)
        parts = [order[start : start + evaluator.batch_size] for start in starts]
        loops.append([evaluator.collate([data.row(int(i)) for i in part]) for part in parts])

    @torch.inference_mode()
    def run() -> Seconds:
        model.eval()
        with Clock() as clock:
            for batches in loops:
                kept = [model(**batch).logits for batch in batches]
                kept.clear()
        return clock.seconds

    return run


def ours(model: Any, evaluator: Evaluator, splits: dict[str, TokenSplit]) -> Callable[[], Seconds]:
    """The lab's."""

    def run() -> Seconds:
        with Clock() as clock:
            evaluator(model, splits)
        return clock.seconds

    return run


def compare(name: str, model: Any, evaluator: Evaluator, splits: dict[str, TokenSplit], rounds: int) -> None:
    """Time both in turns and print the ratio."""
    rivals = {"ours": ours(model, evaluator, splits), "bare": bare(model, evaluator, splits)}
    seconds: dict[str, list[Seconds]] = {rival: [] for rival in rivals}
    for number in range(rounds + 1):
        for rival, run in rivals.items():
            found = run()
            if number:  # the first round warms up
                seconds[rival].append(found)
    for kind, what in enumerate(("wall", "CPU")):
        one, other = ([times[kind] for times in seconds[rival]] for rival in ("ours", "bare"))
        ratios = [a / b for a, b in zip(one, other, strict=True)]
        print(
            f"  {name:16}{what:5}{median(one):8.2f} s ours{median(other):8.2f} s bare"
            f"   ratio {median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})   target at most {TARGET:g}"
        )


def main() -> None:
    """Both kinds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    path: Path = default_model()
    tokenizer = AutoTokenizer.from_pretrained(path)
    print(machine())
    print(f"{options.languages} languages of {options.rows} rows, batches of {options.batch_size}")
    cases: dict[str, tuple[Any, Split, tuple[str, ...]]] = {
        "classification": (AutoModelForSequenceClassification, pairs(options.rows, tokenizer), ("a", "b")),
        "tagging": (AutoModelForTokenClassification, tagged(options.rows, tokenizer), TAGS),
    }
    for name, (model_class, split, labels) in cases.items():
        kind = KINDS[name]
        model = model_class.from_pretrained(path, num_labels=len(labels))
        data = kind.encode(tokenizer, split, MAX_LENGTH, None, name)
        splits = {f"language {i}": data for i in range(options.languages)}
        evaluator = Evaluator(kind, labels, None, kind.collate(tokenizer), options.batch_size)
        compare(name, model, evaluator, splits, options.rounds)


if __name__ == "__main__":
    main()
