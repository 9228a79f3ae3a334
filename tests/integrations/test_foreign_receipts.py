"""A receipt that a model did not earn: from its configuration, or from another model of the process."""

import pytest
import torch
import transformers as tf

from noisytune.config import NoisyTuneConfig
from noisytune.integrations._modules import find_noise
from noisytune.torch import perturb_, receipt

NOISE = {"noise_lambda": 0.5, "seed": 3}
XLM_LIKE = {"emb_dim": 16, "n_layers": 2, "n_heads": 2, "n_words": 64, "max_position_embeddings": 32}
TEXT = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
GROUPED = TEXT | {"num_key_value_heads": 1}
CLASSES = {
    "flaubert": (tf.FlaubertForSequenceClassification, lambda: tf.FlaubertConfig(**XLM_LIKE)),
    "xlm": (tf.XLMForSequenceClassification, lambda: tf.XLMConfig(**XLM_LIKE)),
    "openai-gpt": (
        tf.OpenAIGPTForSequenceClassification,
        lambda: tf.OpenAIGPTConfig(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2),
    ),
    "mixtral": (tf.MixtralForCausalLM, lambda: tf.MixtralConfig(**GROUPED, num_local_experts=3)),
    "bert": (tf.BertForSequenceClassification, lambda: tf.BertConfig(**TEXT)),
}


@pytest.fixture(params=CLASSES.values(), ids=CLASSES)
def make(request):
    """``make(config)``: a new model of one class, with clean weights; of a configuration of its own without one."""
    model_class, new_config = request.param
    torch.manual_seed(0)
    return lambda config=None: model_class(config or new_config())


def test_noise_on_one_model_says_nothing_of_another(make):
    one, other = make(), make()
    perturb_(one, **NOISE)
    assert receipt(other) is None
    assert find_noise(other, NoisyTuneConfig(**NOISE)).config is None
    assert perturb_(other, **NOISE).perturbed


def test_clean_weights_under_the_configuration_of_noisy_ones_are_warned_of(make, tmp_path):
    noisy = make()
    perturb_(noisy, **NOISE)
    noisy.config.save_pretrained(tmp_path)
    clean = make(type(noisy.config).from_pretrained(tmp_path))
    assert receipt(clean)["seed"] == 3
    with pytest.warns(UserWarning, match="none of it is to be seen in them"):
        find_noise(clean, NoisyTuneConfig(**NOISE))


def test_noise_that_is_there_is_believed(make):
    noisy = make()
    perturb_(noisy, **NOISE)
    found = find_noise(noisy, NoisyTuneConfig(**NOISE))
    assert (found.config.seed, found.remark) == (3, "")
