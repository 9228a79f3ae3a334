r"""Does noise help a Keras program? It reads the environment, and writes its score into metrics.json.

    pip install "noisytune[lab,keras,jax]"
    noisytune compare --model MODEL --score dev.accuracy --seeds 8 --command "python own_keras.py" \
        --env KERAS_BACKEND=jax --env TRAIN=train.csv --env DEV=dev.csv

MODEL is a directory with a BERT, whose word vectors are averaged; the files have columns text and label.
"""

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
