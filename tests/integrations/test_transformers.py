"""The Trainer of transformers: when the noise comes, when it does not, and what is left behind on disk."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
import transformers.trainer
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainerCallback,
    default_data_collator,
)

from noisytune.config import NoisyTuneConfig
from noisytune.integrations._record import noise_of, with_training_section
from noisytune.integrations.transformers import NoisyTuneTrainer, attach
from noisytune.lab.kinds.columns import Labelled
from noisytune.lab.trials.tokens import tokenise
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

SETTINGS = {"noise_lambda": 0.3, "seed": 5}


@pytest.fixture
def start(make_trainer, at_start):
    """``start(model, ...)``: an attached trainer that has trained; `at_start` holds what it started from."""

    def train(model=None, **settings):
        trainer = attach(make_trainer(model, callbacks=[at_start], **settings), **SETTINGS)
        trainer.train()
        return trainer

    return train


# --- when ---


def test_training_starts_from_the_perturbed_weights(start, at_start, noised, same, make_model, weights):
    trainer = start()
    assert same(at_start.weights[0], noised)
    assert not same(weights(make_model()), noised)
    assert {entry.left_alone for entry in trainer.noisytune_manifest.entries if entry.name.startswith("head:")} == {
        "freshly initialised"
    }


def test_random_state_data_order_and_head_are_those_without_noise(make_trainer, same):
    """Plain and noisy runs differ in nothing but the noise: also not in what a trainer draws later."""
    seen = []
    for noise in (None, 0.3):
        batches, begin = [], []

        def collate(batch, batches=batches):
            batches.append(torch.stack([one["input_ids"] for one in batch]))
            return default_data_collator(batch)

        class Begin(transformers.TrainerCallback):
            def on_train_begin(self, args, state, control, model=None, begin=begin, **kwargs):
                begin.append((torch.get_rng_state(), model.classifier.weight.detach().clone()))

        trainer = make_trainer(callbacks=[Begin()], data_collator=collate)
        if noise:
            attach(trainer, noise_lambda=noise, seed=5)
        trainer.train()
        seen.append((torch.stack(batches), *begin[0], torch.get_rng_state()))
    assert all(torch.equal(plain, noisy) for plain, noisy in zip(*seen, strict=True))


def test_a_second_training_goes_on_from_the_first(start, at_start, weights, same):
    trainer = start()
    trained = weights(trainer.model)
    trainer.train()
    assert same(at_start.weights[1], trained)


def test_lambda_zero_is_a_plain_run(make_trainer, tmp_path, weights, same):
    plain = make_trainer()
    plain.train()
    trainer = attach(make_trainer(), noise_lambda=0)
    trainer.train()
    assert same(weights(trainer.model), weights(plain.model))
    assert not (tmp_path / "run/checkpoint-4/noisytune.json").exists()
    attach(make_trainer(), noise_lambda=0).train(resume_from_checkpoint=True)


def test_scope_all_perturbs_the_new_head(make_trainer, at_start, make_model):
    trainer = attach(make_trainer(callbacks=[at_start]), scope="all", **SETTINGS)
    trainer.train()
    head = make_model().classifier.weight
    assert not torch.equal(at_start.weights[0]["classifier.weight"], head)


def test_evaluating_and_predicting_touch_nothing(make_trainer, make_model, examples, weights, same):
    for source in ({"model": make_model()}, {"model_init": lambda: make_model()}):
        trainer = attach(make_trainer(**source), **SETTINGS)
        trainer.evaluate(examples)
        trainer.predict(examples)
        assert same(weights(trainer.model), weights(make_model()))
        assert receipt(trainer.model) is None


def test_each_model_of_model_init_gets_the_noise_once(make_trainer, at_start, noised, same, make_model):
    """As hyperparameter_search trains: one train() a trial, each with a fresh model."""
    trainer = attach(make_trainer(model_init=lambda: make_model(), callbacks=[at_start]), **SETTINGS)
    for _ in range(2):
        trainer.train()
    assert all(same(found, noised) for found in at_start.weights)
    assert len(at_start.weights) == 2


def test_hyperparameter_search(make_trainer, at_start, noised, same, make_model, examples):
    pytest.importorskip("optuna", reason="hyperparameter_search needs a backend")
    options = {"callbacks": [at_start], "eval_dataset": examples, "save_strategy": "no"}
    trainer = attach(make_trainer(model_init=lambda trial: make_model(), **options), **SETTINGS)
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-3)},
        n_trials=2,
        direction="minimize",
        backend="optuna",
    )
    assert len(at_start.weights) == 2
    assert all(same(found, noised) for found in at_start.weights)


def test_the_noise_of_a_trial_is_that_of_its_seed(make_trainer, make_model, examples):
    pytest.importorskip("optuna", reason="hyperparameter_search needs a backend")
    options = {"eval_dataset": examples, "save_strategy": "no"}
    trainer = attach(make_trainer(model_init=lambda trial: make_model(), **options), noise_lambda=0.3)
    seen = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args, state, control, **settings):
            seen.append((args.seed, trainer.noisytune_manifest.config.seed))

    trainer.add_callback(Watch())
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"seed": trial.suggest_int("seed", 100, 10_000)},
        n_trials=3,
        direction="minimize",
        backend="optuna",
    )
    assert len({args for args, _ in seen}) == 3
    assert all(args == noise for args, noise in seen)


def test_clean_weights_in_a_folder_of_noised_ones_are_not_taken_for_them(make_trainer, tmp_path):
    folder = tmp_path / "model"
    for strength in (0.3, 0.0):
        trainer = attach(make_trainer(), noise_lambda=strength, seed=1)
        trainer.train()
        trainer.save_model(str(folder))
        (folder / "README.md").write_text(with_training_section("# Mine", NoisyTuneConfig(seed=1), adapter=False))
        trainer.save_model(str(folder))
        assert (folder / "noisytune.json").exists() == (strength > 0)
        assert (noise_of(folder) is not None) == (strength > 0)
    assert (folder / "README.md").read_text().strip() == "# Mine"


def test_a_smaller_batch_after_running_out_of_memory_adds_no_noise(make_trainer, at_start, noised, same):
    class Hungry(NoisyTuneTrainer):
        def training_step(self, *args, **settings):
            if self._train_batch_size == 8:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 TiB")
            return super().training_step(*args, **settings)

    trainer = make_trainer(
        kind=Hungry, callbacks=[at_start], auto_find_batch_size=True, noisytune_config=NoisyTuneConfig(**SETTINGS)
    )
    trainer.train()
    assert trainer._train_batch_size < 8
    assert len(at_start.weights) == 2
    assert all(same(found, noised) for found in at_start.weights)


def test_weights_of_a_checkpoint_that_carries_noise_get_none(make_trainer, make_model, tmp_path, caplog, weights, same):
    model = make_model()
    perturb_(model, **SETTINGS)
    model.save_pretrained(tmp_path / "noised")
    for settings in (SETTINGS, {"seed": 6}):
        loaded = make_model(tmp_path / "noised")
        trainer = attach(make_trainer(loaded, max_steps=1, learning_rate=0.0), **settings)
        trainer.train()
        assert same(weights(loaded), weights(model))
        (line,) = lines(caplog)
        assert line == "NoisyTune: the weights carry noise of lambda 0.3, seed 5 already: none was added"
        assert Manifest.read(tmp_path / "run/checkpoint-1").config == NoisyTuneConfig(**SETTINGS)
        caplog.clear()


# --- the seed ---


def test_the_seed_is_the_trainers_unless_one_is_given(make_trainer, caplog):
    """A loop over seeds is a loop over noises; the order of the data has a seed of its own."""
    trainers = [attach(make_trainer(max_steps=1, save_strategy="no", seed=seed), noise_lambda=0.3) for seed in (1, 2)]
    trainers.append(
        attach(make_trainer(max_steps=1, save_strategy="no", seed=1, data_seed=3), noise_lambda=0.3, seed=9)
    )
    for trainer in trainers:
        trainer.train()
    assert [receipt(trainer.model)["seed"] for trainer in trainers] == [1, 2, 9]
    assert [("seed 1 (of TrainingArguments.seed)" in line, "seed 9," in line) for line in lines(caplog)] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    assert trainers[2].args.data_seed == 3


def test_each_model_of_model_init_gets_the_noise_of_the_seed_of_its_time(make_trainer, make_model):
    trainer = attach(make_trainer(model_init=lambda: make_model(), max_steps=1, save_strategy="no"))
    seeds = []
    for seed in (3, 4):
        trainer.args.seed = seed
        trainer.train()
        seeds.append(receipt(trainer.model)["seed"])
    trainer.noisytune_config = NoisyTuneConfig(seed=8)
    trainer.train()
    assert [*seeds, receipt(trainer.model)["seed"]] == [3, 4, 8]


# --- what is said ---


def test_no_noise_is_said_as_well(make_trainer, make_model, examples, caplog, tmp_path):
    trainer = attach(make_trainer(), **SETTINGS)
    trainer.evaluate(examples)
    trainer.predict(examples)
    assert lines(caplog) == ["NoisyTune: evaluate() adds no noise: it goes in when training starts"]
    trainer.train()
    caplog.clear()
    trainer.evaluate(examples)
    assert lines(caplog) == []
    attach(make_trainer(), **SETTINGS).train(resume_from_checkpoint=True)
    (line,) = lines(caplog)
    assert line.endswith("checkpoint-4 is restored over it")
    caplog.clear()
    plain = attach(make_trainer(output_dir=str(tmp_path / "plain"), max_steps=1), noise_lambda=0)
    plain.train()
    plain.evaluate(examples)
    assert lines(caplog) == ["NoisyTune: noise_lambda is 0: no noise was added"]


# --- weights whose record was lost ---


def test_noise_of_trained_weights_is_seen_though_its_record_was_lost(start, make_trainer, make_model, caplog, at_start):
    """A state dict holds weights and nothing else."""
    trained = start().model.state_dict()
    for seed in (5, 6):
        model = make_model()
        model.load_state_dict(trained)
        caplog.clear()
        attach(make_trainer(model, learning_rate=0.0, save_strategy="no"), noise_lambda=0.3, seed=seed).train()
        assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
        (line,) = lines(caplog)
        assert "seed 5 already: none was added (their record was lost; the noise itself was found)" in line
        assert receipt(model)["seed"] == 5


def test_a_record_that_the_weights_deny_is_doubted(make_trainer, make_model, caplog):
    model, clean = make_model(), make_model().state_dict()
    perturb_(model, **SETTINGS)
    model.load_state_dict(clean)
    with pytest.warns(UserWarning, match="none was added; none of it is to be seen in them: if other weights"):
        attach(make_trainer(model, max_steps=1, save_strategy="no"), **SETTINGS).train()
    assert "none was added; none of it is to be seen in them: if other weights were loaded" in lines(caplog)[0]


def test_the_configuration_of_a_noisy_model_does_not_make_clean_weights_noisy(make_trainer, make_model, tmp_path):
    noisy = make_model()
    perturb_(noisy, **SETTINGS)
    noisy.save_pretrained(tmp_path / "noisy")
    config = transformers.AutoConfig.from_pretrained(tmp_path / "noisy")
    with pytest.warns(UserWarning, match="none of it is to be seen in them"):
        attach(make_trainer(make_model(config=config), max_steps=1, save_strategy="no"), **SETTINGS).train()


def test_a_layer_that_came_in_after_the_noise_is_told(make_trainer, make_model):
    model = make_model()
    perturb_(model, scope="all", **SETTINGS)
    model.bert.encoder.layer[1] = copy.deepcopy(make_model().bert.encoder.layer[1])
    with pytest.warns(UserWarning, match=r"bert\.encoder\.layer\.1\.\S+ and 15 more came in later and may be clean"):
        attach(make_trainer(model, max_steps=1, save_strategy="no"), **SETTINGS).train()


def test_noise_on_one_model_says_nothing_of_the_next_one(make_trainer, caplog, at_start, weights, same):
    """Models of some types share one activation, which the module of their code holds."""
    config = transformers.OpenAIGPTConfig(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2, pad_token_id=0)
    one, other = (transformers.OpenAIGPTForSequenceClassification(config) for _ in range(2))
    assert {id(part) for part in one.modules()} & {id(part) for part in other.modules()}
    clean = weights(other)
    perturb_(one, **SETTINGS)
    assert receipt(one)
    assert receipt(other) is None
    examples = [{"input_ids": torch.arange(4), "labels": torch.tensor(i % 2)} for i in range(4)]
    trainer = make_trainer(other, train_dataset=examples, callbacks=[at_start], max_steps=1, save_strategy="no")
    attach(trainer, **SETTINGS).train()
    assert not same(at_start.weights[0], clean)
    assert "perturbed" in lines(caplog)[0]


# --- what is left behind ---


def test_checkpoints_carry_the_receipt(start, tmp_path):
    trainer = start()
    for step in (2, 4):
        folder = tmp_path / f"run/checkpoint-{step}"
        assert json.loads((folder / "config.json").read_text())["noisytune"]["seed"] == 5
        manifest = Manifest.read(folder)
        assert manifest.entries == trainer.noisytune_manifest.entries
        assert "trained since" in manifest.notices[-1]
    assert receipt(AutoModelForSequenceClassification.from_pretrained(folder))["noise_lambda"] == 0.3


def test_the_best_model_is_loaded_at_the_end_and_carries_the_receipt(start, examples, tmp_path, same, weights):
    trainer = start(
        eval_dataset=examples, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True, learning_rate=0.1
    )
    best = BertForSequenceClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert same(weights(trainer.model), weights(best))
    assert receipt(trainer.model)["seed"] == receipt(best)["seed"] == 5


def lines(caplog):
    """What is to be seen of noisytune where nobody has set up logging."""
    return [record.message for record in caplog.records if record.name.startswith("noisytune")]


def test_the_log_says_it_in_one_visible_line(make_trainer, caplog):
    attach(make_trainer(max_steps=1), **SETTINGS).train()
    (line,) = lines(caplog)
    assert line.startswith("NoisyTune: ")
    assert "lambda 0.3, uniform, matrix scale, seed 5" in line
    percent = float(line.split(" perturbed")[1].split("%")[0].split()[-1])
    assert percent == pytest.approx(100 * 0.3 / 12**0.5, rel=0.05)


def test_the_model_card_gets_one_section(start, make_trainer, tmp_path, capfd):
    trainer = start()
    trainer.create_model_card()
    trainer.create_model_card()
    card = (tmp_path / "run/README.md").read_text()
    assert card.count("## Fine-tuned with NoisyTune") == 1
    assert "λ = 0.3, uniform, matrix scale, seed 5" in card
    plain = make_trainer()
    plain.create_model_card()
    assert "NoisyTune" not in (tmp_path / "run/README.md").read_text()


def test_what_is_pushed_says_which_noise(start, tmp_path, monkeypatch, capfd):
    pushed = []

    def upload_folder(folder_path, **kwargs):
        pushed.append({file.name: file.read_bytes() for file in sorted(tmp_path.glob("run/*.*"))})

    hub = SimpleNamespace(create_repo=lambda *_, **__: SimpleNamespace(repo_id="me/run"), upload_folder=upload_folder)
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda *_, **__: hub)
    trainer = start()
    trainer.push_to_hub()
    assert b"## Fine-tuned with NoisyTune" in pushed[0]["README.md"]
    assert json.loads(pushed[0]["noisytune.json"])["config"]["seed"] == 5
    assert json.loads(pushed[0]["config.json"])["noisytune"]["seed"] == 5


# --- attach ---


# --- a real model and real texts ---


def test_minilm_learns_topics_and_the_checkpoint_reloads(minilm, topics, make_arguments, tmp_path, one_thread):
    from transformers import AutoTokenizer

    train = tokenise(minilm.path, topics, 24).train
    examples = Labelled(train, train.targets.astype(int).tolist())
    labels = len(topics.labels)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(minilm.path, num_labels=labels)
    trainer = Trainer(
        model,
        make_arguments(max_steps=20, save_steps=20, learning_rate=5e-4, logging_strategy="steps", logging_steps=5),
        train_dataset=examples,
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(minilm.path)),
    )
    attach(trainer, noise_lambda=0.15, seed=1).train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/checkpoint-20")
    assert receipt(reloaded)["seed"] == 1
    batch = trainer.data_collator([examples[i] for i in range(4)])
    trainer.model.eval()
    with torch.no_grad():
        assert torch.equal(reloaded(**batch).logits, trainer.model(**batch).logits)
