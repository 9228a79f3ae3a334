"""Which epoch is scored, on which examples it is chosen, and what is scored beside."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from noisytune.errors import DataError
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import hold_out
from noisytune.lab.trials import fine_tune as training
from noisytune.lab.trials.arm import Arm
from noisytune.lab.trials.callbacks import BestEpoch
from noisytune.lab.trials.evaluate import Evaluator
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.tokens import Tokens
from noisytune.methods import Run, Stack
from noisytune.records import TrialRecord
from tests.support.trials import a_trial, outcome

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


def scores_by_epoch(study: Study, tokens: Tokens, arm: Arm, **changes: Any) -> list[float]:
    """Each epoch's dev score by stopping there: the reference for `select="best"`, slow and plain."""
    steps = math.ceil(len(tokens.train) / study.training.batch_size)
    scores = []
    for epoch in range(1, changes["epochs"] + 1):

        class Stop(training.Steps):  # the schedule is that of the whole run
            def on_step_end(self, args: Any, state: Any, control: Any, _last: int = epoch * steps, **more: Any) -> None:
                control.should_training_stop = state.global_step >= _last

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "Steps", Stop)
            record = run_trial(a_trial(study, arm, **changes), study.model.path, tokens)
        scores.append(record.scores["accuracy"])
    return scores


@pytest.mark.parametrize(
    "arm",
    [
        pytest.param("plain", marks=pytest.mark.slow),
        "noisytune+mixout",
        "ema(decay=0.5)",
        pytest.param("hype+neftune", marks=pytest.mark.slow),
    ],
)
def test_the_best_epoch_is_the_best_of_what_stopping_after_each_gives(
    tiny_study: Study, tiny_tokens: Tokens, arm: str
) -> None:
    chosen, changes = Arm.parse(arm), {"epochs": 4, "learning_rate": 3e-2}  # at which scores move, and not only up
    last = run_trial(a_trial(tiny_study, chosen, **changes), tiny_study.model.path, tiny_tokens)
    best = run_trial(a_trial(tiny_study, chosen, select="best", **changes), tiny_study.model.path, tiny_tokens)
    assert best.loss_curve == last.loss_curve, "looking changes nothing"
    assert best.epoch_scores == scores_by_epoch(tiny_study, tiny_tokens, chosen, **changes)
    assert best.epoch_scores[-1] == last.scores["accuracy"]
    assert best.scores["accuracy"] == max(score for score in best.epoch_scores if score is not None)
    assert np.mean(np.array(best.predictions) == np.array(best.references)) == best.scores["accuracy"]
    assert last.epoch_scores == []
    assert TrialRecord.from_json(best.to_json(), "here") == best


