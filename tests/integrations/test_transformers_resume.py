"""Resuming in the Trainer of transformers: no second noise, and no other noise."""

import pytest
import transformers

from noisytune.errors import ConfigError
from noisytune.integrations.transformers import attach

SETTINGS = {"noise_lambda": 0.3, "seed": 5}


@pytest.mark.parametrize("which", [True, "checkpoint-2"])
def test_resumed_is_uninterrupted(make_trainer, tmp_path, weights, same, which):
    whole = attach(make_trainer(output_dir=str(tmp_path / "whole")), **SETTINGS)
    whole.train()
    stopped = attach(make_trainer(max_steps=4), **SETTINGS)
    stopped.add_callback(StopAt(2))
    stopped.train()
    assert stopped.state.global_step == 2
    resumed = attach(make_trainer(), **SETTINGS)
    resumed.train(resume_from_checkpoint=which if which is True else str(tmp_path / "run" / which))
    assert resumed.state.global_step == 4
    assert same(weights(resumed.model), weights(whole.model))
    assert not same(weights(resumed.model), weights(stopped.model))


class StopAt(transformers.TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == self.step


def test_resuming_with_other_noise_is_refused_and_nothing_is_touched(make_trainer, weights, same, make_model):
    attach(make_trainer(), **SETTINGS).train()
    for other, words in (
        (attach(make_trainer(), noise_lambda=0.3, seed=6), "lambda 0.3, seed 5, this trainer .* lambda 0.3, seed 6"),
        (attach(make_trainer(), noise_lambda=0), "with noise of lambda 0.3, seed 5, this trainer starts from no noise"),
    ):
        with pytest.raises(ConfigError, match=words):
            other.train(resume_from_checkpoint=True)
        assert same(weights(other.model), weights(make_model()))


def test_resuming_a_plain_run_with_noise_is_refused(make_trainer):
    make_trainer().train()
    with pytest.raises(ConfigError, match="checkpoint-4 was trained on weights with no noise, this trainer starts"):
        attach(make_trainer(), **SETTINGS).train(resume_from_checkpoint=True)


def test_a_missing_checkpoint_is_for_the_trainer_to_refuse(make_trainer):
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        attach(make_trainer(), **SETTINGS).train(resume_from_checkpoint=True)
