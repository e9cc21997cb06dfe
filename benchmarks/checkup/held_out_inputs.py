"""Held-out set-ups about inputs; nobody looked at the rules while writing them, nor at these while writing rules."""

from __future__ import annotations

import numpy as np

from benchmarks.checkup.held_out_sources import (
    blobs,
    claims,
    forest,
    friedman,
    graphs,
    houses,
    motion,
    phrases,
    scaled,
    scaled_forest,
    sentences,
    shapes,
    spectrograms,
    tones,
    weather,
)
from benchmarks.checkup.set_up import REGISTRY, Net, SetUp
from benchmarks.checkup.sources import raw

TREES, PRICE, TWO = Net(outputs=4, hidden=(48, 24)), Net(hidden=(40, 20), activation="elu"), Net(outputs=2)
TONE = Net(kind="lstm", outputs=2, hidden=(24,))
MOVES = Net(kind="lstm", outputs=3, hidden=(20,))
SHAPE = Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu")
SOUND = Net(kind="cnn", outputs=3, hidden=(6, 12), activation="gelu")


def _rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def _baskets(rows: int = 480) -> tuple[np.ndarray, np.ndarray]:
    """Counts of thirty goods, nineteen of twenty of them 0, and whether somebody bought of the first ten."""
    x = _rng(31).poisson(_rng(32).gamma(0.4, 0.15, 30) + 0.01, (rows, 30))
    return x.astype("float32"), (x[:, :10].sum(1) > 0).astype("int64")


@REGISTRY.faulty("DATA501")
def unseen_non_finite() -> list[SetUp]:
    goods, bought = _baskets()
    moves, gait = motion()
    gaps = moves.copy()
    gaps[[7, 130, 301], 9:15] = np.nan
    sound, kind = spectrograms()
    silent = sound.copy()
    silent[40] = -4.0
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(goods).astype("float32")
        levelled = (silent - silent.mean((1, 2, 3), keepdims=True)) / silent.std((1, 2, 3), keepdims=True)
        levelled[40] = levelled[40] / np.ptp(levelled[40])
    return [
        SetUp(name="the logarithm of counts, many 0", x=logs, y=bought, net=TWO),
        SetUp(name="gaps of a motion sensor", x=gaps, y=gait, net=MOVES, rate=5e-3),
        SetUp(name="a silent recording divided by its spread", x=levelled.astype("float32"), y=kind, net=SOUND),
    ]


@REGISTRY.healthy("DATA501")
def unseen_finite() -> list[SetUp]:
    x, price = houses()
    gone = _rng(1).uniform(size=x.shape) < 0.08
    filled = np.where(gone, 0.0, scaled(x))
    goods, bought = _baskets()
    (wave, tone), (moves, gait) = tones(), motion()
    quiet, short = wave.copy(), moves.copy()
    quiet[:30] = 0.0
    for row, end in enumerate(_rng(2).integers(10, 25, len(short))):
        short[row, : 24 - end] = 0.0
    silence = np.concatenate([np.full(30, 2), tone[30:]])
    noted = np.concatenate([filled, gone], 1).astype("float32")
    return [
        SetUp(name="missing values filled and noted", x=noted, y=price, net=PRICE, loss="squared"),
        SetUp(name="log1p of counts", x=np.log1p(goods), y=bought, net=TWO),
        SetUp(name="silent recordings", x=quiet, y=silence, net=Net(kind="lstm", outputs=3, hidden=(24,)), rate=5e-3),
        SetUp(name="padded series", x=short, y=gait, net=MOVES, rate=5e-3),
    ]


@REGISTRY.faulty("DATA502")
def unseen_unscaled() -> list[SetUp]:
    (x, price), (trees, kind), (wave, tone) = houses(), forest(), tones()
    return [
        SetUp(name="metres, degrees and one-hot columns", x=trees, y=kind, net=TREES),
        SetUp(name="houses as they come", x=x, y=price, net=PRICE, loss="squared"),
        SetUp(name="samples of 16 bits", x=np.round(wave * 32767), y=tone, net=TONE, rate=5e-3),
    ]


