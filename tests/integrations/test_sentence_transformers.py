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


@pytest.mark.filterwarnings("default")
def test_the_base_below_an_adapter_keeps_its_noise(make, minilm, tmp_path, one_thread):
    """The trainer reads an adapter's checkpoint into a second model, on a clean base, and copies all of that."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed")

    def with_adapter(**settings):
        trainer = make(max_steps=2, save_steps=1, per_device_train_batch_size=4, **settings)
        trainer.model.add_adapter(
            peft.LoraConfig(task_type="FEATURE_EXTRACTION", r=2, target_modules=["query"], lora_dropout=0.0)
        )
        return trainer

    def base_of(trainer):
        named = trainer.model.named_parameters()
        return {name.split("0.model.")[1].replace(".base_layer", ""): p for name, p in named if "lora_" not in name}

    noised = AutoModel.from_pretrained(minilm.path)
    perturb_(noised, **SETTINGS)
    first = with_adapter()
    first.train()
    resumed = with_adapter()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-1"))
    best = with_adapter(eval_strategy="no")
    best.train()
    best.state.best_model_checkpoint = str(tmp_path / "run/checkpoint-1")
    best._load_best_model()
    for trainer in (first, resumed, best):
        found = base_of(trainer)
        assert len(found) > 50
        assert all(torch.equal(parameter, found[name]) for name, parameter in noised.named_parameters())
        assert receipt(trainer.model)["seed"] == 1
    adapters = [{n: p for n, p in t.model.named_parameters() if "lora_" in n} for t in (first, resumed)]
    assert all(torch.equal(value, adapters[1][name]) for name, value in adapters[0].items())
