"""Data of the held-out set-ups: houses, forests, claims, graphs, sentences, tones, spectrograms, motion, shapes.

All of it is generated, and comes in natural units; `scaled` standardises it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from sklearn import datasets

Arrays = tuple[np.ndarray, np.ndarray]


def scaled(x: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 per column; a constant column becomes 0."""
    spread = x.std(0)
    return ((x - x.mean(0)) / np.where(spread > 0, spread, 1.0)).astype("float32")


@cache
def houses(rows: int = 500) -> Arrays:
    """Blocks of houses as in California: eight columns, and the median price in hundreds of thousands, a column."""
    rng = np.random.default_rng(11)
    income, age = rng.lognormal(1.2, 0.45, rows), rng.uniform(1, 52, rows)
    rooms, bedrooms = rng.lognormal(1.65, 0.25, rows), rng.normal(1.1, 0.08, rows)
    people, occupancy = rng.lognormal(7.0, 0.7, rows), rng.lognormal(1.05, 0.2, rows)
    north, east = rng.uniform(32.5, 42.0, rows), rng.uniform(-124.3, -114.3, rows)
    price = 0.45 * income + 0.12 * rooms - 0.15 * (north - 37) - 0.2 * occupancy + 0.6 + rng.normal(0, 0.25, rows)
    columns = [income, age, rooms, bedrooms, people, occupancy, north, east]
    return np.stack(columns, 1).astype("float32"), np.clip(price, 0.15, 5.0)[:, None].astype("float32")


@cache
def forest(rows: int = 512) -> Arrays:
    """Patches of forest: nine measured columns, then one-hot wilderness (4) and soil (8); four kinds of trees."""
    rng = np.random.default_rng(12)
    height, slope = rng.normal(2950, 280, rows), rng.gamma(3.0, 5.0, rows)
    aspect, distances = rng.uniform(0, 360, rows), rng.gamma(2.0, 700.0, (rows, 3))
    shade = np.clip(rng.normal(200, 35, (rows, 3)), 0, 254)
    place, soil = rng.integers(0, 4, rows), rng.choice(8, rows, p=[0.3, 0.2, 0.15, 0.12, 0.1, 0.06, 0.05, 0.02])
    kind = np.digitize(height + 60 * place - 90 + rng.normal(0, 40, rows), [2750, 2950, 3150])
    measured = np.concatenate([height[:, None], aspect[:, None], slope[:, None], distances, shade], 1)
    return np.concatenate([measured, np.eye(4)[place], np.eye(8)[soil]], 1).astype("float32"), kind.astype("int64")


def scaled_forest() -> Arrays:
    """The same with the nine measured columns standardised and the one-hot ones as they are."""
    x, y = forest()
    return np.concatenate([scaled(x[:, :9]), x[:, 9:]], 1), y


@cache
def claims(rows: int = 600) -> Arrays:
    """Insured drivers: age, power, earlier claims (mostly 0), six regions, and the claims of the year, a column."""
    rng = np.random.default_rng(13)
    age, power, earlier = rng.uniform(18, 85, rows), rng.gamma(4.0, 25.0, rows), rng.poisson(0.15, rows)
    rate = np.exp(-2.0 + 0.05 * np.abs(age - 50) + 0.004 * power + 0.8 * earlier)
    columns = np.stack([scaled(age[:, None])[:, 0], scaled(power[:, None])[:, 0], earlier], 1)
    regions = np.eye(6)[rng.integers(0, 6, rows)]
    return np.concatenate([columns, regions], 1).astype("float32"), rng.poisson(rate)[:, None].astype("float32")


@cache
def graphs(rows: int = 300) -> Arrays:
    """Graphs as tables: edges, largest degree, its variance, triangles, lone nodes, two eigenvalues; hubs or none."""
    rng = np.random.default_rng(14)
    kinds, made = rng.integers(0, 2, rows), []
    for kind in kinds:
        weight = rng.pareto(1.8, 20) + 0.3 if kind else np.ones(20)
        chance = np.minimum(0.9, 0.16 * np.outer(weight, weight) / weight.mean() ** 2)
        upper = np.triu(rng.uniform(size=(20, 20)) < chance, 1).astype("float64")
        links = upper + upper.T
        degree, values = links.sum(1), np.linalg.eigvalsh(links)
        triangles = np.trace(links @ links @ links) / 6
        made.append([upper.sum(), degree.max(), degree.var(), triangles, (degree == 0).sum(), values[-1], values[0]])
    return np.array(made, "float32"), kinds.astype("int64")


@cache
def sentences(rows: int = 420, *, length: int = 32) -> Arrays:
    """Bytes (Latin-1) of three languages, of which two have letters beyond 127; the language."""
    rng = np.random.default_rng(15)
    alphabets = ["etaoinshrdlu cm", "enisratdhulü öä", "aeosrindmutçã é"]
    y = rng.integers(0, 3, rows)
    common = 1 / np.arange(1, 16) ** 0.7
    drawn = rng.choice(15, (rows, length), p=common / common.sum())
    codes = np.array([np.frombuffer(letters.encode("latin-1"), "uint8") for letters in alphabets])
    return codes[y[:, None], drawn].astype("int64"), y.astype("int64")


