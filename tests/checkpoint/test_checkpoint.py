"""Directory to directory: the bytes, the files around them, the receipt, and every way to be refused in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from noisytune import field
from noisytune._noise.kernels import CHUNK, DTYPES
from noisytune._pretrained import default_model
from noisytune.checkpoint import diff_checkpoints, inspect_checkpoint, perturb_checkpoint, verify_checkpoint
from noisytune.checkpoint._safetensors import make_header
from noisytune.checkpoint._stream import LARGEST_PIECE
from noisytune.config import NoisyTuneConfig
from noisytune.errors import (
    AlreadyPerturbedError,
    ConfigError,
    DataError,
    NonFiniteError,
    UnsupportedTensorError,
)
from noisytune.manifest import Manifest
from tests.support.checkpoints import WEIGHTS, load, save


def test_bytes_are_the_specification_s(clean, tmp_path):
    """Against the plain NumPy reference, tensor by tensor."""
    manifest = perturb_checkpoint(clean, tmp_path / "noisy", noise_lambda=0.3, seed=7)
    found, before = load(tmp_path / "noisy"), load(clean)
    canonical = {
        "bert.embeddings.word_embeddings.weight": "embeddings.word_embeddings.weight",
        "bert.encoder.query.weight": "encoder.query.weight",
        "classifier.bias": "head:classifier.bias",
    }
    for name, values in before.items():
        expected = values
        if name in canonical:
            std = float(np.std(values.astype(np.float64), ddof=1))
            expected = field.add_noise(values, std, 0.3, "uniform", 7, canonical[name])
        if "word_embeddings" in name:
            expected[2] = values[2]
        np.testing.assert_allclose(found[name], expected, rtol=1e-6)
        assert (found[name] != values).any() == (name in canonical)
    assert {entry.name for entry in manifest.perturbed} == set(canonical.values())
    assert {entry.left_alone for entry in manifest.entries} == {
        None,
        "constant",
        "one element",
        "empty",
        "buffer",
        "not floating point: int64",
    }
    assert Manifest.read(tmp_path / "noisy") == manifest


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(DTYPES),
    st.sampled_from([2, 3, 4095, 65537, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
    | st.builds(lambda itemsize, by: LARGEST_PIECE // itemsize + by, st.sampled_from([2, 4, 8]), st.integers(-1, 1)),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3]),
)
def test_dtypes_sizes_and_threads_do_not_matter(tmp_path_factory, dtype, size, padding, threads):
    """The whole tensor at once through the kernels, against the stream."""
    from noisytune._noise import kernels

    folder = tmp_path_factory.mktemp("c")
    values = (np.random.default_rng(size).standard_normal(size) / 4).astype(dtype)
    shaped = values.reshape(size, 1) if padding else values
    name = "embeddings.word_embeddings.weight"
    save(folder / "clean", {}, {"pad_token_id": padding})
    header = make_header([(name, dtype.name, shaped.shape, shaped.nbytes)])
    (folder / "clean" / "model.safetensors").write_bytes(header + values.tobytes())
    perturb_checkpoint(folder / "clean", folder / "noisy", seed=3, threads=threads)
    found = np.frombuffer((folder / "noisy" / "model.safetensors").read_bytes()[len(header) :], dtype)
    shutil.rmtree(folder)
    expected = values.copy()
    kernels.add_noise_(expected, kernels.moments(values).std, 0.15, "uniform", 3, name)
    if padding and padding < size:
        expected[padding] = values[padding]
    assert found.tobytes() == expected.tobytes()


def test_global_scale_pools_as_in_memory(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch modules")
    from transformers import BertConfig, BertModel

    from noisytune.torch import perturb_

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=99, **sizes)).save_pretrained(tmp_path / "clean")
    settings = {"scale": "global", "distribution": "gaussian", "seed": 2, "exclude": "*LayerNorm*"}
    manifest = perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", **settings)
    model = BertModel.from_pretrained(tmp_path / "clean")
    in_memory = perturb_(model, **settings)
    assert manifest.perturbed[0].scale == in_memory.perturbed[0].scale
    state = BertModel.from_pretrained(tmp_path / "noisy").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_receipt_is_recognised_in_memory_and_on_disk(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "noisy", seed=4)
    assert json.loads((tmp_path / "noisy" / "config.json").read_text())["noisytune"]["seed"] == 4
    with pytest.raises(AlreadyPerturbedError, match="seed 4"):
        perturb_checkpoint(tmp_path / "noisy", tmp_path / "twice")
    (tmp_path / "noisy" / "config.json").unlink()
    with pytest.raises(AlreadyPerturbedError, match="seed 4"):
        perturb_checkpoint(tmp_path / "noisy", tmp_path / "twice")
    assert not (tmp_path / "twice").exists()


def test_a_part_of_a_model_carries_the_receipt_of_the_whole(tmp_path):
    pytest.importorskip("torch", reason="perturbs torch modules")
    from transformers import BertConfig, EncoderDecoderConfig, EncoderDecoderModel

    from noisytune.torch import perturb_, receipt

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    one = BertConfig(vocab_size=32, **sizes)
    EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(one, one)).save_pretrained(tmp_path / "clean")
    perturb_checkpoint(tmp_path / "clean", tmp_path / "noisy", seed=4)
    model = EncoderDecoderModel.from_pretrained(tmp_path / "noisy")
    for part in (model, model.encoder, model.decoder):
        assert receipt(part)["seed"] == 4
    with pytest.raises(AlreadyPerturbedError, match="seed 4"):
        perturb_(model.encoder)
    half = EncoderDecoderModel.from_pretrained(tmp_path / "clean")
    assert receipt(half) is None
    perturb_(half.encoder, seed=5)
    half.save_pretrained(tmp_path / "half")
    with pytest.raises(AlreadyPerturbedError, match="seed 5"):
        perturb_checkpoint(tmp_path / "half", tmp_path / "twice")


def test_again_records_both(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "noisy", seed=4)
    perturb_checkpoint(tmp_path / "noisy", tmp_path / "twice", seed=5, again=True)
    receipt = json.loads((tmp_path / "twice" / "config.json").read_text())["noisytune"]
    assert (receipt["seed"], receipt["earlier"]["seed"]) == (5, 4)
    assert json.loads((tmp_path / "twice" / "noisytune.json").read_text())["earlier"]["seed"] == 4
    assert verify_checkpoint(tmp_path / "twice", tmp_path / "noisy").ok
    assert not verify_checkpoint(tmp_path / "twice", clean).ok


def test_lambda_zero_copies_without_a_receipt(clean, tmp_path):
    perturb_checkpoint(clean, tmp_path / "same", noise_lambda=0)
    assert (tmp_path / "same" / "model.safetensors").read_bytes() == (clean / "model.safetensors").read_bytes()
    assert "noisytune" not in json.loads((tmp_path / "same" / "config.json").read_text())
    assert verify_checkpoint(tmp_path / "same", clean).ok
    perturb_checkpoint(tmp_path / "same", tmp_path / "noisy")


def test_everything_else_is_carried_over(clean, tmp_path):
    (clean / "sub").mkdir()
    for name in (
        "tokenizer.json",
        "generation_config.json",
        "chat_template.jinja",
        "sub/more.txt",
        "training_args.bin",
    ):
        (clean / name).write_text(name)
    (clean / "README.md").write_text("---\nlicense: mit\n---\nA model.\n")
    for name in ("tf_model.h5", "pytorch_model.bin", "consolidated.safetensors", ".git"):
        (clean / name).write_text("stale")
    manifest = perturb_checkpoint(clean, tmp_path / "noisy")
    noisy = tmp_path / "noisy"
    for name in (
        "tokenizer.json",
        "generation_config.json",
        "chat_template.jinja",
        "sub/more.txt",
        "training_args.bin",
    ):
        assert (noisy / name).read_text() == name
    card = (noisy / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\nA model.\n")
    assert "0.15" in card
    assert not (noisy / "tf_model.h5").exists()
    (notice,) = manifest.notices
    assert all(name in notice for name in ("tf_model.h5", "pytorch_model.bin", "consolidated.safetensors"))
    header = (clean / "model.safetensors").read_bytes()
    length = 8 + int.from_bytes(header[:8], "little")
    assert (noisy / "model.safetensors").read_bytes()[:length] == header[:length]


def test_dry_run_and_inspect_write_nothing(clean, tmp_path):
    before = sorted(os.listdir(tmp_path))
    dry = perturb_checkpoint(clean, tmp_path / "noisy", dry_run=True)
    assert inspect_checkpoint(clean) == dry
    assert sorted(os.listdir(tmp_path)) == before
    real = perturb_checkpoint(clean, tmp_path / "noisy")
    assert [e.scale for e in real.entries] == [e.scale for e in dry.entries]


def test_progress_reaches_its_total(clean, tmp_path):
    seen = []
    perturb_checkpoint(clean, tmp_path / "noisy", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == 2 * sum(value.nbytes for value in WEIGHTS.values())
    assert seen == sorted(seen)


def test_out_must_be_new_and_elsewhere(clean, tmp_path):
    for out in (clean, clean / "inside"):
        with pytest.raises(DataError, match="own directory"):
            perturb_checkpoint(clean, out)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    with pytest.raises(DataError, match="holds something already"):
        perturb_checkpoint(clean, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    perturb_checkpoint(clean, tmp_path / "empty")
    assert verify_checkpoint(tmp_path / "empty", clean).ok
    assert perturb_checkpoint(clean, tmp_path / "a" / "b" / "c").perturbed


TWO = np.array([1, 2], np.float32)
REFUSED = {
    "nan": ({"a.weight": np.array([1, np.nan, 2], np.float32)}, {}, NonFiniteError, "a.weight"),
    "infinity": ({"a.weight": np.array([1, -np.inf], np.float16)}, {}, NonFiniteError, "model.safetensors: a.weight"),
    "overflow": ({"a.weight": np.array([65504, -65504], np.float16)}, {}, NonFiniteError, "65504"),
    "quantised": ({"a": TWO}, {"quantization_config": {"quant_method": "gptq"}}, UnsupportedTensorError, "gptq"),
    "collision": ({"bert.a": TWO, "module.bert.a": TWO}, {}, UnsupportedTensorError, "same canonical name"),
}


@pytest.mark.parametrize(("weights", "config", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_weights_that_take_no_noise_are_refused(tmp_path, weights, config, error, words):
    folder = save(tmp_path / "clean", weights, config)
    with pytest.raises(error, match=words) as caught:
        perturb_checkpoint(folder, tmp_path / "noisy")
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["clean"]


def test_excluded_tensors_may_hold_anything(tmp_path):
    weights = {"a.weight": np.array([1, np.nan], np.float32), "b.weight": np.array([1, 2], np.float32)}
    folder = save(tmp_path / "clean", weights)
    perturb_checkpoint(folder, tmp_path / "noisy", exclude="a.*")
    assert verify_checkpoint(tmp_path / "noisy", folder).ok


def test_wrong_settings_are_refused(clean, tmp_path):
    with pytest.raises(ConfigError, match="not both"):
        perturb_checkpoint(clean, tmp_path / "noisy", NoisyTuneConfig(), seed=1)
    with pytest.raises(ConfigError, match="matches none"):
        perturb_checkpoint(clean, tmp_path / "noisy", include="*nothing*")
    with pytest.raises(ConfigError, match="threads"):
        perturb_checkpoint(clean, tmp_path / "noisy", threads=0)
    assert os.listdir(tmp_path) == ["clean"]


def test_unknown_model_types_get_a_rule_and_a_notice(tmp_path):
    weights = {"model.a": np.arange(4, dtype=np.float32), "model.b": np.arange(3, dtype=np.float32)}
    folder = save(tmp_path / "clean", weights, {"model_type": "brand-new"})
    manifest = perturb_checkpoint(folder, tmp_path / "noisy")
    assert [entry.name for entry in manifest.entries] == ["a", "b"]
    assert "'brand-new'" in manifest.notices[0]


def test_shards_are_kept_and_the_index_too(tmp_path):
    folder = tmp_path / "clean"
    save(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number, (name, value) in enumerate(WEIGHTS.items()):
        safetensors.numpy.save_file({name: value}, folder / f"part-{number}.safetensors")
        weight_map[name] = f"part-{number}.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    perturb_checkpoint(folder, tmp_path / "noisy")
    perturb_checkpoint(save(tmp_path / "single"), tmp_path / "single-noisy")
    expected = load(tmp_path / "single-noisy")
    for name, file in weight_map.items():
        np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "noisy" / file)[name], expected[name])
    assert verify_checkpoint(tmp_path / "noisy", folder).ok
    difference = diff_checkpoints(tmp_path / "single", tmp_path / "noisy")
    assert not difference.only_first
    assert 0 < difference.total().relative < 0.1


def test_pickled_weights_become_safetensors(tmp_path):
    torch = pytest.importorskip("torch", reason="writes torch's own files")
    values = {name: torch.from_numpy(value.copy()) for name, value in WEIGHTS.items()}
    values["bert.half"] = torch.linspace(-1, 1, 6, dtype=torch.bfloat16).view(2, 3).T
    folder = save(tmp_path / "clean", {"x": np.ones(1)})
    (folder / "model.safetensors").unlink()
    torch.save(values, folder / "pytorch_model.bin")
    perturb_checkpoint(folder, tmp_path / "noisy")
    assert not (tmp_path / "noisy" / "pytorch_model.bin").exists()
    half = values["bert.half"].float().contiguous().numpy().astype(ml_dtypes.bfloat16)
    perturb_checkpoint(save(tmp_path / "safe", WEIGHTS | {"bert.half": half}), tmp_path / "safe-noisy")
    found, expected = load(tmp_path / "noisy"), load(tmp_path / "safe-noisy")
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    assert verify_checkpoint(tmp_path / "noisy", folder).ok
    torch.save(values, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert verify_checkpoint(tmp_path / "noisy", folder).ok


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_pickled_code_is_not_run(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch", reason="writes torch's own files")
    monkeypatch.chdir(tmp_path)
    folder = save(tmp_path / "clean")
    (folder / "model.safetensors").unlink()
    for content in ({"a": Evil()}, [torch.ones(2)], {"a": 3}):
        torch.save(content, folder / "pytorch_model.bin")
        with pytest.raises(DataError, match=r"pytorch_model\.bin"):
            perturb_checkpoint(folder, tmp_path / "noisy")
    (folder / "pytorch_model.bin").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"pytorch_model\.bin"):
        perturb_checkpoint(folder, tmp_path / "noisy")
    assert os.listdir(tmp_path) == ["clean"]


def test_neither_torch_nor_transformers_is_loaded(clean, tmp_path):
    program = (
        "import sys; from noisytune.checkpoint import perturb_checkpoint as p, verify_checkpoint as v;"
        f"p({str(clean)!r}, {str(tmp_path / 'noisy')!r}); assert v({str(tmp_path / 'noisy')!r}, {str(clean)!r}).ok;"
        "print([m for m in ('torch', 'transformers', 'jax', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_nearest_neighbours_survive_a_little_noise_and_not_much(tmp_path):
    """all-MiniLM-L6-v2 on real text: the noisy model's vectors look for the nearest other text among the clean ones."""
    torch = pytest.importorskip("torch", reason="embeds text")
    yaml = pytest.importorskip("yaml", reason="reads the corpus")
    corpus = pytest.importorskip("chatterbot_corpus", reason="real text")
    from transformers import AutoModel, AutoTokenizer

    folder = Path(corpus.__file__).parent / "data" / "english"
    talks = [
        talk for file in sorted(folder.glob("*.yml")) for talk in yaml.safe_load(file.read_text())["conversations"]
    ]
    texts = [str(talk[0]) for talk in talks if len(str(talk[0])) > 25][::6][:160]
    assert len(texts) > 100
    model = default_model()
    tokens = AutoTokenizer.from_pretrained(model)(
        texts, return_tensors="pt", padding=True, truncation=True, max_length=24
    )

    def vectors(folder):
        with torch.no_grad():
            states = AutoModel.from_pretrained(folder)(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1)
        return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1))

    def neighbours(queries, index):
        return (queries @ index.T - 2 * torch.eye(len(texts))).argmax(1)

    before = vectors(model)
    kept = {}
    for strength in (0.15, 3):
        perturb_checkpoint(model, tmp_path / str(strength), noise_lambda=strength, seed=1)
        assert verify_checkpoint(tmp_path / str(strength), model).ok
        found = neighbours(vectors(tmp_path / str(strength)), before)
        kept[strength] = float((found == neighbours(before, before)).float().mean())
    assert kept[0.15] > 0.9
    assert kept[3] < 0.5


@pytest.mark.slow
def test_a_real_multilingual_model(tmp_path):
    script = Path(__file__).resolve().parents[3] / "shared" / "models" / "make_models.py"
    if not script.exists():
        pytest.skip("the script that makes the model is not here")
    done = subprocess.run([sys.executable, script, tmp_path / "models", "xlm-r"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"the model cannot be made: {done.stderr.strip().splitlines()[-1]}")
    from safetensors.torch import load_file

    folder = next(path.parent for path in (tmp_path / "models").rglob("config.json"))
    manifest = perturb_checkpoint(folder, tmp_path / "noisy", noise_lambda=0.1, exclude="*word_embeddings*")
    assert verify_checkpoint(tmp_path / "noisy", folder).ok
    assert any(entry.left_alone == "excluded" for entry in manifest.entries)
    clean, noisy = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "noisy"))
    changed = {name for name in clean if not (clean[name] == noisy[name]).all()}
    assert changed == {name for entry in manifest.perturbed for name in entry.own_names}
