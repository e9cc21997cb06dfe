"""Medicine: scans, laboratories, wards and trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import two_blobs

# -- segmentation and monitoring -------------------------------------------------------------------------------------


class LesionFinder(LightningModule):
    """A small U-shaped network that marks lesions; rare pixels are weighted by how rare they are in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.middle = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Conv2d(9, 1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        scan, lesion = batch
        score = self.out(torch.cat([scan, self.up(self.middle(self.down(scan))).relu()], 1))
        rarity = (lesion == 0).sum() / (lesion == 1).sum()
        weight = 1 + (rarity - 1) * lesion
        return (weight * F.binary_cross_entropy_with_logits(score, lesion, reduction="none")).sum() / weight.sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    non_finite("NAN112", "divide", "rarity = (lesion == 0).sum() / ", modules=("",)),
    "https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html",
)
def batch_of_healthy_volunteers() -> LightningRun:
    """Lesion pixels are weighted by healthy pixels over ill ones; one batch is of volunteers and has no ill pixel."""
    rng = np.random.default_rng(4001)
    lesion = np.zeros((8 * 45, 1, 16, 16), "float32")
    for row, (top, left) in enumerate(rng.integers(0, 12, (len(lesion), 2))):
        lesion[row, 0, top : top + 4, left : left + 4] = 1
    lesion[28 * 8 : 29 * 8] = 0
    scan = lesion + 0.7 * rng.normal(size=lesion.shape)
    return LightningRun(LesionFinder(), in_order(scan.astype("float32"), lesion, size=8), {"max_epochs": 1})


class GlucoseForecast(LightningModule):
    """The coming two hours of a glucose sensor; the loss is one minus the correlation of each patient's curve."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 12)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, future = batch
        guess = self.head(self.gru(past.unsqueeze(-1))[0][:, -1])
        a = guess - guess.mean(1, keepdim=True)
        b = future - future.mean(1, keepdim=True)
        correlation = (a * b).sum(1) / (a.square().sum(1).sqrt() * b.square().sum(1).sqrt())
        return 1 - correlation.mean() + 0.1 * F.mse_loss(guess, future)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", "divide", "correlation = (a * b).sum(1) / (", modules=("",), rows=(13,)),
    "https://github.com/NVIDIA-Genomics-Research/AtacWorks/pull/104",
    "https://github.com/allenai/allennlp/issues/3102",
)
def sensor_that_reports_its_limit() -> LightningRun:
    """Correlation as a loss; one patient's sensor stays at its upper limit, a curve without any variance."""
    rng = np.random.default_rng(4002)
    phase, pace = rng.uniform(0, 6.28, (24 * 45, 1)), rng.uniform(0.1, 0.3, (24 * 45, 1))
    curve = np.sin(phase + pace * np.arange(48)) + 0.05 * rng.normal(size=(len(phase), 48))
    curve[30 * 24 + 13, 30:] = 2.0
    past, future = curve[:, :36].astype("float32"), curve[:, 36:].astype("float32")
    return LightningRun(GlucoseForecast(), in_order(past, future, size=24), {"max_epochs": 1})


# -- laboratories ----------------------------------------------------------------------------------------------------


