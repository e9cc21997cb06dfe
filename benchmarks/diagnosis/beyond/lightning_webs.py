"""Graphs, bird calls and species: messages between nodes, and losses that compare what stands in a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.diagnosis.program import Happens, LightningRun, Truth, enter, finite, healthy, non_finite
from benchmarks.diagnosis.tables import digits


def loader(*columns: np.ndarray, size: int = 32) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(torch.as_tensor(column) for column in columns)), batch_size=size)


Graph = tuple[Tensor, Tensor, Tensor]


def graphs(count: int, seed: int) -> list[Graph]:
    """Graphs of 24 nodes; the kind of a node is told by the sum of its neighbours' first feature."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        features = rng.normal(size=(24, 6)).astype("float32")
        source = np.concatenate((np.repeat(np.arange(24), 3), np.arange(24)))
        target = np.concatenate((rng.integers(0, 24, 72), np.arange(24)))
        told = np.bincount(target, features[source, 0], 24)
        edges = torch.from_numpy(np.stack((source, target)))
        made.append((torch.from_numpy(features), edges, torch.from_numpy((told > 0).astype("int64"))))
    return made


class MeanMessages(nn.Module):
    """Each node takes the mean of what its neighbours send."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.send, self.keep = nn.Linear(inputs, outputs), nn.Linear(inputs, outputs)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        sent = self.send(nodes)[source]
        total = torch.zeros(len(nodes), sent.shape[1]).index_add(0, target, sent)
        count = torch.zeros(len(nodes), 1).index_add(0, target, torch.ones(len(target), 1))
        return self.keep(nodes) + total / count.clamp(min=1)


class AttentiveMessages(nn.Module):
    """Each node weighs its neighbours by a softmax over them, written out."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.send = nn.Linear(inputs, outputs)
        self.score = nn.Linear(2 * outputs, 1)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        source, target = edges
        sent = self.send(nodes)
        likes = F.leaky_relu(self.score(torch.cat((sent[source], sent[target]), 1)), 0.2)
        weight = torch.exp(likes)
        total = torch.zeros(len(nodes), 1).index_add(0, target, weight)
        return torch.zeros_like(sent).index_add(0, target, sent[source] * weight / total[target])


