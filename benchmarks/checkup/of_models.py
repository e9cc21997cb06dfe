"""Set-ups about weights, rates and arithmetic: bad and symmetric starts, saturation, rates, operations near an edge."""

from __future__ import annotations

from benchmarks.checkup.set_up import KERAS_ONLY, LIGHTNING_ONLY, REGISTRY, Net, SetUp
from benchmarks.checkup.sources import column, pictures, pixels, series, table, text

DEEP = (32,) * 10


def _tables() -> tuple[tuple, tuple, tuple]:
    return table("iris"), table("wine"), table("breast_cancer")


@REGISTRY.faulty("ACT304", "GRAD202", "GRAD203", "ACT302")
def bad_scales() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    return [
        SetUp(
            name="tiny weights, deep tanh",
            x=iris[0],
            y=iris[1],
            net=Net(outputs=3, hidden=DEEP, activation="tanh", init="tiny"),
        ),
        SetUp(
            name="huge weights, deep tanh",
            x=wine[0],
            y=wine[1],
            net=Net(outputs=3, hidden=DEEP, activation="tanh", init="huge"),
        ),
        SetUp(name="huge weights, rectifiers", x=cancer[0], y=cancer[1], net=Net(outputs=2, hidden=DEEP, init="huge")),
        SetUp(name="tiny weights, rectifiers", x=iris[0], y=iris[1], net=Net(outputs=3, hidden=DEEP, init="tiny")),
        SetUp(
            name="huge weights, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8,) * 6, init="huge"),
        ),
        SetUp(
            name="twenty sigmoids", x=wine[0], y=wine[1], net=Net(outputs=3, hidden=(32,) * 20, activation="sigmoid")
        ),
    ]


@REGISTRY.healthy("ACT304")
def good_scales() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    (pic, corner), (waves, after), (ids, mood) = pictures(), series(), text()
    return [
        SetUp(name="deep tanh", x=iris[0], y=iris[1], net=Net(outputs=3, hidden=(32,) * 5, activation="tanh")),
        SetUp(name="rectifiers", x=wine[0], y=wine[1], net=Net(outputs=3, hidden=(64, 64, 64))),
        SetUp(name="orthogonal", x=cancer[0], y=cancer[1], net=Net(outputs=2, hidden=(32,) * 4, init="orthogonal")),
        SetUp(
            name="huge weights that are normalised",
            x=cancer[0],
            y=cancer[1],
            net=Net(outputs=2, hidden=(32,) * 4, init="huge", normalised=True),
        ),
        SetUp(name="residual", x=wine[0], y=wine[1], net=Net(kind="residual", outputs=3, hidden=DEEP)),
        SetUp(
            name="convolutions with batch normalisation",
            x=pic,
            y=corner,
            net=Net(kind="cnn", outputs=4, hidden=(8, 16, 16), normalised=True),
        ),
        SetUp(name="convolutions", x=prints, y=digit, net=Net(kind="cnn", outputs=10, hidden=(16, 32))),
        SetUp(name="recurrent", x=waves, y=after, net=Net(kind="lstm", hidden=(32,)), loss="squared"),
        SetUp(name="transformer", x=ids, y=mood, net=Net(kind="transformer", outputs=2, tokens=200)),
        SetUp(name="selu", x=cancer[0], y=cancer[1], net=Net(outputs=2, hidden=(32,) * 6, activation="selu")),
        SetUp(name="gelu", x=iris[0], y=iris[1], net=Net(outputs=3, hidden=(32,) * 3, activation="gelu")),
        SetUp(name="shallow sigmoid", x=iris[0], y=iris[1], net=Net(outputs=3, hidden=(32,), activation="sigmoid")),
    ]


@REGISTRY.faulty("ACT305")
def symmetric_weights() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    return [
        SetUp(name="all zero", x=iris[0], y=iris[1], net=Net(outputs=3, init="zeros")),
        SetUp(name="all equal", x=wine[0], y=wine[1], net=Net(outputs=3, init="equal")),
        SetUp(
            name="all equal, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), init="equal"),
        ),
        SetUp(name="all zero, tanh", x=cancer[0], y=cancer[1], net=Net(outputs=2, activation="tanh", init="zeros")),
    ]


@REGISTRY.healthy("ACT305")
def zeros_on_purpose() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    logistic = Net(outputs=2, hidden=(), init="zeros")
    return [
        SetUp(name="a last layer of zeros", x=iris[0], y=iris[1], net=Net(outputs=3, init="zero_last")),
        SetUp(
            name="a last layer of zeros, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), init="zero_last"),
        ),
        SetUp(name="logistic regression from zero", x=cancer[0], y=cancer[1], net=logistic),
        SetUp(name="a frozen body", x=wine[0], y=wine[1], net=Net(outputs=3, frozen=True)),
    ]


@REGISTRY.faulty("ACT303")
def dead_from_the_start() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    dead = "negative_bias"
    return [
        SetUp(name="biases far below zero", x=iris[0], y=iris[1], net=Net(outputs=3, init=dead)),
        SetUp(name="biases far below zero, wide", x=wine[0], y=wine[1], net=Net(outputs=3, hidden=(64, 64), init=dead)),
        SetUp(
            name="biases far below zero, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), init=dead),
        ),
        SetUp(
            name="biases far below zero, one layer",
            x=cancer[0],
            y=cancer[1],
            net=Net(outputs=2, hidden=(32,), init=dead),
        ),
    ]


