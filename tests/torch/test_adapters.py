"""Every method of PEFT: the noise of the model without the adapter and none on the adapter's tensors, or refused."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from noisytune._perturb.names import without_wrappers
from noisytune.errors import UnsupportedTensorError
from noisytune.torch import perturb_, receipt

peft = pytest.importorskip("peft", reason="adapters need peft")

pytestmark = pytest.mark.filterwarnings("ignore")  # of peft's methods, about themselves

PROMPT = {"task_type": "SEQ_CLS", "num_virtual_tokens": 3}
LAYERS = {"task_type": "SEQ_CLS", "target_modules": ["query", "value"]}
OPTIONS = {
    "ADALORA": {"init_r": 4, "target_r": 2, "total_step": 10},
    "IA3": {"feedforward_modules": []},
    "OFT": {"r": 0, "oft_block_size": 4},
    "BOFT": {"boft_block_size": 4},
    "VBLORA": {"r": 4, "num_vectors": 16, "vector_length": 4},
    "FOURIERFT": {"n_frequency": 10},
    "WAVEFT": {"n_frequency": 10},
    "LN_TUNING": {"target_modules": ["LayerNorm"]},
    "SHIRA": {"r": 2},
    "MISS": {"r": 4},
    "PSOFT": {"r": 4},
    "C3A": {"block_size": 4},
    "ROAD": {"group_size": 4},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "OSF": {"effective_rank": 4},
    "TRAINABLE_TOKENS": {"token_indices": [3, 4], "target_modules": ["word_embeddings"]},
    "P_TUNING": PROMPT | {"encoder_hidden_size": 8},
    "PROMPT_TUNING": PROMPT,
    "PREFIX_TUNING": PROMPT,
    "MULTITASK_PROMPT_TUNING": PROMPT | {"num_tasks": 2},
}
ELSEWHERE = {"ADAPTION_PROMPT", "CPT", "CARTRIDGE", "XLORA"}
"""For causal language models, or on top of other adapters."""
CASES = [(kind.value, OPTIONS.get(kind.value, {})) for kind in peft.PEFT_TYPE_TO_CONFIG_MAPPING] + [
    ("LORA", {"use_dora": True}),
    ("LORA", {"init_lora_weights": "pissa"}),
    ("LORA", {"use_rslora": True, "bias": "all"}),
    ("LORA", {"trainable_token_indices": [3, 4]}),
    ("LORA", {"modules_to_save": ["pooler", "classifier"]}),
    ("MISS", {"r": 4, "init_weights": "bat"}),
    ("PROMPT_TUNING", PROMPT | {"prompt_tuning_init": "SAMPLE_VOCAB"}),
]
PLAIN = {"LORA", "ADALORA", "IA3", "LOHA", "LOKR", "OFT", "VERA", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"}
"""Must not be refused without a special option."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(
            BertConfig(intermediate_size=32, max_position_embeddings=32, initializer_range=0.2, **sizes)
        )
        for part in model.modules():
            if isinstance(part, torch.nn.LayerNorm):  # those of a trained model have a spread
                torch.nn.init.normal_(part.weight, 1.0, 0.1)
        model.save_pretrained(path := tmp_path_factory.mktemp("models") / "bert")
    return path


def adapted(base, kind, options):
    settings = options if "num_virtual_tokens" in options else LAYERS | options
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return peft.get_peft_model(base, peft.PEFT_TYPE_TO_CONFIG_MAPPING[kind](**settings))


def tensors(model):
    return {name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def noise_or_refusal(model, scope):
    try:
        return perturb_(model, seed=1, scope=scope), None
    except UnsupportedTensorError as error:
        return None, str(error)


@pytest.mark.parametrize(
    ("kind", "options"),
    [pytest.param(*case, id=f"{case[0]}-{i}") for i, case in enumerate(CASES) if case[0] not in ELSEWHERE],
)
def test_noise_under_an_adapter_is_noise_before_it_or_refused(folder, kind, options, capfd):
    def load():
        return BertForSequenceClassification.from_pretrained(folder)

    for scope in ("pretrained", "all"):
        noisy = load()
        perturb_(noisy, seed=1, scope=scope)
        right = tensors(adapted(noisy, kind, options))
        model = adapted(load(), kind, options)
        before = tensors(model)
        manifest, refusal = noise_or_refusal(model, scope)
        if manifest is None:
            assert refusal.endswith("perturb before get_peft_model")
            assert kind not in PLAIN or options not in ({}, OPTIONS.get(kind))
            assert receipt(model) is None
            assert all(torch.equal(value, before[name]) for name, value in tensors(model).items())
            continue
        found = tensors(model)
        assert found.keys() == right.keys()
        different = [name for name, value in right.items() if not torch.equal(found[name], value)]
        assert not different
        assert not any("scope='all' perturbs them" in notice for notice in manifest.notices)
        bare = {without_wrappers(name).removeprefix("base_model.") for e in manifest.perturbed for name in e.own_names}
        assert bare <= {*dict(load().named_parameters()), "word_embeddings.weight"}
