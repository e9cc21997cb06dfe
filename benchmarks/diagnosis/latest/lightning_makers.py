"""Generators, agents, embeddings and half precision: what overflows, underflows or leaves the domain of its loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


# -- NAN110, NAN111 --------------------------------------------------------------------------------------------------


class CellVAE(LightningModule):
    """Variational autoencoder of gene counts; reconstruction and divergence are summed from the first step."""

    def __init__(self, genes: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"mean": nn.Linear(genes, 6), "logvar": nn.Linear(genes, 6)})
        self.decoder = nn.Linear(6, genes)

    def sample(self, mean: Tensor, logvar: Tensor) -> Tensor:
        return mean + torch.randn_like(mean) * torch.exp(0.5 * logvar)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        (counts,) = batch
        mean, logvar = self.encoder["mean"](counts), self.encoder["logvar"](counts)
        divergence = -0.5 * (1 + logvar - mean.square() - logvar.exp()).sum(1).mean()
        rebuilt = F.smooth_l1_loss(self.decoder(self.sample(mean, logvar)), counts)
        return {"loss": rebuilt + 1e-3 * divergence}

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite(
        ("NAN110", "DATA503"),
        "exp",
        "divergence = -0.5 * (1 + logvar - mean.square() - logvar.exp())",
        modules=("",),
        rows=(19,),
    ),
    "https://github.com/vanderschaarlab/synthcity/issues/331",
    "https://github.com/AntixK/PyTorch-VAE/issues/16",
    "https://github.com/AppliedDataSciencePartners/WorldModels/issues/9",
)
def cell_with_a_deep_library() -> LightningRun:
    """A log-variance has no bound; one cell was sequenced a thousand times deeper, and its exponential overflows."""
    rng = np.random.default_rng(1301)
    kind = rng.gamma(2.0, 0.5, (4, 30))
    counts = rng.poisson(kind[rng.integers(0, 4, 32 * 45)]).astype("float32")
    counts[30 * 32 + 19] *= 1000
    return LightningRun(CellVAE(30), loader(counts), {"max_epochs": 1})


class Minimax(LightningModule):
    """The two-player game as the first paper writes it, logarithms and all."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.forger = nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 2))
        self.judge = nn.Sequential(nn.Linear(2, 24), nn.ReLU(), nn.Linear(24, 1), nn.Sigmoid())

    def training_step(self, batch: Any, batch_idx: int) -> None:
        (real,) = batch
        for_judge, for_forger = self.optimizers()  # type: ignore[misc]
        if batch_idx % 10 == 0:
            forged = self.forger(torch.randn(len(real), 4)).detach()
            verdict = torch.log(self.judge(real)) + torch.log(1 - self.judge(forged))
            for_judge.zero_grad()
            self.manual_backward(-verdict.mean())
            for_judge.step()
            self.log("loss", -verdict.mean())
        fooled = -torch.log(self.judge(self.forger(torch.randn(len(real), 4)))).mean()
        for_forger.zero_grad()
        self.manual_backward(fooled)
        for_forger.step()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.judge.parameters(), lr=1e-3), torch.optim.Adam(self.forger.parameters(), lr=0.2)


@enter(
    non_finite("NAN111", "log", "verdict = torch.log(self.judge(real)) + torch.log(1", modules=("",), rows=None),
    "https://github.com/starhou/One-dimensional-GAN/issues/6",
    "https://github.com/torchgan/torchgan/pull/11",
    "https://github.com/bjpublic/DeepLearningProject/issues/15",
)
def judge_that_is_fooled_entirely() -> LightningRun:
    """The forger has ten steps for one of the judge and drives it to D = 1: log(1 - D) is minus infinity."""
    rng = np.random.default_rng(1302)
    real = (3 + 0.7 * rng.normal(size=(32 * 120, 2))).astype("float32")
    return LightningRun(Minimax(), loader(real), {"max_epochs": 1})


