"""What Keras' own test suite, with a guard in every fit, showed to go wrong."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from nan_callbacks.keras import NaNGuard
from nan_callbacks.keras.backend import KEPT_AS
from tests.keras_adapter.runs import BACKEND, same, state

rng = np.random.default_rng(0)
X = rng.normal(size=(76, 8)).astype("float32")
Y = X[:, :1].copy()
SEQUENCES = rng.normal(size=(80, 6, 4)).astype("float32")
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="about TensorFlow's data sets or names")


def guard(**settings):
    return NaNGuard(strict=True, verbose=False, **settings)


def rest(model):
    return [np.array(ops.convert_to_numpy(each)) for each in model.layers[0].states]


# -- states that no list of variables names --------------------------------------------------------------------------

# On JAX a compiled step cannot write them, and stateful LSTMs and GRUs do not train on torch, with or without a guard.
STATEFUL = {"tensorflow": [layers.SimpleRNN, layers.GRU, layers.LSTM], "torch": [layers.SimpleRNN], "jax": []}


def carry(layer, sequences=SEQUENCES, callbacks=()):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input(batch_shape=(8, 6, 4)), layer(4, stateful=True), layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(sequences, sequences[:, 0, :1], batch_size=8, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


@pytest.mark.parametrize("layer", STATEFUL[BACKEND])
def test_states_that_a_layer_carries_are_left_as_they_were(layer):
    plain, guarded = carry(layer), carry(layer, callbacks=[guard(health_every_n_steps=3)])
    assert same(state(plain), state(guarded))
    assert same(rest(plain), rest(guarded))


@pytest.mark.parametrize("layer", STATEFUL[BACKEND])
def test_one_bad_batch_does_not_stay_in_the_states(layer):
    spoiled = SEQUENCES.copy()
    spoiled[42] = np.nan
    watch = guard(checkup=False)
    model = carry(layer, spoiled, [watch])
    assert watch.summary["skipped_steps"] == 1
    assert watch.summary["steps"] == 10
    assert all(np.isfinite(each).all() for each in rest(model))


# -- what a step does to what it is fed, and to itself ---------------------------------------------------------------


class Brighter(layers.Layer):
    """Writes into its input where the backend lets it."""

    def call(self, x):
        if BACKEND == "torch" and "Tensor" in type(x).__name__:
            x += 1.0
            return x
        return x + 1.0


def brighten(callbacks=()):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8,)), Brighter(), layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(X.copy(), Y, batch_size=16, shuffle=False, verbose=0, callbacks=list(callbacks)).history
    return model, history["loss"]


def test_the_first_batch_is_trained_on_as_it_came():
    (plain, before), (guarded, after) = brighten(), brighten([guard()])
    assert after == pytest.approx(before, rel=1e-6)
    assert plain.get_weights()[0] == pytest.approx(guarded.get_weights()[0], rel=1e-5)


class Annealed(keras.losses.Loss):
    """Counts its calls."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def call(self, y_true, y_pred):
        self.calls += 1
        return ops.mean(ops.square(y_true - y_pred), axis=-1)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras itself calls the loss once more while it builds there")
def test_what_a_loss_counts_is_not_counted_by_trials():
    calls = []
    for callbacks in ([], [guard(health_every_n_steps=2)]):
        keras.utils.set_random_seed(1)
        model, loss = keras.Sequential([keras.Input((8,)), layers.Dense(1)]), Annealed()
        model.compile("sgd", loss, run_eagerly=True)
        model.fit(X, Y, batch_size=16, verbose=0, callbacks=callbacks)
        calls.append(loss.calls)
    assert calls[0] == calls[1]


# -- several outputs -------------------------------------------------------------------------------------------------

SPARSE = "sparse_categorical_crossentropy"
CLASSES = (X[:, 0] > 0).astype("int32") + (X[:, 1] > 0.5)
NAMED = {"r": Y, "c": CLASSES}


@pytest.mark.parametrize(
    ("outputs", "loss", "targets"),
    [
        (lambda r, c: {"r": r, "c": c}, {"r": "mse", "c": SPARSE}, NAMED),
        (lambda r, c: {"c": c, "r": r}, {"r": "mse", "c": SPARSE}, NAMED),
        (lambda r, c: [r, c], {"r": "mse", "c": SPARSE}, NAMED),
        (lambda r, c: [r, c], ["mse", SPARSE], NAMED),
        (lambda r, c: [r, c], ["mse", SPARSE], [Y, CLASSES]),
        (lambda r, c: [c, r], {"r": "mse", "c": SPARSE}, [CLASSES, Y]),
    ],
    ids=["by key", "another order", "list and keys", "list and named targets", "lists", "list in another order"],
)
def test_targets_are_compared_with_the_outputs_that_keras_compares_them_with(outputs, loss, targets):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8,))
    hidden = layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(
        inputs, outputs(layers.Dense(1, name="r")(hidden), layers.Dense(3, activation="softmax", name="c")(hidden))
    )
    model.compile("adam", loss)
    watch = guard()
    model.fit(X, targets, verbose=0, callbacks=[watch])
    assert [notice.code for notice in watch.checkup_report.notices] == []


