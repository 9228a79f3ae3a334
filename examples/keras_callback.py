"""How does a Keras model start from noise? With a callback of fit(), on every backend.

    pip install "noisytune[keras,jax]" tokenizers
    KERAS_BACKEND=jax python keras_callback.py MODEL

MODEL is a directory with a BERT: model.safetensors and tokenizer.json.
"""

import sys
from pathlib import Path

import keras
import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from noisytune.integrations.keras import NoisyTuneCallback

keras.utils.set_random_seed(1)
folder = Path(sys.argv[1])
reviews = ["a warm and funny film", "dull from end to end", "I loved it", "I want my money back"] * 4
labels = np.array([1, 0, 1, 0] * 4)
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_padding(length=8)
tokenizer.enable_truncation(8)
tokens = np.array([text.ids for text in tokenizer.encode_batch(reviews)])

vectors = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
words = keras.layers.Embedding(*vectors.shape)
head = keras.layers.Dense(1, activation="sigmoid", name="head")
model = keras.Sequential([keras.Input((8,), dtype="int32"), words, keras.layers.GlobalAveragePooling1D(), head])
words.set_weights([vectors])
model.compile(keras.optimizers.Adam(1e-2), "binary_crossentropy", metrics=["accuracy"])

callback = NoisyTuneCallback(noise_lambda=0.15, exclude="*head*")  # a new head needs no noise
model.fit(tokens, labels, epochs=5, verbose=0, callbacks=[callback])
print(dict(zip(("loss", "accuracy"), model.evaluate(tokens, labels, verbose=0), strict=True)))
print(callback.manifest)
