"""Held-out set-ups about labels: contradictory, out of range, in another form, on another scale, of one class."""

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
from benchmarks.checkup.set_up import KERAS_ONLY, LIGHTNING_ONLY, REGISTRY, Net, SetUp
from benchmarks.checkup.sources import column, one_hot

TREES, NUMBER, TWO = Net(outputs=4, hidden=(48, 24)), Net(hidden=(40, 20), activation="elu"), Net(outputs=2)
SOUND = Net(kind="cnn", outputs=3, hidden=(6, 12), activation="gelu")
SHAPE = Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu")
BLOBS = Net(outputs=6, hidden=(24,), activation="tanh")
AFTER = Net(kind="lstm", hidden=(24,))


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@REGISTRY.faulty("DATA504")
def unseen_wrong_labels() -> list[SetUp]:
    (sound, kind), (x, price), (points, y) = spectrograms(), houses(), friedman(1)
    second = np.where(_rng(1).uniform(size=len(kind)) < 0.6, (kind + 1) % 3, kind)
    absent = scaled(y)
    absent[[3, 99, 400]] = -9999.0
    joined = np.concatenate([price, _rng(2).permutation(price)])
    return [
        SetUp(
            name="two who do not agree",
            x=np.concatenate([sound, sound]),
            y=np.concatenate([kind, second]),
            net=SOUND,
            rate=5e-3,
        ),
        SetUp(
            name="houses joined with other prices",
            x=np.concatenate([scaled(x)] * 2),
            y=joined,
            net=NUMBER,
            loss="squared",
        ),
        SetUp(name="−9999 for a missing target", x=points, y=absent, net=NUMBER, loss="squared"),
    ]


@REGISTRY.healthy("DATA504")
def unseen_right_labels() -> list[SetUp]:
    rng = _rng(3)
    answers = rng.integers(0, 2, (480, 4)).astype("float32")
    chance = np.array([0.1, 0.15, 0.8, 0.9])[(2 * answers[:, 0] + answers[:, 1]).astype(int)]
    links, hubs = graphs()
    few = np.flatnonzero(hubs == 1)[:40]
    again = np.concatenate([np.flatnonzero(hubs == 0), np.repeat(few, 4)])
    x = rng.normal(size=(480, 6)).astype("float32")
    heavy = (x[:, :1] + 0.5 * x[:, 1:2] + 0.4 * rng.standard_t(3, (480, 1))).astype("float32")
    near, group = blobs(spread=4.5)
    return [
        SetUp(name="a few answers, uncertain outcome", x=answers, y=column(rng.uniform(size=480) < chance), net=NUMBER,
              loss="binary", rate=5e-3),
        SetUp(name="the rarer class repeated", x=scaled(links)[again], y=hubs[again], net=TWO),
        SetUp(name="heavy tails of targets", x=x, y=heavy, net=NUMBER, loss="squared", rate=3e-3),
        SetUp(name="clouds that overlap", x=near, y=group, net=BLOBS, rate=1e-2),
    ]  # fmt: skip


@REGISTRY.faulty("DATA505")
def unseen_labels_beyond() -> list[SetUp]:
    (trees, kind), (points, group), (driver, filed) = scaled_forest(), blobs(), claims()
    percent = np.round(100 / (1 + np.exp(-driver[:, :1] - driver[:, 2:3])))
    return [
        SetUp(name="trees counted from one", x=trees, y=kind + 1, net=TREES),
        SetUp(name="a sixth class", x=points, y=group, net=Net(outputs=5, hidden=(24,), activation="tanh")),
        SetUp(name="per cent for a sigmoid", x=driver, y=percent.astype("float32"), net=NUMBER, loss="binary"),
        SetUp(name="numbers of claims for a sigmoid", x=driver, y=filed, net=NUMBER, loss="binary"),
    ]


