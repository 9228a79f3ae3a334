"""One trial: paired with its twin bit for bit, equal to a bare loop, honest when it goes wrong."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, Trainer, set_seed

from noisytune._pretrained import Model
from noisytune.lab.kinds import KINDS
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.evaluate import Evaluation, Evaluator, trial_status
from noisytune.lab.trials.fine_tune import check_arms, run_trial
from noisytune.lab.trials.tokens import Tokens, load_tokenizer, tokenise
from noisytune.lab.trials.trial import Trial
from noisytune.methods import METHODS, Stack, make
from noisytune.records import TrialRecord
from tests.support.trials import SHORT, a_trial, noisy, outcome

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


@pytest.mark.parametrize("name", ["tiny", pytest.param("minilm", marks=pytest.mark.slow)])
def test_lambda_zero_is_the_baseline_bit_for_bit(name: str, topics: TaskData, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    tokens = tokenise(model.path, topics, 32)
    plain, zero, noise = (
        run_trial(Trial.resolve(model, topics, arm, 3, SHORT), model.path, tokens)
        for arm in (PLAIN, noisy(0), noisy(0.15))
    )
    assert outcome(plain) == outcome(zero)
    assert plain.applied == {}
    assert zero.applied["noisytune"]["perturbed"] == 0
    assert noise.loss_curve != plain.loss_curve
    assert noise.applied["noisytune"]["perturbed"] > (90 if name == "minilm" else 10)
    assert noise.applied["noisytune"]["config"]["seed"] == 3
    assert TrialRecord.from_json(plain.to_json(), "here") == plain


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every batch that a Trainer sees, with the state of the random generator before and after the step."""
    seen: list[dict[str, Any]] = []
    step = Trainer.training_step

    def watch(self: Any, model: Any, inputs: dict[str, Any], *args: Any) -> Any:
        batch = {name: tensor.clone() for name, tensor in inputs.items()}
        before = torch.get_rng_state()
        loss = step(self, model, inputs, *args)
        seen.append({"batch": batch, "before": before, "after": torch.get_rng_state(), "dtype": model.dtype})
        return loss

    monkeypatch.setattr(Trainer, "training_step", watch)
    return seen


