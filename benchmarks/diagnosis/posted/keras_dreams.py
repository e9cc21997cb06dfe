"""Models in Keras that make or compare pictures: diffusion, a flow, contrast, a quantised mixer, two that duel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import KerasRun, enter, healthy, non_finite
from benchmarks.diagnosis.tables import digits, regression

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN112 ----------------------------------------------------------------------------------------------------------


def cosine_schedule(steps: int) -> np.ndarray:
    """Share of the signal that is left after each step; nothing is left after the last one."""
    angle = np.linspace(0, np.pi / 2, steps + 1)[1:]
    left = np.cos(angle) ** 2
    left[-1] = 0.0
    return left.astype("float32")


class MinSNR(keras.losses.Loss):
    """Squared error of the noise, weighted by the clipped ratio of signal and noise; the last column is that share."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        noise, left = y_true[:, :-1], y_true[:, -1]
        ratio = left / (1 - left)
        weight = ops.minimum(ratio, 5.0) / ratio
        return ops.mean(weight * ops.mean(ops.square(noise - y_pred), axis=-1))


def noisy_pictures() -> Iterator[Any]:
    """Digits with noise of a step that is drawn for each of them."""
    rng, left = np.random.default_rng(2501), cosine_schedule(1000)
    pictures = 2 * digits(1280)[0] - 1
    for number in range(40):
        moment = rng.integers(0, 999, 32)
        if number == 32:
            moment[[2, 21]] = 999
        noise = rng.normal(size=(32, 64)).astype("float32")
        share = left[moment][:, None]
        shown = np.sqrt(share) * pictures[number * 32 : number * 32 + 32] + np.sqrt(1 - share) * noise
        yield (shown, moment[:, None] / np.float32(1000)), np.concatenate([noise, share], axis=1)


@enter(
    non_finite("NAN112", "divide", "weight = ops.minimum(ratio, 5.0) / ratio", modules=("",), rows=(2, 21)),
    "https://github.com/TiankaiHang/Min-SNR-Diffusion-Training/pull/4",
    "https://github.com/lucidrains/recurrent-interface-network-pytorch/issues/11",
)
def last_step_is_nothing_but_noise() -> KerasRun:
    """Diffusion with a schedule that ends at no signal at all; the weight of its last step is 0 / 0."""
    shown, moment = keras.Input((64,)), keras.Input((1,))
    hidden = layers.Dense(64, activation="silu")(layers.Concatenate()([shown, moment]))
    hidden = layers.LayerNormalization()(hidden + layers.Dense(64)(moment))
    model = keras.Model([shown, moment], layers.Dense(64)(layers.Dense(64, activation="silu")(hidden)))
    model.compile(optimizer=keras.optimizers.AdamW(2e-3), loss=MinSNR())
    return KerasRun(model, noisy_pictures(), None, {"steps_per_epoch": 40})


