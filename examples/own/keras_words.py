"""Text classification in Keras on the pretrained word vectors of a BERT: its mean word vector, a layer on top."""

import csv
import json
import os
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

folder, out = Path(os.environ["NOISYTUNE_MODEL"]), Path(os.environ["NOISYTUNE_OUT"])
keras.utils.set_random_seed(int(os.environ["NOISYTUNE_SEED"]))

rows = {name: list(csv.DictReader(Path(os.environ[name]).read_text().splitlines())) for name in ("TRAIN", "DEV")}
labels = sorted({row["label"] for row in rows["TRAIN"]})
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_truncation(32)
tokenizer.enable_padding(length=32)


def numbers(split):
    texts = tokenizer.encode_batch([row["text"] for row in split])
    return np.array([text.ids for text in texts]), np.array([labels.index(row["label"]) for row in split])


vectors = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
words = keras.layers.Embedding(*vectors.shape, mask_zero=True)
model = keras.Sequential(
    [keras.Input((32,), dtype="int32"), words, keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(len(labels))]
)
words.set_weights([vectors])
model.compile(
    keras.optimizers.Adam(3e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
model.fit(*numbers(rows["TRAIN"]), epochs=int(os.environ.get("EPOCHS", "3")), batch_size=8, verbose=0)
loss, accuracy = model.evaluate(*numbers(rows["DEV"]), verbose=0)
(out / "metrics.json").write_text(json.dumps({"dev": {"accuracy": accuracy, "loss": loss}}))
