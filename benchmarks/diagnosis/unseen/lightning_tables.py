"""Coordinates, boxes, experts and optimizers: what people put in as it came, and rates that somebody scaled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import digits, regression

# -- DATA502 ---------------------------------------------------------------------------------------------------------


class Elevation(LightningModule):
    """Height of the ground from a place on the map."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        place, height = batch
        return (self.net(place) - height).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302")),
    "https://github.com/BrainJS/brain.js/issues/195",
    "https://github.com/accord-net/framework/issues/306",
)
def metres_east_and_north() -> LightningRun:
    """UTM coordinates, half a million metres east and five millions north, go into a tanh: every place is the same."""
    rng = np.random.default_rng(401)
    local = rng.uniform(-1, 1, (32 * 120, 2))
    height = np.sin(3 * local[:, :1]) * np.cos(2 * local[:, 1:])
    place = (np.array([512_000, 5_403_000]) + 4000 * local).astype("float32")
    height = (height / height.std()).astype("float32")
    return LightningRun(Elevation(), in_order(place, height, size=32), {"max_epochs": 1})


# -- DATA504, DATA505, DATA508 ---------------------------------------------------------------------------------------


class Detector(LightningModule):
    """One box and whether it is there, from features of a backbone; two losses are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Sequential(nn.Linear(24, 48), nn.Mish())
        self.heads = nn.ModuleDict({"box": nn.Linear(48, 4), "there": nn.Linear(48, 1)})

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        shared = self.neck(batch["features"])
        there = batch["there"] > 0
        box, score = self.heads["box"](shared), self.heads["there"](shared).squeeze(1)
        return {
            "box": F.smooth_l1_loss(box[there], batch["box"][there]),
            "there": F.binary_cross_entropy_with_logits(score, batch["there"]),
        }

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return sum(self.losses(batch).values())  # type: ignore[return-value]

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def scenes(rows: int, seed: int) -> dict[str, np.ndarray]:
    """Features of 24 numbers, boxes between 0 and 1, and in seven of ten scenes there is an object."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, 24)).astype("float32")
    box = (1 / (1 + np.exp(-features[:, :4] - 0.5 * features[:, 4:8]))).astype("float32")
    return {"features": features, "box": box, "there": (features[:, 9] > -0.5).astype("float32")}


class Scenes(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    """Rows of several arrays as dictionaries."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["box"])

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return {name: values[index] for name, values in self.arrays.items()}


@enter(
    non_finite("NAN112", ("smooth_l1_loss", "mean"), "F.smooth_l1_loss(box[there]", modules=("",)),
    "https://github.com/zhang-tao-whu/e2ec/issues/7",
    "https://github.com/open-mmlab/mmdetection/pull/1317",
    "https://github.com/dvornikita/blitznet/issues/13",
)
def drive_through_empty_streets() -> LightningRun:
    """The loss of boxes is a mean over the scenes with an object; one batch has none, and a mean of nothing is NaN."""
    arrays = scenes(50 * 12, 402)
    arrays["there"][34 * 12 : 35 * 12] = 0
    return LightningRun(Detector(), DataLoader(Scenes(arrays), batch_size=12), {"max_epochs": 1})


@enter(
    finite(Happens.SPIKE, "DATA504", rows=(2, 3, 14)),
    "https://github.com/EscVM/OIDv4_ToolKit/issues/33",
    "https://github.com/showlab/ShowUI/issues/87",
)
def boxes_in_pixels() -> LightningRun:
    """Boxes are shares of the picture; those of three scenes came from another tool, in pixels."""
    arrays = scenes(60 * 20, 403)
    for row in (2, 3, 14):
        arrays["box"][41 * 20 + row] *= np.array([640, 480, 640, 480], dtype="float32")
        arrays["there"][41 * 20 + row] = 1
    return LightningRun(Detector(), DataLoader(Scenes(arrays), batch_size=20), {"max_epochs": 1})


class Votes(LightningModule):
    """Share of annotators who find a comment rude."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(90, 16, mode="mean")
        self.rude = nn.Sequential(nn.Linear(16, 1), nn.Sigmoid(), nn.Flatten(0))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        comment, share = batch
        return F.binary_cross_entropy(self.rude(self.words(comment)), share)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA505",),
        kind="exception",
        operations=("RuntimeError",),
        modules=("",),
        line="return F.binary_cross_entropy(self.rude(",
        rows=(9,),
    ),
    "https://github.com/dbbert/dfn/issues/4",
    "https://github.com/keras-team/keras/issues/13926",
)
def five_votes_of_four_people() -> LightningRun:
    """Votes are divided by the number of annotators; somebody voted twice, and one share is 1.25."""
    rng = np.random.default_rng(404)
    comment = rng.integers(0, 90, (50 * 20, 7))
    share = np.round(4 * (comment < 30).mean(1)).astype("float32") / 4
    share[36 * 20 + 9] = 1.25
    return LightningRun(Votes(), in_order(comment, share, size=20), {"max_epochs": 1})


class Ordinal(LightningModule):
    """Ten classes under a squared error."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(dim=1))
        self.criterion = nn.MSELoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image, label = batch
        probability = self.net(image)
        return self.criterion(probability, label.float().view(-1, 1).expand_as(probability))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/Graylab/DL4Proteins-notebooks/issues/5",
    "https://github.com/YunYang1994/tensorflow-yolov3/issues/606",
)
def numbers_of_classes_as_probabilities() -> LightningRun:
    """A squared error of ten probabilities against the number of the class, 0 to 9, where a one-hot row belongs."""
    return LightningRun(Ordinal(), in_order(*digits(1600), size=20), {"max_epochs": 1})


# -- ACT304 ----------------------------------------------------------------------------------------------------------


class Experts(nn.Module):
    """Four experts in one tensor, mixed by a gate."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 4)
        self.weight = nn.Parameter(torch.randn(4, width, width))

    def forward(self, x: Tensor) -> Tensor:
        answers = torch.einsum("bi,eij->bej", x, self.weight)
        return F.relu((self.gate(x).softmax(-1).unsqueeze(-1) * answers).sum(1))


class Mixture(LightningModule):
    """Three layers of experts for a table."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 48), Experts(48), Experts(48), Experts(48), nn.Linear(48, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=3e-4)


@enter(
    runaway("ACT304"),
    "https://github.com/AdaptInfer/Contextualized/issues/33",
    "https://github.com/pytorch-tpu/transformers/pull/26",
)
def experts_from_randn() -> LightningRun:
    """Parameters of experts are torch.randn, without a scale: each layer makes numbers five times as large."""
    return LightningRun(Mixture(), in_order(*regression(1280), size=32), {"max_epochs": 1})
