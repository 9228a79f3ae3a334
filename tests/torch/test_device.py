"""The field in plain torch operations (run here on the CPU, as any device would) against NumPy and the kernels."""

import threading

import pytest
import torch

from noisytune import field
from noisytune._noise import moments
from noisytune.errors import NonFiniteError
from noisytune.torch import _device, _tensors, perturb_state_dict


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 4096), (5, 9000), (4095, 2), (2**44 + 1000, 5000)])
def test_uniform_is_the_references_bit_for_bit(start, count):
    drawn = _device.noise("uniform", field.key(7, "w"), start, count, torch.device("cpu"))
    assert torch.equal(drawn, torch.from_numpy(field.uniform(7, "w", start, count)))


def test_gaussian_agrees_to_one_unit_in_the_last_place():
    drawn = _device.noise("gaussian", field.key(7, "w"), 0, 50_000, torch.device("cpu"))
    expected = torch.from_numpy(field.gaussian(7, "w", 0, 50_000))
    assert ((drawn - expected).abs() <= torch.finfo(torch.float32).eps * expected.abs()).all()


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2],
    ids=str,
)
def test_weights_and_account_are_the_references(dtype, monkeypatch):
    monkeypatch.setattr(_device, "CHUNK", 3 * field.BLOCK)
    weights = (torch.randn(40_001, generator=torch.Generator().manual_seed(0)) * 0.05).to(dtype)
    before = weights.clone()
    array = before.to(torch.float64 if dtype == torch.float64 else torch.float32).numpy()
    account = _device.add_noise_(weights, 0.05, 0.15, "uniform", 1, "w")
    expected = torch.from_numpy(field.add_noise(array, 0.05, 0.15, "uniform", 1, "w")).to(dtype)
    assert torch.equal(weights.view(torch.uint8), expected.view(torch.uint8))
    added = weights.double() - before.double()
    assert account.n == added.numel()
    assert account.std == pytest.approx(added.std().item(), rel=1e-6)


def test_moments_are_the_references():
    weights = torch.randn(200_001, generator=torch.Generator().manual_seed(0)).mul_(3).add_(5)
    assert _device.moments(weights).std == pytest.approx(moments.of(weights.numpy()).std, rel=1e-12)
    assert _device.moments(torch.full((70_000,), 1 / 3)).is_constant
    weights[66_000] = float("nan")
    assert not _device.moments(weights).is_finite


def test_perturbing_on_another_device_gives_the_cpus_bits(monkeypatch):
    """Sends a model down the path of other devices by hiding that it is on the CPU."""
    import noisytune.torch as nt
    from noisytune.torch import _tensors

    def model():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Embedding(30, 16, padding_idx=0), torch.nn.Linear(16, 8))

    fast, plain = model(), model()
    nt.perturb_(fast, noise_lambda=0.15, seed=1)
    monkeypatch.setattr(_tensors, "on_cpu", lambda tensor: False)
    nt.perturb_(plain, noise_lambda=0.15, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(fast.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("view", [lambda w: w.flatten()[::2], lambda w: w.T, lambda w: w[:, ::2], lambda w: w[1:, 3:]])
def test_a_strided_parameter_reaches_a_device_as_one_run_of_memory(view, monkeypatch):
    """Kernels go by a pointer: they would work on the elements between the parameter's own."""
    import noisytune.torch as nt
    from noisytune.torch import _tensors

    class Strict:
        def __getattr__(self, name):
            def checked(weights, *arguments, **settings):
                assert weights.ndim == 1
                assert weights.is_contiguous()
                return getattr(_device, name)(weights, *arguments, **settings)

            return checked

    memory = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    strided, plain = torch.nn.Module(), torch.nn.Module()
    strided.weight = torch.nn.Parameter(view(memory))
    plain.weight = torch.nn.Parameter(view(memory).clone(memory_format=torch.contiguous_format))
    untouched = torch.full_like(memory, torch.nan)
    view(untouched).zero_()
    between = untouched.isnan()
    before = memory[between].clone()
    nt.perturb_(plain, noise_lambda=0.15, seed=1)
    monkeypatch.setattr(_tensors, "on_cpu", lambda tensor: False)
    monkeypatch.setattr(_device, "backend", lambda weights: Strict())
    nt.perturb_(strided, noise_lambda=0.15, seed=1)
    assert not strided.weight.is_contiguous()
    assert torch.equal(strided.weight, plain.weight)
    assert torch.equal(memory[between], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float8_e5m2], ids=str)
def test_noise_that_would_overflow_is_refused_on_another_device(monkeypatch, dtype):
    monkeypatch.setattr(_tensors, "on_cpu", lambda tensor: False)
    mask = torch.full((9, 9), torch.finfo(dtype).min).triu(1).to(dtype)
    with pytest.raises(NonFiniteError, match="could pass the dtype's largest value"):
        perturb_state_dict({"mask": mask}, noise_lambda=0.15)


def test_constructors_that_make_halves_change_nothing(monkeypatch):
    """DeepSpeed replaces them where a model is built in its zero.Init, whatever dtype is asked for."""
    for name in ("tensor", "empty", "zeros"):
        usual = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *a, usual=usual, **k: usual(*a, **k).to(torch.bfloat16))
    test_weights_and_account_are_the_references(torch.float32, monkeypatch)


def test_another_device_is_driven_by_the_callers_thread_alone(monkeypatch):
    """Threads that launch kernels wait for Python's lock: sixteen of them took six times as long as one on an H200."""
    import noisytune.torch as nt

    threads = set()

    class Watched:
        def __getattr__(self, name):
            def watched(*arguments, **settings):
                threads.add(threading.current_thread())
                return getattr(_device, name)(*arguments, **settings)

            return watched

    monkeypatch.setattr(_tensors, "on_cpu", lambda tensor: False)
    monkeypatch.setattr(_device, "backend", lambda weights: Watched())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    model = torch.nn.Sequential(*(torch.nn.Linear(400, 400) for _ in range(6)))
    assert len(nt.perturb_(model, noise_lambda=0.15, seed=1).perturbed) == 12
    assert threads == {threading.current_thread()}
