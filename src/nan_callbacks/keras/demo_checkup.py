"""The demo's checkup in Keras."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from nan_callbacks.checkup.notice import CheckupReport
from nan_callbacks.demo.before_the_start import SetUp
from nan_callbacks.keras.checkup import checkup


def look_over(set_up: SetUp) -> CheckupReport:
    """The checkup's report; see :data:`nan_callbacks.demo.before_the_start.LookOver`."""
    keras.utils.set_random_seed(0)

    def dense(units: int, activation: str | None = None) -> Any:
        std = set_up.weight_std
        drawn = keras.initializers.GlorotUniform() if std is None else keras.initializers.RandomNormal(stddev=std)
        return layers.Dense(units, activation, kernel_initializer=drawn)

    model = keras.Sequential([layers.Input((13,)), dense(32, "tanh"), dense(32, "tanh"), dense(3)])
    model.compile(keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return checkup(model, (set_up.features, set_up.labels), strict=True)
