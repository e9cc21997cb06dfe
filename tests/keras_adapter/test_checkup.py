"""What the checkup tells of a Keras model before its first step, and that it leaves no trace."""

import random

import keras
import numpy as np
import pytest
from keras import ops

import nan_callbacks
from nan_callbacks.core.finding import Severity
from nan_callbacks.errors import ConfigurationError
from tests.keras_adapter.runs import BACKEND, compiled, data, network, same, state

layers = keras.layers
ROWS, CLASSES = 128, 4
tensorflow_only = pytest.mark.skipif(BACKEND != "tensorflow", reason="data sets of TensorFlow")


def codes(report, least=Severity.WARNING):
    """Codes of everything but information."""
    return [notice.code for notice in report if notice.severity >= least]


def look(model, given, **options):
    return nan_callbacks.checkup(model, given, strict=True, **options)


def features(rows=ROWS, width=8):
    return np.random.default_rng(0).standard_normal((rows, width)).astype("float32")


def labels(x):
    """Classes that the first columns decide."""
    return (x[:, 0] > 0) + 2 * (x[:, 1] > 0).astype("int32")


def one_hot(x):
    return np.eye(CLASSES, dtype="float32")[labels(x)]


def spoil(x, *at, value=np.nan):
    x = x.copy()
    x[at] = value
    return x


def sequential(*last, width=8, **options):
    """A healthy classifier: logits, unless a last activation is given."""
    return keras.Sequential(
        [
            layers.Input((width,)),
            layers.Dense(32, activation="relu", **options),
            layers.Dense(*(last or (CLASSES,))),
        ]
    )


def functional():
    x = layers.Input((8,))
    return keras.Model(x, layers.Dense(CLASSES)(layers.Dense(32, activation="relu")(x)))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.body, self.head = layers.Dense(32, activation="relu"), layers.Dense(CLASSES)

    def call(self, x):
        return self.head(self.body(x))


def crossentropy(from_logits=True):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)


def ready(make=sequential, loss=None, rate=1e-3, seed=7, **options):
    """A compiled model with Adam; without metrics, which cost time."""
    loss = crossentropy() if loss is None else loss
    return compiled(make, lambda: keras.optimizers.Adam(rate), seed, loss, **{"metrics": None, **options})


# -- no trace --------------------------------------------------------------------------------------------------------


def trace(model):
    """Everything of a model that can be compared: variables, seeds, mode."""
    told = state(model)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        generator = getattr(layer, "seed_generator", None)
        if generator is not None:
            told.append(np.array(ops.convert_to_numpy(generator.state)))
        told.append(np.array([bool(layer.trainable), len(layer.losses)]))
    return told


def streams():
    shared = keras.src.random.seed_generator.global_seed_generator()  # the first call makes it, and draws for that
    told = [repr(ops.convert_to_numpy(shared.state).tolist())]
    told += [repr(np.random.get_state()), repr(random.getstate())]  # noqa: NPY002
    if BACKEND == "torch":
        import torch

        told.append(torch.get_rng_state().numpy().tobytes())
    return told


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "RMSprop"])
@pytest.mark.parametrize("trained", [False, True])
def test_model_and_optimizer_are_left_bitwise_as_they_were(optimizer, trained):
    model = compiled(network, lambda: getattr(keras.optimizers, optimizer)(0.01))
    model.fit(*data(2), epochs=1, verbose=0) if trained else model.optimizer.build(model.trainable_variables)
    before, drawn = trace(model), streams()
    look(model, data())
    assert same(trace(model), before)
    assert streams() == drawn


@pytest.mark.parametrize("fault", [np.nan, np.inf, 1e30])
def test_a_faulty_first_step_leaves_no_trace(fault):
    model = compiled(network)
    model.optimizer.build(model.trainable_variables)
    before, drawn = trace(model), streams()
    x, y = data()
    report = look(model, (spoil(x, slice(0, 3), 1, value=fault), y))
    assert codes(report)
    assert same(trace(model), before)
    assert streams() == drawn


def test_training_goes_on_as_if_nobody_had_looked():
    looked, reference = compiled(network), compiled(network)
    look(looked, data())
    histories = [model.fit(*data(), epochs=2, verbose=0, shuffle=False).history for model in (looked, reference)]
    assert histories[0] == histories[1]
    assert same(state(looked), state(reference))


