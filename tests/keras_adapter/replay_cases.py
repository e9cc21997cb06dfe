"""Failures as people write them in Keras, with what a replay should say about each."""

import keras
import numpy as np
from keras import layers, ops

from tests.keras_adapter.replay_expectations import (
    BACKEND,
    NOTHING,
    ROWS,
    Expected,
    Table,
    arrays,
    at,
    compiled,
    network,
)

TABLE = Table()
case = TABLE.case


class Log(layers.Layer):
    def call(self, x):
        return ops.log(ops.relu(x))


LOG = Expected("log", layer="log", line="ops.log(ops.relu(x))", custom_layer=True)


@case(LOG)
def log_of_relu():
    return network(Log(name="log")), arrays()


class HandMadeSoftmax(layers.Layer):
    def call(self, x):
        e = ops.exp(x * 200.0)
        return e / ops.sum(e, -1, keepdims=True)


@case(Expected("exp", layer="soft", line="ops.exp(x * 200.0)", custom_layer=True))
def softmax_by_hand():
    return network(HandMadeSoftmax(name="soft")), arrays()


class LogOfShare(layers.Layer):
    def call(self, x):
        e = ops.exp(87.5 + 0.01 * ops.tanh(x))
        total = ops.sum(e, -1, keepdims=True)
        return ops.log(e / total)


@case(Expected("sum", layer="share", line="ops.sum(e, -1, keepdims=True)", custom_layer=True))
def logarithm_of_what_an_overflow_has_left():
    return network(LogOfShare(name="share")), arrays()


class Standardise(layers.Layer):
    def call(self, x):
        centred = x - ops.mean(x, -1, keepdims=True)
        spread = ops.sqrt(ops.mean(centred * centred, -1, keepdims=True))
        return centred / spread


@case(Expected("divide", layer="standardise", line="centred / spread", custom_layer=True, rows=(2,)))
def spread_of_a_constant_row():
    x, y = arrays()
    x[2] = 0.0
    return network(Standardise(name="standardise")), (x, y)


class Root(layers.Layer):
    def call(self, x):
        return ops.sqrt(ops.square(x))


@case(Expected("sqrt", phase="backward", layer="root", line="ops.sqrt(ops.square(x))", custom_layer=True))
def root_of_zero_backward():
    x, y = arrays()
    x[3] = 0.0
    return network(Root(name="root")), (x, y)


class MaskedLog(layers.Layer):
    def call(self, x):
        positive = ops.square(x)
        return ops.where(positive > 0, ops.log(positive), 0.0)


@case(
    Expected("log", phase="backward", layer="masked_log", line="ops.log(positive)", custom_layer=True),
)
def where_trap():
    x, y = arrays()
    x[3] = 0.0
    return network(MaskedLog(name="masked_log")), (x, y)


class UnitLength(layers.Layer):
    def call(self, x):
        return x + ops.norm(x, axis=-1, keepdims=True)


@case(
    Expected("sqrt", phase="backward", layer="unit", line="ops.norm(x", custom_layer=True),
    torch=NOTHING,  # its norm has the subgradient 0 there
)
def norm_at_zero():
    x, y = arrays()
    x[3] = 0.0
    return network(UnitLength(name="unit")), (x, y)


class Angle(layers.Layer):
    def call(self, x):
        return ops.arccos(ops.clip(x, -1.0, 1.0) * 0.0 + ops.tanh(ops.abs(x) * 1000.0))


@case(Expected("acos", phase="backward", layer="angle", line="ops.arccos", custom_layer=True))
def acos_at_one():
    return network(Angle(name="angle")), arrays()


class HalfPower(layers.Layer):
    def call(self, x):
        return ops.power(ops.square(x), 0.5)


@case(Expected("power", phase="backward", layer="half", line="ops.power", custom_layer=True))
def power_of_zero_backward():
    x, y = arrays()
    x[1] = 0.0
    return network(HalfPower(name="half")), (x, y)


