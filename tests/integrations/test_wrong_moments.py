"""Moments and models at which noise would be lost, doubled or wrong: it works rightly, or is refused in words with
the model untouched."""

import contextlib
import warnings

import pytest
import torch
from torch.optim.swa_utils import AveragedModel
from transformers import TrainerCallback

from noisytune.errors import AlreadyPerturbedError, UnsupportedTensorError
from noisytune.integrations.transformers import attach
from noisytune.torch import perturb_, receipt

SETTINGS = {"noise_lambda": 0.3, "seed": 5}


@pytest.fixture
def refused(weights, same):
    """``with refused(model, words):`` the block must raise with the words and leave the model as it was."""

    @contextlib.contextmanager
    def check(model, words, error=UnsupportedTensorError):
        before = weights(model)
        with pytest.raises(error, match=words) as caught:
            yield
        assert "\n" not in str(caught.value)
        assert same(weights(model), before)
        assert receipt(model) is None

    return check


def step(model, optimizer, examples):
    model(
        input_ids=torch.stack([one["input_ids"] for one in examples[:4]]), labels=torch.ones(4).long()
    ).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


# --- after the optimizer exists ---


def test_an_optimizer_that_refers_to_the_weights_trains_the_noised_ones(
    make_trainer, make_model, at_start, noised, same, weights
):
    """The same weights as if the optimizer had been made by the trainer, after the noise."""
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    early = attach(make_trainer(model, optimizers=(optimizer, scheduler), callbacks=[at_start]), **SETTINGS)
    early.train()
    assert same(at_start.weights[0], noised)
    late = make_model()
    perturb_(late, **SETTINGS)
    optimizer = torch.optim.AdamW(late.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    make_trainer(late, optimizers=(optimizer, scheduler)).train()
    assert same(weights(model), weights(late))


def test_an_optimizer_that_has_taken_steps_is_refused(make_trainer, make_model, refused, examples):
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters())
    step(model, optimizer, examples)
    trainer = attach(make_trainer(model, optimizers=(optimizer, None)), **SETTINGS)
    with refused(model, r"the optimizer \(AdamW\) has taken steps already: noise belongs before training"):
        trainer.train()


def test_an_optimizer_with_master_copies_is_refused(make_trainer, make_model, refused):
    model = make_model(dtype=torch.bfloat16)
    masters = [parameter.detach().float().requires_grad_() for parameter in model.parameters()]
    trainer = attach(make_trainer(model, optimizers=(torch.optim.AdamW(masters), None)), **SETTINGS)
    with refused(model, r"holds a copy of bert\.embeddings\.word_embeddings\.weight instead of the weight itself"):
        trainer.train()


def test_an_optimizer_may_hold_more_than_the_model(make_trainer, make_model):
    """Such as parameters of a loss."""
    model = make_model()
    optimizer = torch.optim.AdamW([*model.parameters(), torch.nn.Parameter(torch.zeros(1000, 32))])
    attach(make_trainer(model, optimizers=(optimizer, None), max_steps=1), **SETTINGS).train()
    assert receipt(model)


# --- after copies were made ---


def test_an_average_of_the_clean_weights_is_refused(make_trainer, make_model, refused):
    class Average(TrainerCallback):
        def __init__(self, model):
            self.average = AveragedModel(model)

    model = make_model()
    trainer = attach(make_trainer(model, callbacks=[Average(model)]), **SETTINGS)
    with refused(
        model, r"average \(AveragedModel\) holds a copy of the clean weights: call noisytune\.torch\.perturb_"
    ):
        trainer.train()


def test_an_average_of_the_noised_weights_is_welcome(make_trainer, make_model, weights, same, noised):
    class Average(TrainerCallback):
        def __init__(self, model):
            self.average = AveragedModel(model)

    model = make_model()
    perturb_(model, **SETTINGS)
    callback = Average(model)
    attach(make_trainer(model, callbacks=[callback], max_steps=1), **SETTINGS).train()
    assert same(weights(callback.average.module), noised)


def test_gradients_from_before_are_warned_of(make_model, examples):
    model = make_model()
    model(input_ids=examples[0]["input_ids"][None], labels=torch.ones(1).long()).loss.backward()
    with pytest.warns(UserWarning, match="an optimizer, EMA or reference copy made before now holds clean weights"):
        perturb_(model)


# --- twice ---


def test_noise_by_hand_and_by_the_trainer_is_noise_once(make_trainer, make_model, at_start, noised, same):
    model = make_model()
    trainer = attach(make_trainer(model, callbacks=[at_start]), **SETTINGS)
    perturb_(model, **SETTINGS)
    trainer.train()
    assert same(at_start.weights[0], noised)
    with pytest.raises(AlreadyPerturbedError, match="carry noise already"):
        perturb_(model)