def test_metrics_are_left_as_they_were():
    model = compiled(network)
    model.fit(*data(2), verbose=0)
    before = [np.array(ops.convert_to_numpy(variable)) for metric in model.metrics for variable in metric.variables]
    look(model, data())
    after = [np.array(ops.convert_to_numpy(variable)) for metric in model.metrics for variable in metric.variables]
    assert before
    assert same(before, after)


def test_arrays_are_left_as_they_were():
    x, y = features(), labels(features())
    look(ready(), (x, y))
    assert np.array_equal(x, features())
    assert np.array_equal(y, labels(features()))


def test_two_looks_give_the_same_report():
    model, given = ready(), (features() * 300, labels(features()))
    one, other = look(model, given), look(model, given)
    assert (one.notices, one.notes) == (other.notices, other.notes)


# -- healthy ---------------------------------------------------------------------------------------------------------


def images(rows=32):
    return np.random.default_rng(0).random((rows, 12, 12, 3)).astype("float32")


def convolutions(*first):
    return keras.Sequential(
        [
            layers.Input((12, 12, 3)),
            *first,
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES),
        ]
    )


def tokens(rows=64, most=50):
    return np.random.default_rng(0).integers(0, most, (rows, 12))


def words(mask_zero=False):
    return keras.Sequential(
        [
            layers.Input((12,), dtype="int32"),
            layers.Embedding(50, 16, mask_zero=mask_zero),
            layers.GlobalAveragePooling1D(),
            layers.Dense(CLASSES),
        ]
    )


def some_labels(rows):
    return np.arange(rows) % CLASSES


def signs(x):
    return (x[:, :1] > 0).astype("float32")


HEALTHY = {
    "sequential": lambda: (ready(), (features(), labels(features()))),
    "functional": lambda: (ready(functional), (features(), labels(features()))),
    "subclassed": lambda: (ready(Subclassed), (features(), labels(features()))),
    "softmax": lambda: (
        ready(lambda: sequential(CLASSES, "softmax"), "sparse_categorical_crossentropy"),
        (features(), labels(features())),
    ),
    "one-hot": lambda: (
        ready(lambda: sequential(CLASSES, "softmax"), "categorical_crossentropy"),
        (features(), one_hot(features())),
    ),
    "sigmoid": lambda: (
        ready(lambda: sequential(1, "sigmoid"), "binary_crossentropy"),
        (features(), signs(features())),
    ),
    "regression": lambda: (ready(lambda: sequential(1), "mse"), (features(), features()[:, :1])),
    "targets without an axis": lambda: (ready(lambda: sequential(1), "mse"), (features(), features()[:, 0])),
    "float64": lambda: (ready(lambda: sequential(1), "mse"), (features().astype("float64"), features()[:, :1] * 1.0)),
    "weights of samples": lambda: (
        ready(lambda: sequential(1), "mse"),
        (features(), features()[:, :1], np.linspace(0, 1, ROWS)),
    ),
    "noise": lambda: (compiled(network), data()),
    "images": lambda: (ready(convolutions), (images(), some_labels(32))),
    "rescaled pixels": lambda: (
        ready(lambda: convolutions(layers.Rescaling(1 / 255))),
        ((images() * 255).astype("uint8"), some_labels(32)),
    ),
    "words": lambda: (ready(words), (tokens(), some_labels(64))),
    "masked words": lambda: (ready(lambda: words(True)), (tokens(), some_labels(64))),
    "one row": lambda: (ready(), (features(1), labels(features(1)))),
}


@pytest.mark.parametrize("kind", HEALTHY)
def test_healthy_models_get_no_notice(kind):
    report = look(*HEALTHY[kind]())
    assert codes(report) == [], report.describe()
    assert report.notes == ()


# -- faults ----------------------------------------------------------------------------------------------------------


def rows_of_copies():
    x = features()
    x[:20] = x[-20:]
    y = labels(x)
    y[:20] = (y[:20] + 1) % CLASSES
    return x, y


