"""What Lightning's own test suite found out with a guard in every trainer: harm to what is beside the trainer."""

import copy
import pickle
import subprocess
import sys
from typing import Any, ClassVar

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torchmetrics import CatMetric

from nan_callbacks.lightning import NaNGuard
from tests.lightning_adapter.set_ups import make_batches, make_trainer

LOG_OF = """
import {library}
from lightning_utilities.core import rank_zero
before = rank_zero.log, rank_zero.rank_zero_deprecation_category
import nan_callbacks.lightning
assert (rank_zero.log, rank_zero.rank_zero_deprecation_category) == before, rank_zero.log
print(rank_zero.log.name)
"""


@pytest.mark.parametrize("library", ["lightning.pytorch", "pytorch_lightning"])
def test_messages_of_the_users_library_go_through_its_own_logger_still(library: str):
    """Importing the other copy takes it over: `getLogger("lightning.pytorch").setLevel(...)` would silence no more."""
    ran = subprocess.run(
        [sys.executable, "-c", LOG_OF.format(library=library)], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.stdout.strip() == f"{library}.utilities.rank_zero", ran.stderr


class Counting(LightningModule):
    """Counts on its class, as beginners do (`losses = []` beneath the class line), and on one of another object."""

    losses: ClassVar[list[float]] = []
    counted = 0
    by_name: ClassVar[dict[str, Any]] = {"steps": [0]}

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).pow(2).mean()
        Counting.counted += 1
        Counting.new = 1
        self.losses.append(float(loss))
        self.by_name["steps"][0] += 1
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def test_what_a_step_keeps_on_its_class_is_not_counted_twice_by_the_checkup():
    Counting.losses.clear()
    batches = make_batches(4)
    make_trainer(NaNGuard(verbose=False, strict=True)).fit(Counting(), batches)
    assert Counting.counted == len(Counting.losses) == Counting.by_name["steps"][0] == len(batches)


class Remembers(LightningModule):
    """A metric whose list state drags the graph of every step along, which neither `deepcopy` nor memory likes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)
        self.kept = CatMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.net(batch[0]).pow(2).mean()
        self.kept.value.append(loss)
        self.kept._update_count += 1
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class CopiesGuards(Callback):
    """Copies the guard in the middle of a fit, as those do who ship callbacks to other processes."""

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 4:
            guards = [each for each in trainer.callbacks if isinstance(each, NaNGuard)]
            self.copies = [*copy.deepcopy(guards), *pickle.loads(pickle.dumps(guards))]


@pytest.mark.parametrize("verbose", [False, True])
def test_a_guard_can_be_copied_after_and_in_the_middle_of_a_fit(verbose: bool):
    guard, copier = NaNGuard(verbose=verbose, strict=True, snapshot_every_n_steps=2), CopiesGuards()
    make_trainer(guard, copier).fit(Remembers(), make_batches(8))
    assert guard.log.__self__ is not None  # what Lightning has given to every callback holds the module
    for each, steps in [(copier.copies[0], 5), (copier.copies[1], 5), (copy.deepcopy(guard), 8)]:
        assert each.summary["steps"] == steps
        assert "log" not in vars(each)
        make_trainer(each).fit(Remembers(), make_batches(6))
        assert each.summary["steps"] == 6
    assert guard.summary["steps"] == 8


class Asking(LightningModule):
    """Weighs its loss by what its callbacks know."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        assert self.trainer.checkpoint_callback is not None
        counter = next(each for each in self.trainer.callbacks if isinstance(each, Counter))
        counter.asked += 1
        return self.net(batch[0]).pow(2).mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Counter(Callback):
    """Counts what it is asked, and what it is told."""

    asked = 0
    told = 0

    def on_before_backward(self, *_: Any) -> None:
        self.told += 1


def test_a_step_finds_its_callbacks_in_trials_and_they_hear_of_none(tmp_path):
    guard, counter = NaNGuard(strict=True, verbose=False), Counter()
    trainer = make_trainer(guard, counter, ModelCheckpoint(tmp_path), enable_checkpointing=True)
    trainer.fit(Asking(), make_batches(6))

    assert guard.checkup_report.notes == ()
    assert counter.asked == counter.told == trainer.global_step == 6
