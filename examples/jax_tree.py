"""How does a tree of JAX arrays get the noise? A new tree comes back; the one that went in stays as it was.

    pip install "noisytune[jax]" tokenizers
    python jax_tree.py MODEL

MODEL is a directory with a BERT: model.safetensors and tokenizer.json.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
from safetensors.flax import load_file, save_file
from tokenizers import Tokenizer

from noisytune.jax import perturb

folder = Path(sys.argv[1])
reviews = ["a warm and funny film", "dull from end to end", "I loved it", "I want my money back"]
labels = jnp.array([1, 0, 1, 0])
tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
tokenizer.enable_padding(length=8)
tokenizer.enable_truncation(8)
tokens = jnp.array([text.ids for text in tokenizer.encode_batch(reviews)])

weights = load_file(folder / "model.safetensors")
pretrained = {"words": weights["embeddings.word_embeddings.weight"]}
noisy, manifest = perturb(pretrained, noise_lambda=0.15, seed=1)  # outside jit, before the optimizer's state
params = noisy | {"head": jnp.zeros(pretrained["words"].shape[1])}  # a new head needs no noise


@jax.jit
def loss(params):
    """Logistic regression on the mean word vector."""
    outputs = params["words"][tokens].mean(axis=1) @ params["head"]
    return jnp.mean(jax.nn.softplus(jnp.where(labels == 1, -outputs, outputs)))


for step in range(21):
    if step % 10 == 0:
        print(f"step {step}: loss {loss(params):.4f}")
    params = jax.tree.map(lambda value, gradient: value - gradient, params, jax.grad(loss)(params))
Path("trained").mkdir(exist_ok=True)
save_file(params, "trained/model.safetensors")
manifest.write("trained")  # arrays have no place for a record: it goes beside them
print(manifest)
