"""Tiny models of five families with a new head, and a plain loop in which a stack of methods trains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    RobertaConfig,
    T5Config,
    XLNetConfig,
)
from transformers.utils import logging as transformers_logging

from noisytune.methods import Run, Stack, parse

LABELS, EOS = 3, 1
CONFIGS = {
    "bert": BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    ),
    "roberta": RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=EOS,
    ),
    "xlnet": XLNetConfig(vocab_size=50, d_model=16, n_layer=2, n_head=2, d_inner=32, pad_token_id=0),
    "gpt2": GPT2Config(
        vocab_size=50, n_positions=64, n_embd=16, n_layer=2, n_head=2, pad_token_id=0, bos_token_id=2, eos_token_id=EOS
    ),
    "t5": T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        pad_token_id=0,
        eos_token_id=EOS,
        decoder_start_token_id=0,
    ),
}
FAMILIES = list(CONFIGS)
QUICK = ("bert", "t5")
"""An encoder, and an encoder-decoder without token types."""
CONTRACT = [family if family in QUICK else pytest.param(family, marks=pytest.mark.slow) for family in FAMILIES]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved base model of each family."""
    folders = {}
    for family, config in CONFIGS.items():
        folders[family] = tmp_path_factory.mktemp("families") / family
        with torch.random.fork_rng():
            torch.manual_seed(3)
            AutoModel.from_config(config).save_pretrained(folders[family])
    return folders


def batches(count: int = 4, size: int = 8, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Eight tokens an example, the last one the end; the label is the first token modulo 3."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        ids = torch.randint(3, 50, (size, 8), generator=generator)
        ids[:, -1] = EOS
        found.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids[:, 0] % LABELS})
    return found


def load(folder: Path, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=LABELS)


@dataclass
class Loop:
    """AdamW with a falling learning rate, as plain as can be."""

    stack: Stack
    data: list[dict[str, torch.Tensor]] = field(default_factory=batches)
    rate: float = 5e-3
    accumulate: int = 1
    context: Callable[[], AbstractContextManager[Any]] = nullcontext
    module: nn.Module | None = None
    """What is called: the model, compiled or wrapped."""
    wrap: Callable[[Any], Any] = lambda model: None
    """What happens to the model after the methods have begun, in place."""

    def __post_init__(self) -> None:
        model = self.stack.run.model
        self.facts = self.stack.begin_()
        self.wrap(model)
        groups = [
            {"params": [p for p in model.parameters() if p.ndim > 1], "lr": self.rate, "weight_decay": 0.01},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "lr": self.rate, "weight_decay": 0.0},
        ]
        self.optimizer = self.stack.optimizer(groups, torch.optim.AdamW)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / 100)

    def run(self, steps: int) -> list[float]:
        """So many more steps; returns the losses."""
        run, losses = self.stack.run, []
        run.model.train()
        called = run.model if self.module is None else self.module
        for _ in range(steps):
            self.optimizer.zero_grad()
            for part in range(self.accumulate):
                batch = self.data[(run.step * self.accumulate + part) % len(self.data)]
                with self.context():
                    loss = self.stack.loss(batch, lambda inputs: called(**inputs))
                (loss / self.accumulate).backward()
            self.stack.gradient_()
            nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
            self.optimizer.step()
            self.schedule.step()
            run.step += 1
            losses.append(float(loss.detach()))
        return losses

    @torch.no_grad()
    def loss(self) -> float:
        """Over all batches, in evaluation."""
        model: Any = self.stack.run.model.eval()
        with self.stack.evaluated():
            return sum(float(model(**batch).loss) for batch in self.data)

    def save(self) -> dict[str, Any]:
        """Everything that a trainer's checkpoint holds."""
        return {
            "model": state_of(self.stack.run.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": torch.get_rng_state(),
            "step": self.stack.run.step,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.stack.run.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        self.stack.run.step = saved["step"]


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def start(folder: Path, arm: str, seed: int = 0, **settings: Any) -> Loop:
    """A fresh model of a checkpoint with an arm's methods at work."""
    run = Run(load(folder, seed), seed=seed, batches=batches)
    return Loop(Stack(parse(arm), run), **settings)


@pytest.fixture(autouse=True)
def _quick_and_quiet() -> Iterator[None]:
    """One thread, and no word about the head that is new."""
    quietly: Any = transformers_logging
    before = torch.get_num_threads(), quietly.get_verbosity()
    torch.set_num_threads(1)
    quietly.set_verbosity_error()
    yield
    torch.set_num_threads(before[0])
    quietly.set_verbosity(before[1])
