"""The checkup inside of ``fit``: what it tries out, and that nothing of it is left."""

import keras
import numpy as np
import pytest

from nan_callbacks import checkup
from tests.keras_adapter.runs import BACKEND, BATCH, compiled, data, guard, network, same, state, train

MODES = {"auto": {"jit_compile": "auto"}, "no jit": {"jit_compile": False}, "eagerly": {"run_eagerly": True}}


def plain_network():
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])


def codes(callback) -> set[str]:
    return {notice.code for notice in callback.checkup_report}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("rate", "code"), [(20.0, "OPT601"), (1e-11, "OPT602")])
def test_a_rate_that_cannot_work_is_named_before_the_first_step(rate, code, mode):
    model, callback = compiled(plain_network, lambda: keras.optimizers.SGD(rate), **MODES[mode]), guard(checkup=True)
    train(model, data(), callback, epochs=1)

    assert code in codes(callback)
    assert callback.checkup_report.notes == ()


@pytest.mark.parametrize("mode", MODES)
def test_a_rate_that_works_is_not(mode):
    model, callback = compiled(plain_network, **MODES[mode]), guard(checkup=True)
    train(model, data(), callback)

    assert codes(callback) == set()
    assert callback.checkup_report.notes == ()


def test_the_fit_is_told_what_the_checkup_alone_is_told():
    arrays = data()
    batch = tuple(part[:BATCH] for part in arrays)
    make = lambda: compiled(plain_network, lambda: keras.optimizers.SGD(20.0))  # noqa: E731
    alone, callback = checkup(make(), [batch]), guard(checkup=True)
    make().fit(keras_dataset(batch), callbacks=[callback], verbose=0)

    told = [(notice.code, notice.evidence) for notice in callback.checkup_report if notice.code == "OPT601"]
    assert told == [(notice.code, notice.evidence) for notice in alone if notice.code == "OPT601"]
    assert told


class LeavesOut(keras.losses.Loss):
    """A squared error of the targets that are known."""

    def call(self, y_true, y_pred):
        known = keras.ops.logical_not(keras.ops.isnan(y_true))
        return keras.ops.where(known, keras.ops.where(known, y_true, 0.0) - y_pred, 0.0) ** 2


@pytest.mark.parametrize("loss", [LeavesOut, lambda: "mse"], ids=["left out", "taken"])
def test_missing_targets_that_the_loss_leaves_out_are_meant(loss):
    x, y = data()
    y[::3] = np.nan
    model, callback = compiled(plain_network, loss=loss()), guard(checkup=True)
    train(model, (x, y), callback, epochs=1)

    assert ("DATA501" in codes(callback)) == (loss is not LeavesOut)


def test_rows_of_many_are_named_as_the_arrays_count_them():
    x, y = (np.concatenate([part] * 300) for part in data())
    x = x + np.arange(len(x), dtype="float32")[:, None] * 1e-6
    x[len(x) // 4096 + 1 :: 7 * (len(x) // 4096 + 1), 1] = np.nan
    callback = guard(checkup=True)
    compiled(plain_network).fit(x, y, batch_size=BATCH, verbose=0, callbacks=[callback], steps_per_epoch=1)

    told = next(notice for notice in callback.checkup_report if notice.code == "DATA501").evidence[0]
    first = int(told.partition("in rows ")[2].partition(",")[0])
    assert np.isnan(x[first]).any()


def keras_dataset(batch):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return batch

    return Batches()


class UnseededNoise(keras.layers.Layer):
    """Draws from the global generator, which its first draw brings into being."""

    def call(self, inputs):
        return inputs + 0.1 * keras.random.normal(keras.ops.shape(inputs))


def noisy():
    keras.utils.set_random_seed(5)
    return keras.Sequential([keras.layers.Input((4,)), UnseededNoise(), *network().layers])


class OwnStep(keras.Model):
    """A step with metrics that only its first call brings into being, where Keras allows it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.seen = keras.metrics.Mean(name="seen")

    def call(self, inputs):
        self.add_loss(0.01 * keras.ops.mean(keras.ops.square(inputs)))
        return self.dense(inputs)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.seen.update_state(y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)


CASES = {
    "unseeded noise": {"make": noisy},
    "a metric of its own": {"make": OwnStep, "metrics": ["mae", keras.metrics.RootMeanSquaredError()]},
    "momentum and averaged weights": {
        "optimizer": lambda: keras.optimizers.SGD(0.01, momentum=0.9, use_ema=True, ema_momentum=0.9)
    },
    "accumulated gradients": {"optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)},
    "a schedule": {
        "optimizer": lambda: keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.8))
    },
}


class OwnStreams(keras.layers.Layer):
    """Draws by the backend's own functions, which keep count where Keras does not look."""

    def call(self, inputs, training=False):
        if not training:
            return inputs
        if BACKEND == "tensorflow":
            import tensorflow as tf

            return inputs + 0.1 * tf.cond(tf.reduce_any(inputs > 0), lambda: self.noise(tf, inputs), lambda: inputs)
        import torch

        return inputs + 0.1 * torch.randn_like(inputs)

    def noise(self, tf, inputs):
        return tf.function(tf.random.normal)(tf.shape(inputs)) + tf.random.uniform(tf.shape(inputs))


if BACKEND != "jax":
    CASES["streams of the backend's own"] = {
        "make": lambda: keras.Sequential([keras.layers.Input((4,)), OwnStreams(), *network().layers])
    }
if BACKEND == "jax":  # there Keras itself refuses unseeded draws inside of a model
    del CASES["unseeded noise"]


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_left_of_what_was_tried(case):
    reference, unseen = compiled(**CASES[case]), guard()
    expected = train(reference, data(), unseen, epochs=2)
    model, callback = compiled(**CASES[case]), guard(checkup=True)
    history = train(model, data(), callback, epochs=2)

    assert callback.checkup_report.notes == ()
    assert same(state(model), state(reference))
    np.testing.assert_equal(history, expected)


def test_a_first_step_that_raises_is_noted_and_raises():
    model, callback = compiled(plain_network), guard(checkup=True)
    x, y = data()
    with pytest.raises(Exception, match=r"3|shape|axis"):  # each backend has words of its own
        model.fit(x[:, :3], y, batch_size=BATCH, callbacks=[callback], verbose=0)

    assert not {"evaluate", "save"} & set(vars(model))


def test_a_loss_that_is_not_finite_at_the_start_ends_the_trial():
    def broken(y_true, y_pred):
        return keras.ops.mean(keras.ops.log(keras.ops.abs(y_pred) * 0.0))

    model, callback = compiled(plain_network, loss=broken), guard(checkup=True)
    train(model, data(), callback)

    assert not codes(callback) & {"OPT601", "OPT602"}
    assert not callback.is_aside
