"""Set-ups about inputs: non-finite, unscaled, outliers, constants, wrapped integers, ids out of range."""

from __future__ import annotations

import numpy as np

from benchmarks.checkup.set_up import REGISTRY, Net, SetUp
from benchmarks.checkup.sources import counts, pictures, pixels, raw, series, table, text

IRIS, WINE, CANCER, DIGITS = Net(outputs=3), Net(outputs=3), Net(outputs=2), Net(outputs=10)
CNN = Net(kind="cnn", outputs=10, hidden=(8, 16))
SENTENCES = Net(kind="embedding", outputs=2, tokens=200)


def _spoiled(x: np.ndarray, rows: object, column: object, value: float) -> np.ndarray:
    made = x.copy()
    made[rows, column] = value
    return made


@REGISTRY.faulty("DATA501")
def non_finite_inputs() -> list[SetUp]:
    (iris, wine, cancer), (waves, after) = map(table, ("iris", "wine", "breast_cancer")), series()
    broken = waves.copy()
    broken[5, 3, 0] = np.inf
    return [
        SetUp(name="missing values of a table", x=_spoiled(iris[0], [3, 40, 90], 2, np.nan), y=iris[1], net=IRIS),
        SetUp(name="a column that is all missing", x=_spoiled(wine[0], slice(None), 4, np.nan), y=wine[1], net=WINE),
        SetUp(name="an infinity in a series", x=broken, y=after, net=Net(kind="lstm", hidden=(16,)), loss="squared"),
        SetUp(name="one value of half a thousand rows", x=_spoiled(cancer[0], 17, 8, np.nan), y=cancer[1], net=CANCER),
    ]


@REGISTRY.faulty("DATA502")
def unscaled_inputs() -> list[SetUp]:
    (wine, cancer, iris), (prints, digit) = map(raw, ("wine", "breast_cancer", "iris")), pixels(255.0)
    years = np.concatenate([iris[0], np.random.default_rng(0).integers(1950, 2020, (150, 1))], 1).astype("float32")
    pic, corner = pictures()
    waves, after = series()
    return [
        SetUp(name="chemistry as it comes", x=wine[0], y=wine[1].astype("int64"), net=WINE),
        SetUp(name="cells as they come", x=cancer[0], y=cancer[1].astype("int64"), net=CANCER),
        SetUp(name="pixels up to 255, dense", x=prints.reshape(-1, 64), y=digit, net=DIGITS),
        SetUp(name="pixels up to 255, convolutions", x=prints, y=digit, net=CNN),
        SetUp(name="colours up to 255", x=pic * 255, y=corner, net=Net(kind="cnn", outputs=4, hidden=(8, 16))),
        SetUp(name="a year among small features", x=years, y=iris[1].astype("int64"), net=IRIS),
        SetUp(
            name="a series in thousands",
            x=waves * 900 + 5000,
            y=after,
            net=Net(kind="lstm", hidden=(16,)),
            loss="squared",
        ),
    ]


@REGISTRY.healthy("DATA502")
def scaled_inputs() -> list[SetUp]:
    (wine, cancer), (prints, digit) = map(raw, ("wine", "breast_cancer")), pixels(255.0)
    small, _ = pixels()
    pic, corner = pictures()
    words, label = counts()
    ids, mood = text()
    iris = table("iris")
    squeezed = (wine[0] - wine[0].min(0)) / np.ptp(wine[0], axis=0)
    return [
        SetUp(name="standardised", x=iris[0], y=iris[1], net=IRIS),
        SetUp(name="squeezed to 0 to 1", x=squeezed.astype("float32"), y=wine[1].astype("int64"), net=WINE),
        SetUp(name="squeezed to −1 to 1", x=(2 * squeezed - 1).astype("float32"), y=wine[1].astype("int64"), net=WINE),
        SetUp(name="pixels from 0 to 1", x=small, y=digit, net=CNN),
        SetUp(name="pixels from 0 to 1, dense", x=small.reshape(-1, 64), y=digit, net=DIGITS),
        SetUp(
            name="rescaling in the model",
            x=prints,
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), first="rescaling"),
        ),
        SetUp(
            name="standardised in the model",
            x=cancer[0],
            y=cancer[1].astype("int64"),
            net=Net(outputs=2, first="standardise"),
        ),
        SetUp(
            name="batch normalisation comes first",
            x=wine[0],
            y=wine[1].astype("int64"),
            net=Net(outputs=3, first="batch_norm"),
        ),
        SetUp(
            name="colours around zero", x=(pic - 0.4) / 0.3, y=corner, net=Net(kind="cnn", outputs=4, hidden=(8, 16))
        ),
        SetUp(name="token ids", x=ids, y=mood, net=SENTENCES),
        SetUp(name="word counts", x=words, y=label, net=Net(outputs=2)),
    ]