def test_the_clean_protocol_chooses_on_examples_that_are_not_trained_on(
    tiny_study: Study, tiny_tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    outputs = Evaluator.outputs

    def watch(self: Any, model: Any, data: Any) -> Any:
        asked.append(data)
        return outputs(self, model, data)

    monkeypatch.setattr(Evaluator, "outputs", watch)
    clean = a_trial(tiny_study, select="best", protocol="clean", epochs=3)
    record = run_trial(clean, tiny_study.model.path, tiny_tokens)
    kept, held = map(tiny_tokens.train.take, hold_out(tiny_tokens.train.targets))
    assert len(record.loss_curve) == 3 * math.ceil(len(kept) / 8)
    assert [data.targets.tolist() for data in asked[:3]] == [held.targets.tolist()] * 3
    assert asked[3:] == [tiny_tokens.evaluate["dev"]], "dev is looked at once, by the best epoch"
    assert len(record.epoch_scores) == 3
    assert len(record.predictions) == len(tiny_tokens.evaluate["dev"])


def test_a_tenth_is_held_out_evenly(tiny_tokens: Tokens) -> None:
    kept, held = map(tiny_tokens.train.take, hold_out(tiny_tokens.train.targets))
    assert (len(kept), len(held)) == (36, 4)
    whole, parts = tiny_tokens.train, [kept.row(i) for i in range(36)] + [held.row(i) for i in range(4)]
    assert sorted(map(str, parts)) == sorted(str(whole.row(i)) for i in range(40))
    for target in set(whole.targets):
        assert abs((held.targets == target).sum() - (whole.targets == target).sum() / 10) < 1
    with pytest.raises(DataError, match="protocol clean"):
        hold_out([1.0])


def test_with_the_last_epoch_the_protocols_come_to_the_same(tiny_study: Study, tiny_tokens: Tokens) -> None:
    paper, clean = (
        run_trial(a_trial(tiny_study, protocol=protocol), tiny_study.model.path, tiny_tokens)
        for protocol in ("paper", "clean")
    )
    assert outcome(paper) == outcome(clean)


def test_a_diverged_trial_has_no_best_epoch(tiny_study: Study, tiny_tokens: Tokens) -> None:
    trial = a_trial(tiny_study, learning_rate=1e38, weight_decay=10.0, select="best", epochs=3)
    record = run_trial(trial, tiny_study.model.path, tiny_tokens)
    assert (record.status, record.scores, record.predictions) == ("diverged", {}, [])
    assert TrialRecord.from_json(record.to_json(), "here") == record


def test_a_further_dev_set_is_scored_beside(tiny_study: Study, tiny_tokens: Tokens) -> None:
    dev = tiny_tokens.evaluate["dev"]
    both = replace(tiny_tokens, evaluate={"dev": dev, "mismatched": dev, "train": tiny_tokens.train})
    for select in ("last", "best"):
        record = run_trial(a_trial(tiny_study, select=select), tiny_study.model.path, both)
        assert record.evaluations["mismatched"]["scores"] == record.scores == record.evaluations["dev"]["scores"]
        assert "macro_f1" in record.evaluations["train"]["scores"]
        assert len(record.outputs["train/predictions"]) == len(tiny_tokens.train)


@pytest.mark.parametrize(
    ("better", "scores", "kept"),
    [
        (1, [1.0, 3.0, 2.0], 1),
        (-1, [3.0, 1.0, 2.0], 1),
        (-1, [2.0, 1.0, 1.0], 1),
        (1, [None, None, 0.0], 2),
        (-1, [None, 5.0], 1),
    ],
)
def test_the_first_of_the_best_epochs_is_kept(better: int, scores: list[float | None], kept: int) -> None:
    model, at = torch.nn.Linear(1, 1), [0]
    best = BestEpoch(model, Stack((), Run(model)), lambda: scores[at[0]], better)
    for at[0] in range(len(scores)):
        torch.nn.init.constant_(model.weight, float(at[0]))
        best.on_epoch_end(None, None, None)
    best.restore_()
    assert model.weight.item() == kept


def test_buffers_of_the_best_epoch_are_those_that_the_model_has_then() -> None:
    """A model that moves to a GPU keeps its parameters, and gets other buffers."""
    model, at = torch.nn.BatchNorm1d(2), [0]
    best = BestEpoch(model, Stack((), Run(model)), lambda: [1.0, 3.0, 2.0][at[0]])
    model.running_mean = torch.zeros(2)
    for at[0] in range(3):
        model.running_mean.fill_(at[0])
        best.on_epoch_end(None, None, None)
    best.restore_()
    assert model.running_mean.tolist() == [1, 1]


def test_the_weights_that_are_scored_are_those_of_the_best_epoch(
    tiny_study: Study, tiny_tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights(model: Any) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    told, after, scored = iter([0.1, 0.9, 0.2]), list[Any](), list[Any]()
    evaluate = Evaluator.__call__

    def score(self: Any, model: Any) -> float:
        after.append(weights(model))
        return next(told)

    def watched(self: Any, model: Any, splits: Any) -> Any:
        if splits:
            scored.append(weights(model))
        return evaluate(self, model, splits)

    monkeypatch.setattr(training._Training, "_score", score)
    monkeypatch.setattr(Evaluator, "__call__", watched)
    run_trial(a_trial(tiny_study, select="best", epochs=3), tiny_study.model.path, tiny_tokens)
    (found,) = scored
    assert [all(torch.equal(found[name], one[name]) for name in found) for one in after] == [False, True, False]