@REGISTRY.healthy("DATA502")
def unseen_scaled() -> list[SetUp]:
    (trees, kind), (pic, figure), (text, language), (sound, noise) = forest(), shapes(), sentences(), spectrograms()
    sizes = _rng(3).lognormal(9.0, 2.0, (400, 5))
    large = (np.log10(sizes).mean(1) > 3.9).astype("int64")
    prints, digit = raw("digits")
    normalised = Net(outputs=10, hidden=(64, 32), normalised=True, activation="gelu")
    first = Net(kind="residual", outputs=4, hidden=(24, 24), first="batch_norm")
    return [
        SetUp(name="pictures from −1 to 1", x=2 * pic - 1, y=figure, net=SHAPE, rate=5e-3),
        SetUp(name="sizes on a logarithmic scale", x=np.log10(sizes).astype("float32"), y=large, net=TWO, rate=5e-3),
        SetUp(name="0 to 16 before layer normalisation", x=prints[:640], y=digit[:640].astype("int64"), net=normalised),
        SetUp(name="metres before batch normalisation", x=trees, y=kind, net=first),
        SetUp(
            name="bytes",
            x=text,
            y=language,
            net=Net(kind="embedding", outputs=3, tokens=256, hidden=(24,)),
            rate=1e-2,
        ),
        SetUp(name="bels", x=sound, y=noise, net=SOUND, rate=1e-2),
    ]


@REGISTRY.faulty("DATA503")
def unseen_outliers() -> list[SetUp]:
    (x, price), (wave, tone), (trees, kind) = houses(), tones(), scaled_forest()
    slipped, click, absent = scaled(x), wave.copy(), forest()[0][:, :9].copy()
    slipped[77, 4] *= 3e5 / abs(slipped[77, 4])
    click[11, 20, 0] = 12000.0
    absent[[20, 200], 0] = -1e8
    together = np.concatenate([scaled(absent), trees[:, 9:]], 1)
    return [
        SetUp(name="people in the wrong unit", x=slipped, y=price, net=PRICE, loss="squared"),
        SetUp(name="a click", x=click, y=tone, net=TONE, rate=5e-3),
        SetUp(name="standardised together with −1e8 for missing", x=together, y=kind, net=TREES),
    ]


@REGISTRY.healthy("DATA503")
def unseen_wide() -> list[SetUp]:
    rng = _rng(4)
    sums = rng.lognormal(0.0, 1.0, (512, 5)).astype("float32")
    late = (np.log(sums[:, 0]) + np.log(sums[:, 1]) > 0).astype("int64")
    levels = np.concatenate([np.arange(40), rng.choice(40, 560, p=np.r_[0.4, 0.3, np.full(38, 0.3 / 38)])])
    rare = np.concatenate([scaled(np.eye(40)[levels]), rng.normal(size=(600, 3))], 1).astype("float32")
    goods, bought = _baskets()
    weights = goods * np.log(len(goods) / (1 + (goods > 0).sum(0))).astype("float32")
    links, hubs = graphs()
    return [
        SetUp(name="lognormal sums", x=sums, y=late, net=TWO, rate=5e-3),
        SetUp(name="rare levels, standardised", x=rare, y=(rare[:, 40] + rare[:, 41] > 0).astype("int64"), net=TWO),
        SetUp(name="weights of rare words", x=weights, y=bought, net=TWO),
        SetUp(name="graphs with hubs, standardised", x=scaled(links), y=hubs, net=Net(outputs=2, hidden=(24,))),
    ]


@REGISTRY.faulty("DATA506")
def unseen_constant() -> list[SetUp]:
    (trees, kind), (moves, gait), (pic, figure) = scaled_forest(), motion(), shapes()
    unjoined, still = trees.copy(), moves.copy()
    unjoined[:, :3] = 0.0
    still[:, :, 1] = 0.98
    alpha = np.concatenate([pic, np.ones_like(pic[..., :1])], 3)
    return [
        SetUp(name="three columns of a join that failed", x=unjoined, y=kind, net=TREES),
        SetUp(name="an axis that is off", x=still, y=gait, net=MOVES, rate=5e-3),
        SetUp(name="an opaque fourth channel", x=alpha, y=figure, net=SHAPE, rate=5e-3),
    ]


@REGISTRY.healthy("DATA506")
def unseen_dull() -> list[SetUp]:
    (pic, figure), (goods, bought), (noon, after) = shapes(), _baskets(), weather()
    framed = np.pad(pic, ((0, 0), (3, 3), (3, 3), (0, 0)))
    since = noon - noon[:, :1]
    level = np.minimum(_rng(6).geometric(0.25, 512) - 1, 15)
    level[:16] = np.arange(16)
    rare = np.concatenate([np.eye(16)[level], _rng(7).normal(size=(512, 2))], 1).astype("float32")
    return [
        SetUp(name="a black frame", x=framed, y=figure, net=SHAPE, rate=1e-2),
        SetUp(name="baskets that are mostly empty", x=goods, y=bought, net=TWO),
        SetUp(
            name="series that begin at 0",
            x=since,
            y=after - noon[:, 0, :1],
            net=Net(kind="lstm", hidden=(24,)),
            loss="squared",
            rate=5e-3,
        ),
        SetUp(name="levels of which some are rare", x=rare, y=(level % 2).astype("int64"), net=TWO),
    ]