def cross_entropy(y, p):
    p = ops.sigmoid(p * 1000.0)
    return -ops.mean(ops.log(p * (1.0 - p)))


@case(Expected("log", layer="", line="ops.log(p * (1.0 - p))"))
def log_of_zero_in_a_loss():
    return network(loss=cross_entropy), arrays()


def mean_over_mask(y, p):
    mask = ops.cast(y > 100.0, "float32")
    return ops.sum(mask * ops.square(y - p)) / ops.sum(mask)


@case(Expected("divide", layer="", line="/ ops.sum(mask)"))
def mean_over_an_empty_mask():
    return network(loss=mean_over_mask), arrays()


@case(Expected("cast", line=None))
def half_precision_input_overflow():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = network()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    x, y = arrays()
    return model, (x * 1e6, y)


class Growing(layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.state_size = 8
        self.output_size = 8
        self.offset = self.add_weight(shape=(), name="offset")

    def call(self, x, states):
        h = ops.exp(states[0] + ops.sum(x, -1, keepdims=True) + 0.0 * self.offset)
        return h, [h]


GROWS = Expected("exp", layer="growing", line="ops.exp(states[0]", custom_layer=True, time_step=3)


@case(GROWS, torch=at(GROWS, time_step=None))  # the torch tracer does not know Keras' loops over time
def recurrent_explosion():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((6, 4)), layers.RNN(Growing(name="growing")), layers.Dense(1)])
    x = np.full((ROWS, 6, 4), 0.1, "float32")
    return compiled(model), (x, arrays()[1])


@case(GROWS, torch=at(GROWS, time_step=None))
def recurrent_explosion_unrolled():
    keras.utils.set_random_seed(0)
    cell = Growing(name="growing")
    model = keras.Sequential([layers.Input((6, 4)), layers.RNN(cell, unroll=True), layers.Dense(1)])
    x = np.full((ROWS, 6, 4), 0.1, "float32")
    return compiled(model), (x, arrays()[1])


class Attention(layers.Layer):
    def call(self, x):
        scores = ops.matmul(ops.expand_dims(x, -1), ops.expand_dims(x, 1))
        scores = ops.where(ops.expand_dims(x, 1) > 0, scores, -np.inf)
        weights = ops.softmax(scores, axis=-1)
        return ops.squeeze(ops.matmul(weights, ops.expand_dims(x, -1)), -1)


@case(Expected("softmax", layer="attention", line="ops.softmax(scores", custom_layer=True, rows=(4,)))
def attention_with_a_masked_row():
    x, y = arrays()
    x = np.abs(x)
    x[4] = 0.0
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), Attention(name="attention"), layers.Dense(1)])
    return compiled(model), (x, y)


@case(NOTHING)
def attention_with_a_good_mask():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), Attention(name="attention"), layers.Dense(1)])
    x, y = arrays()
    x[:, 0] = 1.0
    return compiled(model), (x, y)