@REGISTRY.healthy("DATA505")
def unseen_labels_within() -> list[SetUp]:
    (trees, kind), (driver, _), (along, far), (points, group) = scaled_forest(), claims(), roll(), blobs()
    chance = (1 / (1 + np.exp(-2 * driver[:, :1] - driver[:, 2:3]))).astype("float32")
    steps = (kind[:, None] > np.arange(3)).astype("float32")
    squeezed = 2 * (far - far.min()) / np.ptp(far) - 1
    smooth = 0.85 * one_hot(group, 6) + 0.025
    return [
        SetUp(name="probabilities as labels", x=driver, y=chance, net=NUMBER, loss="binary", rate=5e-3),
        SetUp(name="ordered kinds as steps", x=trees, y=steps, net=Net(outputs=3), loss="binary", rate=3e-3),
        SetUp(name="numbers of which some do not occur", x=trees, y=2 * kind, net=Net(outputs=8), rate=3e-3),
        SetUp(name="tanh up to its ends", x=along, y=squeezed.astype("float32"),
              net=Net(hidden=(64, 64), final="tanh"), loss="squared", rate=5e-3),
        SetUp(name="smooth labels", x=points, y=smooth.astype("float32"), net=BLOBS, loss="soft_cross_entropy",
              rate=1e-2),
    ]  # fmt: skip


@REGISTRY.faulty("DATA508")
def unseen_other_form() -> list[SetUp]:
    (x, price), (trees, kind), (sound, noise), (text, language) = houses(), scaled_forest(), spectrograms(), sentences()
    softmax = Net(outputs=6, hidden=(24,), final="softmax")
    return [
        SetUp(name="flat prices", x=scaled(x), y=price[:, 0], net=NUMBER, loss="absolute", frameworks=LIGHTNING_ONLY),
        SetUp(
            name="one column of indices for six probabilities",
            x=blobs()[0],
            y=column(blobs()[1]),
            net=softmax,
            loss="soft_cross_entropy",
            takes="probabilities",
            frameworks=LIGHTNING_ONLY,
        ),
        SetUp(name="one index for four outputs", x=trees, y=column(kind), net=TREES, loss="squared"),
        SetUp(
            name="one-hot spectrograms for indices",
            x=sound,
            y=one_hot(noise, 3),
            net=SOUND,
            frameworks=KERAS_ONLY,
        ),
        SetUp(
            name="one-hot languages for indices",
            x=text,
            y=one_hot(language, 3),
            net=Net(kind="lstm", outputs=3, tokens=256, hidden=(24,)),
            frameworks=KERAS_ONLY,
        ),
    ]


