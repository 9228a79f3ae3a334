"""NoisyTune in Lightning: when the noise goes in, what a checkpoint says, and a real fine-tuning."""

import logging
import warnings

import pytest
import torch
from torch import nn

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

from noisytune.errors import ConfigError, NonFiniteError, UnsupportedTensorError  # noqa: E402
from noisytune.integrations.lightning import NoisyTuneCallback, restore_record  # noqa: E402
from noisytune.torch import perturb_, receipt  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")


class Regression(lightning.LightningModule):
    """A small network; with ``late`` its layers are built in configure_model."""

    def __init__(self, late=False):
        super().__init__()
        self.body = None
        self.late = late
        self.start = None
        if not late:
            self._build()

    def _build(self):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.body = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def configure_model(self):
        if self.body is None:
            self._build()

    def on_fit_start(self):
        self.start = {name: tensor.clone() for name, tensor in self.state_dict().items()}

    def training_step(self, batch, _):
        x, y = batch
        loss = nn.functional.mse_loss(self.body(x), y)
        self.log("loss", loss)
        return loss

    validation_step = training_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Early(Regression):
    """Without a configure_model of its own."""

    configure_model = lightning.LightningModule.configure_model


def data():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 4, generator=generator)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8)


def trainer(folder, *callbacks, epochs=1, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lightning.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            default_root_dir=folder,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
            **settings,
        )


@pytest.fixture(autouse=True)
def _quiet():
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def noised(**settings):
    module = Early()
    perturb_(module, **settings)
    return state(module)


class InSetup(Early):
    """Builds its layers in setup, as Lightning's pages show for sizes that depend on the data."""

    def __init__(self):
        super().__init__()
        self.body = None

    def setup(self, stage):
        if self.body is None:
            self._build()


@pytest.mark.parametrize("make", [Early, Regression, lambda: Regression(late=True), InSetup])
def test_training_starts_from_the_noised_weights(make, tmp_path):
    module, callback = make(), NoisyTuneCallback(noise_lambda=0.3, seed=2)
    trainer(tmp_path, callback).fit(module, data())
    assert same(module.start, noised(noise_lambda=0.3, seed=2))
    assert len(callback.manifest.perturbed) == 3  # a bias of one element has no spread
    assert receipt(module)["seed"] == 2
    assert not {"configure_model", "setup"} & module.__dict__.keys()


def test_what_setup_makes_beside_the_model_is_told(tmp_path, caplog):
    class WithHead(Early):
        def setup(self, stage):
            self.later = nn.Linear(2, 2)

    with caplog.at_level(logging.WARNING, "noisytune"):
        trainer(tmp_path, NoisyTuneCallback(noise_lambda=0.3, seed=2)).fit(WithHead(), data())
    (told,) = (line for line in caplog.messages if "setup()" in line)
    assert told.startswith("NoisyTune: 2 tensors that setup() made got no noise (later.weight ...)")


def test_the_random_state_and_the_batches_are_those_of_plain_training(tmp_path):
    ends = []
    for callbacks in ([], [NoisyTuneCallback(noise_lambda=0.0)]):
        torch.manual_seed(5)
        module = Early()
        trainer(tmp_path, *callbacks).fit(module, data())
        ends.append((state(module), torch.get_rng_state()))
    assert same(ends[0][0], ends[1][0])
    assert torch.equal(ends[0][1], ends[1][1])


def test_validate_and_test_leave_the_module_alone(tmp_path):
    module, callback = Early(), NoisyTuneCallback()
    before = state(module)
    trainer(tmp_path, callback).validate(module, data(), verbose=False)
    assert same(state(module), before)
    assert callback.manifest is None


def test_a_second_fit_adds_nothing(tmp_path):
    module = Early()
    trainer(tmp_path, NoisyTuneCallback()).fit(module, data())
    trained, again = state(module), NoisyTuneCallback()
    trainer(tmp_path, again).fit(module, data())
    assert same(module.start, trained)
    assert again.manifest is None


