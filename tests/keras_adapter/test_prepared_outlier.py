"""A sample that the model's own normalisation makes huge: the sample is to blame, and not its label."""

import keras
import numpy as np
from keras import layers

from nan_callbacks.diagnosis.diagnosis import Confidence
from nan_callbacks.keras import NaNGuard

ROWS, AT, ROW = 16, 28, 6


def test_a_feature_that_was_constant_where_a_normalisation_was_adapted(capsys):
    generator = np.random.default_rng(1)
    x = generator.uniform(-1.0, 1.0, size=(32 * ROWS, 5)).astype("float32")
    y = (x @ generator.normal(size=5) > 0).astype("int32")
    x[:, 0] = 0.0
    norm = layers.Normalization()
    norm.adapt(x)
    at = AT * ROWS + ROW
    x[at, 0] = 0.5
    keras.utils.set_random_seed(3)
    model = keras.Sequential([layers.Input((5,)), norm, layers.Dense(8, "relu", name="hidden"), layers.Dense(2)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    graph = {"jit_compile": False} if keras.backend.backend() == "tensorflow" else {}
    model.compile(keras.optimizers.Adam(3e-3), loss, **graph)
    # The wrong one: a huge score for the right class does no harm.
    y[at] = 1 - np.argmax(keras.ops.convert_to_numpy(model(x[at : at + 1])))
    guard = NaNGuard(strict=True, checkup=False)

    model.fit(x, y, batch_size=ROWS, shuffle=False, verbose=0, callbacks=[guard])

    (incident,) = guard.incidents
    assert (incident.code, incident.step) == ("GRAD201", AT)
    assert incident.diagnosis.guilty_rows == (ROW,)
    cause = incident.diagnosis.cause
    assert (cause.code, cause.confidence) == ("DATA503", Confidence.CONFIRMED)
    assert "hidden receives it, of sample 6 is" in cause.because[0]
    assert "DATA504" not in [each.code for each in incident.diagnosis.verdicts]
