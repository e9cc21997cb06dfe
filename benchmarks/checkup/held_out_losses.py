"""Held-out set-ups about losses: activations applied twice or missing, and operations near the edge of numbers."""

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
    tones,
)
from benchmarks.checkup.set_up import KERAS_ONLY, LIGHTNING_ONLY, REGISTRY, Net, SetUp
from benchmarks.checkup.sources import column, one_hot, raw

NUMBER = Net(hidden=(40, 20), activation="elu")


def _steps() -> tuple[np.ndarray, np.ndarray]:
    x, kind = scaled_forest()
    return x, (kind[:, None] > np.arange(3)).astype("float32")


@REGISTRY.faulty("LOSS403")
def unseen_activation_twice() -> list[SetUp]:
    (trees, kind), (moves, gait) = scaled_forest(), motion()
    return [
        SetUp(name="residual softmax for logits", x=trees, y=kind,
              net=Net(kind="residual", outputs=4, hidden=(24, 24), activation="gelu", final="softmax"), rate=5e-3),
        SetUp(name="recurrent softmax for logits", x=moves, y=gait,
              net=Net(kind="lstm", outputs=3, hidden=(20,), final="softmax"), rate=1e-2),
        SetUp(name="three sigmoids for logits", x=_steps()[0], y=_steps()[1], net=Net(outputs=3, final="sigmoid"),
              loss="binary", rate=5e-3),
        SetUp(name="one sigmoid for a logit", x=moons()[0], y=column(moons()[1]),
              net=Net(hidden=(16, 16), activation="tanh", final="sigmoid"), loss="binary", rate=1e-2),
    ]  # fmt: skip


@REGISTRY.healthy("LOSS403")
def unseen_activation_once() -> list[SetUp]:
    (trees, kind), (wave, tone), (pic, figure), (along, far) = scaled_forest(), tones(), shapes(), roll()
    share = ((far - far.min()) / np.ptp(far)).astype("float32")
    return [
        SetUp(name="log-softmax for logits, which is idempotent", x=trees, y=kind,
              net=Net(outputs=4, hidden=(48, 24), final="log_softmax"), rate=3e-3),
        SetUp(name="recurrent sigmoid and probabilities", x=wave, y=column(tone),
              net=Net(kind="lstm", hidden=(24,), final="sigmoid"), loss="binary", takes="probabilities", rate=1e-2),
        SetUp(name="Brier's score", x=pic, y=one_hot(figure, 3),
              net=Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu", final="softmax"), loss="squared",
              rate=1e-2),
        SetUp(name="shares from a sigmoid", x=along, y=share, net=Net(hidden=(64, 64), final="sigmoid"),
              loss="squared", rate=5e-3),
        SetUp(name="softmax and smooth probabilities", x=trees, y=(0.9 * one_hot(kind, 4) + 0.025).astype("float32"),
              net=Net(outputs=4, hidden=(48,), final="softmax"), loss="soft_cross_entropy", takes="probabilities",
              rate=3e-3),
    ]  # fmt: skip


@REGISTRY.faulty("LOSS404")
def unseen_activation_missing() -> list[SetUp]:
    (trees, kind), (moves, gait), (text, language) = scaled_forest(), motion(), sentences()
    (points, group), (wave, tone) = blobs(), tones()
    gelu = Net(kind="residual", outputs=4, hidden=(24, 24), activation="gelu")
    recurrent = Net(kind="lstm", outputs=3, hidden=(20,))
    return [
        SetUp(name="residual scores for probabilities", x=trees, y=kind, net=gelu, takes="probabilities",
              frameworks=KERAS_ONLY),
        SetUp(name="recurrent score for a probability", x=wave, y=column(tone), net=Net(kind="lstm", hidden=(24,)),
              loss="binary", takes="probabilities", rate=5e-3, frameworks=KERAS_ONLY),
        SetUp(name="scores for soft labels", x=points, y=(0.85 * one_hot(group, 6) + 0.025).astype("float32"),
              net=Net(outputs=6, activation="selu"), loss="soft_cross_entropy", takes="probabilities",
              frameworks=KERAS_ONLY),
        SetUp(name="residual scores for logarithms", x=trees, y=kind, net=gelu, takes="logs",
              frameworks=LIGHTNING_ONLY),
        SetUp(name="recurrent scores for logarithms", x=moves, y=gait, net=recurrent, takes="logs", rate=5e-3,
              frameworks=LIGHTNING_ONLY),
        SetUp(name="attention's probabilities for logarithms", x=text, y=language,
              net=Net(kind="transformer", outputs=3, tokens=256, final="softmax"), takes="logs",
              frameworks=LIGHTNING_ONLY),
        SetUp(name="sigmoids for logarithms", x=points, y=group, net=Net(outputs=6, final="sigmoid"), takes="logs",
              frameworks=LIGHTNING_ONLY),
    ]  # fmt: skip