@pytest.mark.parametrize("make", [Early, lambda: Regression(late=True)])
def test_a_resumed_run_is_an_uninterrupted_one(make, tmp_path):
    whole = make()
    trainer(tmp_path / "a", NoisyTuneCallback(seed=4), epochs=2).fit(whole, data())
    first = trainer(tmp_path / "b", NoisyTuneCallback(seed=4), epochs=1)
    first.fit(make(), data())
    first.save_checkpoint(tmp_path / "one.ckpt")
    second = make()
    trainer(tmp_path / "c", NoisyTuneCallback(seed=4), epochs=2).fit(second, data(), ckpt_path=tmp_path / "one.ckpt")
    assert same(state(second), state(whole))
    with pytest.raises(ConfigError, match=r"seed 4, this run starts from noise of lambda 0\.15, seed 5"):
        trainer(tmp_path / "d", NoisyTuneCallback(seed=5), epochs=2).fit(
            make(), data(), ckpt_path=tmp_path / "one.ckpt"
        )


def lines(caplog):
    """What is to be seen of noisytune where nobody has set up logging."""
    return [record.message for record in caplog.records if record.name.startswith("noisytune")]


def test_the_seed_is_that_of_seed_everything_unless_one_is_given(tmp_path, monkeypatch, caplog):
    for environment, settings, seed, said in (
        ("7", {}, 7, "seed 7 (of seed_everything)"),
        ("7", {"seed": 3}, 3, "seed 3,"),
        ("", {}, 0, "seed 0 (the default: seed_everything is not set)"),
    ):
        monkeypatch.setenv("PL_GLOBAL_SEED", environment)
        module = Early()
        caplog.clear()
        trainer(tmp_path, NoisyTuneCallback(**settings)).fit(module, data())
        assert receipt(module)["seed"] == seed
        (line,) = lines(caplog)
        assert said in line


def test_what_happens_to_the_noise_is_said(tmp_path, caplog):
    module, callback = Early(), NoisyTuneCallback(seed=1)
    fitted = trainer(tmp_path, callback)
    fitted.validate(module, data(), verbose=False)
    fitted.fit(module, data())
    fitted.save_checkpoint(tmp_path / "one.ckpt")
    trainer(tmp_path, callback).fit(module, data())
    trainer(tmp_path, NoisyTuneCallback(seed=1), epochs=2).fit(Early(), data(), ckpt_path=tmp_path / "one.ckpt")
    assert [line.split(":")[1].split(" of ")[0] for line in lines(caplog)] == [
        " validate() adds no noise",
        " 3",
        " the weights carry noise",
        " 3",
        " resumed",
    ]


class Wide(Early):
    """Large enough to see noise in it."""

    def _build(self):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.body = nn.Sequential(nn.Linear(4, 8000), nn.Tanh(), nn.Linear(8000, 1))


def test_trained_weights_get_no_noise_again_however_they_were_loaded(tmp_path, caplog):
    first = trainer(tmp_path, NoisyTuneCallback(noise_lambda=0.3, seed=1))
    module = Wide()
    first.fit(module, data())
    first.save_checkpoint(tmp_path / "one.ckpt")
    by_hand = Wide()
    by_hand.load_state_dict(torch.load(tmp_path / "one.ckpt", weights_only=True)["state_dict"])
    for loaded in (by_hand, Wide.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)):
        caplog.clear()
        trainer(tmp_path, NoisyTuneCallback(noise_lambda=0.3, seed=1)).fit(loaded, data())
        assert same(loaded.start, state(module))
        assert "already: none was added (their record was lost; the noise itself was found)" in lines(caplog)[0]


def test_a_module_may_keep_the_record_itself(tmp_path, caplog):
    class Keeps(Early):
        def on_load_checkpoint(self, checkpoint):
            restore_record(self, checkpoint)

    first, module = trainer(tmp_path, NoisyTuneCallback(seed=1)), Keeps()
    first.fit(module, data())
    assert "too small to see whether such noise was in it before" in lines(caplog)[0]
    first.save_checkpoint(tmp_path / "one.ckpt")
    loaded = Keeps.load_from_checkpoint(tmp_path / "one.ckpt", weights_only=True)
    assert receipt(loaded) == receipt(module)
    trainer(tmp_path, NoisyTuneCallback(seed=1)).fit(loaded, data())
    assert same(loaded.start, state(module))


