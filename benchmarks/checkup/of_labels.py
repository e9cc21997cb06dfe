"""Set-ups about labels and losses: out of range, mixed up, on another scale, contradictory; activations twice."""

from __future__ import annotations

import numpy as np

from benchmarks.checkup.set_up import KERAS_ONLY, LIGHTNING_ONLY, REGISTRY, Net, SetUp
from benchmarks.checkup.sources import column, counts, one_hot, pictures, pixels, raw, series, table, text

IRIS, WINE, DIGITS, BINARY, NUMBER = Net(outputs=3), Net(outputs=3), Net(outputs=10), Net(), Net()
CNN = Net(kind="cnn", outputs=10, hidden=(8, 16))
SENTENCES = Net(kind="embedding", outputs=2, tokens=200)


def _some(y: np.ndarray, rows: object, value: float) -> np.ndarray:
    made = y.copy()
    made[rows] = value
    return made


@REGISTRY.faulty("DATA505")
def labels_out_of_range() -> list[SetUp]:
    (iris, wine, cancer), (prints, digit) = map(table, ("iris", "wine", "breast_cancer")), pixels()
    ids, mood = text()
    grey = prints.reshape(-1, 64)
    return [
        SetUp(name="classes from one", x=iris[0], y=iris[1] + 1, net=IRIS),
        SetUp(name="255 for unlabelled", x=prints, y=_some(digit, slice(0, 200, 9), 255), net=CNN),
        SetUp(name="−1 for unlabelled", x=wine[0], y=_some(wine[1], [4, 9, 11, 60], -1), net=WINE),
        SetUp(name="one output for two classes", x=ids, y=mood, net=Net(kind="embedding", outputs=1, tokens=200)),
        SetUp(name="±1 for a sigmoid", x=cancer[0], y=2 * column(cancer[1]) - 1, net=BINARY, loss="binary"),
        SetUp(name="0 and 255 for a sigmoid", x=cancer[0], y=255 * column(cancer[1]), net=BINARY, loss="binary"),
        SetUp(name="tanh for targets up to 5", x=iris[0], y=iris[0][:, :1] * 2, net=Net(final="tanh"), loss="squared"),
        SetUp(name="relu for negative targets", x=iris[0], y=iris[0][:, :1], net=Net(final="relu"), loss="squared"),
        SetUp(
            name="pixels up to 255 from a sigmoid",
            x=grey,
            y=grey * 255,
            net=Net(outputs=64, final="sigmoid"),
            loss="squared",
        ),
    ]


@REGISTRY.healthy("DATA505")
def labels_in_range() -> list[SetUp]:
    (iris, cancer), (prints, digit) = map(table, ("iris", "breast_cancer")), pixels()
    grey = prints.reshape(-1, 64)
    soft = 0.9 * one_hot(digit, 10) + 0.01
    return [
        SetUp(name="classes from zero", x=iris[0], y=iris[1], net=IRIS),
        SetUp(
            name="ignored marks",
            x=iris[0],
            y=_some(iris[1], slice(0, 150, 9), -100),
            net=IRIS,
            frameworks=LIGHTNING_ONLY,
        ),
        SetUp(name="zero and one", x=cancer[0], y=column(cancer[1]), net=BINARY, loss="binary"),
        SetUp(name="smoothed labels", x=grey, y=soft.astype("float32"), net=DIGITS, loss="soft_cross_entropy"),
        SetUp(
            name="several labels at once",
            x=grey,
            y=(grey[:, 20:25] > 0.5).astype("float32"),
            net=Net(outputs=5),
            loss="binary",
        ),
        SetUp(
            name="an autoencoder of pixels",
            x=grey,
            y=grey,
            net=Net(outputs=64, final="sigmoid"),
            loss="binary",
            takes="probabilities",
        ),
        SetUp(
            name="tanh for targets up to 1", x=iris[0], y=np.tanh(iris[0][:, :1]), net=Net(final="tanh"), loss="squared"
        ),
        SetUp(name="room for more classes", x=iris[0], y=iris[1], net=Net(outputs=5)),
    ]


@REGISTRY.faulty("DATA508")
def labels_in_another_form() -> list[SetUp]:
    iris, cancer, diabetes = map(table, ("iris", "breast_cancer", "diabetes"))
    (prints, digit), (waves, after) = pixels(), series()
    return [
        SetUp(
            name="a flat target beside a column",
            x=diabetes[0],
            y=diabetes[1][:, 0],
            net=NUMBER,
            loss="squared",
            frameworks=LIGHTNING_ONLY,  # Keras brings both to the same rank
        ),
        SetUp(
            name="a flat target beside a column, series",
            x=waves,
            y=after[:, 0],
            net=Net(kind="lstm", hidden=(16,)),
            loss="absolute",
            frameworks=LIGHTNING_ONLY,
        ),
        SetUp(name="indices for one-hot", x=iris[0], y=iris[1].astype("float32")[:, None], net=IRIS, loss="squared"),
        SetUp(name="one-hot for indices", x=prints, y=one_hot(digit, 10), net=CNN, frameworks=KERAS_ONLY),
        SetUp(
            name="one-hot for indices, table",
            x=cancer[0],
            y=one_hot(cancer[1], 2),
            net=Net(outputs=2),
            frameworks=KERAS_ONLY,
        ),
        SetUp(
            name="indices for soft labels",
            x=iris[0],
            y=iris[1][:, None].astype("float32"),
            net=IRIS,
            loss="soft_cross_entropy",
        ),
    ]


