"""More failures, written down after the replay was built and run once as they stood, before anything was adapted."""

import keras
import numpy as np
from keras import layers, ops

from tests.keras_adapter.replay_expectations import NOTHING, ROWS, Expected, Table, arrays, compiled, network

TABLE = Table()
case = TABLE.case


def runaway(t):
    return ops.exp(t * 30.0 + 5.0)


@case(Expected("exp", layer="memory", line="ops.exp(t * 30.0 + 5.0)"))
def gru_with_a_runaway_activation():
    keras.utils.set_random_seed(0)
    memory = layers.GRU(4, activation=runaway, reset_after=False, name="memory")
    model = keras.Sequential([layers.Input((5, 3)), memory, layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(ROWS, 5, 3)).astype("float32") * 5
    return compiled(model), (x, arrays()[1])


def log_complement(t):
    return ops.log(1.0 - ops.sigmoid(t * 1000.0))


@case(Expected("log", layer="gated", line="ops.log(1.0 - ops.sigmoid(t * 1000.0))", custom_layer=False))
def activation_function_of_a_dense_layer():
    return network(layers.Dense(5, activation=log_complement, name="gated")), arrays()


class InverseSpread(layers.Layer):
    def call(self, x):
        return (x - ops.mean(x, -1, keepdims=True)) * ops.rsqrt(ops.var(x, -1, keepdims=True))


@case(Expected("rsqrt", layer="spread", line="ops.rsqrt(ops.var(x", custom_layer=True, rows=(0,)))
def reciprocal_root_of_no_variance():
    x, y = arrays()
    x[0] = 0.0
    return network(InverseSpread(name="spread")), (x, y)


class Block(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Dense(8, activation="relu", name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        h = self.inner(x)
        return 1.0 / h


@case(
    Expected("divide", layer="block", line="return 1.0 / h", custom_layer=True),
    torch=Expected("reciprocal", layer="block", line="return 1.0 / h", custom_layer=True),
)
def reciprocal_in_a_nested_layer():
    return network(Block(name="block")), arrays()


class Boltzmann(layers.Layer):
    def call(self, x):
        weight = ops.exp(ops.cast(x, "bfloat16") * 1000)
        return weight / ops.sum(weight, axis=-1, keepdims=True)


@case(Expected("exp", layer="boltzmann", line="weight = ops.exp(", custom_layer=True))
def bfloat16_exponential():
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        return network(Boltzmann(name="boltzmann")), arrays()
    finally:
        keras.mixed_precision.set_global_policy("float32")


@case(Expected("sample_weight", kind="batch", rows=(1, 2)))
def infinite_sample_weights():
    weight = np.ones(ROWS, "float32")
    weight[1:3] = np.inf
    return network(), (*arrays(), weight)


class Fisher(layers.Layer):
    def call(self, r):
        r = ops.tanh(r * 1000.0)
        return ops.arctanh(r)


@case(Expected("atanh", layer="fisher", line="ops.arctanh(r)", custom_layer=True))
def fisher_transform_of_one():
    return network(Fisher(name="fisher")), arrays()


class Distance(layers.Layer):
    def call(self, pair):
        a, b = pair
        return ops.sqrt(ops.sum(ops.square(a - b), axis=-1, keepdims=True))


@case(Expected("sqrt", phase="backward", layer="distance", line="ops.sqrt(ops.sum(", custom_layer=True, rows=(4,)))
def siamese_distance_of_twins():
    keras.utils.set_random_seed(3)
    left, right = layers.Input((6,)), layers.Input((6,))
    encoder = layers.Dense(4, name="encoder")
    model = keras.Model([left, right], Distance(name="distance")([encoder(left), encoder(right)]))
    x, y = arrays()
    other = arrays(seed=1)[0]
    other[4] = x[4]
    return compiled(model), ((x, other), y)


class Spread(layers.Layer):
    def call(self, x):
        return ops.concatenate([x, ops.std(x, axis=-1, keepdims=True)], axis=-1)


@case(
    Expected(None, phase="backward", layer="spread", line="ops.std(x", custom_layer=True),
    torch=NOTHING,  # its standard deviation has the derivative 0 there
)
def standard_deviation_backward():
    x, y = arrays()
    x[6] = 0.0
    return network(Spread(name="spread")), (x, y)


@case(NOTHING)
def mask_handed_in_with_the_batch():
    keras.utils.set_random_seed(3)
    scores, mask = layers.Input((6,), name="scores"), layers.Input((6,), name="mask")
    weights = layers.Softmax()(layers.Add()([scores, mask]))
    model = keras.Model({"scores": scores, "mask": mask}, layers.Dense(1)(weights))
    x, y = arrays()
    bias = np.where(x > 1.0, -np.inf, 0.0).astype("float32")
    return compiled(model), ({"scores": x, "mask": bias}, y)


@case(Expected("divide", phase="optimizer"))
def optimizer_without_epsilon():
    x, y = arrays()
    model = network(optimizer=keras.optimizers.Adam(1e-3, epsilon=0.0))
    return model, (x * 0.0, y)


def entropy_of_weights(w):
    return 1e-3 * ops.sum(w * ops.log(w))


@case(Expected("log", line="ops.log(w)"))
def regularizer_with_a_logarithm():
    keras.utils.set_random_seed(3)
    dense = layers.Dense(1, kernel_regularizer=entropy_of_weights, name="dense")
    return compiled(keras.Sequential([layers.Input((6,)), dense])), arrays()