@REGISTRY.faulty("OPT601")
def rates_too_high() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    waves, after = series()
    return [
        SetUp(name="Adam at 10", x=iris[0], y=iris[1], net=Net(outputs=3), rate=10.0),
        SetUp(name="SGD at 100", x=wine[0], y=wine[1], net=Net(outputs=3), rate=100.0, optimizer="sgd"),
        SetUp(
            name="SGD at 50, regression",
            x=waves,
            y=after,
            net=Net(kind="lstm", hidden=(16,)),
            loss="squared",
            rate=50.0,
            optimizer="sgd",
        ),
        SetUp(
            name="Adam at 3, convolutions", x=prints, y=digit, net=Net(kind="cnn", outputs=10, hidden=(8, 16)), rate=3.0
        ),
        SetUp(name="Adam at 5, sigmoid", x=cancer[0], y=column(cancer[1]), net=Net(), loss="binary", rate=5.0),
    ]


@REGISTRY.faulty("OPT602")
def rates_too_low() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    return [
        SetUp(name="Adam at 1e-9", x=iris[0], y=iris[1], net=Net(outputs=3), rate=1e-9),
        SetUp(name="SGD at 1e-8", x=wine[0], y=wine[1], net=Net(outputs=3), rate=1e-8, optimizer="sgd"),
        SetUp(
            name="Adam at 1e-10, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16)),
            rate=1e-10,
        ),
        SetUp(
            name="SGD at 1e-9, sigmoid",
            x=cancer[0],
            y=column(cancer[1]),
            net=Net(),
            loss="binary",
            rate=1e-9,
            optimizer="sgd",
        ),
    ]


@REGISTRY.healthy("OPT601")
def rates_that_work() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = _tables(), pixels()
    (waves, after), (ids, mood) = series(), text()
    return [
        SetUp(name="Adam at 1e-2", x=iris[0], y=iris[1], net=Net(outputs=3), rate=1e-2),
        SetUp(name="SGD at 0.1", x=wine[0], y=wine[1], net=Net(outputs=3), rate=0.1, optimizer="sgd"),
        SetUp(
            name="SGD at 0.01, sigmoid",
            x=cancer[0],
            y=column(cancer[1]),
            net=Net(),
            loss="binary",
            rate=0.01,
            optimizer="sgd",
        ),
        SetUp(
            name="Adam at 1e-4, convolutions",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16)),
            rate=1e-4,
        ),
        SetUp(
            name="Adam at 3e-4, recurrent",
            x=waves,
            y=after,
            net=Net(kind="lstm", hidden=(16,)),
            loss="squared",
            rate=3e-4,
        ),
        SetUp(
            name="Adam at 1e-5, transformer",
            x=ids,
            y=mood,
            net=Net(kind="transformer", outputs=2, tokens=200),
            rate=1e-5,
        ),
        SetUp(name="SGD at 1e-3", x=wine[0], y=wine[1], net=Net(outputs=3), rate=1e-3, optimizer="sgd"),
    ]


@REGISTRY.faulty("NAN111", "NAN112", "NAN113", "NAN110")
def one_batch_away() -> list[SetUp]:
    iris, wine, cancer = _tables()
    logs = Net(outputs=3, operation="log_of_softmax")
    return [
        SetUp(name="logarithm of a softmax", x=iris[0], y=iris[1], net=logs, takes="logs", frameworks=LIGHTNING_ONLY),
        SetUp(name="logarithm of a softmax, logits", x=iris[0], y=iris[1], net=logs, frameworks=KERAS_ONLY),
        SetUp(name="divided by a norm", x=wine[0], y=wine[1], net=Net(outputs=3, operation="divide_by_norm")),
        SetUp(
            name="root of a rectifier", x=wine[0], y=wine[1], net=Net(outputs=3, operation="square_root_of_rectified")
        ),
        SetUp(
            name="exponential near its end",
            x=cancer[0],
            y=cancer[1],
            net=Net(outputs=2, operation="exponential"),
            rate=1e-5,
        ),
    ]


@REGISTRY.healthy("NAN111")
def far_from_the_edge() -> list[SetUp]:
    iris, wine, cancer = _tables()
    (pic, corner), (ids, mood) = pictures(), text()
    return [
        SetUp(
            name="divided by a guarded norm",
            x=wine[0],
            y=wine[1],
            net=Net(outputs=3, operation="divide_by_norm_safely"),
        ),
        SetUp(
            name="log-softmax",
            x=iris[0],
            y=iris[1],
            net=Net(outputs=3, final="log_softmax"),
            takes="logs",
            frameworks=LIGHTNING_ONLY,
        ),
        SetUp(
            name="batch normalisation", x=pic, y=corner, net=Net(kind="cnn", outputs=4, hidden=(8, 8), normalised=True)
        ),
        SetUp(
            name="layer normalisation and attention", x=ids, y=mood, net=Net(kind="transformer", outputs=2, tokens=200)
        ),
        SetUp(name="plain", x=cancer[0], y=cancer[1], net=Net(outputs=2)),
    ]
