"""A small checkpoint on disk."""

import json

import numpy as np
import safetensors.numpy

RNG = np.random.default_rng(0)


WEIGHTS = {
    "bert.embeddings.word_embeddings.weight": RNG.standard_normal((9, 4), np.float32),
    "bert.encoder.query.weight": RNG.standard_normal((6, 5), np.float32).astype(np.float16),
    "classifier.bias": RNG.standard_normal(3),
    "bert.constant": np.full(7, 1 / 3, np.float32),
    "bert.one": np.ones(1, np.float32),
    "bert.empty": np.ones((0, 3), np.float32),
    "bert.embeddings.position_ids": np.arange(5),
    "bert.norm.running_mean": RNG.standard_normal(4, np.float32),
}


def save(folder, weights=WEIGHTS, config=None, metadata=None):
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(weights, folder / "model.safetensors", metadata or {"format": "pt", "note": "kept"})
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "pad_token_id": 2} | (config or {})))
    return folder


def load(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")
