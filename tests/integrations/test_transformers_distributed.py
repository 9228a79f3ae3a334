"""The Trainer on several processes: every rank starts from the weights that one process makes, and goes on from them.

Two process groups for each number of ranks: one trains and leaves a checkpoint on the way, the other resumes from it in
new processes and must end where the first one did. accelerate knows FSDP on accelerators only, so that the ranks
pretend to have one; what really ran is asserted. DeepSpeed runs on the CPU if told so.
"""

import contextlib
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
import torch.distributed as dist
import transformers
from torch.distributed.tensor import DTensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.distributed import DistributedConfig

from noisytune.integrations.transformers import attach
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

FOLDER, PHASE = "NOISYTUNE_TEST_FOLDER", "NOISYTUNE_TEST_PHASE"
SETTINGS = {"noise_lambda": 0.3, "seed": 5}


def make_model(dtype=torch.float32):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return BertForSequenceClassification.from_pretrained(
            Path(os.environ[FOLDER], "pretrained"), num_labels=5, dtype=dtype
        )


def examples():
    generator = torch.Generator().manual_seed(7)
    return [
        {"input_ids": torch.randint(1, 99, (12,), generator=generator), "labels": torch.tensor(i % 5)}
        for i in range(48)
    ]


def whole(parameter):
    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameter):
            return parameter.detach().clone()
    return (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).detach().clone()


def is_sharded(parameter):
    return isinstance(parameter, DTensor) or hasattr(parameter, "ds_id")


def weights_of(model):
    return {name.removeprefix("module."): whole(parameter) for name, parameter in model.named_parameters()}


def must_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


class Start(TrainerCallback):
    """What the training starts from: the weights, and whether they are sharded."""

    weights, sharded = None, None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self.sharded = [is_sharded(parameter) for parameter in model.parameters()]
        self.weights = weights_of(model)


@contextlib.contextmanager
def as_on_an_accelerator():
    """accelerate takes gloo on the CPU for a backend that FSDP works on."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    backend = ("gloo", DistributedType.MULTI_GPU)
    with (
        mock.patch.object(PartialState, "_prepare_backend", return_value=backend),
        mock.patch("transformers.training_args.is_torch_bf16_gpu_available", return_value=True),
    ):
        yield


@contextlib.contextmanager
def prepared(kind):
    """The environment of a launcher."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    launcher = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    variables = {name: str(value) for name, value in launcher.items()} | {"ACCELERATE_TORCH_DEVICE": "cpu"}
    variables = {} if kind == "single" else variables
    variables |= {"ACCELERATE_USE_DEEPSPEED": "true", "DS_ACCELERATOR": "cpu"} if "zero" in kind else {}
    with (
        mock.patch.dict(os.environ, variables),
        as_on_an_accelerator() if kind[:4] in ("fsdp", "tp") else contextlib.nullcontext(),
    ):
        yield


def make_trainer(kind, callbacks=()):
    options = {"use_cpu": True}
    if "fsdp" in kind:
        config = {"transformer_layer_cls_to_wrap": ["BertLayer"]}
        config |= {"cpu_ram_efficient_loading": True} if kind == "fsdp_efficient" else {}
        config |= {"state_dict_type": "SHARDED_STATE_DICT"} if kind == "fsdp_bf16" else {}
        options = {"fsdp": True, "fsdp_config": config, "bf16": kind == "fsdp_bf16"}
    if "zero" in kind:
        config = {"stage": int(kind[-1]), "stage3_param_persistence_threshold": 0}
        options = {"deepspeed": {"zero_optimization": config, "train_micro_batch_size_per_gpu": "auto"}}
    arguments = TrainingArguments(
        output_dir=str(Path(os.environ[FOLDER], f"{kind}-{dist.get_world_size()}")),
        max_steps=4,
        save_steps=2,
        learning_rate=1e-3,
        per_device_train_batch_size=4,
        optim="adamw_torch",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **options,
    )
    model = make_model(torch.bfloat16 if kind == "fsdp_bf16" else torch.float32)
    if kind == "fsdp_efficient" and dist.get_rank() > 0:
        with torch.no_grad():  # what from_pretrained leaves there: memory that nobody has written to
            for parameter in model.parameters():
                parameter.fill_(torch.nan)
    trainer = attach(Trainer(model, arguments, train_dataset=examples(), callbacks=list(callbacks)), **SETTINGS)
    ran = {"single": "NO", "ddp": "MULTI_CPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED"}
    assert trainer.accelerator.distributed_type.value == ran.get(kind, "FSDP")
    return trainer


