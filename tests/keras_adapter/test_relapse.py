"""What was learnt is lost: the run goes back. The same course of the loss with other data is nobody's fault."""

import keras
import numpy as np

from nan_callbacks.core import Monitor
from nan_callbacks.keras import NaNGuard

LOST_AT, STEPS, ROWS = 90, 200, 32


def data(harder):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(STEPS * ROWS, 6))
    labels = (x @ rng.normal(size=(6, 4))).argmax(1)
    if harder:
        labels[LOST_AT * ROWS :: 4] = (labels[LOST_AT * ROWS :: 4] + 1) % 4
    return x.astype("float32"), labels.astype("int32")


def classifier():
    """Its schedule is over by the time that it loses what it knows."""
    keras.utils.set_random_seed(3)
    layers = [keras.Input((6,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(4)]
    model = keras.Sequential(layers)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([LOST_AT], [0.02, 2e-8])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(schedule), loss=loss)
    return model


class Reloading(keras.callbacks.Callback):
    """Loads the wrong weights in the middle of a run: those that it began with."""

    def on_train_begin(self, logs=None):
        self.first = self.model.get_weights()

    def on_train_batch_begin(self, batch, logs=None):
        if batch == LOST_AT:
            self.model.set_weights(self.first)


def fitted(*callbacks, harder=False):
    guard, model = NaNGuard(strict=True, checkup=False), classifier()
    x, labels = data(harder)
    model.fit(x, labels, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard, *callbacks])
    return guard, model, x, labels


def test_a_run_that_has_lost_what_it_knew_goes_back():
    guard, model, x, labels = fitted(Reloading())
    assert guard.summary["codes"] == {"LOSS407": 1}
    assert (guard.summary["rollbacks"], guard.summary["skipped_steps"]) == (1, 0)
    (incident,) = guard.incidents
    assert incident.action == "rollback"
    assert LOST_AT + 32 < incident.step < LOST_AT + 100
    assert np.mean(model.predict(x[:640], verbose=0).argmax(1) == labels[:640]) > 0.9


def test_harder_data_cost_as_much_with_the_last_good_weights(monkeypatch):
    settle, answers = Monitor.settle, []
    monkeypatch.setattr(Monitor, "settle", lambda *given: answers.append(settle(*given)) or answers[-1])
    guard, *_ = fitted(harder=True)
    assert answers == [None]
    assert guard.summary["incidents"] == 0
    assert guard.summary["lr_scale"] == 1.0