@REGISTRY.healthy("DATA508")
def unseen_own_form() -> list[SetUp]:
    (along, far), (trees, kind), (driver, filed) = roll(), scaled_forest(), claims()
    both = np.concatenate([scaled(far), along[:, :1]], 1)
    votes = np.stack([kind, kind // 2, (trees[:, 9:13] * np.arange(4)).sum(1)], 1).astype("float32")
    return [
        SetUp(name="two targets, two outputs", x=along, y=both, net=Net(outputs=2, hidden=(64, 64)), loss="squared",
              rate=5e-3),
        SetUp(name="whole numbers as targets", x=driver, y=np.minimum(filed, 4), net=NUMBER, loss="absolute"),
        SetUp(name="three grades, three outputs", x=trees, y=votes, net=Net(outputs=3), loss="squared", rate=3e-3),
        SetUp(name="two classes, one output", x=moons()[0], y=column(moons()[1]), net=NUMBER, loss="binary",
              rate=5e-3),
    ]  # fmt: skip


@REGISTRY.faulty("DATA509")
def unseen_unscaled_targets() -> list[SetUp]:
    (x, price), (points, y), (noon, after) = houses(), friedman(2), weather()
    return [
        SetUp(name="houses in dollars", x=scaled(x), y=price * 1e5, net=NUMBER, loss="squared"),
        SetUp(name="impedance as it comes, times 10", x=points, y=10 * y, net=NUMBER, loss="squared"),
        SetUp(name="watt-hours", x=noon, y=8000 + 2500 * after, net=AFTER, loss="absolute"),
    ]


@REGISTRY.healthy("DATA509")
def unseen_scaled_targets() -> list[SetUp]:
    (x, price), (points, y), (noon, after), (driver, filed) = houses(), friedman(1), weather(), claims()
    counted = Net(hidden=(32,), activation="tanh")
    return [
        SetUp(name="degrees Celsius", x=noon[:, -1], y=11 + 6 * after, net=Net(hidden=(32, 32)), loss="squared",
              rate=1e-2),
        SetUp(name="logarithms of dollars", x=scaled(x), y=np.log(price * 1e5), net=NUMBER, loss="squared", rate=1e-2),
        SetUp(name="Friedman's first problem as it comes", x=points, y=y, net=NUMBER, loss="squared", rate=1e-2),
        SetUp(name="small returns", x=scaled(x), y=0.05 * scaled(price), net=NUMBER, loss="squared"),
        SetUp(name="counts, mostly 0", x=driver, y=filed, net=counted, loss="squared", rate=5e-3),
        SetUp(name="counts, mostly 0, logarithmic rates", x=driver, y=filed, net=counted, loss="poisson", takes="logs",
              rate=5e-3, frameworks=LIGHTNING_ONLY),
    ]  # fmt: skip


@REGISTRY.faulty("DATA510")
def unseen_single_class() -> list[SetUp]:
    (sound, kind), (driver, _), (points, group) = spectrograms(), claims(), blobs()
    return [
        SetUp(name="one file of many", x=sound[kind == 2], y=kind[kind == 2], net=SOUND),
        SetUp(
            name="fraud was not filled in", x=driver, y=np.zeros((len(driver), 1), "float32"), net=NUMBER, loss="binary"
        ),
        SetUp(
            name="one-hot rows that are all alike",
            x=points,
            y=one_hot(np.full_like(group, 4), 6),
            net=BLOBS,
            loss="soft_cross_entropy",
        ),
    ]


@REGISTRY.healthy("DATA510")
def unseen_rare_class() -> list[SetUp]:
    x = _rng(5).normal(size=(1200, 5)).astype("float32")
    rare = (x[:, 0] + x[:, 1] > 3.3).astype("int64")
    (pic, figure), (moves, gait), (words, polite) = shapes(), motion(), phrases()
    order = np.argsort(figure, kind="stable")
    kept = np.flatnonzero(gait != 1)
    few = np.concatenate([np.flatnonzero(polite == 0), np.flatnonzero(polite == 1)[:12]])
    return [
        SetUp(name="99 to 1", x=x, y=rare, net=TWO, rate=5e-3),
        SetUp(name="99 to 1, one output", x=x, y=column(rare), net=NUMBER, loss="binary", rate=5e-3),
        SetUp(name="sorted by class", x=pic[order], y=figure[order], net=SHAPE, rate=1e-2),
        SetUp(name="a class that does not occur", x=moves[kept], y=gait[kept],
              net=Net(kind="lstm", outputs=3, hidden=(20,)), rate=5e-3),
        SetUp(name="a dozen polite ones at the end", x=words[few], y=polite[few],
              net=Net(kind="embedding", outputs=2, tokens=300), rate=1e-2),
    ]  # fmt: skip


@REGISTRY.healthy("DATA504")
def unseen_mixed_phrases() -> list[SetUp]:
    rng = _rng(6)
    short = rng.integers(0, 4, (480, 2)).astype("int64")
    liked = (rng.uniform(size=480) < np.array([0.05, 0.3, 0.8, 0.95])[short[:, 0]]).astype("int64")
    place = rng.integers(0, 4, 480)
    tree = np.where(rng.uniform(size=480) < 0.7, place, rng.integers(0, 4, 480))
    return [
        SetUp(name="short phrases, uncertain mood", x=short, y=liked,
              net=Net(kind="embedding", outputs=2, tokens=4, hidden=(16,)), rate=2e-2),
        SetUp(name="four places, several trees each", x=one_hot(place, 4), y=tree, net=TREES, rate=3e-3),
    ]  # fmt: skip
