"""Runs a scenario on Lightning."""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from nan_callbacks.errors import TrainingStoppedError
from nan_callbacks.lightning import NaNGuard
from tests.conformance.record import Record, watching_the_core
from tests.conformance.scenarios import Optimizer, Scenario
from tests.conformance.tasks import TASKS, Array, Batch

NORM_MOMENTUM, NORM_EPSILON = 0.1, 1e-5


def linear(shape: tuple[int, ...], bias: bool = True) -> nn.Linear:
    return nn.Linear(*shape, bias=bias)


class Regression(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.hidden, self.out = linear(shapes["hidden.kernel"]), linear(shapes["out.kernel"])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(x)))


class Line(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.out = linear(shapes["out.kernel"])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x)


class Images(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        height, width, channels, features = shapes["conv.kernel"]
        self.conv = nn.Conv2d(channels, features, (height, width), bias=False)
        self.norm = nn.BatchNorm2d(features, eps=NORM_EPSILON, momentum=NORM_MOMENTUM)
        self.out = linear(shapes["out.kernel"])

    def forward(self, x: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.conv(x.permute(0, 3, 1, 2))))
        return self.out(features.mean((2, 3)))


class Sequences(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.rnn = nn.RNN(*shapes["rnn.kernel"], bias=False, batch_first=True)
        self.out = linear(shapes["out.kernel"])

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][:, -1])


class Tokens(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.embedding = nn.Embedding(*shapes["embedding.table"])
        self.query, self.key, self.value = (
            linear(shapes[f"{name}.kernel"], False) for name in ("query", "key", "value")
        )
        self.out = linear(shapes["out.kernel"])

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        each = self.embedding(tokens)
        scores = self.query(each) @ self.key(each).mT / each.shape[-1] ** 0.5 + mask[:, None]
        return self.out((each + torch.softmax(scores, -1) @ self.value(each))[:, 0])


class Distances(nn.Module):
    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.projection = linear(shapes["projection.kernel"], False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(x).square().sum(1, keepdim=True).sqrt()


NETWORKS = {
    "linear": Line,
    "regression": Regression,
    "images": Images,
    "sequences": Sequences,
    "tokens": Tokens,
    "distances": Distances,
    "distributions": Line,
}

NAMES = {"norm.scale": "norm.weight", "rnn.kernel": "rnn.weight_ih_l0", "rnn.recurrent": "rnn.weight_hh_l0"}
"""Parameters that torch calls neither ``weight`` (a kernel) nor what the task calls them."""


def torch_name(name: str) -> str:
    return NAMES.get(name, name.replace("kernel", "weight").replace("table", "weight"))


def as_torch(name: str, value: Array) -> Array:
    """A parameter in torch's order of axes: outputs first."""
    if value.ndim < 2 or name == "embedding.table":
        return value
    return np.transpose(value, (3, 2, 0, 1)) if value.ndim == 4 else value.T


def from_torch(name: str, value: Array) -> Array:
    """The other way round."""
    if value.ndim < 2 or name == "embedding.table":
        return value
    return np.transpose(value, (2, 3, 1, 0)) if value.ndim == 4 else value.T


class LayerwiseSGD(torch.optim.SGD):
    """Divides each gradient by its norm."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad / parameter.grad.norm()
        return loss


OPTIMIZERS = {
    "sgd": lambda p, rate: torch.optim.SGD(p, rate),
    "momentum": lambda p, rate: torch.optim.SGD(p, rate, momentum=0.9),
    "adam": lambda p, rate: torch.optim.Adam(p, rate, eps=1e-7),
    "adam_without_epsilon": lambda p, rate: torch.optim.Adam(p, rate, eps=0.0),
    "layerwise": lambda p, rate: LayerwiseSGD(p, rate),
}


def kl(logits: Tensor, p: Tensor) -> Tensor:
    return (p * p.log() - p * F.log_softmax(logits, -1)).sum(1).mean()


LOSSES = {"mse": F.mse_loss, "crossentropy": F.cross_entropy, "kl": kl}


class Module(LightningModule):
    """A task's network."""

    def __init__(self, task: str, optimizer: Optimizer) -> None:
        super().__init__()
        self.task, self.optimizer = TASKS[task], optimizer
        self.net = NETWORKS[task](self.task.shapes)
        with torch.no_grad():
            for name, value in self.task.weights().items():
                self.net.get_parameter(torch_name(name)).copy_(torch.from_numpy(as_torch(name, value).copy()))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        *inputs, target = batch
        return LOSSES[self.task.loss](self.net(*inputs), target)

    def configure_optimizers(self) -> Any:
        first = self.optimizer.rate(0)
        optimizer = OPTIMIZERS[self.optimizer.kind](self.net.parameters(), first)
        if len(self.optimizer.rates) == 1:
            return optimizer
        schedule = LambdaLR(optimizer, lambda update: self.optimizer.rate(update) / first)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Loader:
    """What a data loader is to Lightning."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = [tuple(torch.from_numpy(each) for each in (*b.inputs, b.target)) for b in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        return iter(self._batches)


def run(scenario: Scenario, batches: list[Batch] | None = None) -> Record:
    """Train under guard.

    Args:
        scenario: What to run.
        batches: Other data than the scenario's own.
    """
    guard = NaNGuard(strict=True, verbose=False, diagnose=scenario.diagnose, **scenario.settings)
    module = Module(scenario.task, scenario.optimizer)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[guard],
    )
    raised = False
    with watching_the_core() as seen:
        try:
            trainer.fit(module, Loader(scenario.batches() if batches is None else batches))
        except TrainingStoppedError:
            raised = True
    return Record(
        events=guard.events,
        summary=guard.summary,
        observations=seen.observations,
        limits=seen.limits,
        weights=_weights(module),
        state=_state(module, trainer),
        raised=raised,
    )


def _weights(module: Module) -> dict[str, Array]:
    return {
        name: from_torch(name, module.net.get_parameter(torch_name(name)).detach().numpy().copy())
        for name in module.task.shapes
    }


def _state(module: Module, trainer: Trainer) -> list[Array]:
    memories = [
        value
        for memory in trainer.optimizers[0].state_dict()["state"].values()
        for value in memory.values()
        if isinstance(value, Tensor)
    ]
    return [value.detach().numpy().copy() for value in (*module.parameters(), *module.buffers(), *memories)]