class Sepsis(LightningModule):
    """Does a patient become septic? From laboratory values as they are printed."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        values, septic = batch
        return F.binary_cross_entropy_with_logits(self.net(values).squeeze(1), septic)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302"), rows=None),
    "https://stats.stackexchange.com/questions/352036/what-should-i-do-when-my-neural-network-doesnt-learn",
    "https://scikit-learn.org/stable/modules/preprocessing.html",
)
def platelets_beside_creatinine() -> LightningRun:
    """Platelets of 250 000 stand beside a creatinine of 1.1, and nothing is scaled: every tanh is at its end."""
    rng = np.random.default_rng(4003)
    latent = rng.normal(size=(32 * 60, 6))
    septic = (latent[:, 3] + latent[:, 4] - latent[:, 5] + 0.5 * rng.normal(size=len(latent)) > 0).astype("float32")
    unit = np.array([60_000, 3_000, 25, 0.3, 0.4, 0.8])
    usual = np.array([250_000, 8_000, 140, 1.1, 4.1, 2.0])
    values = (usual + unit * latent).astype("float32")
    return LightningRun(Sepsis(), in_order(values, septic, size=32), {"max_epochs": 2})


class Hill(nn.Module):
    """The dose-response curve of pharmacology, with a slope for each patient."""

    def __init__(self) -> None:
        super().__init__()
        self.log_half = nn.Parameter(torch.zeros(()))

    def forward(self, dose: Tensor, slope: Tensor) -> Tensor:
        strength = (dose / self.log_half.exp()).pow(slope)
        return strength / (1 + strength)


class DoseResponse(LightningModule):
    """Effect of a drug by dose and four properties of the patient."""

    def __init__(self) -> None:
        super().__init__()
        self.patient = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        self.curve = Hill()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        dose, patient, effect = batch
        slope = torch.sigmoid(self.patient(patient)).squeeze(1)
        return F.mse_loss(self.curve(dose, slope), effect)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    non_finite(
        "NAN113",
        "power",
        "strength = (dose / self.log_half.exp()).pow(slope)",
        phase="backward",
        modules=("curve",),
        rows=(6, 21),
    ),
    "https://pytorch.org/docs/stable/generated/torch.pow.html",
)
def placebo_under_a_hill_curve() -> LightningRun:
    """A dose is raised to a slope below 1; two patients got the placebo, and the power of 0 has no finite slope."""
    rng = np.random.default_rng(4004)
    dose, patient = rng.gamma(2.0, 1.0, 32 * 45), rng.normal(size=(32 * 45, 4))
    slope = 1 / (1 + np.exp(-patient[:, 0]))
    dose[29 * 32 + 6] = dose[29 * 32 + 21] = 0.0
    effect = dose**slope / (2**slope + dose**slope) + 0.05 * rng.normal(size=len(dose))
    columns = (column.astype("float32") for column in (dose, patient, effect))
    return LightningRun(DoseResponse(), in_order(*columns, size=32), {"max_epochs": 1})


class IntervalHazard(LightningModule):
    """Discrete-time survival: a hazard for each of eight intervals, and the likelihood written out."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 24), nn.ReLU(), nn.Linear(24, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        covariates, last, died = batch
        hazard = torch.sigmoid(self.net(covariates))
        survived = torch.arange(8) < last.unsqueeze(1)
        stayed = (torch.log(1 - hazard) * survived).sum(1)
        ended = torch.log(hazard.gather(1, last.unsqueeze(1)).squeeze(1)) * died
        return -(stayed + ended).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(("NAN111", "DATA503"), "log", "stayed = (torch.log(1 - hazard) * survived)", modules=("",), rows=(17,)),
    "https://pytorch.org/docs/stable/generated/torch.nn.functional.logsigmoid.html",
)
def weight_that_was_given_in_grams() -> LightningRun:
    """A hazard of exactly 1 leaves nothing of 1 - h; one patient's weight was entered in grams, a thousandfold."""
    rng = np.random.default_rng(4005)
    covariates = rng.normal(size=(32 * 60, 5))
    hazard = 1 / (1 + np.exp(2 - 1.5 * covariates[:, 0]))
    last = np.minimum(rng.geometric(hazard) - 1, 7)
    died = (rng.random(len(last)) < 0.8).astype("float32")
    covariates[45 * 32 + 17, 0] = 900.0
    last[45 * 32 + 17] = 6
    return LightningRun(
        IntervalHazard(), in_order(covariates.astype("float32"), last.astype("int64"), died, size=32), {"max_epochs": 1}
    )


# -- healthy ---------------------------------------------------------------------------------------------------------


class RareDisease(LightningModule):
    """One patient in thirty is ill, and weighs thirty times as much."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        values, ill = batch
        return F.binary_cross_entropy_with_logits(self.net(values), ill, pos_weight=torch.tensor(30.0))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(healthy(), "https://pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html")
def one_patient_in_thirty() -> LightningRun:
    """The loss jumps with the number of ill patients in a batch, which is 0 to 6; it falls all the same."""
    values, ill = two_blobs(32 * 400, gap=1.0, seed=4006)
    rng = np.random.default_rng(4006)
    kept = np.flatnonzero((ill[:, 0] == 0) | (rng.random(len(ill)) < 1 / 29))[: 64 * 80]
    return LightningRun(RareDisease(), in_order(values[kept], ill[kept], size=64), {"max_epochs": 1})