@cache
def phrases(rows: int = 448, *, words: int = 300, length: int = 12) -> Arrays:
    """Ids of words, and whether one of five polite ones is among them."""
    rng = np.random.default_rng(16)
    x = rng.integers(10, words, (rows, length))
    y = rng.integers(0, 2, rows)
    polite = rng.integers(0, length, rows), rng.integers(5, 10, rows)
    x[np.arange(rows)[y == 1], polite[0][y == 1]] = polite[1][y == 1]
    return x.astype("int64"), y.astype("int64")


@cache
def tones(rows: int = 384, *, length: int = 32) -> Arrays:
    """Recordings from −1 to 1, (rows, length, 1), of a low or a high tone."""
    rng = np.random.default_rng(17)
    y = rng.integers(0, 2, rows)
    pace = np.where(y, 1.1, 0.35) * rng.uniform(0.85, 1.15, rows)
    wave = np.sin(rng.uniform(0, 6.28, (rows, 1)) + pace[:, None] * np.arange(length))
    wave = rng.uniform(0.5, 0.95, (rows, 1)) * wave + 0.02 * rng.normal(size=(rows, length))
    return np.clip(wave, -1, 1)[:, :, None].astype("float32"), y.astype("int64")


@cache
def spectrograms(rows: int = 320) -> Arrays:
    """Spectrograms of 16 bands and 24 times with one channel, in bels from about −4 to 0: steady, thin, wide sounds."""
    rng = np.random.default_rng(18)
    y = rng.integers(0, 3, rows)
    band = np.arange(16)[None, :, None]
    middle = rng.uniform(4, 11, (rows, 1, 1)) + 0.1 * rng.normal(size=(rows, 1, 24)).cumsum(2)
    width = np.array([0.6, 1.5, 3.5])[y][:, None, None]
    power = np.exp(-(((band - middle) / width) ** 2)) + 1e-4 * rng.exponential(size=(rows, 16, 24)) + 1e-4
    return np.log10(power)[..., None].astype("float32"), y.astype("int64")


@cache
def motion(rows: int = 384, *, length: int = 24) -> Arrays:
    """Acceleration along three axes in g, (rows, length, 3): at rest, walking, running."""
    rng = np.random.default_rng(19)
    y = rng.integers(0, 3, rows)
    swing = np.array([0.03, 0.4, 1.2])[y][:, None, None] * rng.uniform(0.7, 1.3, (rows, 1, 1))
    times = np.arange(length)[None, :, None] * np.array([0.5, 1.0, 0.5]) + rng.uniform(0, 6.28, (rows, 1, 3))
    x = swing * np.sin(times) + np.array([0.0, 0.6, 0.1]) + 0.03 * rng.normal(size=(rows, length, 3))
    return x.astype("float32"), y.astype("int64")


@cache
def shapes(rows: int = 320) -> Arrays:
    """Colour pictures of 12 by 12 from 0 to 1: a small square, a bar, or a large square, in some colour."""
    rng = np.random.default_rng(20)
    y, x = rng.integers(0, 3, rows), rng.uniform(0, 0.15, (rows, 12, 12, 3))
    for row, kind in enumerate(y):
        tall, wide = ((3, 3), (2, 9), (7, 7))[kind]
        top, left = rng.integers(0, 12 - tall), rng.integers(0, 12 - wide)
        x[row, top : top + tall, left : left + wide] += rng.uniform(0.4, 0.85, 3)
    return x.astype("float32"), y.astype("int64")


@cache
def weather(rows: int = 384, *, length: int = 20) -> Arrays:
    """Temperature and pressure over hours, both standardised, (rows, length, 2), and the next temperature, a column."""
    rng = np.random.default_rng(21)
    start, slow = rng.uniform(0, 6.28, (rows, 1)), rng.normal(0, 0.6, (rows, 1))
    warm = slow + np.sin(start + 0.26 * np.arange(length + 1)) + 0.05 * rng.normal(size=(rows, length + 1))
    heavy = -0.7 * warm[:, :-1] + 0.5 * rng.normal(size=(rows, length))
    return np.stack([warm[:, :-1], heavy], 2).astype("float32"), warm[:, -1:].astype("float32")


@cache
def friedman(number: int, rows: int = 480) -> Arrays:
    """Friedman's regression problems 1 to 3 with standardised inputs; the targets as they come, a column."""
    made = getattr(datasets, f"make_friedman{number}")(rows, noise=0.1, random_state=0)
    return scaled(made[0]), made[1][:, None].astype("float32")


@cache
def roll(rows: int = 448) -> Arrays:
    """The Swiss roll, standardised, and how far along it a point lies (from 4.7 to 14.1), a column."""
    x, along = datasets.make_swiss_roll(rows, noise=0.1, random_state=0)
    return scaled(x), along[:, None].astype("float32")


@cache
def blobs(rows: int = 420, *, centers: int = 6, spread: float = 1.5) -> Arrays:
    """Clouds of points in ten dimensions, standardised."""
    x, y = datasets.make_blobs(rows, n_features=10, centers=centers, cluster_std=spread, random_state=3)
    return scaled(x), y.astype("int64")


@cache
def moons(rows: int = 448) -> Arrays:
    """Two moons, standardised."""
    x, y = datasets.make_moons(rows, noise=0.12, random_state=0)
    return scaled(x), y.astype("int64")