def test_a_module_that_is_tested_takes_the_record_over(tmp_path):
    first = trainer(tmp_path, NoisyTuneCallback(seed=1))
    first.fit(Early(), data())
    first.save_checkpoint(tmp_path / "one.ckpt")
    module = Early()
    trainer(tmp_path, NoisyTuneCallback(seed=1)).validate(
        module, data(), ckpt_path=tmp_path / "one.ckpt", verbose=False
    )
    assert receipt(module)["seed"] == 1


def test_resuming_without_noise_what_began_with_it_is_refused(tmp_path):
    first = trainer(tmp_path, NoisyTuneCallback(seed=1))
    first.fit(Early(), data())
    first.save_checkpoint(tmp_path / "one.ckpt")
    with pytest.raises(ConfigError, match=r"lambda 0\.15, seed 1, this run starts from no noise"):
        trainer(tmp_path, NoisyTuneCallback(noise_lambda=0), epochs=2).fit(
            Early(), data(), ckpt_path=tmp_path / "one.ckpt"
        )


def test_an_average_of_the_clean_weights_is_refused(tmp_path):
    average = lightning.callbacks.EMAWeightAveraging
    with pytest.raises(
        UnsupportedTensorError, match=r"_average_model \(AveragedModel\) .*: put NoisyTuneCallback before"
    ):
        trainer(tmp_path, average(), NoisyTuneCallback()).fit(Early(), data())
    trainer(tmp_path, NoisyTuneCallback(), average()).fit(Early(), data())


def test_what_cannot_take_noise_is_refused_and_left_alone(tmp_path):
    module = Early()
    with torch.no_grad():
        module.body[2].weight[0, 0] = torch.nan
    before = state(module)
    with pytest.raises(NonFiniteError, match=r"body\.2\.weight"):
        trainer(tmp_path, NoisyTuneCallback()).fit(module, data())
    assert all(torch.equal(tensor.nan_to_num(7), before[name].nan_to_num(7)) for name, tensor in state(module).items())


@pytest.mark.slow
def test_a_real_encoder_learns(minilm, topics, tmp_path):
    """all-MiniLM-L6-v2 inside a LightningModule: its names are those of the checkpoint, its new head gets no noise."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(minilm.path)
    batches = []
    for i in range(0, 24, 8):
        texts, labels = topics.train.texts[i : i + 8], topics.train.targets[i : i + 8]
        batch = tokenizer(
            [text[0] for text in texts], padding=True, truncation=True, max_length=24, return_tensors="pt"
        )
        batches.append(dict(batch) | {"labels": torch.tensor(labels).long()})

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.model = AutoModelForSequenceClassification.from_pretrained(minilm.path, num_labels=len(topics.labels))
            self.losses = []

        def training_step(self, batch, _):
            loss = self.model(**batch).loss
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=3e-4)

    module, callback = Classifier(), NoisyTuneCallback(noise_lambda=0.15, seed=1)
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    fitted = trainer(tmp_path, callback, epochs=4)
    fitted.fit(module, loader)
    assert sum(module.losses[-3:]) < sum(module.losses[:3])
    assert "head:classifier.weight" not in {entry.name for entry in callback.manifest.perturbed}
    assert "embeddings.word_embeddings.weight" in {entry.name for entry in callback.manifest.perturbed}
    fitted.save_checkpoint(tmp_path / "end.ckpt")
    loaded = torch.load(tmp_path / "end.ckpt", weights_only=True)
    assert loaded["noisytune"]["noise_lambda"] == 0.15
    again = Classifier()
    again.load_state_dict(loaded["state_dict"])
    assert same(state(again), state(module))
