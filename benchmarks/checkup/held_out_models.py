"""Held-out set-ups about weights and rates: vanishing, exploding, saturated, dead, symmetric; rates high and low."""

from __future__ import annotations

import numpy as np

from benchmarks.checkup.held_out_sources import (
    blobs,
    claims,
    friedman,
    graphs,
    houses,
    moons,
    motion,
    phrases,
    roll,
    scaled,
    scaled_forest,
    sentences,
    shapes,
    spectrograms,
    weather,
)
from benchmarks.checkup.set_up import KERAS_ONLY, REGISTRY, Net, SetUp
from benchmarks.checkup.sources import column, raw


def _digits() -> tuple[np.ndarray, np.ndarray]:
    prints, digit = raw("digits")
    return (prints[:640] / 8 - 1).astype("float32"), digit[:640].astype("int64")


def _prices() -> tuple[np.ndarray, np.ndarray]:
    x, price = houses()
    return scaled(x), scaled(price)


def _roll() -> tuple[np.ndarray, np.ndarray]:
    along, far = roll()
    return along, scaled(far)


@REGISTRY.faulty("GRAD202", "ACT304", "ACT302")
def unseen_vanishing() -> list[SetUp]:
    (trees, kind), (along, far), (pic, figure) = scaled_forest(), _roll(), shapes()
    return [
        SetUp(name="25 sigmoids", x=trees, y=kind, net=Net(outputs=4, hidden=(24,) * 25, activation="sigmoid")),
        SetUp(name="tiny weights, twelve elus", x=along, y=far, loss="squared",
              net=Net(hidden=(48,) * 12, activation="elu", init="tiny")),
        SetUp(name="tiny weights, convolutions", x=pic, y=figure,
              net=Net(kind="cnn", outputs=3, hidden=(12,) * 5, init="tiny")),
    ]  # fmt: skip


@REGISTRY.healthy("GRAD202")
def unseen_flowing_gradient() -> list[SetUp]:
    (trees, kind), (along, far), (points, group) = scaled_forest(), _roll(), blobs()
    return [
        SetUp(name="ten selus", x=trees, y=kind, net=Net(outputs=4, hidden=(40,) * 10, activation="selu")),
        SetUp(name="sixteen residual blocks", x=points, y=group,
              net=Net(kind="residual", outputs=6, hidden=(20,) * 16, activation="tanh")),
        SetUp(name="two sigmoids", x=points, y=group, net=Net(outputs=6, hidden=(48, 48), activation="sigmoid"),
              rate=1e-2),
        SetUp(name="ten tanh with layer normalisation", x=trees, y=kind,
              net=Net(outputs=4, hidden=(32,) * 10, activation="tanh", normalised=True)),
        SetUp(name="a narrow waist", x=along, y=far, loss="squared",
              net=Net(hidden=(64, 3, 64), activation="elu"), rate=5e-3),
    ]  # fmt: skip


@REGISTRY.faulty("GRAD203", "ACT304", "ACT302")
def unseen_exploding() -> list[SetUp]:
    (x, price), (points, group), (trees, kind) = _prices(), blobs(), scaled_forest()
    return [
        SetUp(name="huge weights, eight elus", x=x, y=price, net=Net(hidden=(32,) * 8, activation="elu", init="huge"),
              loss="squared"),
        SetUp(name="huge weights, residual", x=points, y=group,
              net=Net(kind="residual", outputs=6, hidden=(24,) * 8, init="huge")),
        SetUp(name="huge weights, gelus", x=trees, y=kind,
              net=Net(outputs=4, hidden=(64, 48, 32, 24, 16), activation="gelu", init="huge")),
    ]  # fmt: skip


@REGISTRY.healthy("GRAD203")
def unseen_bounded_gradient() -> list[SetUp]:
    (x, price), (prints, digit), (noon, after), (trees, kind) = _prices(), _digits(), weather(), scaled_forest()
    return [
        SetUp(name="tiny weights before layer normalisation", x=trees, y=kind, rate=3e-3,
              net=Net(outputs=4, hidden=(48, 48), init="tiny", normalised=True, activation="elu")),
        SetUp(name="eight orthogonal rectifiers", x=prints, y=digit,
              net=Net(outputs=10, hidden=(48,) * 8, init="orthogonal")),
        SetUp(name="sixty-four cells", x=noon, y=after, net=Net(kind="lstm", hidden=(64,)), loss="squared", rate=3e-3),
        SetUp(name="wide", x=x, y=price, net=Net(hidden=(400, 400)), loss="squared"),
    ]  # fmt: skip


