"""Small models, data and trainers for the tests of everything around the step."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytorch_lightning
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD, Adam

from nan_callbacks.lightning import NaNGuard

Batch = tuple[Tensor, Tensor]


class Batches:
    """What a data loader is to Lightning: the same batches, in the same order, every epoch."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.batches)


def make_batches(count: int, *, spoiled: Iterable[int] = (), value: float = float("nan"), seed: int = 0) -> Batches:
    """Batches of a linear problem with a little noise; one input of each spoiled batch is set to `value`."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.tensor([[1.0, -2.0, 0.5]])
    batches = []
    for index in range(count):
        inputs = torch.randn(8, 3, generator=generator)
        targets = inputs @ truth.T + 0.1 * torch.randn(8, 1, generator=generator)
        if index in spoiled:
            inputs[0, 0] = value
        batches.append((inputs, targets))
    return Batches(batches)


class RegressionSteps:
    """What a module for least squares with one linear layer does, in either library.

    `configure` makes what `configure_optimizers` returns; `SGD(lr=0.05)` without it.
    """

    def __init__(self, configure: Callable[[nn.Module], Any] | None = None) -> None:
        super().__init__()
        self.net = build_net()
        self.configure = configure or constant_rate

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def loss(self, batch: Batch) -> Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(self.net(inputs), targets)

    def configure_optimizers(self) -> Any:
        return self.configure(self)


class Regression(RegressionSteps, LightningModule):
    """The module that most tests train."""


class EvaluatedRegression(Regression):
    """The same with every kind of evaluation."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.net(batch[0])


class OptimizerMakesNaN(Regression):
    """Adam without an epsilon divides zero by zero when a parameter's first gradient is zero."""

    def __init__(self, broken_at: int = 5) -> None:
        super().__init__(lambda module: Adam(module.parameters(), lr=0.01, eps=0.0))
        self.late = nn.Parameter(torch.zeros(2))
        self.broken_at = broken_at

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss + 0.0 * self.late.sum() if self.trainer.global_step == self.broken_at else loss


def regression_of(library: Any) -> Any:
    """The same module for one of the two libraries."""
    return type("Regression", (RegressionSteps, library.LightningModule), {})()


def constant_rate(module: nn.Module) -> SGD:
    """The optimizer of most tests."""
    return SGD(module.parameters(), lr=0.05)


def build_net() -> nn.Linear:
    """The same weights every time."""
    net = nn.Linear(3, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[0.1, 0.2, -0.3]]))
        net.bias.zero_()
    return net


def make_trainer(*callbacks: Any, library: Any = pytorch_lightning, **settings: Any) -> Trainer:
    """A trainer without anything that is not under test."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    return library.Trainer(callbacks=list(callbacks), **{**defaults, **settings})


def quiet_guard(**settings: Any) -> NaNGuard:
    """A guard that says nothing and hides none of its own errors."""
    return NaNGuard(**{"verbose": False, "strict": True, **settings})


def weights(module: nn.Module) -> list[Tensor]:
    """A copy of every parameter and buffer."""
    return [tensor.detach().clone() for tensor in (*module.parameters(), *module.buffers())]


def equal(first: Iterable[Tensor], second: Iterable[Tensor]) -> bool:
    """Whether two lists of tensors are bitwise equal."""
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all tensors hold finite numbers only."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


class CutAt(Callback):
    """Cuts the guard's learning rate once, as a rollback at this step would, and leaves the rest of the state alone."""

    def __init__(self, guard: NaNGuard, step: int) -> None:
        self.guard = guard
        self.step = step
        self.done = False

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step >= self.step and not self.done:
            self.done = True
            self.guard._monitor.policy.learning_rate.cut(0)


class RecordRates(Callback):
    """The learning rates of every group as each optimizer step uses them."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        def note(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

        if not self.rates:
            # After the closure, hence after the guard's gate: what the update itself multiplies with.
            trainer.optimizers[0].register_step_post_hook(note)
