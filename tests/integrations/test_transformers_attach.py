"""What attach does to a trainer, and when it refuses."""

import copy
import pickle
from types import MethodType

import pytest
import torch
import transformers.trainer
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

from noisytune.config import NoisyTuneConfig
from noisytune.errors import ConfigError
from noisytune.integrations.transformers import NoisyTuneMixin, NoisyTuneTrainer, attach
from noisytune.torch import mark, receipt

SETTINGS = {"noise_lambda": 0.3, "seed": 5}


def test_attach_changes_the_class_and_nothing_else(make_trainer):
    trainer = make_trainer()
    attributes = dict(vars(trainer))
    assert attach(trainer, **SETTINGS) is trainer
    assert {name: value for name, value in vars(trainer).items() if "noisytune" not in name} == attributes
    assert trainer.noisytune_config == NoisyTuneConfig(**SETTINGS)
    assert isinstance(trainer, NoisyTuneMixin)
    assert type(trainer).__name__ == "NoisyTuneTrainer"
    assert type(attach(make_trainer())) is type(trainer)


def test_attach_twice_is_attach_once_unless_the_settings_differ(make_trainer, at_start, noised, same):
    trainer = attach(make_trainer(callbacks=[at_start]), **SETTINGS)
    assert attach(trainer, NoisyTuneConfig(**SETTINGS)) is trainer
    with pytest.raises(ConfigError, match=r"adds noise of lambda 0\.3, seed 5 already, and .* seed 6"):
        attach(trainer, noise_lambda=0.3, seed=6)
    trainer.train()
    assert same(at_start.weights[0], noised)


def test_methods_that_were_put_on_the_trainer_itself_still_run(make_trainer, at_start, noised, same, tmp_path):
    """Unsloth does so with train(), which would hide the mixin's."""
    trainer, called = make_trainer(callbacks=[at_start]), []

    def wrapped(name):
        usual = getattr(type(trainer), name)

        def method(self, *args, **kwargs):
            called.append(name)
            return usual(self, *args, **kwargs)

        return MethodType(method, trainer)

    trainer.train, trainer.save_model = wrapped("train"), wrapped("save_model")
    attach(trainer, **SETTINGS).train()
    trainer.save_model(str(tmp_path / "saved"))
    assert same(at_start.weights[0], noised)
    assert called[0] == "train"
    assert called[-1] == "save_model"
    assert (tmp_path / "saved" / "noisytune.json").is_file()


def test_attach_after_training_is_refused(make_trainer):
    trainer = make_trainer()
    trainer.train()
    with pytest.raises(ConfigError, match=r"has trained already \(step 4\): attach before train"):
        attach(trainer)


def test_attach_while_training_is_refused(make_trainer):
    class Late(transformers.TrainerCallback):
        def on_train_begin(self, *args, **kwargs):
            attach(trainer)

    trainer = make_trainer(callbacks=[Late()])
    with pytest.raises(ConfigError, match=r"has trained already \(step 0\)"):
        trainer.train()


def test_attach_takes_only_trainers(make_model):
    with pytest.raises(ConfigError, match="takes a transformers Trainer, got BertForSequenceClassification"):
        attach(make_model())


def test_a_copied_trainer_still_adds_the_noise(make_trainer, noised, same, weights):
    """copy and pickle take an object apart in the same way; most trainers that have trained cannot be pickled."""
    trainer = attach(make_trainer(learning_rate=0.0, max_steps=1), **SETTINGS)
    copied = copy.copy(trainer)
    assert type(copied) is type(trainer)
    copied.train()
    assert same(weights(copied.model), noised)
    taken_apart = trainer.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    assert pickle.loads(pickle.dumps(taken_apart[:2])) == taken_apart[:2]


def test_classes_of_ones_own_and_other_trainers(make_trainer, at_start, noised, same, make_model, examples, tmp_path):
    class Mine(NoisyTuneMixin, Trainer):
        pass

    make_trainer(kind=Mine, noisytune_config=NoisyTuneConfig(**SETTINGS), callbacks=[at_start]).train()
    arguments = Seq2SeqTrainingArguments(tmp_path / "s", max_steps=1, report_to=[], use_cpu=True, save_strategy="no")
    other = Seq2SeqTrainer(make_model(), arguments, train_dataset=examples, callbacks=[at_start])
    attach(other, **SETTINGS).train()
    assert type(other).__name__ == "NoisyTuneSeq2SeqTrainer"
    assert len(at_start.weights) == 2
    assert all(same(found, noised) for found in at_start.weights)


def test_a_copy_that_is_marked_counts_as_noised(make_trainer, make_model, weights, same):
    """Weights that another process broadcasts, or load_state_dict brings. Here nobody did, which is told."""
    copy = make_model()
    mark(copy, NoisyTuneConfig(**SETTINGS))
    with pytest.warns(UserWarning, match="none of it is to be seen"):
        attach(make_trainer(copy, max_steps=1, learning_rate=0.0), **SETTINGS).train()
    assert same(weights(copy), weights(make_model()))


def test_a_model_that_model_init_makes_has_no_noise_before_it_is_trained(tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}

    def make():
        torch.manual_seed(3)
        return BertForSequenceClassification(BertConfig(vocab_size=9, **sizes))

    args = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    trainer = NoisyTuneTrainer(model_init=make, args=args, noisytune_config=NoisyTuneConfig(seed=1))
    assert receipt(trainer.model) is None
    assert trainer.noisytune_manifest is None
    assert all(torch.equal(p, q) for p, q in zip(trainer.model.parameters(), make().parameters(), strict=True))
