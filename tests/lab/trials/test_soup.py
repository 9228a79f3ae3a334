"""A soup is the mean of trainings that differ in the noise only, and a noise seed is a seed of the noise only."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from noisytune.errors import ConfigError
from noisytune.lab.studies.study import Study
from noisytune.lab.trials import fine_tune
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.fine_tune import run_trial
from noisytune.lab.trials.tokens import Tokens
from noisytune.methods import parse
from tests.support.trials import a_trial, outcome

pytestmark = pytest.mark.usefixtures("one_thread", "quiet")


def weights_in(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """Of every model that is scored on dev from now on."""
    found: list[dict[str, torch.Tensor]] = []
    plain = fine_tune.Evaluator.__call__

    def watched(self: object, model: torch.nn.Module, splits: object) -> object:
        if splits:
            found.append({name: p.detach().double().clone() for name, p in model.named_parameters()})
        return plain(self, model, splits)  # type: ignore[arg-type]

    monkeypatch.setattr(fine_tune.Evaluator, "__call__", watched)
    return found


def test_the_weights_are_the_mean_over_noises(
    tiny_study: Study, tiny_tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, told = weights_in(monkeypatch), list[tuple[int, int]]()
    arms = ["noisytune(0.5, soup=2)", "noisytune(0.5)", "plain"]
    soup, first, plain = (
        run_trial(
            a_trial(tiny_study, Arm.parse(arm)),
            tiny_study.model.path,
            tiny_tokens,
            (lambda step, steps, _: told.append((step, steps))) if arm == arms[0] else None,
        )
        for arm in arms
    )
    mean, one, without = scored
    steps = len(first.loss_curve)
    assert told == [(step, 2 * steps) for step in range(1, 2 * steps + 1)]
    assert soup.applied["noisytune"]["passes"] == 2
    assert "passes" not in first.applied["noisytune"]
    assert len(soup.loss_curve) == steps
    # What the other member has must be a training of its own, with noise as large as the first one's.
    other = {name: 2 * mean[name] - one[name] for name in mean}
    apart = [float((other[name] - one[name]).norm()) for name in mean if mean[name].ndim > 1]
    noise = [float((one[name] - without[name]).norm()) for name in mean if mean[name].ndim > 1]
    assert 0.5 < sum(apart) / sum(noise) < 3
    assert plain.applied == {}


def test_a_member_is_the_trial_of_its_noise(tiny_study: Study, tiny_tokens: Tokens) -> None:
    """The first training of a soup is the arm without it; the noise of a seed is that of another run with this seed."""
    model = tiny_study.model
    by_itself = run_trial(a_trial(tiny_study, Arm.parse("noisytune(0.5)")), model.path, tiny_tokens)
    named = Arm.parse(f"noisytune(0.5, noise_seed={by_itself.seed})")
    again = run_trial(a_trial(tiny_study, named), model.path, tiny_tokens)
    assert outcome(again) == outcome(by_itself)
    other = run_trial(a_trial(tiny_study, Arm.parse("noisytune(0.5, noise_seed=77)")), model.path, tiny_tokens)
    assert other.loss_curve != by_itself.loss_curve
    assert other.applied["noisytune"]["config"]["seed"] == 77


def test_without_steps_the_model_is_scored_as_it_is(tiny_study: Study, tiny_tokens: Tokens) -> None:
    noisy = Arm.parse("noisytune(0.5)")
    records = [
        run_trial(a_trial(tiny_study, arm, max_steps=0), tiny_study.model.path, tiny_tokens) for arm in (PLAIN, noisy)
    ]
    assert [(one.status, one.loss_curve) for one in records] == [("untrained", [])] * 2
    assert all(one.scores for one in records)
    assert records[0].outputs["dev/predictions"].shape == records[1].outputs["dev/predictions"].shape


def test_a_soup_of_adapters_is_refused(tiny_study: Study, tiny_tokens: Tokens) -> None:
    trial = a_trial(tiny_study, Arm.parse("noisytune(0.5, soup=2)"))
    lora = replace(trial, settings=trial.settings | {"training": trial.settings["training"] | {"lora": "r=4"}})
    with pytest.raises(ConfigError, match="soup with lora"):
        run_trial(lora, tiny_study.model.path, tiny_tokens)


def test_members_of_a_soup_have_the_noise_of_no_other_trial() -> None:
    (soup,) = parse("noisytune(0.1, soup=3)")
    seeds = [soup.config(seed, member).seed for seed in (0, 1, 7, 2**32 - 1) for member in range(3)]
    assert len(set(seeds)) == len(seeds)
    assert [soup.config(7, member).seed < 2**32 for member in range(3)] == [True, False, False]
