"""Learning rates, precisions and penalties at the edge of what works."""

import keras
import numpy as np

from benchmarks.healthy_keras.images import LABELS, classifier, digits
from benchmarks.healthy_keras.registry import Fit, compiled, healthy_run

layers = keras.layers
schedules = keras.optimizers.schedules


@healthy_run("a learning rate ten times the usual one, reached by a warm-up")
def high_rate_after_warm_up(generator: np.random.Generator) -> list[Fit]:
    rate = schedules.CosineDecay(0.0, 400, warmup_target=0.01, warmup_steps=60)
    model = classifier(layers.Dense(64, activation="relu"), layers.LayerNormalization())
    optimizer = keras.optimizers.AdamW(rate, clipnorm=1.0)
    return [Fit(compiled(model, optimizer, LABELS), *digits(), {"epochs": 8})]


@healthy_run("the learning rate jumps back to its start every so often")
def cosine_restarts(generator: np.random.Generator) -> list[Fit]:
    rate = schedules.CosineDecayRestarts(0.1, 60)
    model = classifier(layers.Dense(64, activation="relu"))
    optimizer = keras.optimizers.SGD(rate, momentum=0.9)
    return [Fit(compiled(model, optimizer, LABELS), *digits(), {"epochs": 10})]


@healthy_run("activations of eight bits of precision")
def bfloat16(generator: np.random.Generator) -> list[Fit]:
    policy = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier(layers.Dense(64, activation="relu"), layers.Dense(64, activation="relu"))
    finally:
        keras.mixed_precision.set_dtype_policy(policy)
    return [Fit(compiled(model, keras.optimizers.Adam(1e-3), LABELS), *digits(), {"epochs": 8})]


@healthy_run("a penalty that is larger than the loss and shrinks all weights at first")
def strong_penalty(generator: np.random.Generator) -> list[Fit]:
    penalty = keras.regularizers.L2(0.05)
    model = classifier(
        layers.Dense(128, activation="relu", kernel_regularizer=penalty),
        layers.Dense(64, activation="relu", kernel_regularizer=penalty),
    )
    return [Fit(compiled(model, keras.optimizers.Adam(1e-3), LABELS), *digits(), {"epochs": 8})]


@healthy_run("batches of four: gradients that vary by a factor of a hundred")
def tiny_batches(generator: np.random.Generator) -> list[Fit]:
    model = classifier(layers.Dense(32, activation="tanh"))
    options = {"epochs": 2, "batch_size": 4}
    return [Fit(compiled(model, keras.optimizers.SGD(0.05), LABELS), *digits(), options)]
