"""Filters, recurrences and equations of motion: models of what moves in time, each with one mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, bad_batch, enter, finite, non_finite, runaway
from benchmarks.diagnosis.tables import waves


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- a Kalman filter -------------------------------------------------------------------------------------------------


class LocalLevel(LightningModule):
    """A Kalman filter for a level that drifts, whose two variances are learnt by maximum likelihood."""

    def __init__(self) -> None:
        super().__init__()
        self.drift, self.noise = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.5))
        self.gain_of_trend = nn.Parameter(torch.tensor(0.5))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (series,) = batch
        level, trend, spread, total = series[:, 0], torch.zeros(len(series)), self.noise, torch.zeros(len(series))
        for step in range(1, series.shape[1]):
            spread = spread + self.drift
            around = spread + self.noise
            error = series[:, step] - level - trend
            total = total + torch.log(around) + error.square() / around
            gain = spread / around
            before, level = level, level + trend + gain * error
            trend = trend + self.gain_of_trend * (level - before - trend)
            spread = (1 - gain) * spread
        return total.mean() / series.shape[1]

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.05)


@enter(
    non_finite("NAN114", "log", "total = total + torch.log(around) + error.square() / around", modules=("",)),
    "https://github.com/patrick-kidger/diffrax/issues/539",
    "https://github.com/stan-dev/math/issues/3381",
    "https://github.com/statsmodels/statsmodels/issues/6148",
)
def variances_that_are_free_to_be_negative() -> LightningRun:
    """The two variances of a Kalman filter are plain parameters; smooth series drive them through zero."""
    series, _ = waves(32 * 60, 24, seed=7501)
    smooth = np.cumsum(np.cumsum(series[..., 0] * 1e-3, 1), 1)
    return LightningRun(LocalLevel(), loader(smooth.astype("float32")), {"max_epochs": 2})


# -- a diagonal state space ------------------------------------------------------------------------------------------


class DiagonalStates(LightningModule):
    """A state space with a diagonal transition that nothing keeps inside of the unit interval."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.transition = nn.Parameter(torch.linspace(0.5, 0.9, 16))
        self.enter, self.leave = nn.Linear(1, 16), nn.Linear(16, 1)
        nn.init.normal_(self.enter.weight, std=0.1)
        nn.init.zeros_(self.enter.bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        series, after = batch
        state = torch.zeros(len(series), 16)
        for step in range(series.shape[1]):
            state = self.transition * state + self.enter(series[:, step])
        return F.mse_loss(self.leave(state), after)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


@enter(
    runaway(("GRAD203", "OPT601")),
    "https://github.com/state-spaces/s4/issues/138",
    "https://github.com/state-spaces/mamba/issues/167",
)
def states_that_leave_the_unit_circle() -> LightningRun:
    """A diagonal state space over 120 steps without any clipping; a transition above one grows without bound."""
    return LightningRun(DiagonalStates(0.3), loader(*waves(1280, 120, seed=7502)), {"max_epochs": 2})


# -- an equation that is integrated by hand --------------------------------------------------------------------------


class Growth(LightningModule):
    """Logistic growth whose two rates come from a network, in twenty steps of Euler."""

    def __init__(self) -> None:
        super().__init__()
        self.rates = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 2), nn.Softplus())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        features, size, span, later = batch
        rise, brake = self.rates(features).unbind(1)
        step = span / 20
        for _ in range(20):
            size = size + step * (rise * size - brake * size * size)
        return F.mse_loss(size, later)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        ("NAN110", "DATA503"),
        ("mul", "multiply", "sub", "subtract", "add"),
        "size = size + step * (rise * size - brake * size * size)",
        modules=("",),
        rows=(20,),
    ),
    "https://github.com/YuliaRubanova/latent_ode/issues/12",
    "https://github.com/rtqichen/torchdiffeq/issues/105",
)
def tumour_that_was_followed_in_minutes() -> LightningRun:
    """Euler's steps are as long as the span demands; one span is in minutes, and the steps leave the equation."""
    rng = np.random.default_rng(7503)
    rows = 32 * 45
    features = rng.normal(size=(rows, 4)).astype("float32")
    span = rng.uniform(0.5, 2.0, rows).astype("float32")
    rise = np.log1p(np.exp(features[:, 0]))
    size = rng.uniform(0.2, 0.6, rows).astype("float32")
    later = 1.2 / (1 + (1.2 / size - 1) * np.exp(-rise * span))
    span[32 * 32 + 20] *= 1440
    return LightningRun(Growth(), loader(features, size, span, later.astype("float32")), {"max_epochs": 1})