@REGISTRY.healthy("LOSS404")
def unseen_activation_in_place() -> list[SetUp]:
    (trees, kind), (moves, gait), (text, language) = scaled_forest(), motion(), sentences()
    (points, group), (driver, filed) = blobs(), claims()
    return [
        SetUp(name="scores regressed on one-hot rows", x=points, y=one_hot(group, 6), net=Net(outputs=6),
              loss="squared", rate=3e-3),
        SetUp(name="scores regressed on 0 and 1", x=moons()[0], y=column(moons()[1]), net=NUMBER, loss="squared",
              rate=5e-3),
        SetUp(name="scores and smooth labels", x=moves, y=(0.9 * one_hot(gait, 3) + 1 / 30).astype("float32"),
              net=Net(kind="lstm", outputs=3, hidden=(20,)), loss="soft_cross_entropy", rate=1e-2),
        SetUp(name="residual sigmoids and probabilities", x=_steps()[0], y=_steps()[1],
              net=Net(kind="residual", outputs=3, hidden=(24, 24), activation="elu", final="sigmoid"),
              loss="binary", takes="probabilities", rate=3e-3),
        SetUp(name="attention's softmax and probabilities", x=text, y=language,
              net=Net(kind="transformer", outputs=3, tokens=256, final="softmax"), takes="probabilities",
              rate=3e-3),
        SetUp(name="logarithmic rates of counts", x=driver, y=filed, net=NUMBER, loss="poisson", takes="logs",
              rate=3e-3, frameworks=LIGHTNING_ONLY),
        SetUp(name="log-softmax and logarithms", x=trees, y=kind,
              net=Net(kind="residual", outputs=4, hidden=(24, 24), final="log_softmax"), takes="logs",
              frameworks=LIGHTNING_ONLY),
    ]  # fmt: skip


def _edges(operation: str, **more: object) -> list[SetUp]:
    """Three nets with this operation before their output."""
    (trees, kind), (pic, figure), (moves, gait) = scaled_forest(), shapes(), motion()
    made = dict(more)
    return [
        SetUp(name="residual", x=trees, y=kind, net=Net(kind="residual", outputs=4, hidden=(24, 24), activation="gelu",
              operation=operation), **made),
        SetUp(name="convolutions", x=pic, y=figure, net=Net(kind="cnn", outputs=3, hidden=(12, 12), activation="elu",
              operation=operation), **made),
        SetUp(name="recurrent", x=moves, y=gait, net=Net(kind="lstm", outputs=3, hidden=(20,), operation=operation),
              **made),
    ]  # fmt: skip


@REGISTRY.faulty("NAN111")
def unseen_logarithm() -> list[SetUp]:
    for_logs = _edges("log_of_softmax", takes="logs", frameworks=LIGHTNING_ONLY)
    return for_logs + _edges("log_of_softmax", frameworks=KERAS_ONLY)


@REGISTRY.faulty("NAN112", "NAN113")
def unseen_division() -> list[SetUp]:
    return _edges("divide_by_norm", rate=3e-3)


@REGISTRY.faulty("NAN113", "NAN112")
def unseen_root() -> list[SetUp]:
    return _edges("square_root_of_rectified")


@REGISTRY.faulty("NAN110")
def unseen_exponential() -> list[SetUp]:
    return _edges("exponential", rate=1e-5)


