"""perturb_ on modules: equation (1), and every way in which the pasted three lines go wrong."""

import copy
import io
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import noisytune.torch
from noisytune import field
from noisytune.config import NoisyTuneConfig
from noisytune.errors import AlreadyPerturbedError, ConfigError
from noisytune.torch import perturb_
from tests.support.modules import bits, left_alone, small_model, unchanged

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


# --- equation (1) ---


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_equation_one_against_an_independent_implementation(dtype):
    """Plain torch and the noise field only: W + u * (lambda * std(W)), rounded once."""
    model = small_model(dtype)
    clean = copy.deepcopy(model)
    manifest = perturb_(model, noise_lambda=0.3, seed=4)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    for entry in manifest.perturbed:
        (name,) = entry.own_names
        before, after = clean.get_parameter(name).detach(), model.get_parameter(name).detach()
        u = torch.from_numpy(field.uniform(4, name, 0, before.numel())).reshape(before.shape).to(wide)
        std = before.double().std().item()
        assert entry.std == pytest.approx(std, rel=1e-12)
        # the last bit of a float64 sum depends on its order; one float32 unit is what is promised of the scale
        std = entry.std if dtype == torch.float64 else std
        expected = (before.to(wide) + u * torch.tensor(0.3 * std, dtype=wide)).to(dtype)
        if name == "0.weight":
            expected[3] = before[3]
        assert torch.equal(after.view(torch.uint8), expected.view(torch.uint8)), name


def test_noise_is_as_strong_as_the_equation_says():
    layer = nn.Linear(500, 400)
    before = layer.weight.detach().clone()
    manifest = perturb_(layer, noise_lambda=0.15, seed=1)
    added = (layer.weight - before).detach()
    half_width = 0.15 * before.std() / 2
    assert added.abs().max() <= half_width * 1.0001
    assert added.std().item() == pytest.approx(2 * half_width.item() / 12**0.5, rel=0.01)
    assert manifest.entries[0].realised_std == pytest.approx(added.std().item(), rel=1e-3)


@pytest.mark.parametrize("distribution", ["uniform", "gaussian"])
@pytest.mark.parametrize("scale", ["matrix", "global"])
def test_the_noise_types_of_section_3_3(distribution, scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(200, 200), nn.Linear(200, 200))
    with torch.no_grad():
        model[1].weight.mul_(10)
    before = copy.deepcopy(model)
    perturb_(model, noise_lambda=0.2, seed=1, distribution=distribution, scale=scale)
    pooled = torch.cat([p.detach().flatten() for p in before.parameters()]).std()
    for name in ("0.weight", "1.weight"):
        w = before.get_parameter(name).detach()
        added = (model.get_parameter(name) - w).detach()
        expected = 0.2 * (w.std() if scale == "matrix" else pooled) / 12**0.5
        assert added.std().item() == pytest.approx(expected.item(), rel=0.02)
        assert (added.abs().max() > 3**0.5 * expected * 1.01) == (distribution == "gaussian")


def test_lambda_zero_changes_no_bit_and_leaves_no_receipt():
    model = small_model()
    with torch.no_grad():
        model[1].weight[0, 0] = -0.0
    before = bits(model)
    manifest = perturb_(model, noise_lambda=0)
    assert unchanged(model, before)
    assert not manifest.perturbed
    assert noisytune.torch.receipt(model) is None
    perturb_(model, noise_lambda=0.1)


# --- what the three lines get wrong (the failures seen in the wild) ---


def test_where_nothing_is_perturbed_there_is_no_receipt():
    model = small_model()
    assert not perturb_(model, exclude="*").perturbed
    assert noisytune.torch.receipt(model) is None
    assert perturb_(model).perturbed


def test_one_element_scalar_empty_and_constant_tensors_stay_finite():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scalar = nn.Parameter(torch.tensor(2.5))
            self.one = nn.Parameter(torch.tensor([[1.5]]))
            self.empty = nn.Parameter(torch.empty(0, 4))
            self.third = nn.Parameter(torch.full((70_000,), 1 / 3))
            self.weight = nn.Parameter(torch.randn(4, 4))

    model = Odd()
    before = bits(model)
    manifest = perturb_(model, noise_lambda=0.15, seed=1)
    assert left_alone(manifest) == {
        "scalar": "one element",
        "one": "one element",
        "empty": "empty",
        "third": "constant",
    }
    after = bits(model)
    assert all(torch.equal(after[name], before[name]) for name in ("scalar", "one", "third"))
    assert not torch.equal(after["weight"], before["weight"])
    assert all(p.isfinite().all() for p in model.parameters())


