"""A tiny pretrained encoder, classifiers made from it, and trainers on a few random sentences."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from noisytune.torch import perturb_
from tests.support import ranks


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """``launched(module_file, ranks, phase)``: `CASES[ranks]` of the module, loaded where NOISYTUNE_TEST_PHASE is the
    phase, pass on every rank, in processes of their own."""
    monkeypatch.setenv("NOISYTUNE_TEST_FOLDER", str(tmp_path))

    def check(module, n, phase, names):
        monkeypatch.setenv("NOISYTUNE_TEST_PHASE", phase)
        folder = tmp_path / f"{phase}-{n}"
        folder.mkdir()
        ranks.check(module, n, names, folder)

    return check


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A random BERT of two layers, 32 wide, with few words: noise in it is still to be seen."""
    sizes = {"vocab_size": 1000, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(BertConfig(intermediate_size=64, max_position_embeddings=64, **sizes))
        model.save_pretrained(folder := tmp_path_factory.mktemp("models") / "encoder")
    return folder


@pytest.fixture
def make_model(encoder):
    """A classifier on the pretrained encoder. Its head is new, and the same each time."""

    def make(folder=encoder, **options):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return BertForSequenceClassification.from_pretrained(folder, **options)

    return make


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(7)
    return [
        {"input_ids": torch.randint(1, 1000, (12,), generator=generator), "labels": torch.tensor(i % 2)}
        for i in range(32)
    ]


@pytest.fixture
def make_arguments(tmp_path):
    """Four steps of eight examples, a checkpoint every two."""

    def make(**settings):
        usual = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 4,
            "save_steps": 2,
            "learning_rate": 1e-3,
            "per_device_train_batch_size": 8,
            "logging_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
        }
        return TrainingArguments(**usual | settings)

    return make


@pytest.fixture
def make_trainer(make_model, make_arguments, examples):
    def make(model=None, *, kind=Trainer, **settings):
        names = ("model_init", "callbacks", "optimizers", "data_collator", "eval_dataset", "noisytune_config")
        for_trainer = {name: settings.pop(name) for name in names if name in settings}
        if "model_init" not in for_trainer:
            for_trainer["model"] = make_model() if model is None else model
        train_dataset = settings.pop("train_dataset", examples)
        return kind(args=make_arguments(**settings), train_dataset=train_dataset, **for_trainer)

    return make


class AtStart(TrainerCallback):
    """Keeps the weights and the random state with which each training starts."""

    def __init__(self):
        self.weights, self.random = [], []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.weights.append(weights_of(model))
        self.random.append(torch.get_rng_state())


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.fixture
def at_start():
    return AtStart()


@pytest.fixture
def weights():
    return weights_of


@pytest.fixture
def same():
    """Bit for bit."""

    def equal(one, other):
        return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

    return equal


@pytest.fixture
def noised(make_model, weights):
    """What `perturb_` makes of the model, without a trainer; the noise is that of the tests' SETTINGS."""
    model = make_model()
    perturb_(model, noise_lambda=0.3, seed=5)
    return weights(model)
