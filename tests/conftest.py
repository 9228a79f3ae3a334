"""Real text, a real model, and a tiny one with a real tokenizer."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before any library counts cores: pytest's workers share them, and more threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from noisytune._pretrained import Model, default_model
from noisytune.lab.studies.study import Study
from noisytune.lab.tasks import TaskData, TaskOptions, load_task
from noisytune.lab.trials.arm import PLAIN, Arm
from noisytune.lab.trials.settings import TrainingSettings
from noisytune.lab.trials.tokens import Tokens, tokenise

os.environ.setdefault("KERAS_BACKEND", "jax")  # Keras itself would look for TensorFlow

settings.register_profile("no deadline", deadline=None)  # a slow machine is no failure
settings.load_profile("no deadline")


gc.disable()  # while the modules of tests import the libraries


def pytest_collection_finish() -> None:
    """What was imported is no garbage: the Trainer looks for some whenever it trains, and would go through it all."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """JAX counts what is left when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def minilm() -> Model:
    return Model.find()


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., Path]:
    """Save a random BERT of two layers, 32 wide, with MiniLM's tokenizer."""

    def save(folder: Path, *, dtype: str = "float32", **config: Any) -> Path:
        import torch
        from transformers import BertConfig, BertModel

        sizes: dict[str, Any] = {
            "vocab_size": 30522,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        }
        with torch.random.fork_rng():
            torch.manual_seed(0)
            BertModel(BertConfig(**sizes | config)).to(getattr(torch, dtype)).save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            shutil.copy(default_model() / file, folder)
        return folder

    return save


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, save_tiny: Callable[..., Path]) -> Model:
    return Model.find(str(save_tiny(tmp_path_factory.mktemp("models") / "tiny-bert")))


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, 32 wide, with MiniLM's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    tokenizer = AutoTokenizer.from_pretrained(default_model())
    tokenizer.eos_token, tokenizer.bos_token = tokenizer.sep_token, tokenizer.cls_token
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def topics() -> TaskData:
    return load_task("topics", TaskOptions(train_size=40, dev_size=30))


@pytest.fixture(scope="session")
def language_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """One of each architecture."""
    from tests.support.language_models import MORE, save_language_model

    folder = tmp_path_factory.mktemp("language_models")
    return {kind: Model.find(str(save_language_model(kind, folder / kind))) for kind in MORE}


@pytest.fixture(scope="session")
def tiny_tokens(tiny: Model, topics: TaskData) -> Tokens:
    return tokenise(tiny.path, topics, 32)


@pytest.fixture(scope="session")
def tiny_study(tiny: Model, topics: TaskData) -> Study:
    """Plain and noisy, two seeds, six steps a trial."""
    return Study(
        name="tiny",
        model=tiny,
        tasks=(topics,),
        arms=(PLAIN, Arm.parse("noisytune")),
        seeds=(0, 1),
        training=TrainingSettings(epochs=1, max_length=32, batch_size=8, learning_rate=1e-3),
        margin=0.5,
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As in a worker."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def with_arms(tiny_study: Study) -> Callable[..., Study]:
    """The tiny study with other noises, zero included."""

    def make(*lambdas: float, **changes: Any) -> Study:
        arms = tuple(Arm.parse(f"noisytune({value})") for value in lambdas)
        return replace(tiny_study, arms=(PLAIN, *arms), **changes)

    return make
