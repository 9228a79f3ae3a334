"""Hosts that need no code: perturb_ and perturb in loops of one's own, with Accelerate and with Flax."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding

from noisytune.lab.kinds.columns import Labelled
from noisytune.lab.trials.tokens import tokenise
from noisytune.manifest import Manifest
from noisytune.torch import perturb_, receipt

SETTINGS = {"noise_lambda": 0.15, "seed": 1}


@pytest.mark.slow
def test_accelerate_with_a_real_encoder(minilm, topics, tmp_path, weights, same, one_thread):
    from accelerate import Accelerator
    from transformers import AutoTokenizer

    def make():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(minilm.path, num_labels=len(topics.labels))
        perturb_(model, **SETTINGS)
        accelerator = Accelerator(cpu=True)
        train = tokenise(minilm.path, topics, 24).train
        tokens = Labelled(train, train.targets.astype(int).tolist())
        collate = DataCollatorWithPadding(AutoTokenizer.from_pretrained(minilm.path))
        loader = torch.utils.data.DataLoader(tokens, batch_size=8, collate_fn=collate)
        prepared = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=3e-4), loader)
        return accelerator, *prepared

    def train(accelerator, model, optimizer, loader):
        found = []
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    accelerator, model, optimizer, loader = make()
    first = train(accelerator, model, optimizer, loader)
    accelerator.save_state(tmp_path / "state")
    rest = [train(accelerator, model, optimizer, loader) for _ in range(3)]
    assert sum(rest[-1]) < 0.8 * sum(first)

    accelerator, again, optimizer, loader = make()
    accelerator.load_state(tmp_path / "state")
    for _ in range(3):
        train(accelerator, again, optimizer, loader)
    assert same(weights(again), weights(model))
    accelerator.unwrap_model(again).save_pretrained(tmp_path / "trained")
    assert receipt(AutoModelForSequenceClassification.from_pretrained(tmp_path / "trained"))["seed"] == 1


def test_a_flax_model_learns_and_its_noise_is_written_beside_it(tmp_path):
    """A mean of embeddings and two layers learn which of two words a text has more of."""
    jax = pytest.importorskip("jax", reason="JAX is not installed")
    nnx = pytest.importorskip("flax.nnx", reason="Flax is not installed")
    import numpy as np
    import optax

    import noisytune.jax

    class Classifier(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(50, 16, rngs=rngs)
            self.hidden = nnx.Linear(16, 32, rngs=rngs)
            self.out = nnx.Linear(32, 2, rngs=rngs)

        def __call__(self, tokens):
            return self.out(nnx.relu(self.hidden(self.embed(tokens).mean(axis=1))))

    tokens = jax.random.randint(jax.random.key(1), (256, 12), 0, 50)
    labels = ((tokens < 25).sum(axis=1) > 6).astype(int)
    model = Classifier(nnx.Rngs(0))
    clean = nnx.state(model, nnx.Param)
    noisy, manifest = noisytune.jax.perturb(clean, **SETTINGS)
    nnx.update(model, noisy)
    assert {entry.name for entry in manifest.perturbed} == {"embed.embedding", "hidden.kernel", "out.kernel"}
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(tokens), labels).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    found = [float(step(model, optimizer)) for _ in range(60)]
    assert found[-1] < 0.5 * found[0]

    manifest.write(tmp_path)
    flat = {".".join(map(str, path)): value for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    np.savez(tmp_path / "weights.npz", **{name: np.asarray(value[...]) for name, value in flat.items()})
    reloaded = Classifier(nnx.Rngs(7))
    stored = np.load(tmp_path / "weights.npz")
    state = nnx.to_flat_state(nnx.state(reloaded, nnx.Param))
    for path, value in state:
        value[...] = stored[".".join(map(str, path))]
    assert (reloaded(tokens) == model(tokens)).all()
    assert Manifest.read(tmp_path).config.seed == 1
