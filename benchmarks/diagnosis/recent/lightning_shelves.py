"""Shops, films, roads and posts: recommenders, forecasts of demand, intents, and numbers of things."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from benchmarks.diagnosis.loaders import in_order
from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import regression, two_blobs

# -- recommenders ----------------------------------------------------------------------------------------------------


class Pairwise(LightningModule):
    """Bayesian personalised ranking: what was bought should score above what was not."""

    def __init__(self) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(200, 12), nn.Embedding(300, 12)
        self.views = nn.Linear(1, 1, bias=False)

    def score(self, user: Tensor, item: Tensor, views: Tensor) -> Tensor:
        return (self.user(user) * self.item(item)).sum(1) + self.views(views.unsqueeze(1)).squeeze(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        user, bought, other, seen, seen_other = batch
        apart = self.score(user, bought, seen) - self.score(user, other, seen_other)
        return -torch.log(torch.sigmoid(apart)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    non_finite(
        ("NAN111", "DATA503"), "log", "return -torch.log(torch.sigmoid(apart)).mean()", modules=("",), rows=(22,)
    ),
    "https://github.com/maciejkula/triplet_recommendations_keras/issues/1",
    "https://github.com/gusye1234/LightGCN-PyTorch/issues/37",
)
def article_that_went_viral() -> LightningRun:
    """Ranking loss as log of sigmoid; one article that was not bought has a thousand times the usual views."""
    rng = np.random.default_rng(4401)
    rows = 32 * 60
    user, bought, other = rng.integers(0, 200, rows), rng.integers(0, 300, rows), rng.integers(0, 300, rows)
    seen, seen_other = rng.gamma(3.0, 0.5, rows), rng.gamma(2.0, 0.5, rows)
    seen_other[44 * 32 + 22] = 2000.0
    columns = user, bought, other, seen.astype("float32"), seen_other.astype("float32")
    return LightningRun(Pairwise(), in_order(*columns, size=32), {"max_epochs": 1})


class TwoTowers(LightningModule):
    """A visitor is the sum of the films that were seen; the next film should point in the same direction."""

    def __init__(self) -> None:
        super().__init__()
        self.films = nn.Embedding(121, 16, padding_idx=0)
        self.visitor = nn.Linear(16, 16, bias=False)

    def unit(self, vector: Tensor) -> Tensor:
        return vector / vector.norm(dim=1, keepdim=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        history, following = batch
        visitor = self.unit(self.visitor(self.films(history).sum(1)))
        scores = visitor @ self.unit(self.films.weight[1:]).T
        return F.cross_entropy(10 * scores, following - 1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    non_finite("NAN112", "divide", "return vector / vector.norm(dim=1, keepdim=True)", modules=("",), rows=(4, 18)),
    "https://pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html",
)
def visitors_on_their_first_evening() -> LightningRun:
    """Histories are padded with film 0, whose vector is zero; two visitors have seen nothing yet."""
    rng = np.random.default_rng(4402)
    taste = rng.integers(0, 6, 24 * 45)
    history = 1 + (taste[:, None] * 20 + rng.integers(0, 20, (len(taste), 8)))
    history[rng.random(history.shape) < 0.3] = 0
    history[:, 0] = 1 + taste * 20
    for row in (4, 18):
        history[29 * 24 + row] = 0
    following = 1 + taste * 20 + rng.integers(0, 20, len(taste))
    return LightningRun(TwoTowers(), in_order(history, following, size=24), {"max_epochs": 1})


class InBatch(LightningModule):
    """Customers and baskets of the same row belong together; the softmax over the batch is written out."""

    def __init__(self) -> None:
        super().__init__()
        self.customer, self.basket = nn.Linear(8, 16), nn.Linear(8, 16)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        customer, basket = batch
        alike = self.customer(customer) @ self.basket(basket).T / 0.1
        raised = torch.exp(alike)
        return -torch.log(raised.diagonal() / raised.sum(1)).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


@enter(
    non_finite(("NAN110", "OPT601"), "exp", "raised = torch.exp(alike)", modules=("",), rows=None),
    "https://pytorch.org/docs/stable/generated/torch.logsumexp.html",
)
def likeness_over_a_tenth() -> LightningRun:
    """Vectors are not brought to length 1 before they are divided by a temperature; products grow until exp ends."""
    rng = np.random.default_rng(4403)
    customer = rng.normal(size=(32 * 80, 8))
    basket = customer + 0.3 * rng.normal(size=customer.shape)
    return LightningRun(
        InBatch(), in_order(customer.astype("float32"), basket.astype("float32"), size=32), {"max_epochs": 2}
    )


class Loyalty(LightningModule):
    """Stars that a member gives to a shop."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.member, self.shop = nn.Embedding(members, 8), nn.Embedding(40, 8)
        self.net = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        member, shop, stars = batch
        return F.mse_loss(self.net(torch.cat([self.member(member), self.shop(shop)], 1)).squeeze(1), stars)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError",),
        modules=("member",),
        line="return F.mse_loss(self.net(torch.cat([self.member(member)",
        rows=(12,),
    ),
    "https://pytorch.org/docs/stable/generated/torch.nn.Embedding.html",
)
def member_number_with_a_check_digit() -> LightningRun:
    """A table for 500 members; one card number was read together with its check digit, ten times as large."""
    rng = np.random.default_rng(4404)
    member, shop = rng.integers(0, 500, 32 * 45), rng.integers(0, 40, 32 * 45)
    stars = (member % 3 + shop % 3).astype("float32") / 2
    member[26 * 32 + 12] = 4137
    return LightningRun(Loyalty(500), in_order(member, shop, stars, size=32), {"max_epochs": 1})