def test_global_random_state_is_not_touched():
    model = small_model()
    torch.manual_seed(1)
    np.random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    perturb_(model, noise_lambda=0.15, seed=1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_noise_is_the_same_where_subnormal_numbers_count_as_zero():
    every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    half = nn.ParameterDict({"w": nn.Parameter(every[every.abs() < 1])})
    flushed = copy.deepcopy(half)
    usual = perturb_(half, noise_lambda=1e-4, seed=1)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot")
    try:
        manifest = perturb_(flushed, noise_lambda=1e-4, seed=1)
    finally:
        torch.set_flush_denormal(False)
    assert unchanged(flushed, bits(half))
    assert manifest == usual


def test_noise_depends_on_the_seed_alone_and_differs_between_equal_tensors():
    def noise(seed, rng):
        torch.manual_seed(rng)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        with torch.no_grad():
            model[0].weight.copy_(torch.linspace(-1, 1, 64 * 64).view(64, 64))
            model[1].weight.copy_(model[0].weight)
        before = model[0].weight.detach().clone()
        perturb_(model, noise_lambda=0.15, seed=seed)
        return (model[0].weight - before).flatten(), (model[1].weight - before).flatten()

    first, second = noise(1, 0)
    assert torch.equal(first, noise(1, 99)[0])
    assert not torch.equal(first, noise(2, 0)[0])
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.08


def test_a_second_perturbation_is_refused_until_asked_for():
    model = small_model()
    perturb_(model, noise_lambda=0.15, seed=1)
    before = bits(model)
    wrapped = nn.Sequential(model, nn.Linear(2, 2))
    for module in (model, model[1], wrapped, copy.deepcopy(model)):
        with pytest.raises(AlreadyPerturbedError, match=r"lambda 0.15, seed 1.*again=True"):
            perturb_(module, noise_lambda=0.15, seed=1)
    assert unchanged(model, before)
    perturb_(model, noise_lambda=0.1, seed=2, again=True)
    assert noisytune.torch.receipt(model)["earlier"]["seed"] == 1
    assert not unchanged(model, before)


def test_a_pickle_names_no_class_of_noisytunes_and_keeps_the_receipt(tiny):
    model = transformers.AutoModel.from_pretrained(tiny.path)
    perturb_(model, seed=3)
    file = io.BytesIO()
    torch.save(model, file)
    assert b"noisytune." not in file.getvalue()
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert noisytune.torch.receipt(loaded)["seed"] == noisytune.torch.receipt(copy.deepcopy(model))["seed"] == 3
    for clean in (
        transformers.AutoModel.from_config(model.config),
        transformers.AutoModel.from_pretrained(tiny.path, config=copy.deepcopy(model.config)),
    ):
        assert noisytune.torch.receipt(clean) is None


def test_an_interrupted_perturbation_does_not_pass_for_a_clean_model(monkeypatch):
    model = small_model()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(noisytune._noise.kernels, "add_noise_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        perturb_(model, noise_lambda=0.15)
    assert noisytune.torch.receipt(model)


def test_two_processes_make_the_same_noise():
    program = (
        "import torch, hashlib, noisytune.torch as nt\n"
        "torch.manual_seed(0); m = torch.nn.Linear(100, 70); torch.manual_seed(hash('x') % 1000)\n"
        "nt.perturb_(m, noise_lambda=.15, seed=3)\n"
        "print(hashlib.sha256(m.weight.detach().numpy().tobytes()).hexdigest())"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={"OMP_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "2")
    }
    assert len(results) == 1


def test_gradients_from_before_are_noticed():
    model = small_model()
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.warns(UserWarning, match="optimizer, EMA or reference copy made before now"):
        manifest = perturb_(model, noise_lambda=0.15)
    assert "gradients" in manifest.notices[0]


def test_in_place_writes_are_seen_by_autograd():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3, requires_grad=True)
    y = layer(x).sum()
    perturb_(layer, noise_lambda=0.15)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_tied_weights_are_perturbed_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 8)
            self.out = nn.Linear(8, 20, bias=False)
            self.out.weight = self.emb.weight
            self.copy = nn.Linear(8, 20, bias=False)
            self.copy.weight.data = self.emb.weight.data

    model = Tied()
    plain = nn.Embedding(20, 8)
    plain.weight.data.copy_(model.emb.weight.data)
    manifest = perturb_(model, noise_lambda=0.15, seed=1)
    assert [entry.own_names for entry in manifest.entries] == [("emb.weight", "out.weight", "copy.weight")]
    perturb_(nn.ModuleDict({"emb": plain}), noise_lambda=0.15, seed=1)
    assert torch.equal(model.emb.weight, plain.weight)
    assert torch.equal(model.copy.weight, plain.weight)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_noise_that_rounds_away_is_reported(dtype):
    """A LayerNorm weight near 1 with a small spread: bfloat16 cannot hold most of its noise."""
    torch.manual_seed(0)
    norm = nn.LayerNorm(768)
    with torch.no_grad():
        norm.weight.normal_(1.0, 0.01)
    norm = norm.to(dtype)
    before = norm.weight.detach().float().clone()
    entry = perturb_(norm, noise_lambda=0.15, seed=1).entries[0]
    added = norm.weight.detach().float() - before
    assert entry.realised_std == pytest.approx(added.std().item(), rel=1e-3, abs=1e-9)
    if dtype == torch.bfloat16:
        assert entry.realised_std < 0.9 * entry.scale / 12**0.5


def test_adapters_stay_and_the_notice_says_what_it_means():
    class Lora(nn.Module):
        def __init__(self):
            super().__init__()
            self.base_layer = nn.Linear(8, 8)
            self.lora_A = nn.ModuleDict({"default": nn.Linear(8, 2, bias=False)})

    wrapped, plain = nn.ModuleDict({"query": Lora()}), nn.ModuleDict({"query": nn.Linear(8, 8)})
    plain["query"].load_state_dict(wrapped["query"].base_layer.state_dict())
    adapter = wrapped["query"].lora_A["default"].weight.detach().clone()
    manifest = perturb_(wrapped, noise_lambda=0.15, seed=1)
    perturb_(plain, noise_lambda=0.15, seed=1)
    assert torch.equal(wrapped["query"].lora_A["default"].weight, adapter)
    assert torch.equal(wrapped["query"].base_layer.weight, plain["query"].weight)
    assert "same noise on a clean base" in manifest.notices[0]


# --- which tensors ---


def test_padding_rows_stay():
    model = small_model()
    row = model[0].weight[3].detach().clone()
    with torch.no_grad():
        model[0].weight[3] = row = torch.randn(16)
    before = model[0].weight.detach().clone()
    perturb_(model, noise_lambda=0.15, seed=1)
    changed = (model[0].weight != before).any(dim=1)
    assert torch.equal(model[0].weight[3], row)
    assert changed.sum() == 49


def test_include_and_exclude():
    model = small_model()
    manifest = perturb_(model, noise_lambda=0.15, include="*.weight", exclude=("0.*",))
    assert [entry.name for entry in manifest.perturbed] == ["1.weight", "2.weight", "3.weight"]
    assert left_alone(manifest)["0.weight"] == "excluded"
    assert left_alone(manifest)["1.bias"] == "not included"
    with pytest.raises(ConfigError, match="matches none"):
        perturb_(small_model(), noise_lambda=0.15, exclude="*word_embeddings*")


def test_frozen_weights_are_perturbed_and_stay_frozen():
    model = small_model().requires_grad_(False)
    before = bits(model)
    perturb_(model, noise_lambda=0.15)
    assert not unchanged(model, before)
    assert not any(p.requires_grad for p in model.parameters())


def test_views_that_are_not_contiguous_get_the_same_noise():
    weight = torch.randn(40, 30)
    strided = nn.ParameterDict({"w": nn.Parameter(weight.t().contiguous().t())})
    plain = nn.ParameterDict({"w": nn.Parameter(weight.clone())})
    pointer = strided["w"].data_ptr()
    for model in (strided, plain):
        perturb_(model, noise_lambda=0.15, seed=1)
    assert torch.equal(strided["w"], plain["w"])
    assert strided["w"].data_ptr() == pointer
    assert not strided["w"].is_contiguous()


def test_settings_and_config_do_not_mix():
    with pytest.raises(ConfigError, match="give a config or settings, not both"):
        perturb_(small_model(), NoisyTuneConfig(), seed=1)
    with pytest.raises(ConfigError, match="did you mean 'noise_lambda'"):
        perturb_(small_model(), noiselambda=0.1)


# --- wrappers ---


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_wrapped_modules_get_the_same_noise():
    plain = small_model()
    perturb_(plain, noise_lambda=0.15, seed=1)
    wrappers = [
        nn.DataParallel,
        lambda m: torch.compile(m, backend="eager"),
        lambda m: nn.DataParallel(torch.compile(m)),
    ]
    for wrap in wrappers:
        model = small_model()
        perturb_(wrap(model), noise_lambda=0.15, seed=1)
        assert unchanged(model.cpu(), bits(plain))


def test_manifest_prints_as_a_table():
    text = perturb_(small_model(), noise_lambda=0.15, seed=1).table(width=130)
    assert text.startswith("NoisyTune: 6 of 7 tensors (1,564 of 1,597 elements) perturbed, lambda 0.15, uniform")
    assert "left: constant" in text
    assert max(map(len, text.splitlines())) <= 130