@REGISTRY.faulty("ACT302", "ACT304", "GRAD202", "GRAD203")
def unseen_saturated() -> list[SetUp]:
    (prints, digit), (points, group), (sound, noise) = _digits(), blobs(), spectrograms()
    return [
        SetUp(name="huge weights, two tanh", x=prints, y=digit,
              net=Net(outputs=10, hidden=(64, 64), activation="tanh", init="huge")),
        SetUp(name="huge weights, three sigmoids", x=points, y=group,
              net=Net(outputs=6, hidden=(40,) * 3, activation="sigmoid", init="huge")),
        SetUp(name="huge weights, convolutions and tanh", x=sound, y=noise,
              net=Net(kind="cnn", outputs=3, hidden=(8, 8, 8), activation="tanh", init="huge")),
    ]  # fmt: skip


@REGISTRY.healthy("ACT302")
def unseen_responsive() -> list[SetUp]:
    (moves, gait), (prints, digit), (points, group) = motion(), _digits(), blobs()
    heavy = np.random.default_rng(1).standard_t(4, (512, 8)).astype("float32")
    return [
        SetUp(name="wide tanh", x=prints, y=digit, net=Net(outputs=10, hidden=(256,), activation="tanh")),
        SetUp(name="tanh with heavy tails", x=heavy, y=(heavy[:, 0] + heavy[:, 1] > 0).astype("int64"),
              net=Net(outputs=2, hidden=(32,), activation="tanh"), rate=5e-3),
        SetUp(name="gates", x=2 * moves, y=gait, net=Net(kind="lstm", outputs=3, hidden=(32,)), rate=1e-2),
        SetUp(name="sigmoids with layer normalisation", x=points, y=group,
              net=Net(outputs=6, hidden=(40, 40), activation="sigmoid", normalised=True), rate=1e-2),
    ]  # fmt: skip


@REGISTRY.faulty("ACT303")
def unseen_dead() -> list[SetUp]:
    (trees, kind), (arcs, arc), (pic, figure) = scaled_forest(), moons(), shapes()
    return [
        SetUp(name="moons, three layers", x=arcs, y=column(arc), net=Net(hidden=(96, 48, 24), init="negative_bias"),
              loss="binary"),
        SetUp(name="trees, one wide layer", x=trees, y=kind, net=Net(outputs=4, hidden=(160,), init="negative_bias")),
        SetUp(name="shapes, three convolutions", x=pic, y=figure,
              net=Net(kind="cnn", outputs=3, hidden=(6, 12, 24), init="negative_bias")),
    ]  # fmt: skip


@REGISTRY.healthy("ACT303")
def unseen_alive() -> list[SetUp]:
    rng = np.random.default_rng(2)
    sparse = (rng.uniform(size=(480, 40)) < 0.04).astype("float32")
    (pic, figure), (driver, filed), (arcs, arc) = shapes(), claims(), moons()
    return [
        SetUp(name="rectifiers of sparse rows", x=sparse, y=(sparse[:, :12].sum(1) > 0).astype("int64"),
              net=Net(outputs=2, hidden=(64, 32)), rate=3e-3),
        SetUp(name="many rectifiers, two columns", x=arcs, y=arc, net=Net(outputs=2, hidden=(256, 128))),
        SetUp(name="rectified convolutions of dark pictures", x=pic, y=figure,
              net=Net(kind="cnn", outputs=3, hidden=(24, 24)), rate=5e-3),
        SetUp(name="narrow rectifiers", x=driver, y=np.minimum(filed, 3), net=Net(hidden=(16, 8)), loss="squared",
              rate=5e-3),
    ]  # fmt: skip


@REGISTRY.faulty("ACT305")
def unseen_symmetric() -> list[SetUp]:
    (along, far), (pic, figure), (prints, digit) = _roll(), shapes(), _digits()
    return [
        SetUp(name="all equal, tanh", x=along, y=far, net=Net(hidden=(48, 24), activation="tanh", init="equal"),
              loss="squared", rate=5e-3),
        SetUp(name="all zero, three convolutions", x=pic, y=figure,
              net=Net(kind="cnn", outputs=3, hidden=(6, 12, 24), activation="elu", init="zeros"),
              frameworks=KERAS_ONLY),  # torch draws the biases, and they tell the channels apart
        SetUp(name="all zero, digits", x=prints, y=digit, net=Net(outputs=10, hidden=(80, 40), init="zeros")),
        SetUp(name="all equal, gelu", x=blobs()[0], y=blobs()[1],
              net=Net(outputs=6, hidden=(30, 30), activation="gelu", init="equal")),
    ]  # fmt: skip


@REGISTRY.healthy("ACT305")
def unseen_told_apart() -> list[SetUp]:
    (x, price), (prints, digit), (trees, kind), (arcs, arc) = _prices(), _digits(), scaled_forest(), moons()
    return [
        SetUp(name="linear regression from zero", x=x, y=price, net=Net(hidden=(), init="zeros"), loss="squared",
              rate=1e-2),
        SetUp(name="ten classes from zero, no hidden layer", x=prints, y=digit,
              net=Net(outputs=10, hidden=(), init="zeros"), rate=1e-2),
        SetUp(name="a residual net with a last layer of zeros", x=trees, y=kind,
              net=Net(kind="residual", outputs=4, hidden=(24,) * 5, activation="gelu", init="zero_last")),
        SetUp(name="a hidden layer of a single unit", x=x, y=price, net=Net(hidden=(24, 1), activation="tanh"),
              loss="squared", rate=1e-2),
        SetUp(name="a frozen wide layer", x=arcs, y=arc, net=Net(outputs=2, hidden=(300,), frozen=True), rate=1e-2),
    ]  # fmt: skip