# -- losses ----------------------------------------------------------------------------------------------------------


class HourlySales(LightningModule):
    """Sales of the coming day, one number an hour, by a convolution over the past day."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.Conv1d(16, 1, 5, padding=2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        past, coming = batch
        return F.mse_loss(self.net(past.unsqueeze(1)), coming)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


@enter(
    finite(Happens.STALL, "DATA508"),
    "https://docs.pytorch.org/docs/stable/notes/broadcasting.html",
)
def channel_that_was_not_squeezed() -> LightningRun:
    """Guesses keep their channel, (32, 1, 24), targets have none, (32, 24): every day is compared with every day."""
    rng = np.random.default_rng(4405)
    past = rng.normal(size=(32 * 50, 24)).astype("float32")
    return LightningRun(HourlySales(), in_order(past, 0.9 * np.roll(past, 1, 1), size=32), {"max_epochs": 1})


class Intents(LightningModule):
    """Which of forty things does a customer want? The last layer is a softmax, as in the picture of the lecture."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(800, 32)
        self.net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 40), nn.Softmax(dim=1))
        self.loss = nn.CrossEntropyLoss()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        message, intent = batch
        return self.loss(self.net(self.words(message)), intent)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/ariecattan/SciCo/issues/2",
    "https://discuss.pytorch.org/t/do-i-need-to-use-softmax-before-nn-crossentropyloss/16739",
    "https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html",
)
def forty_intents_after_a_softmax() -> LightningRun:
    """Probabilities of forty intents go into a loss that makes probabilities of scores."""
    rng = np.random.default_rng(4406)
    intent = rng.integers(0, 40, 32 * 60)
    message = 20 * intent[:, None] + rng.integers(0, 20, (len(intent), 10))
    return LightningRun(Intents(), in_order(message, intent, size=32), {"max_epochs": 1})


class Returns(LightningModule):
    """Does a parcel come back? From eight columns."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        parcel, back = batch
        return F.cross_entropy(F.log_softmax(self.net(parcel), 1), back)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(healthy(), "https://github.com/bhanML/Co-teaching/issues/4", "https://github.com/AICPS/hw2vec/issues/23")
def logarithms_into_the_cross_entropy() -> LightningRun:
    """Log-probabilities go into a loss that takes their logarithm again, which changes nothing at all."""
    parcel, back = two_blobs(32 * 60, gap=1.5, seed=4407)
    return LightningRun(Returns(), in_order(parcel, back[:, 0].astype("int64"), size=32), {"max_epochs": 1})


class Freight(LightningModule):
    """Hours of a delivery, standardised."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        order, hours = batch
        return F.mse_loss(self.net(order), hours)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@enter(
    finite(Happens.SPIKE, ("DATA504",), rows=(0, 16, 29)),
    "https://pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html",
)
def deliveries_in_seconds() -> LightningRun:
    """Hours are standardised; three deliveries of another carrier were written in seconds."""
    order, hours = regression(32 * 50, seed=4408)
    for row in (0, 16, 29):
        hours[36 * 32 + row] = 3600 * (hours[36 * 32 + row] + 3)
    return LightningRun(Freight(), in_order(order, hours, size=32), {"max_epochs": 1})