def trains(kind):
    def case():
        expected, start = make_model(torch.bfloat16 if kind == "fsdp_bf16" else torch.float32), Start()
        perturb_(expected, **SETTINGS)
        with prepared(kind):
            trainer = make_trainer(kind, [start])
            trainer.train()
        must_equal(start.weights, {name: value.float() for name, value in weights_of(expected).items()})
        assert set(start.sharded) == {"fsdp" in kind or kind == "zero3"}
        final = weights_of(trainer.model)
        trainer._add_noise(trainer.model)  # as a second train() does: not again
        must_equal(weights_of(trainer.model), final)
        assert receipt(trainer.model)["seed"] == 5
        checkpoint = Path(trainer.args.output_dir, "checkpoint-2")
        assert Manifest.read(checkpoint).config == trainer.noisytune_config
        if dist.get_rank() == 0:
            assert len(Manifest.read(checkpoint).perturbed) > 10
            torch.save(final, Path(trainer.args.output_dir, "final.pt"))

    case.__name__ = f"{kind}_trains"
    return case


def resumes(kind):
    def case():
        with prepared(kind):
            trainer = make_trainer(kind)
            folder = Path(trainer.args.output_dir)
            trainer.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
        assert trainer.state.global_step == 4
        must_equal(weights_of(trainer.model), torch.load(folder / "final.pt"))

    case.__name__ = f"{kind}_resumes"
    return case


def tensor_parallel_trains():
    """A Llama whose matrices transformers cuts in two when it loads them."""
    from transformers import AutoModelForCausalLM

    folder, start = Path(os.environ[FOLDER], "llama"), Start()
    expected = AutoModelForCausalLM.from_pretrained(folder)
    perturb_(expected, **SETTINGS)
    tokens = torch.arange(1, 13)
    with prepared("tp"):
        model = AutoModelForCausalLM.from_pretrained(folder, distributed_config=DistributedConfig(tp_plan="auto"))
        arguments = TrainingArguments(
            output_dir=str(Path(os.environ[FOLDER], "tp")),
            max_steps=2,
            learning_rate=1e-3,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        data = [{"input_ids": tokens, "labels": tokens}] * 8
        attach(Trainer(model, arguments, train_dataset=data, callbacks=[start]), **SETTINGS).train()
    must_equal(start.weights, weights_of(expected))
    assert any(start.sharded)


KINDS = {1: ["single"], 2: ["ddp", "fsdp", "fsdp_bf16", "fsdp_efficient"], 3: ["fsdp"]}
DEEPSPEED = ["zero2", "zero3"]
"""On two ranks, each in processes of its own: DeepSpeed leaves traces in them."""
PHASES = {"trains": trains, "resumes": resumes}
_phase, _, _kind = os.environ.get(PHASE, "all").partition("-")
CASES = {
    ranks: [
        [make(kind) for kind in ([_kind] if _kind else kinds)]
        for phase, make in PHASES.items()
        if _phase in (phase, "all")
    ]
    for ranks, kinds in KINDS.items()
}
if _kind == "tensor_parallel":
    CASES = {2: [tensor_parallel_trains]}


@pytest.fixture
def pretrained(tmp_path):
    """An encoder of sizes that two and three ranks cannot share evenly."""
    sizes = {"vocab_size": 301, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(BertConfig(intermediate_size=65, **sizes)).save_pretrained(tmp_path / "pretrained")


@pytest.mark.parametrize("ranks", [n if n == 2 else pytest.param(n, marks=pytest.mark.slow) for n in KINDS])
def test_on_ranks(launched, pretrained, ranks):
    launched(__file__, ranks, "all", [f"{kind}_{phase}" for phase in PHASES for kind in KINDS[ranks]])


def test_on_ranks_with_tensor_parallelism(launched, llama, tmp_path):
    if "tp_plan" not in inspect.signature(DistributedConfig).parameters:
        pytest.skip(f"transformers {transformers.__version__} asks for tensor parallelism in another way")
    shutil.copytree(llama, tmp_path / "llama")
    launched(__file__, 2, "trains-tensor_parallel", ["tensor_parallel_trains"])


@pytest.fixture(scope="module")
def deepspeed(tmp_path_factory):
    """DeepSpeed's communication for the CPU, compiled beforehand: that takes a minute."""
    if not importlib.util.find_spec("deepspeed"):
        pytest.skip("DeepSpeed is not installed: make test-deepspeed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        patch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path_factory.mktemp("compiled")))
        build = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load()"
        done = subprocess.run([sys.executable, "-c", build], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        yield


@pytest.mark.parametrize("kind", DEEPSPEED)
def test_on_ranks_with_deepspeed(deepspeed, launched, pretrained, kind):
    for phase in PHASES:
        launched(__file__, 2, f"{phase}-{kind}", [f"{kind}_{phase}"])