class SupervisedContrast(keras.losses.Loss):
    """Pulls embeddings of the same class together, and all others apart."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        near = ops.matmul(y_pred, ops.transpose(y_pred)) / 0.2
        others = 1 - ops.eye(y_pred.shape[0] or ops.shape(y_pred)[0])
        total = ops.log(ops.sum(others * ops.exp(near), axis=1, keepdims=True))
        same = others * ops.cast(y_true[:, None] == y_true[None], "float32")
        return -ops.mean(ops.sum(same * (near - total), axis=1) / ops.sum(same, axis=1))


@enter(
    non_finite("NAN112", "divide", "return -ops.mean(ops.sum(same * (near - total)", modules=("",), rows=(6,)),
    "https://github.com/HobbitLong/SupContrast/issues/141",
    "https://github.com/HobbitLong/SupContrast/issues/50",
    "https://github.com/HobbitLong/SupContrast/pull/86",
)
def only_child_of_its_batch() -> KerasRun:
    """Supervised contrast averages over the others of the same class; once a class has no other in its batch."""
    images, labels = digits(1700)
    rng = np.random.default_rng(2502)
    kinds = [np.flatnonzero(labels == kind) for kind in range(10)]
    chosen = [rng.choice(kinds[kind], 8, replace=False) for _ in range(40) for kind in rng.choice(10, 4, replace=False)]
    rows = np.stack(chosen).reshape(40, 32)
    present = set(labels[rows[29]])
    rows[29, 6] = next(row for row, kind in enumerate(labels) if kind not in present)
    rows = rows.reshape(-1)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, activation="relu"),
            layers.Dense(12),
            layers.UnitNormalization(),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=SupervisedContrast())
    return KerasRun(model, images[rows].reshape(-1, 8, 8, 1), labels[rows].astype("int32"), FIT)


class EightBits(layers.Layer):
    """Rounds each token to eight bits of its own largest value; the gradient passes straight through."""

    def call(self, x: Any) -> Any:
        scale = ops.max(ops.abs(x), axis=-1, keepdims=True) / 127.0
        return x + ops.stop_gradient(ops.round(x / scale) * scale - x)


@enter(
    non_finite("NAN112", "divide", "return x + ops.stop_gradient(ops.round(x / scale)", modules=("bits",), rows=(14,)),
    "https://github.com/microsoft/BitNet/pull/123",
    "https://github.com/vipshop/cache-dit/pull/1097",
    "https://github.com/onnx/onnx/pull/8438",
)
def strip_without_any_ink() -> KerasRun:
    """Training for eight bits: each strip of a picture is scaled by its own maximum, and one strip is blank."""
    images, labels = digits(1280)
    images = np.maximum(images.reshape(-1, 8, 8), 0.03)
    images[33 * 32 + 14, 5] = 0
    inputs = keras.Input((8, 8))
    strips = layers.Dense(24, activation="relu", use_bias=False)(EightBits(name="bits")(inputs))
    mixed = layers.Permute((2, 1))(layers.Dense(8, activation="gelu")(layers.Permute((2, 1))(strips)))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(layers.LayerNormalization()(strips + mixed))))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss)
    return KerasRun(model, images.astype("float32"), labels, FIT)


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Coupling(layers.Layer):
    """One half of the features scales and moves the other; the logarithm of the volume goes into the loss."""

    def __init__(self, flip: bool, **more: Any) -> None:
        super().__init__(**more)
        self.flip = flip
        self.net = keras.Sequential([layers.Dense(16, activation="relu"), layers.Dense(8, kernel_initializer="zeros")])

    def call(self, x: Any) -> Any:
        kept, moved = ops.split(x, 2, axis=-1)
        if self.flip:
            kept, moved = moved, kept
        log_scale, shift = ops.split(self.net(kept), 2, axis=-1)
        self.add_loss(-ops.mean(ops.sum(log_scale, axis=-1)))
        moved = moved * ops.exp(log_scale) + shift
        return ops.concatenate([moved, kept] if self.flip else [kept, moved], axis=-1)


def half_squares(y_true: Any, y_pred: Any) -> Any:
    """Negative logarithm of a standard normal density, without its constant."""
    return 0.5 * ops.sum(ops.square(y_pred), axis=-1)


@enter(
    non_finite(
        ("NAN110", "DATA503"),
        ("exp", "multiply", "square", "power"),
        None,
        modules=None,
        rows=(10,),
    ),
    "https://github.com/VincentStimper/normalizing-flows/issues/47",
    "https://github.com/taesungp/real-nvp/issues/1",
)
def station_that_reports_minus_9999() -> KerasRun:
    """A flow of four couplings with exp of an unbounded scale; one station wrote -9999 for what it did not measure."""
    weather = regression(1600, seed=2503)[0][:, :8].copy()
    weather[:, 4:] = 0.6 * weather[:, 4:] + 0.5 * np.sin(2 * weather[:, :4])
    weather[37 * 32 + 10, 2] = -9999.0
    flow = [Coupling(bool(number % 2), name=f"coupling_{number}") for number in range(4)]
    model = keras.Sequential([keras.Input((8,)), *flow])
    model.compile(optimizer=keras.optimizers.Adam(4e-3), loss=half_squares)
    return KerasRun(model, weather, np.zeros((1600, 1), "float32"), FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


class Duel(keras.Model):
    """A generator of points and its critic, under hinge losses; both steps by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = keras.Sequential([keras.Input((4,)), layers.Dense(32, activation="relu"), layers.Dense(2)])
        self.critic = keras.Sequential(
            [keras.Input((2,)), layers.Dense(32, activation="leaky_relu"), layers.Dense(32), layers.Dense(1)]
        )
        self.seeds = keras.random.SeedGenerator(3)

    def compile(self, **more: Any) -> None:
        super().compile(**more)
        self.second = keras.optimizers.Adam(1e-3, beta_1=0.5)
        self.second.build(self.critic.trainable_variables)

    def call(self, x: Any) -> Any:
        return self.critic(x)

    def train_step(self, data: Any) -> dict[str, Any]:
        (real,) = data if isinstance(data, tuple) else (data,)
        made = self.maker(keras.random.normal((real.shape[0], 4), seed=self.seeds))
        against = ops.mean(ops.relu(1 - self.critic(real))) + ops.mean(ops.relu(1 + self.critic(made.detach())))
        self._step(against, self.critic.trainable_variables, self.second)
        wish = -ops.mean(self.critic(made))
        self._step(wish, self.maker.trainable_variables, self.optimizer)
        self._loss_tracker.update_state(against.detach())
        return {"loss": self._loss_tracker.result()}

    def _step(self, loss: Any, variables: list[Any], optimizer: Any) -> None:
        self.zero_grad()
        loss.backward()
        optimizer.apply([variable.value.grad for variable in variables], variables)


@enter(
    healthy(),
    "https://github.com/eriklindernoren/Keras-GAN/issues/148",
    "https://github.com/david-gpu/srez/issues/17",
    backends=("torch",),
)
def maker_and_critic() -> KerasRun:
    """Hinge losses of a generator and its critic with steps of their own: what one wins the other loses."""
    rng = np.random.default_rng(2506)
    turn = rng.uniform(0, 6.28, (3200, 1))
    ring = np.concatenate([np.cos(turn), np.sin(turn)], axis=1) + 0.05 * rng.normal(size=(3200, 2))
    model = Duel()
    model.compile(optimizer=keras.optimizers.Adam(1e-3, beta_1=0.5))
    return KerasRun(model, ring.astype("float32"), None, {**FIT, "batch_size": 64})