@REGISTRY.faulty("DATA503")
def outliers() -> list[SetUp]:
    (iris, cancer, wine), (waves, after) = map(table, ("iris", "breast_cancer", "wine")), series()
    spike = waves.copy()
    spike[7, 5, 0] = 4000.0
    pic, corner = pictures()
    burnt = pic.copy()
    burnt[9] *= 3000.0
    return [
        SetUp(name="a slipped decimal point", x=_spoiled(iris[0], 12, 1, 2500.0), y=iris[1], net=IRIS),
        SetUp(name="−9999 for missing", x=_spoiled(cancer[0], [5, 50, 300], 3, -9999.0), y=cancer[1], net=CANCER),
        SetUp(name="1e30 for missing", x=_spoiled(wine[0], 30, 6, 1e30), y=wine[1], net=WINE),
        SetUp(name="a broken sensor", x=spike, y=after, net=Net(kind="lstm", hidden=(16,)), loss="squared"),
        SetUp(name="one picture not divided", x=burnt, y=corner, net=Net(kind="cnn", outputs=4, hidden=(8, 16))),
    ]


@REGISTRY.healthy("DATA503")
def wide_but_honest_inputs() -> list[SetUp]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    lognormal = np.exp(rng.normal(0, 0.8, (500, 6))).astype("float32") + 0.3 * y[:, None].astype("float32")
    heavy = (rng.standard_t(4, (500, 6)) + y[:, None]).astype("float32")
    rare = (rng.uniform(size=(500, 12)) < 0.02).astype("float32")
    words, label = counts()
    purchases = rng.poisson(0.2, (500, 8)).astype("float32") * rng.integers(1, 5, (500, 8))
    two = np.where(rng.uniform(size=(500, 4)) < 0.9, rng.normal(0, 0.5, (500, 4)), rng.normal(4, 0.5, (500, 4)))
    return [
        SetUp(name="lognormal features", x=lognormal, y=y, net=CANCER),
        SetUp(name="Student's t with 4 degrees", x=heavy, y=y, net=CANCER),
        SetUp(name="rare binary features", x=rare, y=y, net=CANCER),
        SetUp(name="word counts", x=words, y=label, net=CANCER),
        SetUp(name="purchases", x=purchases.astype("float32"), y=y, net=CANCER),
        SetUp(name="two populations", x=two.astype("float32"), y=y, net=CANCER),
        SetUp(name="cells, standardised", x=table("breast_cancer")[0], y=table("breast_cancer")[1], net=CANCER),
    ]


@REGISTRY.faulty("DATA506")
def constant_inputs() -> list[SetUp]:
    iris, wine, cancer, friedman = map(table, ("iris", "wine", "breast_cancer", "diabetes"))
    return [
        SetUp(name="a column of zeros", x=_spoiled(iris[0], slice(None), 2, 0.0), y=iris[1], net=IRIS),
        SetUp(name="a column of ones", x=_spoiled(wine[0], slice(None), 7, 1.0), y=wine[1], net=WINE),
        SetUp(name="three dead columns", x=_spoiled(cancer[0], slice(None), slice(3, 6), 0.3), y=cancer[1], net=CANCER),
        SetUp(name="everything is zero", x=np.zeros_like(friedman[0]), y=friedman[1], net=Net(), loss="squared"),
    ]