FAULTS = {
    "NaN in the data": ("DATA501", lambda: (ready(), (spoil(features(), 77, 2), labels(features())))),
    "NaN in the targets": (
        "DATA501",
        lambda: (ready(lambda: sequential(1), "mse"), (features(), spoil(features()[:, :1], 77))),
    ),
    "unscaled": ("DATA502", lambda: (ready(), (features() * 300 + 500, labels(features())))),
    "bytes": ("DATA502", lambda: (ready(convolutions), ((images() * 255).round(), some_labels(32)))),
    "an outlier": ("DATA503", lambda: (ready(), (spoil(features(), 78, 2, value=1e6), labels(features())))),
    "copies": ("DATA504", lambda: (ready(), rows_of_copies())),
    "a label out of range": ("DATA505", lambda: (ready(), (features(), spoil(labels(features()), 77, value=4)))),
    "labels of plus and minus one": (
        "DATA505",
        lambda: (
            ready(lambda: sequential(1, "sigmoid"), "binary_crossentropy"),
            (features(), 2 * signs(features()) - 1),
        ),
    ),
    "a constant column": (
        "DATA506",
        lambda: (ready(), (spoil(features(), slice(None), 2, value=1.5), labels(features()))),
    ),
    "indices as one-hot": (
        "DATA508",
        lambda: (
            ready(lambda: sequential(CLASSES, "softmax"), "categorical_crossentropy"),
            (features(), labels(features())),
        ),
    ),
    "unscaled targets": (
        "DATA509",
        lambda: (ready(lambda: sequential(1), "mse"), (features(), 5e4 + 1e4 * features()[:, :1])),
    ),
    "a single class": ("DATA510", lambda: (ready(), (features(), np.ones(ROWS, int)))),
    "an index out of its table": ("DATA511", lambda: (ready(words), (tokens(most=70), some_labels(64)))),
    "softmax before logits": (
        "LOSS403",
        lambda: (ready(lambda: sequential(CLASSES, "softmax")), (features(), labels(features()))),
    ),
    "scores as probabilities": (
        "LOSS404",
        lambda: (ready(loss="sparse_categorical_crossentropy"), (features(), labels(features()))),
    ),
    "equal units": (
        "ACT305",
        lambda: (
            ready(lambda: keras.Sequential([
                layers.Input((8,)),
                layers.Dense(32, activation="relu", kernel_initializer=keras.initializers.Constant(0.1)),
                layers.Dense(CLASSES, kernel_initializer="ones"),
            ])),
            (features(), labels(features())),
        ),
    ),
    "a high rate": (
        "OPT601",
        lambda: (
            compiled(lambda: sequential(1), lambda: keras.optimizers.SGD(100.0), loss="mse", metrics=None),
            (features(), features()[:, :1]),
        ),
    ),
    "a low rate": (
        "OPT602",
        lambda: (
            compiled(sequential, lambda: keras.optimizers.SGD(1e-9), loss=crossentropy(), metrics=None),
            (features(), labels(features())),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_named_and_nothing_else(fault):
    code, make = FAULTS[fault]
    report = look(*make())
    assert set(codes(report)) == {code}, report.describe()
    assert all(notice.remedy for notice in report)


def test_a_named_code_is_not_told():
    model, given = ready(), (features() * 300, spoil(labels(features()), 77, value=9))
    everything = look(model, given)
    assert set(codes(everything)) == {"DATA502", "DATA505"}
    silent = look(model, given, ignore=["data502"])
    assert silent.notices == tuple(notice for notice in everything if notice.code != "DATA502")


def test_equal_and_saturated_units_are_named():
    def stuck():
        return keras.Sequential(
            [
                layers.Input((8,)),
                layers.Dense(16, activation="tanh", kernel_initializer="ones"),
                layers.Dense(16, activation="tanh", kernel_initializer="ones"),
                layers.Dense(CLASSES),
            ]
        )

    assert "ACT302" in codes(look(ready(stuck), (features(), labels(features()))))


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
@pytest.mark.parametrize("ill", [True, False])
def test_gates_that_begin_at_their_bounds_are_named_unless_they_are_some_of_a_layer(kind, ill):
    def recurrent():
        layer = kind(16)
        model = keras.Sequential([layers.Input((8,)), layers.Reshape((8, 1)), layer, layers.Dense(CLASSES)])
        if ill:
            for variable in layer.trainable_variables:
                variable.assign(variable * 1000.0)
        else:  # a long memory from the start (Tallec & Ollivier 2018)
            bias = np.array(layer.cell.bias)
            bias[..., : 2 * 16] = 6.5
            layer.cell.bias.assign(bias)
        return model

    found = codes(look(ready(recurrent), (features(), labels(features()))))

    assert ("ACT302" in found) is ill


def test_a_logarithm_of_a_softmax_is_named():
    @keras.saving.register_keras_serializable()
    class Logarithm(layers.Layer):
        def call(self, x):
            return ops.log(ops.softmax(x))

    def make():
        return keras.Sequential([layers.Input((8,)), layers.Dense(CLASSES), Logarithm()])

    report = look(ready(make, "mse"), (features(), -np.abs(features(ROWS, CLASSES))))
    assert "NAN111" in codes(report), report.describe()
    (notice,) = (each for each in report if each.code == "NAN111")
    assert notice.source.file.endswith("test_checkup.py")


# -- several inputs and outputs --------------------------------------------------------------------------------------


def several():
    numbers, tokens = layers.Input((8,), name="numbers"), layers.Input((12,), dtype="int32", name="tokens")
    both = layers.Concatenate()(
        [layers.Dense(16, activation="relu")(numbers), layers.GlobalAveragePooling1D()(layers.Embedding(50, 8)(tokens))]
    )
    outputs = {"kind": layers.Dense(CLASSES, name="kind")(both), "size": layers.Dense(1, name="size")(both)}
    return keras.Model({"numbers": numbers, "tokens": tokens}, outputs)


def of_several(**spoilt):
    x = features(64)
    told = {"numbers": x, "tokens": tokens(), "kind": labels(x), "size": x[:, :1], **spoilt}
    return {k: told[k] for k in ("numbers", "tokens")}, {k: told[k] for k in ("kind", "size")}


def ready_for_several():
    return ready(several, {"kind": crossentropy(), "size": "mse"})


def test_several_inputs_and_outputs():
    report = look(ready_for_several(), of_several())
    assert codes(report) == [], report.describe()
    assert report.notes == ()


@pytest.mark.parametrize(
    ("spoilt", "code", "where"),
    [
        ({"numbers": features(64) * 1e4}, "DATA502", "numbers"),
        ({"numbers": spoil(features(64), 40, 2)}, "DATA501", "numbers"),
        ({"tokens": tokens(most=70)}, "DATA511", "tokens"),
        ({"kind": spoil(labels(features(64)), 3, value=9)}, "DATA505", "kind"),
        ({"size": 5e4 + 1e4 * features(64)[:, :1]}, "DATA509", "size"),
    ],
)
def test_the_faulty_part_of_several_is_named(spoilt, code, where):
    (notice,) = (each for each in look(ready_for_several(), of_several(**spoilt)) if each.severity >= Severity.WARNING)
    assert notice.code == code
    assert where in notice.where


def test_lists_of_inputs():
    def make():
        one, other = layers.Input((8,)), layers.Input((3,))
        return keras.Model([one, other], layers.Dense(CLASSES)(layers.Concatenate()([one, other])))

    x = features()
    assert codes(look(ready(make), ([x, x[:, :3]], labels(x)))) == []
    told = look(ready(make), ([x, 1e5 * x[:, :3]], labels(x)))
    assert codes(told) == ["DATA502"]


# -- kinds of data ---------------------------------------------------------------------------------------------------


class Batches(keras.utils.PyDataset):
    """Batches that count how often they were asked for."""

    def __init__(self, x, y, size=16):
        super().__init__()
        self.x, self.y, self.size, self.asked, self.ended = x, y, size, [], 0

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        self.asked.append(index)
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]

    def on_epoch_end(self):
        self.ended += 1


def test_a_dataset_of_batches():
    healthy = Batches(features(), labels(features()))
    assert codes(look(ready(), healthy)) == []
    assert healthy.ended == 0
    assert codes(look(ready(), Batches(spoil(features(), 100, 2), labels(features())))) == ["DATA501"]


@pytest.mark.parametrize("form", [list, tuple])
def test_a_list_of_batches(form):
    x, y = features(), labels(features())
    given = [form((x[at : at + 16], y[at : at + 16])) for at in range(0, ROWS, 16)]
    assert codes(look(ready(), given)) == []
    given[5] = form((spoil(given[5][0], 1, 1), given[5][1]))
    assert codes(look(ready(), given)) == ["DATA501"]


def test_a_model_that_is_not_built_yet():
    def make():
        return keras.Sequential([layers.Dense(32, activation="relu"), layers.Dense(CLASSES)])

    assert codes(look(ready(make), (features(), labels(features())))) == []
    assert codes(look(ready(make), (features() * 300, labels(features())))) == ["DATA502"]


@tensorflow_only
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_dataset_of_tensorflow(shuffled):
    import tensorflow as tf

    def dataset(x):
        made = tf.data.Dataset.from_tensor_slices((x, labels(features())))
        return (made.shuffle(64, seed=3, reshuffle_each_iteration=False) if shuffled else made).batch(16)

    healthy = dataset(features())
    before = [x.numpy().tobytes() for x, _ in healthy]
    assert codes(look(ready(), healthy)) == []
    assert [x.numpy().tobytes() for x, _ in healthy] == before
    assert codes(look(ready(), dataset(spoil(features(), 100, 2)))) == ["DATA501"]


@tensorflow_only
def test_a_dataset_of_tensorflow_without_end():
    import tensorflow as tf

    made = tf.data.Dataset.from_tensor_slices((features(), labels(features()))).repeat().batch(16)
    assert codes(look(ready(), made, ignore=["DATA504"])) == []


def generator():
    yield features(), labels(features())


@pytest.mark.parametrize("given", [generator(), iter([]), [], (np.empty((0, 8)), np.empty(0)), (), None, 3])
def test_data_that_cannot_be_read_are_refused(given):
    with pytest.raises(ConfigurationError, match="data"):
        look(ready(), given)


def test_a_generator_is_told_what_to_do():
    given = generator()
    with pytest.raises(ConfigurationError, match="read only once"):
        look(ready(), given)
    assert len(list(given)) == 1


def test_a_model_that_is_not_compiled_is_refused():
    with pytest.raises(ConfigurationError, match="compile"):
        look(sequential(), (features(), labels(features())))


# -- steps that fail -------------------------------------------------------------------------------------------------


class Raises(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = layers.Dense(CLASSES)

    def call(self, x):
        self.head(x)
        raise RuntimeError("out of luck")


def test_a_model_that_raises_gives_a_report_with_a_note():
    model = ready(Raises)
    report = look(model, (spoil(features(), 5, 2), labels(features())))
    assert any("out of luck" in note for note in report.notes)
    assert codes(report) == ["DATA501"]


def test_inputs_of_the_wrong_width_give_a_note_in_one_line():
    report = look(ready(lambda: sequential(width=5)), (features(), labels(features())))
    assert report.notes[0].startswith("the model cannot be called: ")
    for note in report.notes:
        assert note.isprintable()
        assert len(note) < 250


def test_targets_of_the_wrong_shape_give_a_note():
    report = look(ready(lambda: sequential(3), "mse"), (features(), features()[:, :2]))
    assert report.notes


# -- own steps -------------------------------------------------------------------------------------------------------


def test_a_loss_of_one_s_own():
    def own(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    assert codes(look(ready(lambda: sequential(1), own), (features(), features()[:, :1]))) == []


def test_a_model_with_its_own_loss_function():
    class Own(Subclassed):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            y = ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), CLASSES)
            return ops.mean(ops.square(ops.softmax(y_pred) - y))

    model = ready(Own)
    look(model, (features(), labels(features())))
    before = trace(model)
    assert codes(look(model, (features(), labels(features())))) == []
    assert codes(look(model, (features() * 300, labels(features())))) == ["DATA502"]
    assert same(trace(model), before)


@pytest.mark.parametrize("mode", [{"run_eagerly": True}, {"jit_compile": False}])
def test_modes_of_compilation(mode):
    assert codes(look(ready(**mode), (features() * 300, labels(features())))) == ["DATA502"]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_size_of_batches_is_free(size):
    assert codes(look(ready(), (features(), labels(features())), batch_size=size)) == []


@tensorflow_only
def test_a_model_that_takes_text_is_looked_over():
    words = np.array([["good film"], ["bad film"], ["fine"], ["awful thing"]] * 16)
    vectors = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=4)
    vectors.adapt(words)
    inputs = keras.layers.Input((1,), dtype="string")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(20, 8)(vectors(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(hidden))
    model.compile("adam", "binary_crossentropy")
    labels = np.array([1, 0, 1, 0] * 16)

    report = nan_callbacks.checkup(model, [(words[:32], labels[:32])], strict=True)

    assert [notice for notice in report if notice.severity > Severity.INFO] == []
    assert report.notes == ()


# -- divisors --------------------------------------------------------------------------------------------------------


def divided_by(make):
    """Codes of a loss that divides by what is made of the outputs."""

    def loss(y_true, y_pred):
        return ops.sum(ops.square(y_true - y_pred), axis=-1) / make(y_pred)

    report = look(ready(loss=loss), (features(), np.abs(features(ROWS, CLASSES)) + 0.1))
    return codes(report, Severity.INFO)


def test_counts_are_no_hazard_as_divisors():
    counts = {
        "elements": lambda out: ops.cast(ops.sum(ops.cast(out > -100, "int32"), axis=-1), "float32"),
        "ones": lambda out: ops.sum(ops.ones_like(out), axis=-1),
    }
    assert [name for name, make in counts.items() if "NAN112" in divided_by(make)] == []


def test_sums_are_hazards_as_divisors():
    assert "NAN112" in divided_by(lambda out: ops.sum(ops.square(out), axis=-1))