@only_tensorflow
def test_the_losses_of_outputs_are_averaged_as_keras_averages_them():
    """It weights them by the size of a batch only where that is known while tracing."""
    histories = []
    hard = Y.copy()
    hard[64:] += 5
    for callbacks in ([], [guard()]):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((8,))
        model = keras.Model(inputs, {name: layers.Dense(1, name=name)(inputs) for name in "ab"})
        model.compile("sgd", {"a": "mse", "b": "mse"})
        fitted = model.fit(X, {"a": hard, "b": hard}, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
        histories.append(fitted.history)
    assert histories[1]["a_loss"] == pytest.approx(histories[0]["a_loss"], rel=1e-6)
    assert histories[1]["b_loss"] == pytest.approx(histories[0]["b_loss"], rel=1e-6)


# -- TensorFlow's data and names -------------------------------------------------------------------------------------


@only_tensorflow
def test_a_second_fit_may_have_batches_of_another_form():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((None, 4)), layers.GlobalAveragePooling1D(), layers.Dense(1)])
    model.compile("sgd", "mse")
    watch = guard(checkup=False)
    for length in (6, 3):
        model.fit(SEQUENCES[:, :length], SEQUENCES[:, 0, :1], batch_size=8, verbose=0, callbacks=[watch])
    assert watch.summary["steps"] == 10
    assert not watch.is_aside


@only_tensorflow
def test_inputs_that_may_be_missing():
    class MaybeSum(layers.Layer):
        def call(self, x, y=None):
            return x if y is None else x + y

        def compute_output_spec(self, x, y=None):
            return x

    def batches():
        for step in range(4):
            yield {"a": X[step : step + 2], "b": None}, Y[step : step + 2]

    keras.utils.set_random_seed(1)
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b", optional=True)
    model = keras.Model({"a": a, "b": b}, layers.Dense(1)(MaybeSum()(a, b)))
    model.compile("sgd", "mse")
    watch = guard()
    model.fit(batches(), verbose=0, callbacks=[watch])
    assert watch.summary["steps"] == 4


@only_tensorflow
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_sparse_inputs(run_eagerly):
    import tensorflow as tf

    unordered = tf.SparseTensor([[0, 3], [0, 1], [2, 0], [1, 2]], [1.0, 2.0, 3.0, 4.0], [4, 4])
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,), sparse=True)
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    model.compile("sgd", "mse", run_eagerly=run_eagerly, jit_compile=False)
    watch = guard()
    pairs = tf.data.Dataset.from_tensors((unordered, Y[:4])).repeat(3)
    model.fit(pairs, verbose=0, callbacks=[watch])
    assert watch.summary["steps"] == 3


@only_tensorflow
@pytest.mark.parametrize(
    "make", [lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), keras.optimizers.Nadam]
)
def test_variables_of_an_optimizer_have_the_paths_that_keras_gives_them(make):
    paths = []
    for callbacks in ([], [guard()]):
        keras.utils.clear_session()
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((8,)), layers.Dense(1, name="d")])
        model.compile(make(), "mse")
        model.fit(X, Y, verbose=0, callbacks=callbacks)
        paths.append([variable.path for variable in model.optimizer.variables])
    assert paths[0] == paths[1]


class Adversaries(keras.Model):
    """Two optimizers of its own; ``compile`` makes a third, which nobody uses."""

    def __init__(self):
        super().__init__()
        self.maker, self.judge = layers.Dense(8), layers.Dense(1)

    def compile(self, first, second, **settings):
        super().compile(**settings)
        self.first, self.second = first, second

    def call(self, x):
        return self.judge(self.maker(x))

    def train_step(self, x):
        import tensorflow as tf

        with tf.GradientTape(persistent=True) as tape:
            loss = ops.mean(ops.square(self.judge(self.maker(x))))
            other = ops.mean(ops.square(1.0 - self.judge(x)))
        makers, judges = self.maker.trainable_variables, self.judge.trainable_variables
        self.first.apply(tape.gradient(loss, makers), makers)
        self.second.apply(tape.gradient(other, judges), judges)
        return {"loss": loss}


@only_tensorflow
def test_an_optimizer_that_nobody_uses_is_not_built():
    ends = []
    for callbacks in ([], [guard()]):
        keras.utils.set_random_seed(1)
        model = Adversaries()
        model.compile(keras.optimizers.Adam(), keras.optimizers.Adam(), jit_compile=False)
        model.fit(X, batch_size=16, shuffle=False, verbose=0, callbacks=callbacks)
        assert not model.optimizer.built
        ends.append([np.array(ops.convert_to_numpy(each)) for each in (*model.variables, *model.first.variables)])
    assert same(*ends)


@only_tensorflow
def test_what_a_step_has_built_is_known_to_the_next_fit():
    """Optimizers that the first step builds: a rollback must take their moments back as well."""
    keras.utils.set_random_seed(1)
    model = Adversaries()
    model.compile(keras.optimizers.Adam(), keras.optimizers.Adam(), jit_compile=False)
    for _ in range(2):
        model.fit(X, batch_size=16, shuffle=False, verbose=0, callbacks=[guard()])
    known = {id(each) for each in getattr(model.train_function, KEPT_AS).groups.all}
    assert all(id(each) in known for one in (model.first, model.second) for each in one._momentums + one._velocities)


@only_tensorflow
def test_data_with_optional_parts_after_arrays():
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    x, extra = keras.Input((8,), name="x"), keras.Input((8,), name="extra", optional=True)

    class Both(layers.Layer):
        def call(self, first, second=None):
            return first if second is None else first + second

    model = keras.Model({"x": x, "extra": extra}, layers.Dense(1)(Both()(x, extra)))
    model.compile("sgd", "mse", jit_compile=False)
    model.fit({"x": X, "extra": X}, Y, batch_size=16, verbose=0, callbacks=[guard()])

    def optional(part, target):
        return {"x": part, "extra": tf.experimental.Optional.empty(tf.TensorSpec((16, 8)))}, target

    data = tf.data.Dataset.from_tensor_slices((X[:64], Y[:64])).batch(16, drop_remainder=True).map(optional)
    watch = guard()
    model.fit(data, verbose=0, callbacks=[watch])
    assert watch.summary["steps"] == 4
