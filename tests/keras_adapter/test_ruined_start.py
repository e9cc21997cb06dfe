"""LOSS408: a rate too high ruins a net in its first steps; it begins again from its first weights if that is proved."""

import keras
import numpy as np

from nan_callbacks.keras import NaNGuard
from tests import ruined_start as fault


class Offset(keras.layers.Layer):
    """Adds a row of a large table."""

    def build(self, shape):
        self.table = self.add_weight(shape=fault.TABLE, initializer="zeros", name="table")

    def call(self, x):
        return x + self.table[0, : fault.CLASSES]


def classifier(rate):
    dense = [keras.layers.Dense(units) for units in (fault.WIDTH, fault.WIDTH, fault.CLASSES)]
    cut_off = [keras.layers.ReLU(max_value=6.0) for _ in range(2)]
    offset = Offset()
    layers = [keras.Input((fault.FEATURES,)), dense[0], cut_off[0], dense[1], cut_off[1], dense[2], offset]
    model = keras.Sequential(layers)
    table, *rest = fault.weights()
    offset.set_weights([table])
    for layer, matrix, bias in zip(dense, rest[::2], rest[1::2], strict=True):
        layer.set_weights([matrix, bias])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    return model


def fitted(rate, *, noise=False, guarded=True):
    keras.utils.set_random_seed(3)
    guard, model = NaNGuard(strict=True, checkup=False), classifier(rate)
    x, labels = fault.data(noise=noise)
    callbacks = [guard] if guarded else []
    model.fit(x, labels, batch_size=fault.ROWS, shuffle=False, verbose=0, callbacks=callbacks)
    accuracy = np.mean(model.predict(x[:640], verbose=0).argmax(1) == labels[:640])
    return guard, model.get_weights(), accuracy


def test_it_goes_back_to_the_first_weights_and_learns():
    guard, _, accuracy = fitted(fault.RUINOUS)
    assert accuracy > 0.9
    (incident,) = guard.incidents
    assert (incident.code, incident.action, incident.step) == ("LOSS408", "rollback", 199)
    assert incident.diagnosis.cause.code == "OPT601"
    (rolled_back,) = [event for event in guard.events if event["event"] == "rollback"]
    assert rolled_back["restored_step"] == 0
    assert guard.summary["lr_scale"] <= 0.125


def test_noise_that_cannot_be_learnt_is_left_alone_bit_for_bit():
    guard, guarded, _ = fitted(fault.RIGHT, noise=True)
    _, alone, _ = fitted(fault.RIGHT, noise=True, guarded=False)
    assert guard.summary["rollbacks"] == 0
    assert all(np.array_equal(one, other) for one, other in zip(guarded, alone, strict=True))


def test_noise_at_a_ruinous_rate_is_not_begun_again():
    guard, _, _ = fitted(fault.RUINOUS, noise=True)
    assert "LOSS408" not in guard.summary["codes"]