@REGISTRY.faulty("DATA507")
def unseen_wrapped() -> list[SetUp]:
    (wave, tone), (pic, figure) = tones(), shapes()
    louder = (np.round(wave * 32767).astype("int32") * 2).astype("int16")
    rng = _rng(8)
    waited = rng.uniform(1, 60, (480, 3))
    spent = (waited * 86_400_000).astype("int64").astype("int32")
    darker = (np.round(pic * 255).astype("int16") - 20).astype("uint8")
    return [
        SetUp(name="gain of 2 in int16", x=louder, y=tone, net=TONE, rate=5e-3),
        SetUp(name="milliseconds of two months in int32", x=spent, y=(waited[:, 0] > 30).astype("int64"), net=TWO),
        SetUp(
            name="darkened in uint8",
            x=darker,
            y=figure,
            net=Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu", first="rescaling"),
            rate=5e-3,
        ),
    ]


@REGISTRY.healthy("DATA507")
def unseen_integers() -> list[SetUp]:
    (wave, tone), (pic, figure), rng = tones(), shapes(), _rng(9)
    bright = np.clip(pic * 600 - 40, 0, 255).astype("uint8")
    degrees = np.clip(rng.normal(9, 12, (448, 5)), -30, 40).astype("int8")
    marks = np.clip(rng.normal(70, 22, (448, 4)), 0, 100).astype("int8")
    lstm = Net(kind="lstm", outputs=2, hidden=(24,), first="rescaling")
    cnn = Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu", first="rescaling")
    inside = Net(outputs=2, first="standardise")
    return [
        SetUp(name="quiet recordings in int16", x=(wave * 300).astype("int16"), y=tone, net=lstm, rate=1e-2),
        SetUp(name="overexposed uint8", x=bright, y=figure, net=cnn, rate=5e-3),
        SetUp(name="degrees in int8", x=degrees, y=(degrees[:, 0] > degrees[:, 1]).astype("int64"), net=inside),
        SetUp(name="marks up to 100 in int8", x=marks, y=(marks.mean(1) > 70).astype("int64"), net=inside),
    ]


@REGISTRY.faulty("DATA511")
def unseen_ids_beyond() -> list[SetUp]:
    (text, language), (words, polite) = sentences(), phrases()
    unknown, twice = words.copy(), words - 12
    unknown[::37, 4] = 300
    return [
        SetUp(
            name="letters beyond ASCII", x=text, y=language, net=Net(kind="embedding", outputs=3, tokens=128), rate=1e-2
        ),
        SetUp(
            name="the unknown word, one past the end",
            x=unknown,
            y=polite,
            net=Net(kind="lstm", outputs=2, tokens=300, hidden=(24,)),
        ),
        SetUp(
            name="an offset subtracted that was not there",
            x=twice,
            y=polite,
            net=Net(kind="transformer", outputs=2, tokens=300),
        ),
    ]


@REGISTRY.healthy("DATA511")
def unseen_ids_within() -> list[SetUp]:
    (text, language), (words, polite) = sentences(), phrases()
    padded = np.concatenate([words[:, :12], np.zeros((len(words), 20), "int64")], 1)
    top = np.where(words == words.max(), 299, words)
    small = Net(kind="embedding", outputs=2, tokens=300, hidden=(16,))
    return [
        SetUp(
            name="few letters, all bytes", x=text, y=language, net=Net(kind="lstm", outputs=3, tokens=256, hidden=(24,))
        ),
        SetUp(name="mostly padding", x=padded, y=polite, net=small, rate=2e-2),
        SetUp(name="the largest id that there is", x=top.astype("int32"), y=polite, net=small, rate=2e-2),
        SetUp(
            name="a table far too long",
            x=words,
            y=polite,
            net=Net(kind="transformer", outputs=2, tokens=20_000, hidden=(16,)),
            rate=5e-3,
        ),
    ]


@REGISTRY.healthy("DATA502")
def unseen_other_ranges() -> list[SetUp]:
    (driver, filed), (points, kind), (x, y) = claims(), blobs(), friedman(1)
    return [
        SetUp(name="numbers, counts and one-hot columns", x=driver, y=np.minimum(filed, 3), net=PRICE, loss="squared"),
        SetUp(name="between 0 and 0.3", x=(points + 4) / 27, y=kind, net=Net(outputs=6, hidden=(64, 64)), rate=5e-3),
        SetUp(name="around 3", x=x + 3, y=scaled(y), net=PRICE, loss="squared", rate=5e-3),
    ]