# -- a function of time ----------------------------------------------------------------------------------------------


class Oscillator(LightningModule):
    """The place of a damped spring as a function of time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 1))
        nn.init.normal_(self.net[4].weight, std=0.01)
        nn.init.zeros_(self.net[4].bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        time, place = batch
        return F.mse_loss(self.net(time), place)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def swings(rows: int, seed: int, unit: float) -> tuple[np.ndarray, np.ndarray]:
    time = np.random.default_rng(seed).uniform(0, 3, (rows, 1))
    place = np.exp(-0.2 * time) * np.cos(1.99 * time)
    return (time * unit).astype("float32"), (place - place.mean()).astype("float32")


@enter(
    finite(Happens.STALL, ("DATA502", "ACT302")),
    "https://github.com/NeuroDiffGym/neurodiffeq/issues/90",
    "https://github.com/pierremtb/PINNs-TF2.0/issues/1",
    "https://github.com/lululxvi/deepxde/issues/85",
)
def spring_timed_in_microseconds() -> LightningRun:
    """A network of tanh that stands for a motion is given times up to three million: its units sit at their bounds."""
    return LightningRun(Oscillator(), loader(*swings(1280, 7504, 1e6)), {"max_epochs": 3})


# -- forecasts -------------------------------------------------------------------------------------------------------


class Horizon(LightningModule):
    """The next six values of a series from its last forty, by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(288, 6))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, after = batch
        guess = self.net(past).unsqueeze(1)
        return F.mse_loss(guess, after)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def horizons(seed: int) -> tuple[np.ndarray, np.ndarray]:
    series, _ = waves(1280, 46, seed=seed)
    return series[:, :40].transpose(0, 2, 1).copy(), series[:, 40:, 0].copy()


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://github.com/AIStream-Peelout/flow-forecast/issues/246",
    "https://github.com/pytorch/pytorch/pull/18349",
)
def horizon_beside_a_channel() -> LightningRun:
    """Forecasts of shape (32, 1, 6) meet values of shape (32, 6): each forecast is compared with each series."""
    return LightningRun(Horizon(), loader(*horizons(7505)), {"max_epochs": 3})


@enter(
    bad_batch(None, (7,)),
    "https://github.com/Nixtla/neuralforecast/issues/186",
    "https://github.com/unit8co/darts/issues/1954",
)
def anemometer_that_froze() -> LightningRun:
    """The windows of one series hold a gap that nobody filled: one row of the batch is not a number."""
    past, after = horizons(7506)
    past[25 * 32 + 7, 0, 11:14] = np.nan
    return LightningRun(Horizon(), loader(past, after[:, None]), {"max_epochs": 1})


@enter(
    finite(Happens.SPIKE, "DATA512"),
    "https://github.com/stas00/ml-engineering/issues/32",
)
def buoys_of_the_other_coast() -> LightningRun:
    """Training goes on with the files of another network of buoys, which writes centimetres and not metres."""
    past, after = horizons(7507)
    past[30 * 32 :] *= 100
    after[30 * 32 :] *= 100
    return LightningRun(Horizon(), loader(past, after[:, None]), {"max_epochs": 1})


# -- an echo state ---------------------------------------------------------------------------------------------------


class Echo(LightningModule):
    """A recurrent net of tanh whose recurrence was drawn as for a reservoir, and is trained after all."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.rnn, self.head = nn.RNN(1, 32, batch_first=True), nn.Linear(32, 1)
        nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=gain)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        series, after = batch
        return F.mse_loss(self.head(self.rnn(series)[0][:, -1]), after)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.02)


@enter(
    finite(Happens.STALL, ("ACT304", "ACT302")),
    "https://github.com/speechbrain/speechbrain/issues/104",
)
def reservoir_that_is_trained_after_all() -> LightningRun:
    """The recurrence begins twenty times too large: every unit sits at a bound, whatever the series says."""
    return LightningRun(Echo(20.0), loader(*waves(1280, 30, seed=7508)), {"max_epochs": 3})
