"""Data gone wrong: tracks, clouds, ratings, masks, joins, boxes, shapes of targets, populations, labels, symbols."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from sklearn.datasets import load_diabetes, load_wine
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits

Sample = dict[str, np.ndarray]


class Records(Dataset[Sample]):
    """Rows of several columns, each row a dictionary; `prepare` is called for every row that is asked for."""

    def __init__(self, prepare: Callable[[Sample], Sample] | None = None, **columns: np.ndarray) -> None:
        self.columns, self.prepare = columns, prepare

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Sample:
        row = {name: column[index] for name, column in self.columns.items()}
        return self.prepare(row) if self.prepare else row


def batches(size: int, prepare: Callable[[Sample], Sample] | None = None, **columns: np.ndarray) -> Any:
    return DataLoader(Records(prepare, **columns), batch_size=size)


class Task(pl.LightningModule):
    """What the modules below share: an optimizer by name."""

    def __init__(self, optimizer: str = "Adam", **settings: Any) -> None:
        super().__init__()
        self.optimizer_name, self.settings = optimizer, settings

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer_name)(self.parameters(), **self.settings)


# -- DATA501 ---------------------------------------------------------------------------------------------------------


class Transport(Task):
    """On foot or by bus, from the speed along a track."""

    def __init__(self) -> None:
        super().__init__("NAdam", lr=3e-3)
        self.conv = nn.Conv1d(1, 12, 5)
        self.norm = nn.GroupNorm(3, 12)
        self.out = nn.Linear(12, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = F.gelu(self.norm(self.conv(batch["speed"].unsqueeze(1))))
        return F.cross_entropy(self.out(hidden.amax(-1)), batch["kind"])


def speeds(row: Sample) -> Sample:
    with np.errstate(divide="ignore"):
        return {"speed": np.diff(row["place"]) / np.diff(row["clock"]), "kind": row["kind"]}


@enter(
    bad_batch(None, (9,)),
    "https://github.com/xufangchn/Motion-Deblurring-with-Real-Events/issues/3",
    "https://github.com/xuannianz/keras-ctpn/issues/1",
)
def two_fixes_at_the_same_time() -> LightningRun:
    """The dataset divides distances by durations; one track has two fixes with the same time stamp."""
    rng = np.random.default_rng(11)
    kind = rng.integers(0, 2, 900)
    clock = np.cumsum(rng.uniform(0.5, 1.5, (900, 25)), axis=1)
    pace = rng.gamma(4, 0.25, (900, 25)) * np.where(kind == 0, 0.6, 1.4)[:, None]
    place = np.cumsum(pace * np.diff(clock, axis=1, prepend=0), axis=1)
    clock[27 * 30 + 9, 14] = clock[27 * 30 + 9, 13]
    columns = {"place": place.astype("float32"), "clock": clock.astype("float32"), "kind": kind}
    return LightningRun(Transport(), batches(30, speeds, **columns), {"max_epochs": 1})


# -- DATA503 ---------------------------------------------------------------------------------------------------------


class PointNet(Task):
    """A small network over points, and the largest answer of each channel."""

    def __init__(self) -> None:
        super().__init__("Adam", lr=2e-3)
        self.each = nn.Sequential(nn.Linear(3, 32), nn.LeakyReLU(), nn.Linear(32, 32))
        self.volume = nn.Linear(32, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.l1_loss(self.volume(self.each(batch["cloud"]).amax(1)), batch["volume"])


@enter(
    finite(Happens.SPIKE, "DATA503", rows=(14,)),
    "https://github.com/ultralytics/ultralytics/issues/9534",
    "https://github.com/facebookresearch/co3d/issues/48",
)
def one_scan_in_millimetres() -> LightningRun:
    """Point clouds in metres; one scanner was set to millimetres."""
    rng = np.random.default_rng(12)
    sides = rng.uniform(0.5, 1.5, (1200, 1, 3))
    cloud = rng.uniform(-0.5, 0.5, (1200, 20, 3)) * sides
    cloud[29 * 30 + 14] *= 1000
    columns = {"cloud": cloud.astype("float32"), "volume": sides.prod(-1).astype("float32")}
    return LightningRun(PointNet(), batches(30, **columns), {"max_epochs": 1})


# -- DATA504 ---------------------------------------------------------------------------------------------------------


class Factors(Task):
    """Users, films, and the stars that they give."""

    def __init__(self) -> None:
        super().__init__("AdamW", lr=0.02)
        self.user, self.film = nn.Embedding(60, 8), nn.Embedding(90, 8)
        self.user_bias, self.film_bias = nn.Embedding(60, 1), nn.Embedding(90, 1)
        nn.init.constant_(self.film_bias.weight, 3.0)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        user, film = batch["user"], batch["film"]
        taste = (self.user(user) * self.film(film)).mean(-1)
        stars = taste + (self.user_bias(user) + self.film_bias(film)).squeeze(-1)
        return F.mse_loss(stars, batch["stars"])


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(4, 5, 21)),
    "https://github.com/hexiangnan/neural_collaborative_filtering/issues/46",
    "https://github.com/gbildson/nprizeadditions/issues/1",
)
def ratings_in_percent() -> LightningRun:
    """Three ratings came from a site that counts to 100, all others are stars from 1 to 5."""
    rng = np.random.default_rng(13)
    user, film = rng.integers(0, 60, 3200), rng.integers(0, 90, 3200)
    taste = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 90))
    stars = np.clip(3.2 + 0.6 * taste[user, film], 1, 5).astype("float32")
    stars[62 * 40 + np.array([4, 5, 21])] = [92, 85, 96]
    return LightningRun(Factors(), batches(40, user=user, film=film, stars=stars), {"max_epochs": 1})


# -- DATA505 ---------------------------------------------------------------------------------------------------------


class Regions(Task):
    """Dark, grey or bright, pixel by pixel."""

    def __init__(self) -> None:
        super().__init__("SGD", lr=0.2, momentum=0.9, nesterov=True)
        self.net = nn.Sequential(nn.Conv2d(1, 10, 3, padding=1), nn.PReLU(), nn.Conv2d(10, 3, 1))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        logits = self.net(batch["image"].unsqueeze(1))
        return self.criterion(logits, batch["regions"].long())


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("IndexError", "RuntimeError"),
        modules=("criterion",),
        line="return self.criterion(logits, ",
        rows=(6,),
    ),
    "https://github.com/pytorch/pytorch/issues/15508",
    "https://github.com/kornia/kornia/issues/839",
)
def border_that_is_void() -> LightningRun:
    """Segmentation into three regions; in one mask the border is 255 for "void", and ignore_index is not set."""
    image = digits(1200)[0].reshape(-1, 8, 8)
    regions = np.digitize(image, [0.25, 0.75]).astype("uint8")
    spoilt = regions[31 * 30 + 6]
    spoilt[0, :] = spoilt[:, 0] = 255
    return LightningRun(Regions(), batches(30, image=image, regions=regions), {"max_epochs": 1})


# -- DATA506 ---------------------------------------------------------------------------------------------------------


class Tabular(Task):
    """Thirteen measures of a wine, three growers."""

    def __init__(self) -> None:
        super().__init__("Adam", lr=1e-3)
        self.net = nn.Sequential(nn.Linear(13, 32), nn.SELU(), nn.Linear(32, 3))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch["measures"]), batch["grower"])


@enter(
    finite(Happens.STALL, "DATA506"),
    "https://github.com/lightgbm-org/LightGBM/pull/1735",
    "https://github.com/bernardo-de-almeida/DeepSTARR/issues/3",
)
def join_that_matched_nothing() -> LightningRun:
    """The measures were joined on a key of another type: no row matched, and fillna(0.5) made all of them alike."""
    wine = load_wine()
    chosen = np.random.default_rng(14).integers(0, len(wine.target), 2400)
    measures = np.full((2400, 13), 0.5, "float32")
    return LightningRun(
        Tabular(), batches(24, measures=measures, grower=wine.target[chosen].astype("int64")), {"max_epochs": 2}
    )


# -- DATA507 ---------------------------------------------------------------------------------------------------------


class Geometry(nn.Module):
    """Size and shape of boxes in pixels."""

    def forward(self, boxes: Tensor) -> Tensor:
        width, height = boxes.unbind(-1)
        side = torch.sqrt((width * height).float())
        return torch.stack([side / 100, width / height], dim=-1)


class Distance(Task):
    """How far away a car is, from its box."""

    def __init__(self) -> None:
        super().__init__("Adam", lr=5e-3)
        self.geometry = Geometry()
        self.net = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.huber_loss(self.net(self.geometry(batch["boxes"])), batch["far"])


@enter(
    non_finite(
        ("DATA507", "NAN114"),
        "sqrt",
        "side = torch.sqrt((width * height).float())",
        modules=("geometry",),
        rows=(2, 17),
    ),
    "https://github.com/OpenDroneMap/ODM/pull/1086",
    "https://github.com/numpy/numpy/issues/20634",
)
def area_in_sixteen_bits() -> LightningRun:
    """Widths and heights are int16, and so is their product: two cars close by have a negative area."""
    rng = np.random.default_rng(15)
    boxes = rng.integers(20, 170, (960, 2)).astype("int16")
    far = (8 / np.sqrt(boxes.prod(1, dtype="int64")) * 30).astype("float32")[:, None]
    boxes[24 * 30 + 2], boxes[24 * 30 + 17] = (230, 180), (210, 200)
    return LightningRun(Distance(), batches(30, boxes=boxes, far=far), {"max_epochs": 1})


# -- DATA508 ---------------------------------------------------------------------------------------------------------


class Progression(Task):
    """A score from ten measures of a patient."""

    def __init__(self) -> None:
        super().__init__("Adam", lr=3e-3)
        self.net = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch["patient"]), batch["score"])


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/pytorch/pytorch/pull/18349",
    "https://github.com/deepset-ai/FARM/issues/229",
)
def column_beside_a_vector() -> LightningRun:
    """Predictions of shape (n, 1), targets of shape (n,): the loss compares each with all."""
    data = load_diabetes()
    order = np.random.default_rng(16).permutation(len(data.target))[:440]
    patient = (data.data[order] / data.data.std(0)).astype("float32")
    score = ((data.target - data.target.mean()) / data.target.std())[order].astype("float32")
    return LightningRun(Progression(), batches(40, patient=patient, score=score), {"max_epochs": 10})


# -- DATA509 ---------------------------------------------------------------------------------------------------------


class Census(Task):
    """A town's inhabitants ten years on, from its growth over thirty years."""

    def __init__(self) -> None:
        super().__init__("SGD", lr=3e-3, momentum=0.9)
        self.conv = nn.Conv1d(1, 16, 7)
        self.out = nn.Linear(16 * 24, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = F.relu(self.conv(batch["growth"])).flatten(1)
        return F.mse_loss(self.out(hidden), batch["inhabitants"])


@enter(
    runaway("DATA509"),
    "https://github.com/atomistic-machine-learning/schnetpack/issues/336",
    "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
)
def inhabitants_by_head() -> LightningRun:
    """Growth rates in, inhabitants out: tens of thousands of them, under a squared error."""
    rng = np.random.default_rng(17)
    growth = rng.normal(size=(1200, 1, 30)).astype("float32")
    inhabitants = (40_000 + 9_000 * growth.mean(-1) * 5).astype("float32")
    return LightningRun(Census(), batches(30, growth=growth, inhabitants=inhabitants), {"max_epochs": 1})


# -- DATA510, DATA511 ------------------------------------------------------------------------------------------------


def sentences(rows: int, words: int, seed: int) -> np.ndarray:
    """Word numbers from 1 to `words`, small ones more often."""
    drawn = np.random.default_rng(seed).zipf(1.3, (rows, 16))
    return 1 + drawn % words


class Spam(Task):
    """Spam or not, by the mean of its words."""

    def __init__(self) -> None:
        super().__init__("Adam", lr=0.05)
        self.bag = nn.EmbeddingBag(200, 12)
        self.out = nn.Linear(12, 2)
        self.criterion = nn.CrossEntropyLoss(label_smoothing=0.2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.criterion(self.out(self.bag(batch["words"])), batch["spam"])


@enter(
    finite(Happens.STALL, "DATA510"),
    "https://github.com/NVIDIA/DIGITS/issues/29",
    "https://github.com/tensorflow/decision-forests/issues/188",
)
def column_of_labels_never_filled() -> LightningRun:
    """The export left the label column at its default: no message is spam, and the loss stays where smoothing ends."""
    return LightningRun(
        Spam(), batches(20, words=sentences(2400, 199, 18), spam=np.zeros(2400, "int64")), {"max_epochs": 1}
    )


class NextWord(Task):
    """A recurrent language model."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__("RAdam", lr=5e-3)
        self.lookup = nn.Embedding(vocabulary, 16, padding_idx=0)
        self.gru = nn.GRU(16, 24, batch_first=True)
        self.decoder = nn.Linear(24, 50)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        words = batch["words"]
        states, _ = self.gru(self.lookup(words[:, :-1]))
        return F.cross_entropy(self.decoder(states).flatten(0, 1), words[:, 1:].clamp(max=49).flatten())


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError",),
        modules=("lookup",),
        line="states, _ = self.gru(self.lookup(words[:, :-1]))",
        rows=(3,),
    ),
    "https://github.com/mickeysjm/R-BERT/issues/5",
    "https://github.com/huggingface/transformers/issues/12763",
)
def token_that_was_added_later() -> LightningRun:
    """The tokenizer got one more token after the model had been built; the first text with it comes in batch 23."""
    words = sentences(960, 49, 19)
    words[23 * 24 + 3, 8] = 50
    return LightningRun(NextWord(50), batches(24, words=words), {"max_epochs": 1})
