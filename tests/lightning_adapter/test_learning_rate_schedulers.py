"""A cut of the learning rate survives every scheduler of torch, and no scheduler notices."""

import copy
import functools
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from torch import Tensor, nn
from torch.optim import SGD, lr_scheduler
from torch.optim.swa_utils import SWALR

from nan_callbacks.lightning.learning_rate import LearningRateControl
from tests.lightning_adapter.set_ups import (
    CutAt,
    RecordRates,
    Regression,
    build_net,
    make_batches,
    make_trainer,
    quiet_guard,
)

CUT_AFTER = 7
STEPS = 24


class OwnScheduler(lr_scheduler.LRScheduler):
    """What users write: a class of their own with a closed form."""

    def get_lr(self) -> list[float]:
        return [rate / (1 + self.last_epoch) for rate in self.base_lrs]


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: min(1.0, (t + 1) / 10)),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.93),
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=5, gamma=0.3),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, milestones=[2, 6, 11], gamma=0.3),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, factor=0.3, total_iters=10),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, start_factor=0.2, total_iters=12),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, total_iters=STEPS, power=2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "CosineAnnealingLR with a floor": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=5, T_mult=2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, max_lr=[0.1, 0.02], total_steps=STEPS + 1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, base_lr=0.001, max_lr=0.1, step_size_up=4),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.3, min_lr=0.001),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, factor=0.1, total_iters=6), lr_scheduler.ExponentialLR(o, gamma=0.9)]
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=4), lr_scheduler.LambdaLR(o, lambda t: 0.95**t)], milestones=[4]
    ),
    "SWALR": lambda o: SWALR(o, swa_lr=0.03, anneal_epochs=10),
    "OwnScheduler": OwnScheduler,
}
RATES = (0.1, 0.02)


def make_optimizer(module: nn.Module, *, tensor_rates: bool = False) -> SGD:
    """Two groups with different rates."""
    rates = [torch.tensor(rate, dtype=torch.float64) if tensor_rates else rate for rate in RATES]
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(module.parameters(), rates, strict=True)]
    return SGD(groups, lr=0.1, momentum=0.9, foreach=False)


class LogsConstant(Regression):
    """Logs what a plateau scheduler can wait for in vain."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("constant", 1.0, on_step=True, on_epoch=True)
        return super().training_step(batch, batch_idx)


class LookAtScheduler(Callback):
    """What the run's scheduler looks like from outside, during the fit."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.scheduler = trainer.lr_scheduler_configs[0].scheduler
        kind = type(self.scheduler)
        self.names = (kind.__name__, kind.__qualname__, kind.__module__)
        self.saved = repr(self.scheduler.state_dict())
        self.checkpoint = repr(trainer._checkpoint_connector.dump_checkpoint()["lr_schedulers"])