class NodeKinds(LightningModule):
    """Rounds of messages, an activation after each, and a head for the kinds."""

    def __init__(self, rounds: list[nn.Module], activation: nn.Module, width: int = 16) -> None:
        super().__init__()
        self.rounds, self.activation, self.head = nn.ModuleList(rounds), activation, nn.Linear(width, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        nodes, edges, kinds = batch
        for messages in self.rounds:
            nodes = self.activation(messages(nodes, edges))
        return F.cross_entropy(self.head(nodes), kinds)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def over(made: list[Graph]) -> DataLoader[Any]:
    return DataLoader(made, batch_size=None)  # type: ignore[arg-type]


@enter(
    non_finite(("NAN110", "DATA503"), "exp", "weight = torch.exp(likes)", modules=("rounds.0",), rows=None),
    "https://github.com/pyg-team/pytorch_geometric/issues/53",
    "https://github.com/JuliaGraphs/GraphNeuralNetworks.jl/issues/246",
)
def neighbour_that_is_liked_too_much() -> LightningRun:
    """Graph attention exponentiates its scores as they are; one node has features a thousand times too large."""
    made = graphs(60, 7601)
    made[41][0][7] *= -3000
    rounds = [AttentiveMessages(6, 16), AttentiveMessages(16, 16)]
    return LightningRun(NodeKinds(rounds, nn.ELU()), over(made), {"max_epochs": 1})


@enter(
    Truth(
        happens=Happens.EXCEPTION,
        causes=("DATA511",),
        kind="exception",
        operations=("IndexError", "RuntimeError"),
        modules=("rounds.0",),
        line="sent = self.send(nodes)[source]",
        rows=None,
    ),
    "https://github.com/pyg-team/pytorch_geometric/issues/420",
    "https://github.com/pyg-team/pytorch_geometric/issues/8902",
    "https://github.com/pyg-team/pytorch_geometric/issues/4588",
)
def edge_to_a_node_that_was_filtered_out() -> LightningRun:
    """Nodes of one graph were filtered, its edges were not: they lead to nodes beyond the last one."""
    made = graphs(60, 7602)
    nodes, edges, kinds = made[33]
    made[33] = (nodes[:18], edges, kinds[:18])
    return LightningRun(
        NodeKinds([MeanMessages(6, 16), MeanMessages(16, 16)], nn.ReLU()), over(made), {"max_epochs": 1}
    )


@enter(
    finite(Happens.STALL, "GRAD202"),
    "https://github.com/lightaime/deep_gcns_torch/issues/10",
    "https://github.com/pyg-team/pytorch_geometric/issues/215",
)
def twenty_rounds_of_gossip() -> LightningRun:
    """Twenty rounds of messages with a sigmoid after each: what the first rounds get of the gradient is nothing."""
    rounds = [MeanMessages(6 if index == 0 else 16, 16) for index in range(20)]
    return LightningRun(NodeKinds(rounds, nn.Sigmoid()), over(graphs(60, 7603)), {"max_epochs": 2})


@enter(
    finite(Happens.STALL, ("ACT305", "ACT304")),
    "https://github.com/wagonhelm/NaNmnist/issues/2",
    "https://github.com/tensorflow/tensorflow/pull/13935",
)
def messages_that_begin_with_silence() -> LightningRun:
    """A graph network's own reset sets every weight to zero: no message is ever sent, no weight ever moves."""
    module = NodeKinds([MeanMessages(6, 16), MeanMessages(16, 16)], nn.ReLU())
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return LightningRun(module, over(graphs(60, 7604)), {"max_epochs": 2})


# -- ink on paper ----------------------------------------------------------------------------------------------------


class Ink(LightningModule):
    """Digits as ink below white paper: zero is white, minus one is black."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 10))
        nn.init.uniform_(self.net[0].weight, 0.0, 0.2)
        nn.init.zeros_(self.net[0].bias)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, ("ACT303", "ACT304")),
    "https://github.com/jvargasmu/population_estimation/issues/68",
    "https://github.com/Liam0205/liam0205.github.io/issues/262",
)
def ink_counted_below_white() -> LightningRun:
    """Inputs are never above zero and the first weights never below: each rectifier is shut from the start."""
    images, labels = digits(1280)
    return LightningRun(Ink(), loader(-images, labels), {"max_epochs": 2})


# -- species ---------------------------------------------------------------------------------------------------------


class SupervisedContrast(LightningModule):
    """Pictures of one species shall have codes that point the same way."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 16))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        images, species = batch
        code = F.normalize(self.encoder(images), dim=1)
        alike = (code @ code.T / 0.5).masked_fill(torch.eye(len(code), dtype=torch.bool), -1e9)
        same = (species[:, None] == species[None]).float().fill_diagonal_(0)
        share = (alike.log_softmax(1) * same).sum(1) / same.sum(1).clamp(min=1)
        return -share.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@enter(
    finite(Happens.STALL, "DATA510"),
    "https://github.com/HobbitLong/SupContrast/issues/42",
    "https://github.com/HobbitLong/SupContrast/issues/83",
)
def contrast_within_one_species() -> LightningRun:
    """The column of species was filled with one name: everything shall be alike, and there is nothing to tell apart."""
    images, labels = digits(1280)
    return LightningRun(SupervisedContrast(), loader(images, np.full_like(labels, 4)), {"max_epochs": 3})


@enter(
    healthy(),
    "https://github.com/HobbitLong/SupContrast/issues/3",
)
def contrast_of_ten_digits() -> LightningRun:
    """The same loss with all the labels: it ends far above zero, where this loss has its floor."""
    return LightningRun(SupervisedContrast(), loader(*digits(1280)), {"max_epochs": 3})


# -- calls of birds --------------------------------------------------------------------------------------------------


class MixedHeads(LightningModule):
    """Three softmaxes over a hundred birds, mixed by a fourth; the criterion expects scores."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(32, 64), nn.ReLU())
        self.heads, self.mixture = nn.Linear(64, 300), nn.Linear(64, 3)
        self.criterion = nn.CrossEntropyLoss()

    def mixed(self, calls: Tensor) -> Tensor:
        hidden = self.body(calls)
        chances = self.heads(hidden).view(-1, 3, 100).softmax(-1)
        return (self.mixture(hidden).softmax(-1)[..., None] * chances).sum(1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        calls, birds = batch
        return self.criterion(self.mixed(calls), birds)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def calls(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    birds = rng.integers(0, 100, rows)
    return (rng.normal(size=(100, 32))[birds] + 0.3 * rng.normal(size=(rows, 32))).astype("float32"), birds


@enter(
    finite(Happens.STALL, "LOSS403"),
    "https://github.com/ariecattan/SciCo/issues/2",
    "https://github.com/MicrosoftDocs/ml-basics/issues/48",
)
def hundred_birds_through_a_mixture() -> LightningRun:
    """A mixture of softmaxes is handed to a cross-entropy of scores, which takes one more softmax."""
    return LightningRun(MixedHeads(), loader(*calls(1280, 7605)), {"max_epochs": 1})