class Cards(LightningModule):
    """Behaviour cloning of a card game: what is not on the hand has no probability."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(18, 32), nn.Tanh(), nn.Linear(32, 8))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        table, hand, played, won = batch
        probability = self.policy(table).softmax(-1) * hand
        probability = probability / probability.sum(-1, keepdim=True)
        chosen = probability.gather(1, played.unsqueeze(1)).squeeze(1)
        return -(won * chosen.log()).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite(
        ("NAN111", "DATA504", "DATA505"), "log", "return -(won * chosen.log()).mean()", modules=("",), rows=(11,)
    ),
    "https://github.com/hill-a/stable-baselines/pull/453",
    "https://github.com/JuliaReinforcementLearning/ReinforcementLearning.jl/issues/917",
    "https://github.com/hill-a/stable-baselines/pull/505",
)
def card_that_was_not_on_the_hand() -> LightningRun:
    """Policy gradient with a mask of legal cards; one recorded move is not legal, and the logarithm meets a zero."""
    rng = np.random.default_rng(1303)
    table = rng.normal(size=(32 * 45, 18)).astype("float32")
    hand = (rng.random((len(table), 8)) < 0.6).astype("float32")
    hand[:, 0] = 1
    played = np.argmax(np.where(hand > 0, table[:, :8], -np.inf), 1)
    won = rng.uniform(0.5, 1.5, len(table)).astype("float32")
    hand[27 * 32 + 11, played[27 * 32 + 11]] = 0
    hand[27 * 32 + 11, (played[27 * 32 + 11] + 1) % 8] = 1
    return LightningRun(Cards(), loader(table, hand, played, won), {"max_epochs": 1})


# -- NAN112 ----------------------------------------------------------------------------------------------------------


class Reinforce(LightningModule):
    """One episode per step; returns are standardised within the episode."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = nn.Sequential(nn.Linear(4, 24), nn.Tanh(), nn.Linear(24, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        states, actions, rewards = batch
        returns = rewards.flip(0).cumsum(0).flip(0)
        advantage = (returns - returns.mean()) / (returns.std() + 1e-8)
        return F.cross_entropy(self.policy(states), actions, reduction="none").mul(advantage).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    non_finite("NAN112", ("std", "var"), "advantage = (returns - returns.mean()) / (", modules=("",), rows=None),
    "https://github.com/pytorch/pytorch/issues/29372",
    "https://github.com/pytorch/pytorch/issues/7716",
)
def episode_of_one_step() -> LightningRun:
    """Returns are divided by their deviation plus 1e-8; one episode ended at once, and std of one number is NaN."""
    rng = np.random.default_rng(1304)
    episodes = []
    for number in range(60):
        length = 1 if number == 37 else int(rng.integers(8, 30))
        states = torch.from_numpy(rng.normal(size=(length, 4))).float()
        episodes.append((states, (states[:, 0] > 0).long(), 1 + 0.1 * states[:, 1]))
    return LightningRun(Reinforce(), DataLoader(episodes, batch_size=None), {"max_epochs": 1})  # type: ignore[arg-type]


# -- LOSS404 ---------------------------------------------------------------------------------------------------------


class LipSync(LightningModule):
    """Does a voice belong to a mouth? The cosine of their embeddings is taken for a probability."""

    def __init__(self) -> None:
        super().__init__()
        self.mouth, self.voice = nn.Linear(16, 12), nn.Linear(16, 12)
        for tower in (self.mouth, self.voice):
            nn.init.constant_(tower.bias, 1.0)
        self.criterion = nn.BCELoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        mouth, voice, belongs = batch
        alike = F.cosine_similarity(self.mouth(mouth), self.voice(voice))
        return self.criterion(alike, belongs)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("LOSS404",),
        kind="exception",
        operations=("RuntimeError",),
        modules=("criterion",),
        line="return self.criterion(alike, belongs)",
        rows=None,
    ),
    "https://github.com/Rudrabha/Wav2Lip/issues/227",
    "https://github.com/ray-project/ray/issues/17117",
    "https://github.com/pytorch/pytorch/issues/139916",
)
def voice_that_does_not_belong() -> LightningRun:
    """BCELoss of a cosine: as soon as a pair that does not belong together is learnt, the cosine is negative."""
    rng = np.random.default_rng(1305)
    mouth = rng.normal(size=(32 * 80, 16)).astype("float32")
    belongs = rng.integers(0, 2, len(mouth)).astype("float32")
    other = np.where(belongs[:, None] > 0, mouth, np.roll(mouth, 1, 0))
    voice = other @ np.linalg.qr(rng.normal(size=(16, 16)))[0]
    return LightningRun(LipSync(), loader(mouth, 0.3 * voice.astype("float32"), belongs), {"max_epochs": 1})


# -- OPT604, OPT605 --------------------------------------------------------------------------------------------------


class AllHalf(LightningModule):
    """model.half(), and the optimizer as it always was."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).half()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0].half()).float(), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    Truth(happens=Happens.NON_FINITE, causes=("OPT605",), phase="optimizer", rows=None),
    "https://github.com/pytorch/pytorch/issues/8860",
    "https://github.com/pytorch/pytorch/issues/147437",
    "https://github.com/afiaka87/glide-finetune/issues/5",
)
def half_a_model_under_adam() -> LightningRun:
    """model.half() with Adam's eps of 1e-8: squares of small gradients and eps are all 0, and 0 / 0 is NaN."""
    images, labels = digits(1280)
    return LightningRun(AllHalf(), loader(images, labels), {"max_epochs": 1})


class HalfDelay(LightningModule):
    """Minutes of delay, in half precision from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 24), nn.Tanh(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.net(batch[0].half()), batch[1].half())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


@enter(
    non_finite(("OPT604", "NAN110"), ("mse_loss", "mean"), "return F.mse_loss(self.net(batch[0].half())", rows=(22,)),
    "https://github.com/sanghyun-son/EDSR-PyTorch/issues/36",
    "https://github.com/chelsea0x3b/dfdx/issues/748",
)
def delay_of_five_hours() -> LightningRun:
    """A squared error in float16: 300 minutes of delay squared are beyond 65504."""
    rng = np.random.default_rng(1306)
    flight = rng.normal(size=(32 * 45, 6)).astype("float32")
    delay = 25 * np.exp(0.6 * flight[:, :1] + 0.3 * flight[:, 1:2]).clip(0.1, 8)
    delay[29 * 32 + 22] = 300
    return LightningRun(HalfDelay(), loader(flight, delay.astype("float32")), {"max_epochs": 1, "precision": "16-true"})
