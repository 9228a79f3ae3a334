"""NoisyTune in Keras 3 on the JAX backend: names that do not depend on the session, and when the noise goes in."""

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="Keras is not installed")

from noisytune.arrays import perturb_arrays  # noqa: E402
from noisytune.errors import AlreadyPerturbedError, ConfigError, NonFiniteError, UnsupportedTensorError  # noqa: E402
from noisytune.integrations.keras import NoisyTuneCallback, perturb_  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def make(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(6, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.Sequential([keras.layers.Dense(5, bias_initializer="random_normal")]),
            keras.layers.Dense(2, name="head"),
        ]
    )


def weights(model):
    return [keras.ops.convert_to_numpy(variable.value) for variable in model.weights]


def fit(model, *callbacks, epochs=1):
    if not model.compiled:
        model.compile("adam", "mse")
    x = np.random.default_rng(0).standard_normal((32, 8)).astype("float32")
    return model.fit(x, x[:, :2], epochs=epochs, verbose=0, callbacks=list(callbacks), shuffle=False)


class AtStart(keras.callbacks.Callback):
    """Weights before the first batch."""

    def on_train_begin(self, logs=None):
        self.seen = weights(self.model)


def test_the_noise_is_the_fields_under_the_names_of_places():
    model, clean = make(), weights(make())
    manifest = perturb_(model, noise_lambda=0.3, seed=1)
    by_name = {entry.name: entry for entry in manifest.entries}
    assert list(by_name) == ["1.kernel", "1.bias", "2.gamma", "2.beta", "3.1.kernel", "3.1.bias", "4.kernel", "4.bias"]
    trainable = [0, 1, 2, 3, 6, 7, 8, 9]
    expected, _ = perturb_arrays(
        dict(zip(by_name, (clean[i] for i in trainable), strict=True)), noise_lambda=0.3, seed=1
    )
    after = weights(model)
    for place, value in zip(trainable, expected.values(), strict=True):
        assert np.array_equal(after[place], value)
    for moving in (4, 5):
        assert np.array_equal(after[moving], clean[moving])
    assert {entry.name for entry in manifest.perturbed} == {"1.kernel", "3.1.kernel", "3.1.bias", "4.kernel"}


def test_another_build_of_the_model_gets_the_same_noise():
    """Keras calls the layers of the second one dense_2, dense_3 ..."""
    one, other = make(), make()
    assert one.layers[0].name != other.layers[0].name
    for model in (one, other):
        perturb_(model, noise_lambda=0.3, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_fit_starts_from_the_noised_weights_and_does_so_once():
    model, same = make(), make()
    perturb_(same, noise_lambda=0.3, seed=1)
    callback, start = NoisyTuneCallback(noise_lambda=0.3, seed=1), AtStart()
    history = fit(model, callback, start, epochs=8)
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, weights(same), strict=True))
    assert history.history["loss"][-1] < history.history["loss"][0]
    trained = weights(model)
    fit(model, callback, start)
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, trained, strict=True))


def test_a_model_that_has_trained_gets_none():
    model = make()
    fit(model)
    trained, callback, start = weights(model), NoisyTuneCallback(), AtStart()
    fit(model, callback, start)
    assert callback.manifest is None
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, trained, strict=True))


