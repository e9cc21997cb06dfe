"""The demo's arm in Lightning: an ordinary module and Trainer, to which the guard is one more callback."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from nan_callbacks.demo.arm import Arm, ArmResult, Progress
from nan_callbacks.lightning import NaNGuard


class DigitsModule(LightningModule):
    """A small convolutional net with BatchNorm that learns the digits. Nothing in it knows of the guard.

    Args:
        arm: What to train on and how.
    """

    def __init__(self, arm: Arm) -> None:
        super().__init__()
        self.arm = arm
        self.net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(32 * 2 * 2, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross entropy of one batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Share of the test digits that are right."""
        images, labels = batch
        self.log("test_accuracy", (self.net(images).argmax(dim=-1) == labels).float().mean())

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gradient descent with momentum, on the schedule of this arm."""
        recipe = self.arm.recipe
        optimizer = torch.optim.SGD(self.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.arm.learning_rate_scale)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TrainingBatches:
    """The training batches of the epoch that the module is in, as tensors."""

    def __init__(self, module: DigitsModule) -> None:
        self.module = module

    def __len__(self) -> int:
        return self.module.arm.batches.per_epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.module.arm.batches.epoch(self.module.current_epoch):
            yield _as_image_tensor(images), torch.from_numpy(labels)


class DemoProgressBar(ProgressBar):
    """Shows an arm's epochs, and what is printed meanwhile, in the demo's own way.

    Args:
        progress: Where to show them.
    """

    is_enabled = True
    """As the bars that come with Lightning say it: print through me."""

    def __init__(self, progress: Progress) -> None:
        super().__init__()
        self.progress = progress

    def disable(self) -> None:
        """Nothing to do: the demo decides what is shown."""

    def enable(self) -> None:
        """Nothing to do: the demo decides what is shown."""

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Show a message of another callback."""
        self.progress.say(" ".join(str(argument) for argument in args))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the accuracy of the epoch."""
        self.progress.epoch(float(trainer.callback_metrics["test_accuracy"]))


def train_arm(arm: Arm, progress: Progress) -> ArmResult:
    """Train one arm of the demo.

    Args:
        arm: What to train.
        progress: Where to show how it goes.
    """
    guard = NaNGuard(checkup=False, events_path=str(arm.events_path)) if arm.guarded else None
    with _quiet_lightning(), _one_thread():
        seed_everything(arm.recipe.seed, verbose=False)
        module = DigitsModule(arm)
        test_batch = (_as_image_tensor(arm.digits.test_images), torch.from_numpy(arm.digits.test_labels))
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=arm.recipe.epochs, num_sanity_val_steps=0, logger=False,
            enable_checkpointing=False, enable_model_summary=False,
            callbacks=[DemoProgressBar(progress), *([guard] if guard else [])],
        )  # fmt: skip
        test_loader = DataLoader(TensorDataset(*test_batch), batch_size=len(test_batch[1]))
        trainer.fit(module, TrainingBatches(module), test_loader)
        accuracy = _accuracy(module, *test_batch)
    if guard is None:
        return ArmResult(accuracy=accuracy)
    return ArmResult(accuracy=accuracy, summary=guard.summary, events=guard.events)


def _as_image_tensor(images: Any) -> Tensor:
    return torch.from_numpy(images).unsqueeze(1)


def _accuracy(module: DigitsModule, images: Tensor, labels: Tensor) -> float:
    module.eval()
    with torch.no_grad():
        return float((module.net(images).argmax(dim=-1) == labels).float().mean())


@contextmanager
def _one_thread() -> Iterator[None]:
    """Train on one thread: so small a net leaves several waiting for each other, on a busy machine for minutes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's own announcements (devices, loggers, end of training) out of the demo's output."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
