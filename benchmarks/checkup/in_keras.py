"""Builds set-ups for Keras, on the backend of this process."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.checkup.set_up import Net, SetUp
from nan_callbacks import checkup


class Own(layers.Layer):
    """An operation that somebody wrote by hand."""

    def __init__(self, operation: str) -> None:
        super().__init__()
        self.operation = operation

    def call(self, out: Any) -> Any:
        if self.operation == "log_of_softmax":
            return ops.log(ops.softmax(out))
        if self.operation == "divide_by_norm":
            return out / ops.norm(out, axis=1, keepdims=True)
        if self.operation == "divide_by_norm_safely":
            return out / ops.maximum(ops.norm(out, axis=1, keepdims=True), 1e-6)
        if self.operation == "square_root_of_rectified":
            return ops.sqrt(ops.relu(out))
        return ops.exp(30 * ops.abs(out) + 60)


def _first(net: Net, x: np.ndarray, tensor: Any) -> Any:
    if net.first == "rescaling":
        return layers.Rescaling(1 / 255)(tensor)
    if net.first == "standardise":
        normalise = layers.Normalization(axis=-1)
        normalise.adapt(x)
        return normalise(tensor)
    return layers.BatchNormalization()(tensor) if net.first == "batch_norm" else tensor


def _initializer(net: Net) -> Any:
    init = keras.initializers
    made = {
        "zeros": init.Zeros(), "equal": init.Constant(0.05), "orthogonal": init.Orthogonal(seed=0),
        "tiny": init.VarianceScaling(1e-4, seed=0), "huge": init.VarianceScaling(900.0, seed=0),
    }  # fmt: skip
    return made.get(net.init, init.GlorotUniform(seed=1))


def _body(net: Net, tensor: Any) -> Any:
    dense: dict[str, Any] = {"kernel_initializer": _initializer(net)}
    if net.init == "negative_bias":
        dense["bias_initializer"] = keras.initializers.Constant(-30.0)
    if net.kind == "lstm":
        tensor = layers.Embedding(net.tokens, 16)(tensor) if net.tokens else tensor
        return layers.LSTM(net.hidden[0])(tensor)
    if net.kind in ("embedding", "transformer"):
        tensor = layers.Embedding(net.tokens, net.hidden[0])(tensor)
        if net.kind == "transformer":
            tensor = layers.LayerNormalization()(tensor + layers.MultiHeadAttention(4, 8)(tensor, tensor))
        return layers.GlobalAveragePooling1D()(tensor)
    for wide in net.hidden:
        if net.kind == "residual":
            tensor = layers.Dense(wide, **dense)(tensor) if tensor.shape[-1] != wide else tensor
            inner = layers.Dense(wide, net.activation, **dense)(layers.LayerNormalization()(tensor))
            tensor = tensor + layers.Dense(wide, **dense)(inner)
            continue
        make = layers.Conv2D(wide, 3, padding="same", **dense) if net.kind == "cnn" else layers.Dense(wide, **dense)
        tensor = make(tensor)
        if net.normalised:
            tensor = (layers.BatchNormalization() if net.kind == "cnn" else layers.LayerNormalization())(tensor)
        tensor = layers.Activation(net.activation)(tensor)
    return layers.GlobalAveragePooling2D()(tensor) if net.kind == "cnn" else tensor


def _model(spec: SetUp) -> Any:
    net = spec.net
    inputs = layers.Input(spec.x.shape[1:], dtype="int32" if net.tokens else "float32")
    tensor = _body(net, _first(net, spec.x, inputs))
    last = "zeros" if net.init == "zero_last" else _initializer(net)
    final = {"": None, "log_softmax": "log_softmax"}.get(net.final, net.final)
    outputs = layers.Dense(net.outputs, activation=final, kernel_initializer=last)(tensor)
    outputs = Own(net.operation)(outputs) if net.operation else outputs
    model = keras.Model(inputs, outputs)
    if net.frozen:
        for layer in model.layers[:-1]:
            layer.trainable = False
    return model


def _loss(spec: SetUp) -> Any:
    logits, losses = spec.takes == "logits", keras.losses
    made = {
        "cross_entropy": lambda: losses.SparseCategoricalCrossentropy(from_logits=logits),
        "soft_cross_entropy": lambda: losses.CategoricalCrossentropy(from_logits=logits),
        "binary": lambda: losses.BinaryCrossentropy(from_logits=logits),
        "squared": losses.MeanSquaredError,
        "absolute": losses.MeanAbsoluteError,
        "poisson": losses.Poisson,
    }
    return made[spec.loss]()


def look(spec: SetUp) -> Any:
    """The checkup's report."""
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("float16" if spec.precision == "float16" else "float32")
    try:
        model = _model(spec)
        optimizer = {"adam": keras.optimizers.Adam, "sgd": keras.optimizers.SGD}[spec.optimizer](spec.rate)
        model.compile(optimizer, _loss(spec))
        rows = math.ceil(len(spec.x) / spec.batch) * spec.batch
        return checkup(model, (spec.x[:rows], spec.y[:rows]), batch_size=spec.batch, strict=True)
    finally:
        keras.config.set_dtype_policy("float32")
