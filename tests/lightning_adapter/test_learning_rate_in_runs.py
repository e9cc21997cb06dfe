"""A cut beside warm-up code, monitors, recovery, weight averaging, and through save and resume."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor, StochasticWeightAveraging
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import SGD, lr_scheduler
from torch.optim.swa_utils import SWALR

from nan_callbacks.lightning.learning_rate import LearningRateControl
from tests.lightning_adapter.runs import TinyModule, fit, healthy_batches, is_finite, spoiled, strict_guard
from tests.lightning_adapter.set_ups import (
    CutAt,
    RecordRates,
    Regression,
    build_net,
    make_batches,
    make_trainer,
    quiet_guard,
    weights,
)

CUT_AFTER = 3
STEPS = 12


class WarmsUpByAssignment(Regression):
    """The recipe of Lightning's documentation of `optimizer_step`."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        optimizer.step(closure=optimizer_closure)
        scale = min(1.0, (self.trainer.global_step + 1) / 8)
        for group in optimizer.param_groups:
            group["lr"] = scale * 0.05


class Multiplies(Callback):
    """User code that multiplies the present rate after some steps."""

    def __init__(self, factor: float, steps: tuple[int, ...]) -> None:
        self.factor = factor
        self.steps = steps

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            for group in trainer.optimizers[0].param_groups:
                group["lr"] *= self.factor


class AssignsPerEpoch(Callback):
    """User code that sets the rate of the epoch at its start: 0.08 for two epochs, then a tenth of it."""

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 0.08 * 0.1 ** (trainer.current_epoch // 2)


def fit_rates(module: Regression, *callbacks: Any, cut: bool, guard_settings: Any = (), **settings: Any) -> list[float]:
    """The rate of the first group in each update."""
    record, guard = RecordRates(), quiet_guard(**dict(guard_settings))
    cutter = [CutAt(guard, CUT_AFTER)] if cut else []
    make_trainer(*cutter, guard, record, *callbacks, **settings).fit(module, make_batches(STEPS))
    return [rates[0] for rates in record.rates]


def with_scheduler(make: Callable[[Any], Any]) -> Callable[[nn.Module], Any]:
    def configure(module: nn.Module) -> dict[str, Any]:
        optimizer = SGD(module.parameters(), lr=0.05, momentum=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make(optimizer), "interval": "step"}}

    return configure


def exponential(optimizer: Any) -> Any:
    return lr_scheduler.ExponentialLR(optimizer, 0.9)


def one_cycle(optimizer: Any) -> Any:
    return lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * STEPS + 1)


def halved_after_the_cut(schedule: list[float]) -> list[float]:
    return schedule[: CUT_AFTER + 1] + [0.5 * rate for rate in schedule[CUT_AFTER + 1 :]]


def test_the_documented_warm_up_recipe_does_not_undo_the_cut():
    schedule = fit_rates(WarmsUpByAssignment(), cut=False)

    assert schedule[-1] > 2 * schedule[CUT_AFTER]  # the warm-up goes on after the cut
    assert fit_rates(WarmsUpByAssignment(), cut=True) == halved_after_the_cut(schedule)


class TwoOptimizersByHand(Regression):
    """Manual optimisation: each optimizer has its scheduler, and the module steps all of them itself."""

    def __init__(self) -> None:
        super().__init__(self.two_of_each)
        self.automatic_optimization = False

    def two_of_each(self, module: nn.Module) -> Any:
        optimizers = [SGD([self.net.weight], lr=0.05), SGD([self.net.bias], lr=0.02)]
        return optimizers, [exponential(optimizers[0]), one_cycle(optimizers[1])]

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer, scheduler in zip(self.optimizers(), self.lr_schedulers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()
            scheduler.step()


def test_in_manual_optimisation_the_cut_holds_for_every_optimizer():
    class RatesOfBoth(Callback):
        def __init__(self) -> None:
            self.rates: list[list[float]] = []

        def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
            self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])

    def run(*, cut: bool) -> list[list[float]]:
        record = RatesOfBoth()
        fit_rates(TwoOptimizersByHand(), record, cut=cut)
        return record.rates

    schedule, rates = run(cut=False), run(cut=True)
    first = CUT_AFTER  # in batches; the trainer counts two steps in each, so the cut is made in batch 2
    assert rates[:first] == schedule[:first]
    assert rates[first:] == [[0.5 * rate for rate in both] for both in schedule[first:]]


def test_user_code_that_multiplies_the_present_rate_does_not_double_the_cut():
    user = Multiplies(0.25, steps=(2, 6, 9))

    schedule = fit_rates(Regression(), user, cut=False)
    rates = fit_rates(Regression(), user, cut=True)
    assert rates == pytest.approx(halved_after_the_cut(schedule), rel=1e-12)


def test_a_staircase_assigned_once_per_epoch_does_not_undo_the_cut():
    settings = {"max_epochs": 4, "limit_train_batches": 6}
    schedule = fit_rates(Regression(), AssignsPerEpoch(), cut=False, **settings)
    rates = fit_rates(Regression(), AssignsPerEpoch(), cut=True, **settings)

    assert schedule[0] > 5 * schedule[-1]
    assert rates == halved_after_the_cut(schedule)


def test_a_rate_of_zero_stays_zero():
    schedule = fit_rates(Regression(with_scheduler(lambda o: lr_scheduler.LambdaLR(o, lambda t: 0.0))), cut=True)

    assert schedule == [0.0] * STEPS