@REGISTRY.healthy("DATA506")
def dull_but_honest_inputs() -> list[SetUp]:
    prints, digit = pixels()
    words, label = counts()
    rng = np.random.default_rng(1)
    y = rng.integers(0, 2, 400)
    one_hot = np.eye(12, dtype="float32")[rng.integers(0, 12, 400)]
    ids, mood = text()
    return [
        SetUp(name="pixels that are always dark", x=prints.reshape(-1, 64), y=digit, net=DIGITS),
        SetUp(name="pixels that are always dark, convolutions", x=prints, y=digit, net=CNN),
        SetUp(name="words that are rare", x=words, y=label, net=CANCER),
        SetUp(name="one-hot columns", x=one_hot, y=y, net=CANCER),
        SetUp(
            name="token ids with a leading mark",
            x=np.concatenate([np.ones((len(ids), 1), "int64"), ids], 1),
            y=mood,
            net=SENTENCES,
        ),
    ]


@REGISTRY.faulty("DATA507")
def wrapped_integers() -> list[SetUp]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    sums = rng.integers(60, 100, (400, 6)) + 40 * y[:, None]
    money = (rng.integers(1, 5, (400, 4)).astype("int64") * 10**9).astype("int32")
    prints, digit = pixels(255.0)
    doubled = (prints.reshape(-1, 64).astype("int16") * 2).astype("uint8")
    difference = (rng.integers(0, 9, (400, 5)) - rng.integers(0, 9, (400, 5))).astype("uint8")
    return [
        SetUp(name="sums in int8", x=sums.astype("int8"), y=y, net=CANCER),
        SetUp(name="money in int32", x=money, y=y, net=CANCER),
        SetUp(name="brightened uint8", x=doubled, y=digit, net=Net(outputs=10, first="rescaling")),
        SetUp(name="differences in uint8", x=difference, y=y, net=CANCER),
    ]


@REGISTRY.healthy("DATA507")
def honest_integers() -> list[SetUp]:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    prints, digit = pixels(255.0)
    ages = rng.integers(0, 4, (400, 6)).astype("int8")
    ids, mood = text()
    return [
        SetUp(
            name="uint8 pixels",
            x=prints.astype("uint8"),
            y=digit,
            net=Net(kind="cnn", outputs=10, hidden=(8, 16), first="rescaling"),
        ),
        SetUp(name="grades in int8", x=ages, y=y, net=CANCER),
        SetUp(name="signed grades in int16", x=(ages.astype("int16") - 2), y=y, net=CANCER),
        SetUp(name="token ids in int32", x=ids.astype("int32"), y=mood, net=SENTENCES),
    ]


@REGISTRY.faulty("DATA511")
def ids_out_of_range() -> list[SetUp]:
    ids, mood = text()
    over, under, many = ids.copy(), ids.copy(), ids.copy()
    over[3, 4], under[9, 2] = 300, -1
    many[::7] += 200
    from_one = np.where(ids == ids.max(), 200, ids)
    return [
        SetUp(name="one id beyond the table", x=over, y=mood, net=SENTENCES),
        SetUp(name="−1 for padding", x=under, y=mood, net=SENTENCES),
        SetUp(name="another tokenizer", x=many, y=mood, net=SENTENCES),
        SetUp(name="ids counted from one", x=from_one, y=mood, net=SENTENCES),
    ]


@REGISTRY.healthy("DATA511")
def ids_in_range() -> list[SetUp]:
    ids, mood = text()
    return [
        SetUp(name="the last id is used", x=ids, y=mood, net=SENTENCES),
        SetUp(name="zero for padding", x=np.where(ids > 100, 0, ids), y=mood, net=SENTENCES),
        SetUp(name="a table with room", x=ids, y=mood, net=Net(kind="embedding", outputs=2, tokens=1000)),
        SetUp(name="a recurrent net", x=ids, y=mood, net=Net(kind="lstm", outputs=2, tokens=200, hidden=(16,))),
    ]
