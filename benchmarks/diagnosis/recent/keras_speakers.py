"""Words, voices and tastes in Keras: documents, speakers, tags, films, articles of a shop."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class ShareOfTopics(layers.Layer):
    """Scores to shares that sum to one."""

    def call(self, scores: Any) -> Any:
        strength = ops.exp(scores)
        return strength / ops.sum(strength, axis=-1, keepdims=True)


@enter(
    non_finite(("NAN110", "DATA503"), "exp", "strength = ops.exp(scores)", modules=("topics",), rows=(19,)),
    "https://stackoverflow.com/questions/34968722/how-to-implement-the-softmax-function-in-python",
    "https://keras.io/api/layers/activations/",
)
def document_that_is_a_whole_book() -> KerasRun:
    """Counts of words to topics, with a softmax written by hand; among the articles there is one whole book."""
    rng = np.random.default_rng(3401)
    topic = rng.integers(0, 5, 1280)
    usual = rng.dirichlet(np.full(60, 0.2), 5)
    counts = np.stack([rng.multinomial(8, usual[kind]) for kind in topic]).astype("float32")
    counts[35 * 32 + 19] = rng.multinomial(80_000, usual[topic[35 * 32 + 19]])
    model = keras.Sequential(
        [
            keras.Input((60,)),
            layers.Dense(24, activation="relu"),
            layers.Dense(5),
            ShareOfTopics(name="topics"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, counts, topic, FIT)


# -- Indices and labels ----------------------------------------------------------------------------------------------


def _unknown_article(*errors: str) -> Truth:
    return Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=errors, rows=None)


@enter(
    _unknown_article("IndexError", "RuntimeError"),
    "https://github.com/TannerGilbert/Tutorials/issues/1",
    "https://github.com/keras-team/keras/issues/13097",
    by_backend={
        "tensorflow": _unknown_article("InvalidArgumentError"),
        "jax": Truth(happens=Happens.NON_FINITE, causes=("DATA511",), rows=None),
    },
)
def article_added_after_the_export() -> KerasRun:
    """Two towers of a shop; an article was added after the catalogue had been counted, and its number is too high."""
    rng = np.random.default_rng(3402)
    who, what = rng.integers(0, 80, (1280, 1)), rng.integers(0, 50, (1280, 1))
    taste, kind = rng.normal(size=(80, 3)), rng.normal(size=(50, 3))
    bought = ((taste[who[:, 0]] * kind[what[:, 0]]).sum(1) > 0).astype("float32")
    what[31 * 32 + 10] = 50
    buyer, article = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    left = layers.Dense(8)(layers.Flatten()(layers.Embedding(80, 12, name="buyers")(buyer)))
    right = layers.Dense(8)(layers.Flatten()(layers.Embedding(50, 12, name="articles")(article)))
    model = keras.Model([buyer, article], layers.Dense(1, activation="sigmoid")(layers.Dot(1)([left, right])))
    model.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
    return KerasRun(model, [who.astype("int32"), what.astype("int32")], bought, FIT)


@enter(
    finite(Happens.STALL, "DATA508", rows=None),
    "https://github.com/keras-team/keras/issues/4784",
    "https://keras.io/api/losses/probabilistic_losses/",
)
def speakers_compared_by_their_number() -> KerasRun:
    """Six speakers by a softmax, a squared error, and labels that are numbers from 0 to 5 and not one-hot."""
    rng = np.random.default_rng(3403)
    speaker = rng.integers(0, 6, 1280)
    voice = rng.normal(size=(6, 13))
    frames = voice[speaker][:, None] + 0.5 * rng.normal(size=(1280, 16, 13))
    inputs = keras.Input((16, 13))
    heard = layers.Bidirectional(layers.GRU(12))(inputs)
    model = keras.Model(inputs, layers.Dense(6, activation="softmax")(layers.Dense(16, activation="relu")(heard)))
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="mse", metrics=["mae"])
    return KerasRun(model, frames.astype("float32"), speaker.astype("float32")[:, None], FIT)


# -- Gradients that vanish --------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "GRAD202", rows=None),
    "https://stackoverflow.com/questions/46298793/how-does-choosing-between-pre-and-post-zero-padding-of-sequences-impact-results",
    "https://keras.io/guides/understanding_masking_and_padding/",
)
def words_padded_to_the_right() -> KerasRun:
    """Reviews of eight words, padded with zeros to 100 on their right, and a recurrent layer whose end is read."""
    rng = np.random.default_rng(3404)
    words = rng.integers(1, 50, (1000, 8))
    worth = np.where(np.arange(50) % 2, 1.0, -1.0)
    label = (worth[words].sum(1) + 0.1 * rng.normal(size=1000) > 0).astype("float32")[:, None]
    padded = np.zeros((1000, 100), "int32")
    padded[:, :8] = words
    model = keras.Sequential(
        [
            keras.Input((100,), dtype="int32"),
            layers.Embedding(50, 12),
            layers.SimpleRNN(16, recurrent_initializer="glorot_uniform"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    return KerasRun(model, padded, label, {**FIT, "batch_size": 40})


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304"), rows=None),
    "https://stackoverflow.com/questions/20027598/why-should-weights-of-neural-networks-be-initialized-to-random-numbers",
    "https://keras.io/api/layers/initializers/",
)
def tastes_that_begin_at_zero() -> KerasRun:
    """Factors of users and of films both begin at zero; each is the other's gradient, so none of them ever moves."""
    rng = np.random.default_rng(3406)
    who, what = rng.integers(0, 60, (1920, 1)), rng.integers(0, 40, (1920, 1))
    taste, kind = rng.normal(size=(60, 2)), rng.normal(size=(40, 2))
    stars = (taste[who[:, 0]] * kind[what[:, 0]]).sum(1, keepdims=True)
    user, film = keras.Input((1,), dtype="int32"), keras.Input((1,), dtype="int32")
    users = layers.Flatten()(layers.Embedding(60, 8, embeddings_initializer="zeros", name="users")(user))
    films = layers.Flatten()(layers.Embedding(40, 8, embeddings_initializer="zeros", name="films")(film))
    model = keras.Model([user, film], layers.Dot(axes=1)([users, films]))
    model.compile(optimizer=keras.optimizers.Adam(2e-2), loss="mse")
    return KerasRun(model, [who.astype("int32"), what.astype("int32")], stars.astype("float32"), FIT)


class Encoder(layers.Layer):
    """Mean of the words, and a layer on top; what leaves it was to be kept from the gradient of another task."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.words = layers.Embedding(80, 8)
        self.inner = layers.Dense(8, activation="tanh")

    def call(self, x: Any) -> Any:
        return ops.stop_gradient(self.inner(ops.mean(self.words(x), axis=1)))


@enter(
    finite(Happens.STALL, ("GRAD202", "OPT602"), rows=None),
    "https://keras.io/api/ops/core/",
    "https://www.tensorflow.org/api_docs/python/tf/stop_gradient",
)
def encoder_behind_a_stopped_gradient() -> KerasRun:
    """Intents of short questions; a stop_gradient that was meant for another task cuts off the encoder."""
    rng = np.random.default_rng(3407)
    intent = rng.integers(0, 8, 1280)
    words = np.where(rng.random((1280, 9)) < 0.5, 10 * intent[:, None], 0) + rng.integers(0, 10, (1280, 9))
    inputs = keras.Input((9,), dtype="int32")
    model = keras.Model(inputs, layers.Dense(8, activation="softmax")(Encoder(name="encoder")(inputs)))
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="sparse_categorical_crossentropy")
    return KerasRun(model, words.astype("int32"), intent, FIT)