def test_a_restored_backup_gets_none(tmp_path):
    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole = make()
    fit(whole, NoisyTuneCallback(seed=1), epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(make(), NoisyTuneCallback(seed=1), backup(), Stop(), epochs=4)
    for order in (lambda *both: both, lambda *both: both[::-1]):
        model = make()
        fit(model, *order(NoisyTuneCallback(seed=1), backup()), epochs=4)
        assert all(np.array_equal(a, b) for a, b in zip(weights(model), weights(whole), strict=True))


def lines(caplog):
    """What is to be seen of noisytune where nobody has set up logging."""
    return [record.message for record in caplog.records if record.name.startswith("noisytune")]


def test_the_seed_is_that_of_keras_unless_one_is_given(caplog):
    for settings, seed, said in (({}, 7, "seed 7 (of keras.utils.set_random_seed)"), ({"seed": 3}, 3, "seed 3,")):
        model, callback = make(seed=7), NoisyTuneCallback(**settings)
        caplog.clear()
        fit(model, callback)
        assert callback.manifest.config.seed == seed
        (line,) = lines(caplog)
        assert said in line


def test_what_happens_to_the_noise_is_said(caplog):
    model, callback = make(), NoisyTuneCallback(seed=1)
    model.compile("adam", "mse")
    x = np.zeros((4, 8), "float32")
    model.evaluate(x, x[:, :2], callbacks=[callback], verbose=0)
    model.predict(x, callbacks=[callback], verbose=0)
    model.fit(x, x[:, :2], validation_data=(x, x[:, :2]), callbacks=[callback], verbose=0)
    model.fit(x, x[:, :2], callbacks=[callback], verbose=0)
    model.predict(x, callbacks=[callback], verbose=0)
    first, second, third = lines(caplog)
    assert first == "NoisyTune: evaluate() adds no noise: it goes in when training starts"
    assert "4 of 8 tensors" in second
    assert second.endswith(
        "too small to see whether such noise was in it before: start from weights that never had any"
    )
    assert third == (
        "NoisyTune: the weights carry noise of lambda 0.15, seed 1 already: none was added; the model is too small to "
        "see whether its weights still carry it"
    )


def test_weights_that_are_set_back_get_noise_anew():
    """Folds: one model, its first weights again before each ``fit``."""
    model, clean = make(), weights(make())
    for _ in range(2):
        model.set_weights(clean)
        model.compile("adam", "mse")
        x, start = np.zeros((4, 8), "float32"), AtStart()
        model.fit(x, x[:, :2], callbacks=[NoisyTuneCallback(seed=1), start], verbose=0)
        assert not np.array_equal(start.seen[0], clean[0])


def test_noise_on_noise_is_refused_unless_it_is_meant():
    model = make()
    perturb_(model, seed=4)
    once = weights(model)
    with pytest.raises(
        AlreadyPerturbedError, match=r"carry noise already \(lambda 0.15, seed 4\): make the model anew"
    ):
        perturb_(model, seed=5)
    start = AtStart()
    fit(model, NoisyTuneCallback(seed=1), start)
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, once, strict=True))
    perturb_(model, seed=5, again=True)


@pytest.mark.parametrize("is_nested", [True, False], ids=["backbone as a layer", "the backbone's layers"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "dropped"])
def test_a_model_around_a_noised_backbone_carries_its_noise(is_nested, is_kept, caplog):
    inputs = keras.Input((8,))
    backbone = keras.Model(inputs, keras.layers.Dense(300)(keras.layers.Dense(300)(inputs)))
    clean = backbone.get_weights()
    perturb_(backbone, noise_lambda=0.3, seed=1)
    around = keras.Input((8,)) if is_nested else inputs
    model = keras.Model(around, keras.layers.Dense(2)(backbone(around) if is_nested else backbone.output))
    with pytest.raises(AlreadyPerturbedError, match=r"carry noise already \(lambda 0.3, seed 1\)"):
        perturb_(model, noise_lambda=0.3, seed=1)
    once, callback, start = weights(model), NoisyTuneCallback(noise_lambda=0.3, seed=1), AtStart()
    if not is_kept:
        del backbone
    fit(model, callback, start)
    assert callback.manifest is None
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, once, strict=True))
    assert lines(caplog) == ["NoisyTune: the weights carry noise of lambda 0.3, seed 1 already: none was added"]
    model.set_weights(clean + model.get_weights()[len(clean) :])
    perturb_(model, noise_lambda=0.3, seed=1)


def test_the_backbone_of_a_noised_model_carries_its_noise():
    backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(5)])
    perturb_(keras.Sequential([keras.Input((8,)), backbone, keras.layers.Dense(2)]), seed=4)
    with pytest.raises(AlreadyPerturbedError, match=r"lambda 0.15, seed 4"):
        perturb_(backbone, seed=5)


def test_a_model_whose_noise_is_gone_is_not_passed_over_in_silence(caplog):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6000), keras.layers.Dense(2)])
    perturb_(model, noise_lambda=0.3, seed=1)
    model.set_weights([np.random.default_rng(0).normal(size=w.shape) for w in model.get_weights()])
    fit(model, NoisyTuneCallback(noise_lambda=0.3, seed=1))
    assert lines(caplog)[0].endswith(
        "none of it is to be seen in them: if other weights were set since, make the model anew"
    )


def test_trained_weights_get_no_noise_again_however_they_were_loaded(tmp_path, caplog):
    def wide():
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(6000), keras.layers.Dense(2)])

    model = wide()
    fit(model, NoisyTuneCallback(noise_lambda=0.3, seed=1))
    model.save(tmp_path / "model.keras")
    other = wide()
    other.set_weights(model.get_weights())
    for loaded in (keras.models.load_model(tmp_path / "model.keras", compile=False), other):
        caplog.clear()
        start, callback = AtStart(), NoisyTuneCallback(noise_lambda=0.3, seed=1)
        fit(loaded, callback, start)
        assert callback.manifest is None
        assert all(np.array_equal(a, b) for a, b in zip(start.seen, weights(model), strict=True))
        assert "already: none was added (their record was lost; the noise itself was found)" in lines(caplog)[0]


