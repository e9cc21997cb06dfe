"""What the checkup tells of inputs whose columns are looked up in tables of their own."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import nan_callbacks
from nan_callbacks.core.finding import Severity

SIZES = (3, 9, 20)
ROWS = 64


def functional(sizes=SIZES):
    x = keras.Input((len(sizes),), dtype="int32")
    looked_up = [layers.Embedding(size, 4, name=f"table{at}")(x[:, at]) for at, size in enumerate(sizes)]
    return keras.Model(x, layers.Dense(1)(layers.Concatenate()(looked_up)))


class Subclassed(keras.Model):
    def __init__(self, sizes=SIZES):
        super().__init__()
        self.tables = [layers.Embedding(size, 4, name=f"table{at}") for at, size in enumerate(sizes)]
        self.head = layers.Dense(1)

    def call(self, x):
        return self.head(ops.concatenate([table(x[:, at]) for at, table in enumerate(self.tables)], 1))


def shared_table():
    x = keras.Input((len(SIZES),), dtype="int32")
    table = layers.Embedding(max(SIZES), 4, name="table")
    return keras.Model(x, layers.Dense(1)(layers.Concatenate()([table(x[:, at]) for at in range(len(SIZES))])))


def columns(bad=None):
    """Indices of three columns, each within its own table, or one of them not."""
    generator = np.random.default_rng(0)
    x = np.stack([generator.integers(0, size, ROWS) for size in SIZES], 1)
    if bad is not None:
        x[::5, bad] = SIZES[bad] + 4
    return x, generator.standard_normal((ROWS, 1)).astype("float32")


def look(make, given):
    keras.utils.set_random_seed(0)
    model = make()
    model.compile("adam", "mse")
    return nan_callbacks.checkup(model, given, strict=True)


@pytest.mark.parametrize("make", [functional, Subclassed, shared_table])
def test_one_table_per_column_is_healthy(make):
    report = look(make, columns())
    assert [each for each in report if each.severity >= Severity.WARNING] == [], report.describe()
    assert report.notes == ()


@pytest.mark.parametrize("bad", range(len(SIZES)))
@pytest.mark.parametrize("make", [functional, Subclassed])
def test_an_index_beyond_the_table_of_its_column_is_told(make, bad):
    report = look(make, columns(bad))
    (notice,) = (each for each in report if each.code == "DATA511")
    assert notice.where == "x"
    assert f"table{bad} has {SIZES[bad]} rows" in notice.evidence[0]


def test_columns_after_a_layer_that_changes_them_are_judged_by_what_arrives():
    def make():
        words = keras.Input((12,), dtype="int32")
        folded = layers.Lambda(lambda x: x % 7, output_shape=(12,))(words)
        return keras.Model(words, layers.Dense(1)(layers.Flatten()(layers.Embedding(7, 4)(folded))))

    words = np.random.default_rng(0).integers(0, 500, (ROWS, 12))
    report = look(make, (words, columns()[1]))
    assert "DATA511" not in {each.code for each in report}, report.describe()


def test_the_input_with_an_index_beyond_its_table_is_named():
    def make():
        one, other = keras.Input((3,), dtype="int32", name="one"), keras.Input((12,), dtype="int32", name="other")
        parts = [layers.Embedding(size, 4)(one[:, at]) for at, size in enumerate(SIZES)]
        parts.append(layers.GlobalAveragePooling1D()(layers.Embedding(50, 4, name="words")(other)))
        return keras.Model({"one": one, "other": other}, layers.Dense(1)(layers.Concatenate()(parts)))

    x, y = columns()
    report = look(make, ({"one": x, "other": np.random.default_rng(0).integers(0, 70, (ROWS, 12))}, y))
    (notice,) = (each for each in report if each.code == "DATA511")
    assert "other" in notice.where
    assert "words" in notice.evidence[0]