@functools.cache
def fit(name: str, interval: str, *, cut: bool) -> tuple[list[list[float]], LookAtScheduler]:
    """The rates that each of 24 updates used, and what the scheduler looked like."""

    def configure(module: nn.Module) -> dict[str, Any]:
        optimizer = make_optimizer(module)
        config = {"scheduler": SCHEDULERS[name](optimizer), "interval": interval, "monitor": "constant"}
        return {"optimizer": optimizer, "lr_scheduler": config}

    batches = {"step": 12, "epoch": 2}[interval]
    record, look, guard = RecordRates(), LookAtScheduler(), quiet_guard()
    cutter = [CutAt(guard, CUT_AFTER)] if cut else []
    trainer = make_trainer(*cutter, guard, record, look, max_epochs=STEPS // batches)
    trainer.fit(LogsConstant(configure), make_batches(batches))
    return record.rates, look


def step_by_hand(name: str, *, scale: float) -> list[list[float]]:
    """The rates of 24 updates without a trainer, held in tensors and scaled from the eighth on."""
    optimizer = make_optimizer(build_net(), tensor_rates=True)
    scheduler = SCHEDULERS[name](optimizer)
    control = LearningRateControl([optimizer], [scheduler])
    control.install()
    rates = []
    for step in range(STEPS):
        optimizer.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        if step == CUT_AFTER:
            control.set_scale(scale)
    return rates


def halved_after_the_cut(schedule: list[list[float]]) -> list[list[float]]:
    later = [[0.5 * rate for rate in rates] for rates in schedule[CUT_AFTER + 1 :]]
    return schedule[: CUT_AFTER + 1] + later


@pytest.mark.filterwarnings("ignore:A `OneCycleLR` scheduler is using")
@pytest.mark.parametrize("interval", ["step", "epoch"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_after_a_cut_every_rate_is_exactly_half_of_the_schedule(name: str, interval: str):
    (schedule, _), (rates, _) = fit(name, interval, cut=False), fit(name, interval, cut=True)

    assert len(schedule) == STEPS
    assert rates == halved_after_the_cut(schedule)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_rate_held_in_a_tensor_is_halved_as_well(name: str):
    assert step_by_hand(name, scale=0.5) == halved_after_the_cut(step_by_hand(name, scale=1.0))


def test_the_optimizer_keeps_its_rate_tensor():
    optimizer = make_optimizer(build_net(), tensor_rates=True)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=1)
    before = [group["lr"] for group in optimizer.param_groups]
    control = LearningRateControl([optimizer], [scheduler])
    control.install()
    control.set_scale(0.25)
    optimizer.step()
    scheduler.step()

    assert all(group["lr"] is tensor for group, tensor in zip(optimizer.param_groups, before, strict=True))


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler_and_checkpoint_hold_nothing_of_ours(name: str):
    (_, plain), (_, cut) = fit(name, "step", cut=False), fit(name, "step", cut=True)

    assert cut.saved == plain.saved
    assert cut.checkpoint == plain.checkpoint


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_looks_the_same_during_the_fit_and_is_the_same_after_it(name: str):
    original = type(SCHEDULERS[name](make_optimizer(build_net())))
    _, look = fit(name, "step", cut=True)

    assert look.names == (original.__name__, original.__qualname__, original.__module__)
    assert type(look.scheduler) is original


def test_a_scheduler_is_of_its_own_class_but_while_there_is_a_scale_or_a_step_to_be_left_out():
    scheduler = lr_scheduler.StepLR(make_optimizer(build_net()), 2)
    control = LearningRateControl([scheduler.optimizer], [scheduler])
    control.install()
    assert type(scheduler) is lr_scheduler.StepLR

    control.set_scale(0.5)
    assert isinstance(scheduler, lr_scheduler.StepLR)
    assert type(scheduler) is not lr_scheduler.StepLR
    assert "step" not in vars(scheduler)
    control.set_scale(1.0)
    assert type(scheduler) is lr_scheduler.StepLR

    control.suspend({id(scheduler)})
    count = scheduler.last_epoch
    scheduler.step()
    assert scheduler.last_epoch == count
    control.resume()
    assert type(scheduler) is lr_scheduler.StepLR
    scheduler.step()
    assert scheduler.last_epoch == count + 1


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda scheduler: pickle.loads(pickle.dumps(scheduler))])
def test_a_copy_of_a_scheduler_is_free_of_the_guard(copied: Callable[[Any], Any]):
    scheduler = lr_scheduler.ExponentialLR(make_optimizer(build_net()), 0.5)
    control = LearningRateControl([scheduler.optimizer], [scheduler])
    control.install()
    control.set_scale(0.5)

    twin = copied(scheduler)
    assert type(twin) is lr_scheduler.ExponentialLR
    assert vars(twin).keys() == vars(scheduler).keys()


def test_a_scheduler_saved_whole_during_the_fit_can_be_loaded():
    scheduler = lr_scheduler.ExponentialLR(make_optimizer(build_net()), 0.5)
    LearningRateControl([scheduler.optimizer], [scheduler]).install()
    file = io.BytesIO()
    torch.save(scheduler, file)
    file.seek(0)

    assert type(torch.load(file, weights_only=False)) is lr_scheduler.ExponentialLR
