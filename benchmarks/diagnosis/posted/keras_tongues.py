"""Text in Keras: taggers, transformers, tags, padding that attention should not see, a small language model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis.program import Happens, KerasRun, Truth, enter, finite, healthy, non_finite

FIT: dict[str, Any] = {"batch_size": 32, "epochs": 1, "shuffle": False}


# -- NAN110 ----------------------------------------------------------------------------------------------------------


class Transitions(layers.Layer):
    """A linear chain over tags: scores of words in, the likelihood of the given tags is added to the loss."""

    def build(self, *shapes: Any) -> None:
        self.steps = self.add_weight(shape=(4, 4), initializer="zeros", name="steps")

    def call(self, scores: Any, tags: Any) -> Any:
        given = ops.one_hot(tags, 4)
        along = ops.einsum("nti,ij,ntj->nt", given[:, :-1], self.steps, given[:, 1:])
        path = ops.sum(given * scores, axis=(1, 2)) + ops.sum(along, axis=1)
        self.add_loss(ops.mean(ops.log(self.partition(scores)) - path))
        return scores

    def partition(self, scores: Any) -> Any:
        """The sum over all paths, by the forward recursion."""
        factors, jumps = ops.exp(scores), ops.exp(self.steps)
        alpha = factors[:, 0]
        for step in range(1, scores.shape[1]):
            alpha = ops.matmul(alpha, jumps) * factors[:, step]
        return ops.sum(alpha, axis=1)


def sentences() -> Iterator[Any]:
    """Batches of words and tags: sentences of 9 words, and paragraphs of 45 that nobody has split."""
    rng = np.random.default_rng(2201)
    meaning = rng.integers(0, 4, 60)
    for number in range(44):
        length = 45 if number >= 31 else 9
        words = rng.integers(0, 60, (16, length))
        slips = rng.random((16, length)) < 0.05
        tags = np.where(slips, rng.integers(0, 4, (16, length)), meaning[words])
        yield ((words.astype("int32"), tags.astype("int32")),)


class Tagger(keras.Model):
    """Embedding, a look at the neighbours, and a chain over the tags."""

    def __init__(self) -> None:
        super().__init__()
        self.words = layers.Embedding(60, 12)
        self.reader = layers.Conv1D(16, 3, padding="same", activation="gelu")
        self.scores = layers.Dense(4)
        self.chain = Transitions(name="chain")

    def call(self, told: Any) -> Any:
        words, tags = told
        return self.chain(self.scores(self.reader(self.words(words))), tags)


@enter(
    non_finite(
        "NAN110",
        ("multiply", "matmul", "sum"),
        ("alpha = ops.matmul(alpha, jumps) * factors", "return ops.sum(alpha, axis=1)"),
        modules=("chain",),
        rows=None,
    ),
    "https://github.com/apache/mxnet/issues/13329",
    "https://github.com/candle-org/MindAct/issues/171",
    "https://github.com/timvieira/crf/issues/5",
    backends=("jax", "torch"),
)
def paragraph_that_was_not_split() -> KerasRun:
    """A random field sums over its paths without logarithms; paragraphs of 45 words have too many of them."""
    model = Tagger()
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    return KerasRun(model, sentences(), None, {"steps_per_epoch": 44})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class Pointer(layers.Layer):
    """Attention of a question over the sentences of a text, of which some may be padding."""

    def call(self, question: Any, text: Any, there: Any) -> Any:
        scores = ops.einsum("nd,ntd->nt", question, text) / ops.sqrt(1.0 * text.shape[-1])
        scores = ops.where(there, scores, -np.inf)
        return ops.einsum("nt,ntd->nd", ops.softmax(scores, axis=-1), text)


@enter(
    non_finite(
        ("NAN112", "NAN114"), "softmax", "ops.softmax(scores, axis=-1), text)", modules=("pointer",), rows=(5, 22)
    ),
    "https://github.com/pytorch/pytorch/pull/131060",
    "https://github.com/microsoft/Graphormer/issues/141",
)
def question_without_a_text() -> KerasRun:
    """Retrieval found nothing for two questions: every sentence is masked, and all scores are minus infinity."""
    rng = np.random.default_rng(2202)
    asked = rng.normal(size=(1280, 12)).astype("float32")
    text = rng.normal(size=(1280, 9, 12)).astype("float32")
    there = np.arange(9) < rng.integers(2, 10, (1280, 1))
    there[[29 * 32 + 5, 29 * 32 + 22]] = False
    answer = (asked[:, :1] * text[:, 0, :1] + text[:, 1, 1:2] > 0).astype("float32")
    question, passages = keras.Input((12,)), keras.Input((9, 12))
    mask = keras.Input((9,), dtype="bool")
    found = Pointer(name="pointer")(layers.Dense(16)(question), layers.Dense(16)(passages), mask)
    hidden = layers.Dense(16, activation="gelu")(layers.Concatenate()([question, found]))
    model = keras.Model([question, passages, mask], layers.Dense(1)(hidden))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.AdamW(3e-3), loss=loss)
    return KerasRun(model, [asked, text, there], answer, FIT)


# -- DATA511 ---------------------------------------------------------------------------------------------------------


class Places(layers.Layer):
    """Adds a learnt vector for each place of a text."""

    def __init__(self, most: int, width: int, **more: Any) -> None:
        super().__init__(**more)
        self.table = layers.Embedding(most, width, name="table")

    def call(self, words: Any) -> Any:
        return words + self.table(ops.arange(ops.shape(words)[1]))


def reports() -> Iterator[Any]:
    """Batches of reports, cut at the longest one of each batch; what counts is whether a word of alarm occurs."""
    rng = np.random.default_rng(2203)
    for number in range(45):
        length = 41 if number == 34 else 28
        words = rng.integers(1, 90, (24, length))
        yield words.astype("int32"), (words < 4).any(1).astype("float32")[:, None]


def _raises(*errors: str) -> Truth:
    return Truth(happens=Happens.EXCEPTION, causes=("DATA511",), kind="exception", operations=errors)


@enter(
    _raises("IndexError", "RuntimeError"),
    "https://github.com/bentrevett/pytorch-seq2seq/issues/89",
    "https://github.com/huggingface/sentence-transformers/issues/1600",
    "https://github.com/facebookresearch/esm/issues/49",
    backends=("jax", "torch"),
    by_backend={"jax": Truth(happens=Happens.NON_FINITE, causes=("DATA511",), modules=("table", "places"))},
)
def report_longer_than_its_places() -> KerasRun:
    """Attention with 40 learnt places; the reports of one batch are 41 words long."""
    inputs = keras.Input((None,), dtype="int32")
    words = Places(40, 12, name="places")(layers.Embedding(90, 12, name="words")(inputs))
    seen = layers.LayerNormalization()(words + layers.Attention(use_scale=True)([words, words]))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(layers.GlobalMaxPooling1D()(seen)))
    model.compile(optimizer=keras.optimizers.Adam(5e-3), loss="binary_crossentropy")
    return KerasRun(model, reports(), None, {"steps_per_epoch": 45})


# -- LOSS403 ---------------------------------------------------------------------------------------------------------


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/tkipf/gcn/issues/119",
    "https://github.com/yudi-mars/daisyRec/pull/15",
    "https://github.com/M-Nauta/PIPNet/issues/7",
)
def rare_tags_through_two_sigmoids() -> KerasRun:
    """Thirty rare tags, a bias at their frequency, and from_logits=True behind a sigmoid: nothing gets below ln 2."""
    rng = np.random.default_rng(2204)
    words = (rng.random((1600, 80)) < 0.1).astype("float32")
    tags = (words @ rng.normal(size=(80, 30)) > 4.5).astype("float32")
    rare = keras.initializers.Constant(float(np.log(tags.mean() / (1 - tags.mean()))))
    model = keras.Sequential(
        [
            keras.Input((80,)),
            layers.Dense(48, activation="relu"),
            layers.Dropout(0.1),
            layers.Dense(30, activation="sigmoid", bias_initializer=rare),
        ]
    )
    loss = keras.losses.BinaryFocalCrossentropy(gamma=0.0, alpha=1.0, from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(2e-3), loss=loss)
    return KerasRun(model, words, tags, FIT)


# -- Healthy ---------------------------------------------------------------------------------------------------------


class OwnAttention(layers.Layer):
    """Causal attention by hand, with minus infinity for what comes later."""

    def __init__(self, width: int, **more: Any) -> None:
        super().__init__(**more)
        self.three = layers.Dense(3 * width, use_bias=False)

    def call(self, x: Any) -> Any:
        query, key, value = ops.split(self.three(x), 3, axis=-1)
        scores = ops.einsum("nsd,ntd->nst", query, key) / ops.sqrt(1.0 * x.shape[-1])
        later = ops.triu(ops.ones((x.shape[1], x.shape[1])), k=1) > 0
        return ops.einsum("nst,ntd->nsd", ops.softmax(ops.where(later, -np.inf, scores)), value)


@enter(
    healthy(),
    "https://github.com/microsoft/Graphormer/issues/141",
    "https://github.com/abisee/pointer-generator/issues/88",
)
def letters_one_after_another() -> KerasRun:
    """A small language model with a mask of minus infinity in which no row is empty, and padding of weight 0."""
    rng = np.random.default_rng(2205)
    letters = (rng.integers(1, 12, (1280, 1)) + rng.integers(1, 4, (1280, 1)) * np.arange(17)) % 12 + 1
    letters[np.arange(17) >= rng.integers(3, 18, (1280, 1))] = 0
    inputs = keras.Input((16,), dtype="int32")
    x = Places(16, 24)(layers.Embedding(13, 24)(inputs))
    x = x + OwnAttention(24)(layers.LayerNormalization()(x))
    x = x + layers.Dense(24)(layers.Dense(48, activation="gelu")(layers.LayerNormalization()(x)))
    model = keras.Model(inputs, layers.Dense(13)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)
    model.compile(optimizer=keras.optimizers.AdamW(4e-3, clipnorm=1.0), loss=loss)
    return KerasRun(model, letters[:, :-1], letters[:, 1:], FIT)