@case(NOTHING)
def pooling_with_padding():
    keras.utils.set_random_seed(3)
    pooling = layers.MaxPooling2D(3, strides=2, padding="same")
    model = keras.Sequential([layers.Input((7, 7, 2)), pooling, layers.Flatten(), layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(ROWS, 7, 7, 2)).astype("float32")
    return compiled(model), (x, arrays()[1])


@case(NOTHING)
def multi_head_attention_with_mask():
    keras.utils.set_random_seed(3)
    tokens = layers.Input((5, 8))
    attended = layers.MultiHeadAttention(2, 4)(tokens, tokens, use_causal_mask=True)
    model = keras.Model(tokens, layers.Dense(1)(layers.GlobalAveragePooling1D()(attended)))
    x = np.random.default_rng(0).normal(size=(ROWS, 5, 8)).astype("float32")
    return compiled(model), (x, arrays()[1])


@case(NOTHING)
def healthy():
    return network(layers.BatchNormalization(), layers.Activation("gelu")), arrays()


@case(Expected("x", kind="batch", layer="", rows=(5,)))
def nan_in_x():
    x, y = arrays()
    x[5, 2] = np.nan
    return network(), (x, y)


@case(Expected("y", kind="batch", rows=(3,)))
def inf_in_y():
    x, y = arrays()
    y[3] = np.inf
    return network(), (x, y)


@case(Expected("sample_weight", kind="batch", rows=(6,)))
def nan_in_sample_weight():
    weight = np.ones(ROWS, "float32")
    weight[6] = np.nan
    return network(), (*arrays(), weight)


class IgnoresNaN(layers.Layer):
    def call(self, x):
        return ops.where(ops.isnan(x), 0.0, x)


@case(NOTHING)
def nan_in_x_that_the_model_takes_out():
    x, y = arrays()
    x[5, 2] = np.nan
    keras.utils.set_random_seed(3)
    return compiled(keras.Sequential([layers.Input((6,)), IgnoresNaN(), layers.Dense(1)])), (x, y)


@case(Expected("x['image']", kind="batch", rows=(1,)))
def nan_in_one_of_several_inputs():
    keras.utils.set_random_seed(3)
    image, text = layers.Input((4,), name="image"), layers.Input((6,), name="text")
    joined = layers.Concatenate()([layers.Dense(4)(image), layers.Dense(4)(text)])
    model = keras.Model({"image": image, "text": text}, {"a": layers.Dense(1)(joined), "b": layers.Dense(1)(joined)})
    x, y = arrays()
    picture = arrays(4)[0]
    picture[1, 1] = np.nan
    return compiled(model, {"a": "mse", "b": "mae"}), ({"image": picture, "text": x}, {"a": y, "b": y})


@case(Expected(None, kind="parameters", layer="enc"))
def nan_weight():
    model = network()
    kernel = model.get_layer("enc").kernel
    value = np.array(ops.convert_to_numpy(kernel.value))
    value[1, 1] = np.nan
    kernel.assign(value)
    return model, arrays()


OUT_OF_RANGE = Expected(None, kind="exception", layer="", line=None)


@case(
    OUT_OF_RANGE,
    jax=NOTHING,  # one-hot of a label out of range is a row of zeros there
)
def label_out_of_range():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((6,)), layers.Dense(4, activation="softmax")])
    labels = np.arange(ROWS) % 4
    labels[3] = 7
    return compiled(model, "sparse_categorical_crossentropy"), (arrays()[0], labels.astype("int32"))


@case(
    Expected(None, kind="exception", layer="words", line=None),
    jax=Expected("gather", layer="words", rows=(2,), detail="Index 50 is out of range"),
)
def token_out_of_range():
    keras.utils.set_random_seed(3)
    words = layers.Embedding(10, 4, name="words")
    model = keras.Sequential([layers.Input((5,), dtype="int32"), words, layers.Flatten(), layers.Dense(1)])
    x = np.ones((ROWS, 5), "int32")
    x[2, 1] = 50
    return compiled(model), (x, arrays()[1])