@REGISTRY.faulty("OPT601")
def unseen_high_rates() -> list[SetUp]:
    (trees, kind), (x, price), (text, language), (pic, figure) = scaled_forest(), _prices(), sentences(), shapes()
    return [
        SetUp(name="Adam at 4, trees", x=trees, y=kind, net=Net(outputs=4, hidden=(48, 24)), rate=4.0),
        SetUp(name="SGD at 20, houses", x=x, y=price, net=Net(hidden=(40, 20), activation="elu"), loss="squared",
              rate=20.0, optimizer="sgd"),
        SetUp(name="Adam at 5, attention", x=text, y=language, net=Net(kind="transformer", outputs=3, tokens=256),
              rate=5.0),
        SetUp(name="SGD at 60, shapes", x=pic, y=figure, net=Net(kind="cnn", outputs=3, hidden=(12, 12)), rate=60.0,
              optimizer="sgd"),
    ]  # fmt: skip


@REGISTRY.healthy("OPT601")
def unseen_warm_rates() -> list[SetUp]:
    (trees, kind), (points, group), (noon, after), (prints, digit) = scaled_forest(), blobs(), weather(), _digits()
    (text, language), (arcs, arc) = sentences(), moons()
    return [
        SetUp(name="SGD at 0.5, logistic regression", x=points, y=group, net=Net(outputs=6, hidden=()), rate=0.5,
              optimizer="sgd"),
        SetUp(name="Adam at 0.03, trees", x=trees, y=kind, net=Net(outputs=4, hidden=(24,), activation="tanh"),
              rate=0.03),
        SetUp(name="SGD at 0.3 with layer normalisation", x=prints, y=digit,
              net=Net(outputs=10, hidden=(64, 32), normalised=True), rate=0.3, optimizer="sgd"),
        SetUp(name="Adam at 0.02, recurrent", x=noon, y=after, net=Net(kind="lstm", hidden=(16,)), loss="squared",
              rate=0.02),
        SetUp(name="SGD at 0.5, moons", x=arcs, y=column(arc), net=Net(hidden=(24, 24), activation="tanh"),
              loss="binary", rate=0.5, optimizer="sgd"),
        SetUp(name="Adam at 0.1, embedding", x=text, y=language,
              net=Net(kind="embedding", outputs=3, tokens=256, hidden=(16,)), rate=0.1),
    ]  # fmt: skip


@REGISTRY.faulty("OPT602")
def unseen_low_rates() -> list[SetUp]:
    (arcs, arc), (x, price), (text, language), (points, group) = moons(), _prices(), sentences(), blobs()
    return [
        SetUp(name="Adam at 1e-8, moons", x=arcs, y=arc, net=Net(outputs=2, activation="tanh"), rate=1e-8),
        SetUp(name="SGD at 1e-9, houses", x=x, y=price, net=Net(hidden=(40, 20), activation="elu"), loss="squared",
              rate=1e-9, optimizer="sgd"),
        SetUp(name="Adam at 1e-10, attention", x=text, y=language,
              net=Net(kind="transformer", outputs=3, tokens=256), rate=1e-10),
        SetUp(name="SGD at 1e-8, clouds", x=points, y=group, net=Net(outputs=6, hidden=(24,), activation="tanh"),
              rate=1e-8, optimizer="sgd"),
    ]  # fmt: skip


@REGISTRY.healthy("OPT602")
def unseen_gentle_rates() -> list[SetUp]:
    (trees, kind), (prints, digit), (words, polite), (points, y) = scaled_forest(), _digits(), phrases(), friedman(1)
    links, hubs = graphs()
    return [
        SetUp(name="Adam at 1e-4, wide", x=prints, y=digit, net=Net(outputs=10, hidden=(512, 256)), rate=1e-4),
        SetUp(name="Adam at 3e-4, residual", x=trees, y=kind,
              net=Net(kind="residual", outputs=4, hidden=(48,) * 6, activation="gelu"), rate=3e-4),
        SetUp(name="SGD at 0.005, graphs", x=scaled(links), y=hubs, net=Net(outputs=2, hidden=(48,)), rate=5e-3,
              optimizer="sgd"),
        SetUp(name="SGD at 0.002, targets around 14", x=points, y=y, net=Net(hidden=(32, 32), activation="tanh"),
              loss="squared", rate=2e-3, optimizer="sgd"),
        SetUp(name="Adam at 3e-4, attention", x=words, y=polite,
              net=Net(kind="transformer", outputs=2, tokens=300), rate=3e-4),
    ]  # fmt: skip
