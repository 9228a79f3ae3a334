"""sentence-transformers' trainer is transformers' underneath: all-MiniLM-L6-v2 with a contrastive loss."""

import pytest
import torch
from transformers import AutoModel

from noisytune.integrations.transformers import attach
from noisytune.lab.tasks import TaskOptions, load_task
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

sentence_transformers = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

Dataset = pytest.importorskip("datasets", reason="sentence-transformers trains on datasets").Dataset
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss  # noqa: E402

SETTINGS = {"noise_lambda": 0.15, "seed": 1}


@pytest.fixture(scope="module")
def pairs():
    """Messages and their replies."""
    train = load_task("replies", TaskOptions(train_size=400)).train
    both = [texts for texts, label in zip(train.texts, train.targets, strict=True) if label == 1][:64]
    return Dataset.from_dict({"anchor": [a for a, _ in both], "positive": [b for _, b in both]})


@pytest.fixture
def make(minilm, pairs, tmp_path):
    def make(callbacks=(), **settings):
        model = sentence_transformers.SentenceTransformer(str(minilm.path), device="cpu")
        model.max_seq_length = 24
        usual = {
            "output_dir": str(tmp_path / "run"),
            "max_steps": 8,
            "save_steps": 4,
            "learning_rate": 2e-4,
            "per_device_train_batch_size": 16,
            "logging_steps": 4,
            "report_to": [],
            "use_cpu": True,
            "disable_tqdm": True,
        }
        arguments = sentence_transformers.SentenceTransformerTrainingArguments(**usual | settings)
        loss = MultipleNegativesRankingLoss(model)
        trainer = sentence_transformers.SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=pairs, loss=loss, callbacks=list(callbacks)
        )
        return attach(trainer, **SETTINGS)

    return make


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_contrastive_loss_falls_and_a_resumed_run_is_an_uninterrupted_one(
    make, minilm, at_start, same, weights, tmp_path, one_thread
):
    trainer = make([at_start])
    trainer.train()
    noised = AutoModel.from_pretrained(minilm.path)
    perturb_(noised, **SETTINGS)
    assert same({name.removeprefix("0.model."): w for name, w in at_start.weights[0].items()}, weights(noised))
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert found[-1] < found[0]

    checkpoint = tmp_path / "run/checkpoint-4"
    assert Manifest.read(checkpoint).config.seed == 1
    reloaded = sentence_transformers.SentenceTransformer(str(checkpoint), device="cpu")
    assert receipt(reloaded)["noise_lambda"] == 0.15
    resumed = make()
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert same(weights(resumed.model), weights(trainer.model))
    texts = ["What is your favourite book?"]
    assert torch.equal(torch.tensor(resumed.model.encode(texts)), torch.tensor(trainer.model.encode(texts)))