def test_another_trainer_on_the_same_model_adds_none(make_trainer, make_model, at_start, weights, same):
    model = make_model()
    attach(make_trainer(model), **SETTINGS).train()
    trained = weights(model)
    attach(make_trainer(model, callbacks=[at_start]), **SETTINGS).train()
    assert same(at_start.weights[0], trained)


def test_on_a_checkpoint_that_carries_noise(make_model, tmp_path, weights, same):
    model = make_model()
    perturb_(model, **SETTINGS)
    model.save_pretrained(tmp_path / "noised")
    loaded = make_model(tmp_path / "noised")
    with pytest.raises(AlreadyPerturbedError, match="carry noise already"):
        perturb_(loaded, **SETTINGS)
    assert same(weights(loaded), weights(model))


# --- on models that cannot take it ---


def test_a_quantised_model_is_refused(make_trainer, make_model, weights):
    for spoil, words in (
        (
            lambda model: setattr(model, "hf_quantizer", object()),
            r"is quantised \(Bert.*\): perturb the model before qu",
        ),
        (replace_a_weight_by_bytes, r"query\.weight \(uint8, shape \(32, 32\)\) is quantised \(Parameter\)"),
        (replace_a_weight_by_a_class, r"query\.weight \(float32, shape \(32, 32\)\) is quantised \(Packed\)"),
    ):
        model = make_model()
        before = weights(model)
        trainer = attach(make_trainer(model), **SETTINGS)
        spoil(model)
        with pytest.raises(UnsupportedTensorError, match=words):
            trainer.train()
        assert receipt(model) is None
        assert all(torch.equal(model.get_parameter(name), before[name]) for name in before if "0.attention" not in name)


def replace_a_weight_by_bytes(model):
    """As a library does that quantises a loaded model in place: the new parameter lacks the mark of a loaded one."""
    query = model.bert.encoder.layer[0].attention.self.query
    query.weight = torch.nn.Parameter(torch.zeros(32, 32, dtype=torch.uint8), requires_grad=False)


def replace_a_weight_by_a_class(model):
    """As torchao does: a tensor class that says it is floating point."""

    class Packed(torch.Tensor):
        @staticmethod
        def __new__(cls, like):
            return torch.Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype)

        @classmethod
        def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
            if function is torch.ops.aten.detach.default:
                return args[0]
            raise NotImplementedError(function)

    query = model.bert.encoder.layer[0].attention.self.query
    query.weight = torch.nn.Parameter(Packed(query.weight.detach()), requires_grad=False)


def test_a_model_on_the_meta_device_is_refused(make_trainer, make_model):
    trainer = attach(make_trainer(), **SETTINGS)
    trainer.model.to("meta")
    with pytest.raises(UnsupportedTensorError, match="is on the meta device: load the weights first"):
        trainer.train()
    assert receipt(trainer.model) is None


def test_a_model_offloaded_to_disk_is_refused(make_model, tmp_path):
    from accelerate import cpu_offload, disk_offload

    for offload, options in ((disk_offload, {"offload_dir": tmp_path}), (cpu_offload, {})):
        model = make_model()
        offload(model, execution_device="cpu", **options)
        with pytest.raises(UnsupportedTensorError, match=r"meta device: .*\(weights offloaded to disk cannot be pert"):
            perturb_(model, **SETTINGS)
        assert receipt(model) is None


def test_a_compiled_model_gets_the_noise_and_computes_with_it(make_model, noised, same, weights):
    model, plain = make_model().eval(), make_model().eval()
    compiled = torch.compile(model, backend="eager")
    tokens = torch.arange(200, 212)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        before = compiled(tokens).logits
        manifest = perturb_(compiled, **SETTINGS)
        after = compiled(tokens).logits
    perturb_(plain, **SETTINGS)
    assert same(weights(model), noised)
    assert not torch.equal(before, after)
    with torch.no_grad():
        assert torch.allclose(after, plain(tokens).logits, atol=1e-6)
    assert all("_orig_mod" not in entry.name for entry in manifest.entries)
    assert receipt(model) == receipt(compiled) == receipt(plain)


def test_a_model_that_the_trainer_will_compile_gets_it_too(make_trainer, at_start, noised, same):
    trainer = attach(
        make_trainer(callbacks=[at_start], max_steps=1, torch_compile=True, torch_compile_backend="eager"), **SETTINGS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        trainer.train()
    assert same({name.removeprefix("_orig_mod."): value for name, value in at_start.weights[0].items()}, noised)


def test_under_inference_mode(make_model, noised, same, weights, refused):
    """Weights from outside take the noise; weights made inside can never be trained."""
    model = make_model()
    with torch.inference_mode():
        perturb_(model, **SETTINGS)
        inside = type(model)(model.config)
    assert same(weights(model), noised)
    assert not any(parameter.is_inference() for parameter in model.parameters())
    with refused(inside, r"is an inference tensor: load the model outside torch\.inference_mode\(\)"):
        perturb_(inside, **SETTINGS)
