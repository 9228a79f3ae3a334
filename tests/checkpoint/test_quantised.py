"""Quantised checkpoints are refused whatever declares them: a setting at any depth, a file beside, or the tensors."""

import json

import ml_dtypes
import numpy as np
import pytest

from noisytune.checkpoint import inspect_checkpoint
from noisytune.checkpoint._safetensors import make_header
from noisytune.errors import UnsupportedTensorError

PLAIN = {"norm.weight": np.linspace(0, 1, 8, dtype=np.float32)}
FLOAT8 = np.ones((4, 4), ml_dtypes.float8_e4m3fn)
HALF, INT8, UINT8 = np.ones((1, 4), np.float16), np.ones((4, 4), np.int8), np.ones((4, 4), np.uint8)
INT32, UINT32 = np.ones((4, 4), np.int32), np.ones((4, 4), np.uint32)


def save(folder, tensors, config=None, **files):
    folder.mkdir()
    header = make_header([(name, value.dtype.name, value.shape, value.nbytes) for name, value in tensors.items()])
    (folder / "model.safetensors").write_bytes(header + b"".join(value.tobytes() for value in tensors.values()))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"} | (config or {})))
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


TENSORS = {
    "float8 and its scale": ({"q.weight": FLOAT8, "q.weight_scale": HALF}, "q.weight_scale"),
    "DeepSeek's float8": ({"q.weight": FLOAT8, "q.weight_scale_inv": HALF}, "weight_scale_inv"),
    "ComfyUI's float8": ({"q.weight": FLOAT8, "q.scale_weight": HALF}, "scale_weight"),
    "Llama 4's experts": ({"e.gate_up_proj": FLOAT8, "e.gate_up_proj_scale": HALF}, "gate_up_proj_scale"),
    "GPTQ, AWQ": ({"q.qweight": INT32, "q.qzeros": INT32, "q.scales": HALF}, "q.qzeros"),
    "bitsandbytes in 4 bits": ({"q.weight": UINT8, "q.weight.absmax": HALF, "q.weight.quant_map": HALF}, "absmax"),
    "bitsandbytes in 8 bits": ({"q.weight": INT8, "q.SCB": HALF}, "q.SCB"),
    "compressed-tensors": ({"q.weight_packed": INT32, "q.weight_scale": HALF}, "q.weight_packed"),
    "MXFP4 blocks": ({"e.down_proj_blocks": UINT8, "e.down_proj_scales": UINT8}, "down_proj_scales"),
    "MLX": ({"q.weight": UINT32, "q.scales": HALF, "q.biases": HALF}, "q.scales"),
    "quanto": ({"q.weight._data": INT8, "q.weight._scale": HALF}, "weight._scale"),
    "BitNet": ({"q.weight": UINT8, "q.weight_scale": HALF}, "weight_scale"),
    "AQLM": ({"q.codes": INT8, "q.codebooks": HALF, "q.scales": HALF}, "q.codebooks"),
}


@pytest.mark.parametrize(("tensors", "companion"), TENSORS.values(), ids=TENSORS)
def test_tensors_alone_are_enough(tensors, companion, tmp_path):
    with pytest.raises(UnsupportedTensorError, match="quantised") as caught:
        inspect_checkpoint(save(tmp_path / "m", PLAIN | tensors))
    assert companion in str(caught.value)
    assert "before quantising" in str(caught.value)
    assert "\n" not in str(caught.value)


SETTINGS = {
    "at the top": ({"quantization_config": {"quant_method": "gptq"}}, {}, "gptq"),
    "in a part": ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, {}, "fp8"),
    "deeper": ({"a": [{"b": {"compression_config": {"quant_method": "awq"}}}]}, {}, "awq"),
    "MLX": ({"quantization": {"group_size": 64, "bits": 4}}, {}, "bits 4"),
    "ModelOpt": ({}, {"hf_quant_config": {"quantization": {"quant_algo": "FP8"}}}, "FP8"),
    "GPTQ": ({}, {"quantize_config": {"bits": 4}}, "quantize_config.json"),
    "AWQ": ({}, {"quant_config": {"w_bit": 4}}, "quant_config.json"),
}


@pytest.mark.parametrize(("config", "files", "words"), SETTINGS.values(), ids=SETTINGS)
def test_settings_are_enough(config, files, words, tmp_path):
    with pytest.raises(UnsupportedTensorError, match="quantised") as caught:
        inspect_checkpoint(save(tmp_path / "m", PLAIN, config, **files))
    assert words in str(caught.value)


HARMLESS = {
    "positions beside a learned scale": {"a.relative_position_index": np.ones((4, 4), np.int64), "a.logit_scale": HALF},
    "a counter": {"a.num_batches_tracked": np.ones((), np.int64), "a.scale": HALF},
    "float8 alone": {"q.weight": FLOAT8},
    "learned scales": {"q.scale": HALF, "q.weight": HALF},
}


@pytest.mark.parametrize("tensors", HARMLESS.values(), ids=HARMLESS)
def test_what_only_looks_like_it_is_no_evidence(tensors, tmp_path):
    assert inspect_checkpoint(save(tmp_path / "m", PLAIN | tensors))


def test_settings_that_quantise_nothing_are_no_evidence(tmp_path):
    nothing = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    assert inspect_checkpoint(save(tmp_path / "m", PLAIN, {"quantization_config": None}, hf_quant_config=nothing))