@REGISTRY.healthy("NAN111")
def unseen_safe_logarithm() -> list[SetUp]:
    (points, group), (links, hubs), (words, polite) = blobs(), graphs(), phrases()
    prints, digit = raw("digits")
    return [
        SetUp(name="confident softmax and probabilities", x=points, y=group,
              net=Net(outputs=6, final="softmax", init="orthogonal"), takes="probabilities", rate=1e-2),
        SetUp(name="graphs, sigmoid and probabilities", x=scaled(links), y=column(hubs),
              net=Net(hidden=(24,), final="sigmoid"), loss="binary", takes="probabilities", rate=1e-2),
        SetUp(name="log-softmax of ten", x=(prints[:640] / 16).astype("float32"), y=digit[:640].astype("int64"),
              net=Net(outputs=10, final="log_softmax"), takes="logs", rate=3e-3, frameworks=LIGHTNING_ONLY),
        SetUp(name="large logits", x=4 * points, y=group, net=Net(outputs=6, hidden=(128,)), rate=3e-3),
        SetUp(name="logits of phrases", x=words, y=column(polite), net=Net(kind="embedding", tokens=300),
              loss="binary", rate=1e-2),
    ]  # fmt: skip


@REGISTRY.healthy("NAN112")
def unseen_safe_division() -> list[SetUp]:
    trees, kind = scaled_forest()
    (sound, noise), (pic, figure) = spectrograms(), shapes()
    empty = np.where(np.arange(len(trees))[:, None] % 9 == 0, 0.0, trees).astype("float32")
    dark = np.where(np.arange(len(pic))[:, None, None, None] % 8 == 0, 0.0, pic).astype("float32")
    kinds = np.where(np.arange(len(trees)) % 9 == 0, 4, kind)
    figures = np.where(np.arange(len(pic)) % 8 == 0, 3, figure)
    return [
        SetUp(name="empty rows before layer normalisation", x=empty, y=kinds,
              net=Net(outputs=5, hidden=(48, 24), normalised=True), rate=3e-3),
        SetUp(name="black pictures before batch normalisation", x=dark, y=figures,
              net=Net(kind="cnn", outputs=4, hidden=(12, 12), normalised=True, first="batch_norm"), rate=5e-3),
        SetUp(name="a guarded norm of sounds", x=sound, y=noise,
              net=Net(kind="cnn", outputs=3, hidden=(6, 12), activation="gelu", operation="divide_by_norm_safely"),
              rate=2e-2),
        SetUp(name="residual with layer normalisation", x=empty, y=kinds,
              net=Net(kind="residual", outputs=5, hidden=(24,) * 4, activation="elu"), rate=3e-3),
    ]  # fmt: skip


@REGISTRY.healthy("NAN113")
def unseen_smooth() -> list[SetUp]:
    (x, price), (along, far), (moves, gait), (trees, kind) = houses(), roll(), motion(), scaled_forest()
    whole = np.round(far - 9)
    return [
        SetUp(name="absolute differences", x=scaled(x), y=scaled(price), net=NUMBER, loss="absolute", rate=3e-3),
        SetUp(name="whole targets that are often 0", x=along, y=whole, net=Net(hidden=(64, 64)), loss="absolute",
              rate=1e-2),
        SetUp(name="rectified output of positive targets", x=scaled(x), y=price, net=Net(hidden=(64,), final="relu"),
              loss="squared", rate=5e-3),
        SetUp(name="a guarded norm of a residual net", x=trees, y=kind,
              net=Net(kind="residual", outputs=4, hidden=(24, 24), operation="divide_by_norm_safely"), rate=5e-3),
        SetUp(name="recurrent", x=moves, y=gait, net=Net(kind="lstm", outputs=3, hidden=(20,)), rate=1e-2),
    ]  # fmt: skip


@REGISTRY.healthy("NAN110")
def unseen_room_above() -> list[SetUp]:
    (driver, filed), (points, y), (text, language) = claims(), friedman(3), sentences()
    return [
        SetUp(name="rates as exponentials", x=driver, y=filed, net=Net(hidden=(24, 24), activation="selu"),
              loss="poisson", takes="logs", rate=3e-3, frameworks=LIGHTNING_ONLY),
        SetUp(name="selu, eight layers", x=points, y=scaled(y), net=Net(hidden=(32,) * 8, activation="selu"),
              loss="squared"),
        SetUp(name="attention over bytes", x=text, y=language,
              net=Net(kind="transformer", outputs=3, tokens=256, hidden=(24,)), rate=3e-3),
        SetUp(name="residual, ten blocks", x=points, y=scaled(y),
              net=Net(kind="residual", hidden=(24,) * 10, activation="gelu"), loss="squared", rate=2e-3),
        SetUp(name="wide rectifiers", x=3 * blobs()[0], y=blobs()[1], net=Net(outputs=6, hidden=(512, 256))),
    ]  # fmt: skip