@REGISTRY.healthy("DATA508")
def labels_in_their_form() -> list[SetUp]:
    iris, diabetes, cancer = map(table, ("iris", "diabetes", "breast_cancer"))
    (prints, digit), (waves, after) = pixels(), series()
    return [
        SetUp(name="a column beside a column", x=diabetes[0], y=diabetes[1], net=NUMBER, loss="squared"),
        SetUp(name="one-hot", x=prints, y=one_hot(digit, 10), net=CNN, loss="soft_cross_entropy"),
        SetUp(name="indices", x=iris[0], y=iris[1], net=IRIS),
        SetUp(name="a column after a series", x=waves, y=after, net=Net(kind="lstm", hidden=(16,)), loss="squared"),
        SetUp(name="one-hot regression", x=cancer[0], y=one_hot(cancer[1], 2), net=Net(outputs=2), loss="squared"),
    ]


@REGISTRY.faulty("DATA509")
def targets_on_another_scale() -> list[SetUp]:
    x, y = table("diabetes")[0], raw("diabetes")[1][:, None].astype("float32")
    waves, after = series()
    rng = np.random.default_rng(0)
    prices = np.exp(rng.normal(12, 0.5, (len(x), 1))).astype("float32")
    return [
        SetUp(name="prices", x=x, y=prices, net=NUMBER, loss="squared"),
        SetUp(name="disease scores times 100", x=x, y=100 * y, net=NUMBER, loss="squared"),
        SetUp(
            name="a series in thousands", x=waves, y=after * 3000, net=Net(kind="lstm", hidden=(16,)), loss="squared"
        ),
        SetUp(name="counts of millions", x=x, y=prices * 100, net=NUMBER, loss="absolute"),
    ]


@REGISTRY.healthy("DATA509")
def targets_on_a_usual_scale() -> list[SetUp]:
    x, y = table("diabetes")
    waves, after = series()
    ids, mood = text()
    return [
        SetUp(name="standardised", x=x, y=y, net=NUMBER, loss="squared"),
        SetUp(name="up to ten", x=x, y=3 * y + 5, net=NUMBER, loss="squared"),
        SetUp(name="small targets", x=x, y=0.1 * y, net=NUMBER, loss="squared"),
        SetUp(name="the next value of a series", x=waves, y=after, net=Net(kind="lstm", hidden=(16,)), loss="squared"),
        SetUp(
            name="ratings of one to five",
            x=ids,
            y=(1 + 2 * mood[:, None]).astype("float32"),
            net=Net(kind="embedding", tokens=200),
            loss="squared",
        ),
    ]


@REGISTRY.faulty("DATA510")
def a_single_class() -> list[SetUp]:
    (iris, cancer), (prints, digit) = map(table, ("iris", "breast_cancer")), pixels()
    ids, mood = text()
    return [
        SetUp(name="all zero", x=iris[0], y=np.zeros_like(iris[1]), net=IRIS),
        SetUp(name="a filter too many", x=prints[digit == 3], y=digit[digit == 3], net=CNN),
        SetUp(name="all positive", x=cancer[0], y=np.ones((len(cancer[0]), 1), "float32"), net=BINARY, loss="binary"),
        SetUp(name="one mood", x=ids, y=np.ones_like(mood), net=SENTENCES),
    ]


@REGISTRY.healthy("DATA510")
def few_of_a_class() -> list[SetUp]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 8)).astype("float32")
    rare = (x[:, 0] > 2.2).astype("int64")
    ids, mood = text()
    return [
        SetUp(name="one in seventy", x=x, y=rare, net=Net(outputs=2)),
        SetUp(name="one in seventy, sigmoid", x=x, y=column(rare), net=BINARY, loss="binary"),
        SetUp(name="moods", x=ids, y=mood, net=SENTENCES),
        SetUp(name="nearly all of one", x=x, y=1 - rare, net=Net(outputs=2)),
    ]