def test_noise_is_looked_for_where_include_puts_it():
    """One tensor that is smaller than the eight largest ones."""

    def build():
        small = keras.layers.Dense(190, name="small")
        return keras.Sequential(
            [keras.Input((8,)), *(keras.layers.Dense(200) for _ in range(9)), small, keras.layers.Dense(2)]
        )

    model, noise = build(), {"noise_lambda": 0.3, "seed": 1, "include": "*small*"}
    fit(model, NoisyTuneCallback(**noise))
    other, callback, start = build(), NoisyTuneCallback(**noise), AtStart()
    other.set_weights(model.get_weights())
    fit(other, callback, start)
    assert callback.manifest is None
    assert all(np.array_equal(a, b) for a, b in zip(start.seen, weights(model), strict=True))


def test_noise_is_not_looked_for_in_adapters():
    """They are no part of what takes noise, however large they are."""

    def build():
        model = keras.Sequential(
            [keras.Input((8,)), *(keras.layers.Dense(80) for _ in range(9)), keras.layers.Dense(2)]
        )
        for layer in model.layers[:-1]:
            layer.enable_lora(100)
        return model

    model = build()
    perturb_(model, noise_lambda=0.3, seed=1)
    other, callback, start = build(), NoisyTuneCallback(noise_lambda=0.3, seed=1), AtStart()
    other.set_weights(model.get_weights())
    fit(other, callback, start)
    assert callback.manifest is None


def test_globs_match_places_and_keras_paths():
    for glob in ("*head*", "4.*"):
        model, clean = make(), weights(make())
        perturb_(model, seed=1, exclude=glob)
        assert np.array_equal(weights(model)[8], clean[8])
        assert not np.array_equal(weights(model)[0], clean[0])
    with pytest.raises(ConfigError, match="matches none of"):
        perturb_(make(), exclude="*haed*")


def test_token_embeddings_are_found_where_a_backbone_names_them():
    class Backbone(keras.Model):
        """With the layer's name that KerasHub's backbones use."""

        def __init__(self):
            table = keras.layers.ReversibleEmbedding(50, 6, tie_weights=False)
            tokens, places = keras.Input((4,), dtype="int32"), keras.Input((4,), dtype="int32")
            outputs = keras.layers.Dense(3)(table(tokens) + keras.layers.Embedding(4, 6)(places))
            super().__init__([tokens, places], outputs)
            self.token_embedding = table

    def around():
        backbone, inputs = Backbone(), [keras.Input((4,), dtype="int32"), keras.Input((4,), dtype="int32")]
        return keras.Model(inputs, backbone(inputs))

    for build in (Backbone, around):
        manifest = perturb_(build(), seed=1, exclude="@token_embeddings")
        left = {entry.name: entry.left_alone for entry in manifest.entries if entry.left_alone != "constant"}
        (name,) = (name for name, reason in left.items() if reason)
        assert name.endswith("embeddings")
        assert left[name] == "excluded: @token_embeddings"
        assert len(left) == 4
        assert manifest.config.exclude == ("@token_embeddings",)
        assert [e.name for e in perturb_(build(), seed=1, include="@token_embeddings").perturbed] == [name]
    with pytest.raises(ConfigError, match="no part of the model has a token_embedding: give"):
        perturb_(make(), exclude="@token_embeddings")


def test_other_roles_are_told_by_the_names_of_layer_and_weight():
    def build():
        places = keras.layers.Embedding(6, 4, name="position_embedding")
        inside = keras.layers.Dense(6, name="router"), keras.layers.LayerNormalization(), keras.layers.Dense(2)
        return keras.Sequential([keras.Input((4,)), places, *inside], name="token_and_position_embedding")

    roles = {"@positions": {"embeddings"}, "@routers": {"kernel", "bias"}, "@norms": {"gamma", "beta"}}
    for role, weights_of_it in (roles | {"@biases": {"bias", "beta"}}).items():
        left = {e.name for e in perturb_(build(), exclude=role).entries if e.left_alone == f"excluded: {role}"}
        assert {name.rpartition(".")[2] for name in left} == weights_of_it
        assert len({name.rpartition(".")[0] for name in left}) == (3 if role == "@biases" else 1)
    with pytest.raises(ConfigError, match="@routers: no tensor has a name that tells of it"):
        perturb_(make(), exclude="@routers")


def test_what_cannot_take_noise_is_refused_and_left_alone():
    with pytest.raises(UnsupportedTensorError, match="is not built"):
        perturb_(keras.Sequential([keras.layers.Dense(3)]))
    quantised = make()
    quantised.quantize("int8")
    with pytest.raises(UnsupportedTensorError, match="is quantised"):
        perturb_(quantised)
    broken = make()
    broken.layers[-1].kernel.assign(np.full((5, 2), np.nan))
    before = weights(broken)
    with pytest.raises(NonFiniteError, match=r"4\.kernel"):
        perturb_(broken)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(weights(broken), before, strict=True))
