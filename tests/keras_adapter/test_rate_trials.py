"""A learning rate hundreds of times too high: one rollback finds the rate at which the run trains."""

import keras
import numpy as np
import pytest

from nan_callbacks.core.events import read_events
from nan_callbacks.keras import NaNGuard

RIGHT, STEPS, ROWS = 0.005, 160, 32


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """To a thousand times the right rate."""

    def __call__(self, step):
        return 1000 * RIGHT * keras.ops.minimum(keras.ops.cast(step, "float32") / 40, 1.0)

    def get_config(self):
        return {}


def fitted(rate, **settings):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(STEPS * ROWS, 6)).astype("float32")
    labels = (x @ rng.normal(size=(6, 4))).argmax(1).astype("int32")
    keras.utils.set_random_seed(3)
    hidden = [keras.layers.Dense(32, activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    guard = NaNGuard(strict=True, checkup=False, **settings)
    model.fit(x, labels, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard])
    return guard, np.mean(model.predict(x, verbose=0).argmax(1) == labels)


@pytest.mark.parametrize("rate", [1000 * RIGHT, WarmUp()], ids=["from the start", "by a warm-up"])
def test_one_rollback_finds_a_rate_that_trains(rate, tmp_path):
    guard, accuracy = fitted(rate, events_path=tmp_path / "events.jsonl")
    assert guard.summary["rollbacks"] == 1
    assert guard.summary["lr_scale"] < 0.05
    assert accuracy > 0.8
    (cut,) = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "reduce_lr"]
    assert cut["tried"]
    assert cut["lr_scale"] == guard.summary["lr_scale"]


def test_without_diagnoses_the_ladder_keeps_its_own_cuts(tmp_path):
    fitted(1000 * RIGHT, diagnose="never", events_path=tmp_path / "events.jsonl")
    cuts = [event for event in read_events(tmp_path / "events.jsonl") if event["event"] == "reduce_lr"]
    assert [cut["factor"] for cut in cuts[:2]] == [0.5, 0.25]
    assert not any(cut["tried"] for cut in cuts)
