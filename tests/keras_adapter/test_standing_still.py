"""A model that does not learn, asked about after the fit: what holds it back is named."""

import keras
import numpy as np
import pytest

from nan_callbacks.keras import NaNGuard


def classes():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 480)
    x = rng.normal(size=(480, 6)) + 3 * np.eye(4, 6)[labels]
    return x.astype("float32"), labels.astype("int32")


def classifier(frozen, start="glorot_uniform"):
    keras.utils.set_random_seed(2)
    parts = {
        "body": keras.layers.Dense(16, activation="relu", kernel_initializer=start, use_bias=False, name="body"),
        "head": keras.layers.Dense(4, kernel_initializer=start, use_bias=False, name="head"),
    }
    for name in frozen:
        parts[name].trainable = False
    model = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization(center=False), *parts.values()])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=loss)
    return model


@pytest.mark.parametrize(("frozen", "accused"), [(("body", "head"), True), (("body",), False), ((), False)])
def test_a_head_that_nothing_trains(frozen, accused):
    guard = NaNGuard(strict=True, checkup=False)
    classifier(frozen).fit(*classes(), batch_size=12, shuffle=False, verbose=0, callbacks=[guard])
    found = guard.diagnose()
    codes = [verdict.code for verdict in found.verdicts]
    assert ("OPT608" in codes) == accused, found.describe()
    if accused:
        assert found.cause.code == "OPT608"
        assert "head, the last layer with weights, nor 1 of the 1 before it" in found.describe()


class KeptAsArray(keras.layers.Layer):
    """Its matrix, or a table of positions, is an array that no optimizer hears of."""

    def __init__(self, is_table=False):
        super().__init__()
        self.is_table = is_table

    def build(self, shape):
        drawn = np.random.default_rng(3).normal(0, 0.02, shape[-2:] if self.is_table else (shape[-1], 4))
        self.kept = keras.ops.convert_to_tensor(drawn.astype("float32"))

    def call(self, x):
        return x + self.kept if self.is_table else keras.ops.matmul(x, self.kept)


@pytest.mark.parametrize("is_table", [False, True])
def test_a_head_that_is_no_variable(is_table):
    keras.utils.set_random_seed(2)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(4, activation="tanh")(inputs)
    hidden = keras.layers.Flatten()(KeptAsArray(True)(keras.layers.Reshape((2, 2))(hidden)))
    outputs = keras.layers.Dense(4)(hidden) if is_table else KeptAsArray()(hidden)
    model = keras.Model(inputs, outputs)
    x, labels = classes()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    guard = NaNGuard(strict=True, checkup=False)
    model.fit(x, labels, batch_size=12, shuffle=False, verbose=0, callbacks=[guard])
    assert ("OPT608" in [verdict.code for verdict in guard.diagnose().verdicts]) is not is_table


def test_a_run_that_learns_nothing_is_noticed_without_being_asked():
    def fitted(start, **options):
        guard, model = NaNGuard(strict=True, checkup=False, **options), classifier((), start)
        model.fit(*classes(), batch_size=12, epochs=6, shuffle=False, verbose=0, callbacks=[guard])
        return guard, [np.array(each) for each in model.get_weights()]

    guard, weights = fitted("zeros")
    (incident,) = guard.incidents
    assert (incident.code, incident.action, incident.step) == ("LOSS406", "observe", 199)
    assert incident.diagnosis.cause.code in ("ACT304", "ACT305")
    silent, untouched = fitted("zeros", diagnose="never")
    assert silent.incidents == fitted("glorot_uniform")[0].incidents == ()
    assert all(np.array_equal(one, other) for one, other in zip(weights, untouched, strict=True))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="Python runs once per compilation there")
def test_arrays_that_a_step_writes_into_are_as_they_would_have_been():
    class Counts(keras.Sequential):
        def train_step(self, *args):
            self.visits += 1
            return super().train_step(*args)

    keras.utils.set_random_seed(2)
    heads = [keras.layers.Dense(units, kernel_initializer="zeros", use_bias=False) for units in (16, 4)]
    model = Counts([keras.Input((6,)), *heads])
    model.visits = np.zeros(1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss=loss, run_eagerly=True)
    guard = NaNGuard(strict=True)
    model.fit(*classes(), batch_size=12, epochs=6, shuffle=False, verbose=0, callbacks=[guard])
    assert guard.incidents
    assert model.visits == [240.0]
