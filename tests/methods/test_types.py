"""Every method on forty types of models: it moves what it says, or it refuses in words."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sweep.configs import fit_for_training, tiny_config
from sweep.inputs import candidates
from sweep.models import classes
from sweep.sample import SAMPLE
from torch.nn.functional import cross_entropy

from noisytune.errors import NoisyTuneError
from noisytune.methods import Run, Stack, parse
from noisytune.methods import _dropout as dropout
from noisytune.methods._blocks import base_of, blocks, depth_of, input_embeddings

from .test_contract import ARMS

RATE, STEPS = 2e-3, 3
UNTRAINED = {"vits": "random weights say sounds of any length"}
"""Types that are not trained here."""
DRAWING = ("wav2vec2", "dinov3_vit")
"""Types that draw more than dropout in training: spans that are hidden, shifts of positions."""
States = dict[str, torch.Tensor]


@dataclass
class Trained:
    """What came of one arm on one model."""

    model: Any
    facts: dict[str, dict[str, Any]]
    start: States
    end: States
    passes: int
    optimizer: Any = None

    @property
    def told(self) -> bool:
        return any("notices" in facts for facts in self.facts.values())


@dataclass
class Kind:
    """A tiny model of a type, and a batch that it takes."""

    model: Any
    batch: dict[str, Any]
    plain: Trained = field(init=False)
    still: Trained = field(init=False)
    """Plain training without dropout in the body."""

    def __post_init__(self) -> None:
        self.plain = self.train("plain")
        self.still = self.train("plain", lambda model: dropout.off_(model))

    def train(self, arm: str, prepare: Callable[[Any], Any] = lambda model: None) -> Trained:
        """Three steps on the batch.

        Raises:
            NoisyTuneError: a method refuses the model.
        """
        model = fresh(self.model)
        prepare(model)
        passes = 0

        def compute(inputs: Any) -> Any:
            nonlocal passes
            passes += 1
            return model(**inputs)

        run = Run(model, batches=lambda: [self.batch], total_steps=STEPS, learning_rate=RATE)
        for method in parse(arm):
            method.check(run)
        stack = Stack(parse(arm), run)
        facts = stack.begin_()
        start = states(model)
        groups = [{"params": [p for p in model.parameters() if p.requires_grad], "lr": RATE, "weight_decay": 0.0}]
        optimizer = stack.optimizer(groups, torch.optim.AdamW)
        model.train()
        torch.manual_seed(1)
        for run.step in range(STEPS):
            optimizer.zero_grad()
            stack.loss(self.batch, compute).backward()
            stack.gradient_()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        with stack.evaluated():
            end = states(model)
        stack.end_()
        return Trained(model, facts, start, end, passes, optimizer)


def states(model: Any) -> States:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def fresh(model: Any) -> Any:
    """A copy whose body is marked as loaded, and which gives a loss."""
    new = copy.deepcopy(model)
    for parameter in base_of(new).parameters():
        parameter._is_hf_initialized = True
    plain = new.forward

    def forward(labels: Any = None, **inputs: Any) -> Any:
        output = plain(**inputs)
        logits = getattr(output, "logits", None)
        if logits is None or logits.ndim != 2:
            (first, *_) = (v for v in tensors(output) if v.is_floating_point() and v.shape[0] == 2 and v[0].numel() > 2)
            logits = first.flatten(1)[:, :3]
        return SimpleNamespace(logits=logits, loss=None if labels is None else cross_entropy(logits, labels))

    new.forward = forward
    return new


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """All of an output, however it is packed."""
    if isinstance(output, torch.Tensor):
        if output.ndim:
            yield output
    elif isinstance(output, dict | list | tuple):
        for one in output.values() if isinstance(output, dict) else output:
            yield from tensors(one)


def kind_of(model_type: str) -> Kind:
    """The classifier of a type, or its base model, as small as runs; skips one whose inputs nobody knows."""
    if model_type in UNTRAINED:
        pytest.skip(UNTRAINED[model_type])
    for divisor in (None, 16):
        config = tiny_config(model_type, divisor)
        fit_for_training(config)
        found = classes(model_type, config)
        heads = [each for each in found if each.__name__.endswith("ForSequenceClassification")]
        for wanted in (*heads, found[0]):
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model = wanted._from_config(config, dtype=torch.float32)
            if (batch := taken_by(model)) is not None:
                return Kind(model, {**batch, "labels": torch.tensor([0, 1])})
    pytest.skip(f"the tiny {model_type} takes no input that is known")


def taken_by(model: Any) -> dict[str, Any] | None:
    """A batch that a model runs on; None where none is known."""
    eos = getattr(model.config.get_text_config(), "eos_token_id", None)
    for batch in candidates(model):
        if isinstance(eos, int) and "input_ids" in batch:
            batch["input_ids"][:, -1] = eos  # T5's and BART's classifiers look for it
        try:
            torch.manual_seed(0)
            fresh(model)(**batch)
        except Exception:  # another kind of input: the next may fit
            continue
        return dict(batch)
    return None


def equal(one: States, other: States) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def wrong_with(kind: Kind, name: str, done: Trained) -> str | None:
    """What a method did not do that it says; None where all is well."""
    body = sum(1 for _ in base_of(done.model).named_parameters())
    facts = done.facts.get(name, {})
    if name == "reinit" and not facts["reinitialised"]:
        return "drew nothing"
    if name in ("recadam", "l2sp") and facts["anchored"] != body:
        return f"pulls {facts['anchored']} of {body}"
    if name == "rdrop" and done.passes != 2 * kind.plain.passes:
        return f"took {done.passes} passes"
    if name == "mixout" and not facts["mixed"]:
        return "mixed nothing"
    if name == "child_tuning":
        inside = {id(p) for block in blocks(done.model) for p in block.parameters()}
        names = [name for name, p in done.model.named_parameters() if id(p) in inside]
        moved = sum(int((done.end[name] != done.start[name]).sum()) for name in names)
        return None if 0 < moved <= facts["learning"] else f"{moved} weights moved, {facts['learning']} were to"
    if name == "llrd":
        return wrong_rates(done)
    return None


def wrong_rates(done: Trained) -> str | None:
    """The rates of blocks fall towards the bottom, and the table of tokens has the smallest."""
    rates = {p: group["lr"] for group in done.optimizer.param_groups for p in group["params"]}
    every, depth = blocks(done.model), depth_of(done.model)
    for place, block in enumerate(every):
        wanted = RATE * 0.8 ** (len(every) - place)
        if any(abs(rates[p] / wanted - 1) > 1e-12 for p in block.parameters() if p.requires_grad):
            return f"block {place} has other rates"
    table = input_embeddings(done.model)
    below = [] if table is None else [p for p in table.parameters() if p.requires_grad]
    if any(rates[p] > RATE * 0.8 ** (len(every) + 1) * 1.000001 for p in below):
        return "the table of tokens has another rate"
    tops = {rates[p] for p in done.model.parameters() if p.requires_grad and depth[p] == 0}
    return None if tops <= {RATE} else "what lies at the top has another rate"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("model_type", SAMPLE)
def test_a_method_moves_what_it_says_or_refuses_in_words(model_type: str) -> None:
    kind = kind_of(model_type)
    assert all(bool(tensor.isfinite().all()) for tensor in kind.plain.end.values() if tensor.is_floating_point())
    found = {}
    for name, arm in ARMS.items():
        try:
            done = kind.train(arm)
        except NoisyTuneError as error:
            if "\n" in str(error):
                found[name] = f"refuses in several lines: {error}"
            continue
        reason = wrong_with(kind, name, done)
        if reason is None and not done.told:
            compared = kind.still if name in ("mixout", "hype") else kind.plain
            reason = "does nothing" if equal(done.end, compared.end) else None
        if reason is None and (done.end.keys() != kind.plain.end.keys() or repr(done.model) != repr(kind.plain.model)):
            reason = "leaves traces"
        if reason:
            found[name] = reason
    assert not found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("model_type", [*sorted(SAMPLE.keys() - set(DRAWING)), "falcon", "prophetnet", "persimmon"])
def test_dropout_that_is_off_is_off(model_type: str) -> None:
    """ProphetNet, Persimmon and others look their rates up in the configuration while they run."""
    kind = kind_of(model_type)
    base = base_of(kind.model)
    before = copy.deepcopy(base.config.to_dict())
    rates = dropout.off_(kind.model)
    base.train()
    inputs = {name: value for name, value in kind.batch.items() if name != "labels"}
    with torch.no_grad():
        one, other = (list(tensors(base(**inputs))) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert base.config.to_dict() == before
    dropout.restore_(rates)
    assert all(vars(part).get("config") in (None, base.config) or part.config.to_dict() for part in base.modules())
