"""Weights that begin tiny grow manyfold before the loss has anything to show for it: that is how such a run begins."""

import keras
import numpy as np

from nan_callbacks.keras import NaNGuard

STEPS = 64


def test_a_run_on_single_samples_from_tiny_weights_is_left_alone():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(STEPS, 8)).astype("float32")
    y = (x[:, :2].sum(1, keepdims=True) > 0).astype("float32")
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(32, activation="tanh"), keras.layers.Dense(1, activation="sigmoid")]
    )
    model.set_weights([1e-3 * rng.normal(size=weight.shape) for weight in model.get_weights()])
    before = np.sqrt(sum(np.square(weight).sum() for weight in model.get_weights()))
    model.compile(keras.optimizers.SGD(0.05), loss="binary_crossentropy")
    guard = NaNGuard(strict=True, checkup=False)
    model.fit(x, y, batch_size=1, shuffle=False, verbose=0, callbacks=[guard])
    after = np.sqrt(sum(np.square(weight).sum() for weight in model.get_weights()))
    assert guard.incidents == ()
    assert after > 4.0 * before, "the weights must have grown for the test to mean anything"