def test_two_arms_of_a_seed_differ_in_the_weights_only(
    tiny_study: Study, tiny_tokens: Tokens, watched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads: list[torch.Tensor] = []
    states: list[tuple[Any, ...]] = []
    begin = Stack.begin_

    def watch_noise(stack: Stack) -> Any:
        heads.append(stack.run.model.get_parameter("classifier.weight").detach().clone())
        before = (torch.get_rng_state(), np.random.get_state()[1:3])
        applied = begin(stack)
        states.append((before, (torch.get_rng_state(), np.random.get_state()[1:3])))
        return applied

    monkeypatch.setattr(Stack, "begin_", watch_noise)
    runs, ends = [], []
    for arm in (PLAIN, noisy(0.5), noisy(0.5, distribution="gaussian")):
        watched.clear()
        run_trial(a_trial(tiny_study, arm), tiny_study.model.path, tiny_tokens)
        runs.append(list(watched))
        ends.append(torch.get_rng_state())
    assert len(runs[0]) == 5
    for run in runs[1:]:
        for one, other in zip(runs[0], run, strict=True):
            for name in ("input_ids", "labels", "attention_mask"):
                assert torch.equal(one["batch"][name], other["batch"][name])
            assert torch.equal(one["before"], other["before"])
            assert torch.equal(one["after"], other["after"])
    assert all(torch.equal(heads[0], head) for head in heads)
    assert len(heads) == len(states) == 3
    assert all(torch.equal(ends[0], end) for end in ends)
    for before, after in states:
        assert torch.equal(before[0], after[0])
        assert np.array_equal(before[1][0], after[1][0])
        assert before[1][1] == after[1][1]
    shapes = [step["batch"]["input_ids"].shape for step in runs[0]]
    assert len({length for _, length in shapes}) > 1, "padded to each batch's own longest text"


def test_a_head_with_a_seed_of_its_own(
    tiny_study: Study, tiny_tokens: Tokens, watched: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It moves the head alone: batches, dropout and noise stay those of the trial's seed."""
    heads: list[torch.Tensor] = []
    begin = Stack.begin_

    def watch_head(stack: Stack) -> Any:
        heads.append(stack.run.model.get_parameter("classifier.weight").detach().clone())
        return begin(stack)

    monkeypatch.setattr(Stack, "begin_", watch_head)
    records, steps = [], []
    for seed, head in ((5, None), (5, 5), (5, 6), (6, None)):
        watched.clear()
        settings = {} if head is None else {"head_seed": head}
        records.append(
            run_trial(a_trial(tiny_study, noisy(0.15), seed, **settings), tiny_study.model.path, tiny_tokens)
        )
        steps.append(list(watched))
    five, same, other_head, six = records
    assert outcome(five) == outcome(same)
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(heads[2], heads[3])
    assert other_head.applied == five.applied != six.applied
    for one, other in zip(steps[0], steps[2], strict=True):
        assert torch.equal(one["batch"]["input_ids"], other["batch"]["input_ids"])
        assert torch.equal(one["after"], other["after"])


def test_a_trial_can_be_repeated_and_another_seed_is_another_trial(tiny_study: Study, tiny_tokens: Tokens) -> None:
    torch.rand(7)
    one, again, other = (
        run_trial(a_trial(tiny_study, noisy(0.15), seed), tiny_study.model.path, tiny_tokens) for seed in (5, 5, 6)
    )
    assert outcome(one) == outcome(again)
    assert one.loss_curve != other.loss_curve
    assert len(one.predictions) == len(one.references) == 30
    assert set(one.timing) == {"load", "prepare", "train", "evaluate", "total"}


def test_the_losses_are_those_of_a_bare_loop(
    tmp_path: Path, save_tiny: Callable[..., Path], tiny_study: Study, watched: list[dict[str, Any]]
) -> None:
    """Without dropout, on the batches that the trial saw: AdamW, warm-up, linear decay, clipping, as documented."""
    folder = save_tiny(tmp_path / "m", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    tokens = tokenise(folder, tiny_study.tasks[0], 32)
    trial = a_trial(tiny_study, seed=2, warmup=0.2, weight_decay=0.1, max_grad_norm=0.5, epochs=2)
    record = run_trial(trial, folder, tokens)
    steps = len(watched)
    assert steps == 2 * math.ceil(40 / 8)
    assert sorted(len(step["batch"]["labels"]) for step in watched) == [8] * steps

    set_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(tiny_study.tasks[0].labels))
    model.to(watched[0]["batch"]["labels"].device).train()
    decayed = [p for n, p in model.named_parameters() if "bias" not in n and "LayerNorm" not in n]
    kept = [p for n, p in model.named_parameters() if "bias" in n or "LayerNorm" in n]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": kept, "weight_decay": 0.0}])
    losses = []
    for i, step in enumerate(watched):
        rate = min(i / 2, (steps - i) / (steps - 2))
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * rate
        batch = step["batch"]
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = torch.nn.functional.cross_entropy(logits, batch["labels"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(record.loss_curve, losses, rtol=2e-5)

    model.cpu().eval()
    tokenizer = load_tokenizer(folder)
    with torch.no_grad():
        alone = [
            int(model(**tokenizer(*texts, truncation=True, max_length=32, return_tensors="pt")).logits.argmax())
            for texts in tiny_study.tasks[0].dev.texts
        ]
    assert np.mean(np.array(alone) == np.array(record.predictions)) > 0.9


def test_predictions_come_back_in_the_order_of_the_data(tiny: Model, tiny_tokens: Tokens) -> None:
    set_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(tiny.path, num_labels=3).eval()
    kind, dev = KINDS["classification"], tiny_tokens.evaluate["dev"]
    evaluator = Evaluator(kind, ("a", "b", "c"), None, kind.collate(load_tokenizer(tiny.path)), 7)
    together, alone = evaluator.outputs(model, dev), replace(evaluator, batch_size=1).outputs(model, dev)
    with torch.no_grad():
        by_hand = [model(input_ids=torch.tensor([dev.row(i)["input_ids"]])).logits[0].numpy() for i in range(len(dev))]
    np.testing.assert_allclose(together, by_hand, atol=1e-5)
    np.testing.assert_allclose(alone, by_hand, atol=1e-5)


def lengths_as_values(data: TaskData, value: Callable[[float], float]) -> TaskData:
    """The value is a function of the text's length: easy, if targets and texts stay together."""

    def lengths(split: Any) -> Any:
        return replace(split, targets=tuple(value(len(texts[0]) / 20) for texts in split.texts))

    evaluate = {name: lengths(split) for name, split in data.evaluate.items()}
    return replace(data, kind="regression", metric="pearson", labels=(), train=lengths(data.train), evaluate=evaluate)


@pytest.mark.slow
def test_values_can_be_learnt_in_any_unit(tiny_study: Study, tiny: Model) -> None:
    """Prices as well as years and shares: the unit and the zero are the user's, and change nothing else."""
    topics = load_task("topics", TaskOptions(train_size=200, dev_size=60))
    units = [(5000.0, 20000.0), (1e-6, 1e-3)]
    seen = []
    for slope, zero in units:
        task = lengths_as_values(topics, lambda length, a=slope, b=zero: b + a * length)  # type: ignore[misc]
        trial = a_trial(replace(tiny_study, tasks=(task,)), learning_rate=5e-3, epochs=8, batch_size=16)
        record = run_trial(trial, tiny.path, tokenise(tiny.path, task, 32))
        assert record.status == "ok"
        assert record.references == list(task.dev.targets)
        assert record.scores["pearson"] > 0.7
        assert record.scores["r2"] > 0.3
        seen.append((np.array(record.predictions) - zero) / slope)
    np.testing.assert_allclose(seen[1], seen[0], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("scale", [1e39, 1e300, 1e-300])
def test_values_outside_float32_can_be_learnt(tiny_study: Study, tiny: Model, topics: TaskData, scale: float) -> None:
    task = lengths_as_values(topics, lambda length: scale * length)
    record = run_trial(
        a_trial(replace(tiny_study, tasks=(task,)), max_steps=3), tiny.path, tokenise(tiny.path, task, 32)
    )
    assert record.status == "ok"
    assert all(map(math.isfinite, record.predictions))
    assert TrialRecord.from_json(record.to_json(), "here") == record


def test_a_diverged_trial_says_so_and_stops(tiny_study: Study, tiny_tokens: Tokens) -> None:
    told: list[tuple[int, int, float | None]] = []
    trial = a_trial(tiny_study, learning_rate=1e38, weight_decay=10.0)
    record = run_trial(trial, tiny_study.model.path, tiny_tokens, lambda *step: told.append(step))
    assert record.status == "diverged"
    assert 1 <= len(record.loss_curve) < 5
    assert all(map(math.isfinite, record.loss_curve))
    assert told[-1] == (len(record.loss_curve) + 1, 5, None)
    assert record.scores == {}
    assert record.predictions == []
    assert TrialRecord.from_json(record.to_json(), "here") == record


def test_a_collapsed_trial_says_so(tiny_study: Study, tiny: Model) -> None:
    task = tiny_study.tasks[0]
    one_class = replace(task, train=replace(task.train, targets=(1.0,) * len(task.train)))
    trial = a_trial(replace(tiny_study, tasks=(one_class,)), learning_rate=1e-2, epochs=6)
    record = run_trial(trial, tiny.path, tokenise(tiny.path, one_class, 32))
    assert record.status == "collapsed"
    assert set(record.predictions) == {1.0}
    assert record.scores["matthews"] == 0


def test_half_precision_weights_are_trained_in_single_precision(
    tmp_path: Path, save_tiny: Callable[..., Path], tiny_study: Study, tiny_tokens: Tokens, watched: list[Any]
) -> None:
    folder = save_tiny(tmp_path / "m", dtype="bfloat16")
    assert run_trial(a_trial(tiny_study), folder, tiny_tokens).status != "diverged"
    assert {step["dtype"] for step in watched} == {torch.float32}


def test_a_head_for_other_classes_is_replaced(tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens) -> None:
    folder = Path(shutil.copytree(tiny_study.model.path, tmp_path / "m"))
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=11).save_pretrained(folder)
    one, other = (run_trial(a_trial(tiny_study, seed=seed), folder, tiny_tokens) for seed in (0, 1))
    assert one.status != "diverged"
    assert one.loss_curve != other.loss_curve
    assert max(one.predictions) < len(tiny_study.tasks[0].labels)


def test_settings_that_count_steps_fit_the_training(tiny_study: Study, tiny: Model, tiny_tokens: Tokens) -> None:
    """Five steps: RecAdam's t0 is a third of them, not the authors' 250, unless that is asked for; then it is said."""
    arms = [Arm.parse(text) for text in ("recadam(gamma=50)", "recadam(gamma=50, t0=250)")]
    study = replace(tiny_study, arms=(PLAIN, *arms), seeds=(0,))
    assert study.training.steps(len(tiny_tokens.train)) == 5
    plain, short, long = (run_trial(trial, tiny.path, tiny_tokens) for trial in study.plan)
    assert short.applied["recadam"]["t0"] == pytest.approx(5 / 3)
    assert long.applied["recadam"]["t0"] == 250
    (said,) = long.applied["recadam"]["notices"]
    assert "step 250 of 5" in said
    assert said in check_arms(study.plan[0], tiny.path, [arm.methods for arm in arms])
    assert plain.applied == {}


def test_nothing_is_left_behind(tmp_path: Path, tiny_study: Study, tiny_tokens: Tokens, monkeypatch: Any) -> None:
    import tempfile

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run_trial(a_trial(tiny_study), tiny_study.model.path, tiny_tokens)
    assert list(tmp_path.iterdir()) == []


QUICK = ("noisytune", "recadam")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in METHODS]
)
def test_every_method_is_an_arm(tiny_study: Study, tiny_tokens: Tokens, name: str) -> None:
    """The Trainer calls the hooks: repeatable, other than the plain run, and equal to it at the neutral setting."""
    told = {"recadam": {"gamma": 100, "t0": 2}, "neftune": {"alpha": 50}, "r3f": {"eps": 0.1}, "hype": {"sigma": 0.1}}
    told |= {"ema": {"decay": 0.9}, "symnoise": {"alpha": 50}}
    arm = Arm.of(make(name, told.get(name, {})))
    plain, one, again = (
        run_trial(a_trial(tiny_study, each), tiny_study.model.path, tiny_tokens) for each in (PLAIN, arm, arm)
    )
    assert outcome(one) == outcome(again)
    assert (one.loss_curve, one.norms) != (plain.loss_curve, plain.norms)
    neutral = METHODS[name].neutral
    if neutral is not None:
        still = run_trial(a_trial(tiny_study, Arm.of(make(name, neutral))), tiny_study.model.path, tiny_tokens)
        assert outcome(still) == outcome(plain)


@pytest.mark.parametrize("warmup", [0.0, 0.06, 0.99])
@pytest.mark.parametrize("steps", [1, 2])
def test_warm_up_never_takes_the_whole_training(
    tiny_study: Study, tiny_tokens: Tokens, warmup: float, steps: int
) -> None:
    record = run_trial(a_trial(tiny_study, warmup=warmup, max_steps=steps), tiny_study.model.path, tiny_tokens)
    assert all(role["moved"] > 0 for role in record.norms.values())
    assert record.status != "untrained"


def test_a_trial_whose_weights_did_not_move_says_so(tiny_study: Study, tiny_tokens: Tokens) -> None:
    trial = a_trial(tiny_study, learning_rate=1e-30, weight_decay=0.0, max_steps=2)
    record = run_trial(trial, tiny_study.model.path, tiny_tokens)
    assert record.status == "untrained"
    assert record.scores == record.evaluations["dev"]["scores"], "it counts, as a collapsed one does"


@pytest.mark.parametrize(
    ("states", "moved", "said"),
    [
        (("ok", "collapsed"), True, "collapsed"),
        (("collapsed", "ok"), True, "collapsed"),
        (("ok", "ok"), True, "ok"),
        (("ok", "collapsed"), False, "untrained"),
        (("diverged", "ok"), False, "diverged"),
        (("collapsed", "diverged"), True, "diverged"),
    ],
)
def test_one_scored_split_that_collapsed_makes_a_collapsed_trial(states: Any, moved: bool, said: str) -> None:
    found = {name: Evaluation(state, {}, {}) for name, state in zip(("de", "en"), states, strict=True)}
    beside = {"beside": Evaluation("collapsed", {}, {})}
    assert trial_status(found | beside, ("de", "en"), moved) == said