@REGISTRY.faulty("DATA504")
def contradictory_labels() -> list[SetUp]:
    rng = np.random.default_rng(0)
    made = []
    for name in ("iris", "wine", "breast_cancer"):
        x, y = table(name)
        again = rng.permutation(len(x))[: len(x) // 2]
        other = (y[again] + 1) % (int(y.max()) + 1)
        net = Net(outputs=int(y.max()) + 1)
        made.append(
            SetUp(
                name=f"{name}, half of it twice", x=np.concatenate([x, x[again]]), y=np.concatenate([y, other]), net=net
            )
        )
    pic, corner = pictures()
    twice = np.concatenate([pic, pic]), np.concatenate([corner, rng.permutation(corner)])
    made.append(
        SetUp(
            name="shuffled copies of pictures", x=twice[0], y=twice[1], net=Net(kind="cnn", outputs=4, hidden=(8, 16))
        )
    )
    return made


@REGISTRY.healthy("DATA504")
def repeated_but_honest() -> list[SetUp]:
    rng = np.random.default_rng(0)
    x, y = table("iris")
    coarse = rng.integers(0, 3, (400, 3)).astype("float32")
    noisy = (rng.uniform(size=400) < 0.3 + 0.2 * (coarse[:, 0] > 1)).astype("int64")
    words, label = counts()
    pic, corner = pictures()
    return [
        SetUp(name="duplicates that agree", x=np.concatenate([x, x]), y=np.concatenate([y, y]), net=IRIS),
        SetUp(name="coarse features, noisy outcome", x=coarse, y=noisy, net=Net(outputs=2)),
        SetUp(name="short word lists", x=words[:, :6], y=label, net=Net(outputs=2)),
        SetUp(
            name="augmented copies",
            x=np.concatenate([pic, pic]),
            y=np.concatenate([corner, corner]),
            net=Net(kind="cnn", outputs=4, hidden=(8, 16)),
        ),
    ]


@REGISTRY.faulty("LOSS403")
def activation_twice() -> list[SetUp]:
    (iris, cancer), (prints, digit) = map(table, ("iris", "breast_cancer")), pixels()
    ids, mood = text()
    return [
        SetUp(name="softmax before logits", x=iris[0], y=iris[1], net=Net(outputs=3, final="softmax")),
        SetUp(
            name="softmax before logits, pictures",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), final="softmax"),
        ),
        SetUp(name="sigmoid before logits", x=cancer[0], y=column(cancer[1]), net=Net(final="sigmoid"), loss="binary"),
        SetUp(
            name="softmax before logits, text",
            x=ids,
            y=mood,
            net=Net(kind="embedding", outputs=2, tokens=200, final="softmax"),
        ),
        SetUp(
            name="softmax before soft labels",
            x=prints.reshape(-1, 64),
            y=one_hot(digit, 10),
            net=Net(outputs=10, final="softmax"),
            loss="soft_cross_entropy",
        ),
    ]


@REGISTRY.faulty("LOSS404")
def activation_missing() -> list[SetUp]:
    (iris, cancer), (prints, digit) = map(table, ("iris", "breast_cancer")), pixels()
    ids, mood = text()
    return [
        SetUp(
            name="scores for probabilities",
            x=iris[0],
            y=iris[1],
            net=IRIS,
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
        SetUp(
            name="scores for probabilities, pictures",
            x=prints,
            y=digit,
            net=CNN,
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
        SetUp(
            name="scores for a sigmoid's loss",
            x=cancer[0],
            y=column(cancer[1]),
            net=BINARY,
            loss="binary",
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
        SetUp(name="scores for logarithms", x=iris[0], y=iris[1], net=IRIS, takes="logs", frameworks=LIGHTNING_ONLY),
        SetUp(
            name="probabilities for logarithms",
            x=ids,
            y=mood,
            net=Net(kind="embedding", outputs=2, tokens=200, final="softmax"),
            takes="logs",
            frameworks=LIGHTNING_ONLY,
        ),
        SetUp(
            name="scores for logarithms, pictures", x=prints, y=digit, net=CNN, takes="logs", frameworks=LIGHTNING_ONLY
        ),
        SetUp(
            name="scores for logarithms, text", x=ids, y=mood, net=SENTENCES, takes="logs", frameworks=LIGHTNING_ONLY
        ),
        SetUp(
            name="scores for soft labels",
            x=iris[0],
            y=one_hot(iris[1], 3),
            net=IRIS,
            loss="soft_cross_entropy",
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
    ]


@REGISTRY.healthy("LOSS403")
def activation_once() -> list[SetUp]:
    (iris, cancer), (prints, digit) = map(table, ("iris", "breast_cancer")), pixels()
    softmax, logs = Net(outputs=3, final="softmax"), Net(outputs=3, final="log_softmax")
    return [
        SetUp(name="logits", x=iris[0], y=iris[1], net=IRIS),
        SetUp(
            name="softmax and probabilities",
            x=iris[0],
            y=iris[1],
            net=softmax,
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
        SetUp(
            name="log-softmax and logarithms", x=iris[0], y=iris[1], net=logs, takes="logs", frameworks=LIGHTNING_ONLY
        ),
        SetUp(
            name="sigmoid and probabilities",
            x=cancer[0],
            y=column(cancer[1]),
            net=Net(final="sigmoid"),
            loss="binary",
            takes="probabilities",
        ),
        SetUp(name="logits of a sigmoid", x=cancer[0], y=column(cancer[1]), net=BINARY, loss="binary"),
        SetUp(
            name="probabilities regressed",
            x=prints,
            y=one_hot(digit, 10),
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), final="softmax"),
            loss="squared",
        ),
        SetUp(
            name="softmax and soft labels",
            x=iris[0],
            y=one_hot(iris[1], 3),
            net=softmax,
            loss="soft_cross_entropy",
            takes="probabilities",
            frameworks=KERAS_ONLY,
        ),
    ]