@pytest.mark.parametrize("make", [exponential, one_cycle])
def test_a_gradual_recovery_ends_exactly_on_the_schedule(make: Callable[[Any], Any]):
    settings = {"guard_settings": {"lr_recovery_steps": 4}}
    schedule = fit_rates(Regression(with_scheduler(make)), cut=False)
    rates = fit_rates(Regression(with_scheduler(make)), cut=True, **settings)
    share = [rate / own for rate, own in zip(rates, schedule, strict=True)]

    # One clean step of the recovery is the one at whose end the cut was made.
    assert share[CUT_AFTER + 1 : CUT_AFTER + 4] == pytest.approx([0.5**0.75, 0.5**0.5, 0.5**0.25])
    assert rates[CUT_AFTER + 4 :] == schedule[CUT_AFTER + 4 :]


@pytest.mark.parametrize("after_the_fit", [False, True], ids=["saved during the fit", "saved after the fit"])
@pytest.mark.parametrize("make", [None, exponential, one_cycle], ids=["no scheduler", "exponential", "one cycle"])
def test_a_resumed_run_keeps_the_cut_and_makes_it_once(make: Any, after_the_fit: bool, tmp_path: Path):
    def module() -> Regression:
        return Regression(None if make is None else with_scheduler(make))

    class Saves(Callback):
        def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
            if trainer.current_epoch == 0 and not after_the_fit:
                trainer.save_checkpoint(tmp_path / "half.ckpt")

    unbroken = fit_rates(module(), cut=True, max_epochs=2)

    first, guard = RecordRates(), quiet_guard()
    trainer = make_trainer(CutAt(guard, CUT_AFTER), guard, first, Saves())
    trainer.fit(module(), make_batches(STEPS))
    if after_the_fit:
        trainer.save_checkpoint(tmp_path / "half.ckpt")
    second, guard = RecordRates(), quiet_guard()
    make_trainer(guard, second, max_epochs=2).fit(module(), make_batches(STEPS), ckpt_path=tmp_path / "half.ckpt")

    assert [rates[0] for rates in first.rates + second.rates] == unbroken
    assert guard.summary["lr_scale"] == 0.5


class Remember(Logger):
    """Keeps what is logged."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.metrics: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics.append(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def test_the_learning_rate_monitor_shows_the_rate_that_acts():
    logger = Remember()
    rates = fit_rates(Regression(with_scheduler(exponential)), LearningRateMonitor("step"), cut=True, logger=logger)

    assert [row["lr-SGD"] for row in logger.metrics if "lr-SGD" in row] == rates
    assert rates[CUT_AFTER + 1] < 0.6 * rates[CUT_AFTER]


class SchedulerClasses(Callback):
    """The schedulers of each epoch."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen += [config.scheduler for config in trainer.lr_scheduler_configs]


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_a_scheduler_that_weight_averaging_brings_in_mid_run_keeps_the_cut():
    def run(*, cut: bool) -> tuple[list[float], SchedulerClasses]:
        averaging = StochasticWeightAveraging(swa_lrs=0.02, swa_epoch_start=2, annealing_epochs=3)
        classes = SchedulerClasses()
        module = Regression(with_scheduler(exponential))
        rates = fit_rates(module, averaging, classes, cut=cut, max_epochs=6, limit_train_batches=2)
        return rates, classes

    (schedule, _), (rates, classes) = run(cut=False), run(cut=True)
    assert rates == halved_after_the_cut(schedule)
    assert {type(scheduler) for scheduler in classes.seen} == {lr_scheduler.ExponentialLR, SWALR}


def test_groups_added_during_the_run_are_scaled_from_their_first_step():
    module = build_net()
    optimizer = SGD([module.weight], lr=0.25)
    control = LearningRateControl([optimizer], [])
    control.set_scale(0.5)
    optimizer.add_param_group({"params": [module.bias], "lr": 1.0})
    control.enforce()

    assert [group["lr"] for group in optimizer.param_groups] == [0.125, 0.5]


def test_without_a_cut_rates_are_not_touched():
    optimizer = SGD(build_net().parameters(), lr=0.25)
    rate = optimizer.param_groups[0]["lr"] = torch.tensor(0.25)
    control = LearningRateControl([optimizer], [])
    control.enforce()
    control.set_scale(1.0)

    assert optimizer.param_groups[0]["lr"] is rate
    assert rate._version == 0


def test_the_weights_move_half_as_far_after_a_cut():
    """The scale reaches the update itself, not only what is displayed."""

    class Steps(Callback):
        def __init__(self) -> None:
            self.states: list[torch.Tensor] = []

        def on_train_batch_start(self, trainer: Trainer, pl_module: Regression, *_: Any) -> None:
            self.states.append(weights(pl_module)[0])

    def first_move(*, cut: bool) -> torch.Tensor:
        steps = Steps()
        fit_rates(Regression(), steps, cut=cut)
        return steps.states[CUT_AFTER + 2] - steps.states[CUT_AFTER + 1]

    assert torch.allclose(first_move(cut=True), 0.5 * first_move(cut=False), rtol=1e-4, atol=1e-7)


class OwnRate(torch.optim.SGD):
    """Finds its rate by itself, as Adafactor does, and says so in its groups."""

    @torch.no_grad()
    def step(self, closure=None):
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.sub_(1e-3 * weight.grad.sign())
        return loss


def own_rate(parameters):
    optimizer = OwnRate(parameters, lr=0.1)
    for group in optimizer.param_groups:
        group["lr"] = None
    return optimizer


def test_an_optimizer_without_a_rate_is_guarded_as_well():
    bad = spoiled(healthy_batches(40), range(25, 28), "backward-nan")
    guarded = fit(lambda: TinyModule(own_rate), bad, guard=strict_guard(snapshot_every_n_steps=8, probation_steps=4))
    assert guarded.guard.summary["rollbacks"] == 1
    assert guarded.trainer.optimizers[0].param_groups[0]["lr"] is None
    assert is_finite(guarded)