@ops.custom_gradient
def rounded(x):
    def grad(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream / (x - x)

    return ops.round(x), grad


class Rounding(layers.Layer):
    def call(self, x):
        return rounded(x)


@case(
    Expected(
        "divide", phase="backward", layer="rounding", line="upstream / (x - x)", custom_layer=True, custom_gradient=True
    )
)
def hand_written_gradient():
    return network(Rounding(name="rounding")), arrays()


class OwnLoss(keras.Model):
    def __init__(self):
        super().__init__(name="own_loss")
        self.dense = layers.Dense(1, name="dense")

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.dense(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        distance = ops.abs(y - y_pred)
        return ops.mean(distance / (distance - distance))


@case(Expected("divide", layer="", line="distance / (distance - distance)"))
def compute_loss_overridden():
    keras.utils.set_random_seed(3)
    model = OwnLoss()
    model.build((None, 6))
    return compiled(model), arrays()


class OwnStep(keras.Model):
    def __init__(self):
        super().__init__(name="own_step")
        self.dense = layers.Dense(1, name="dense")
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.tracker]

    def build(self, shape):
        self.dense.build(shape)
        self.built = True

    def call(self, x, training=False):
        return self.dense(x)

    def distance(self, y, p):
        return ops.mean(ops.log(ops.relu(y - p - 100.0)))

    def train_step(self, *args):
        return getattr(self, f"_{BACKEND}_step")(*args)

    def _tensorflow_step(self, data):
        import tensorflow as tf

        x, y = data
        with tf.GradientTape() as tape:
            loss = self.distance(y, self(x, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}

    def _torch_step(self, data):
        x, y = data
        self.zero_grad()
        loss = self.distance(y, self(x, training=True))
        loss.backward()
        self.optimizer.apply([v.value.grad for v in self.trainable_variables], self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}

    def _jax_step(self, state, data):
        import jax

        weights, others, moments, metrics = state
        x, y = data

        def objective(weights, others):
            p, others = self.stateless_call(weights, others, x, training=True)
            return self.distance(y, p), others

        (loss, others), gradients = jax.value_and_grad(objective, has_aux=True)(weights, others)
        weights, moments = self.optimizer.stateless_apply(moments, gradients, weights)
        metrics = self.tracker.stateless_update_state(metrics, loss)
        return {"loss": self.tracker.stateless_result(metrics)}, (weights, others, moments, metrics)


@case(Expected("log", layer="", line="ops.log(ops.relu(y - p - 100.0))"))
def custom_train_step():
    keras.utils.set_random_seed(3)
    model = OwnStep()
    model.build((None, 6))
    return compiled(model), arrays()


@case(Expected("log", layer="fn", line="ops.log(ops.relu(t))"))
def lambda_layer():
    return network(layers.Lambda(lambda t: ops.log(ops.relu(t)), name="fn")), arrays()


class Entropy(layers.Layer):
    def call(self, x):
        p = ops.relu(x)
        self.add_loss(ops.sum(p * ops.log(p)))
        return x


@case(Expected("log", layer="entropy", line="ops.log(p)", custom_layer=True))
def added_loss():
    return network(Entropy(name="entropy")), arrays()


@case(
    Expected("log", layer="log", line=None),
    torch=Expected("log", layer="functional", line=None),  # nodes of a functional graph are no torch modules
)
def operation_in_a_functional_graph():
    keras.utils.set_random_seed(3)
    inputs = layers.Input((6,))
    outputs = layers.Dense(1)(ops.log(ops.relu(layers.Dense(8)(inputs))))
    return compiled(keras.Model(inputs, outputs)), arrays()


class Tower(keras.Model):
    def __init__(self):
        super().__init__(name="tower")
        self.first = layers.Dense(8, name="first")
        self.last = layers.Dense(1, name="last")

    def build(self, shape):
        self.first.build(shape)
        self.last.build((None, 8))
        self.built = True

    def call(self, x):
        h = self.first(x)
        h = h / ops.mean(ops.maximum(h, 0.0) * 0.0)
        return self.last(h)


@case(Expected("divide", layer="tower", line="h = h / ops.mean", custom_layer=True))
def subclassed_model():
    keras.utils.set_random_seed(3)
    model = Tower()
    model.build((None, 6))
    return compiled(model), arrays()


@case(Expected("log", layer="inner", line="ops.log(ops.relu(x))"))
def log_in_an_xla_model():
    return network(Log(name="inner"), jit_compile=BACKEND == "tensorflow"), arrays()


class Overflowing(layers.Layer):
    def call(self, x):
        return ops.square(x * 300.0) * 1e-3


@case(Expected(None, layer="overflowing", line="ops.square(x * 300.0)", custom_layer=True))
def half_precision_square():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return network(Overflowing(name="overflowing")), arrays()
    finally:
        keras.mixed_precision.set_global_policy("float32")
