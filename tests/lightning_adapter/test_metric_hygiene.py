"""A dropped batch leaves nothing in what an epoch logs."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import Logger
from torch import Tensor, nn
from torch.optim import SGD
from torchmetrics import (
    MaxMetric,
    MeanAbsoluteError,
    MeanMetric,
    MeanSquaredError,
    MetricCollection,
    R2Score,
    SpearmanCorrCoef,
)

from tests.lightning_adapter.set_ups import (
    Batches,
    Regression,
    equal,
    finite,
    make_batches,
    make_trainer,
    quiet_guard,
    weights,
)

pytestmark = pytest.mark.filterwarnings("ignore:Metric `SpearmanCorrcoef` will save all targets")

COUNT = 8


class LogsEverything(Regression):
    """Every way of logging that accumulates over an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.mean_loss = MeanMetric(nan_strategy="disable")
        self.highest = MaxMetric(nan_strategy="disable")
        self.squared = MeanSquaredError()
        self.rank = SpearmanCorrCoef()
        self.updated = MetricCollection(
            {"mae": MeanAbsoluteError(), "mse": MeanSquaredError(), "rmse": MeanSquaredError(squared=False)},
            prefix="updated/",
        )
        self.called = MetricCollection([MeanSquaredError(), R2Score()], prefix="called/")

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        predictions, targets = self.net(batch[0])[:, 0].detach(), batch[1][:, 0]
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True)
        for name in ("mean", "min", "max", "sum"):
            self.log(f"reduced/{name}", loss, on_step=False, on_epoch=True, reduce_fx=name)
        self.mean_loss.update(loss)
        self.highest(loss)
        self.squared(predictions, targets)
        self.rank.update(predictions, targets)
        self.updated.update(predictions, targets)
        self.called(predictions, targets)
        self.log("metric/mean_loss", self.mean_loss, on_step=False, on_epoch=True)
        self.log("metric/highest", self.highest, on_step=True, on_epoch=True)
        self.log("metric/squared", self.squared, on_step=True, on_epoch=True)
        self.log("metric/rank", self.rank, on_step=False, on_epoch=True)
        self.log_dict(self.updated, on_step=False, on_epoch=True)
        self.log_dict(self.called, on_step=False, on_epoch=True)
        return loss


class LogsByHand(LogsEverything):
    """The same with manual optimisation."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        loss = super().training_step(batch, batch_idx)
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()


def without(batches: Batches, dropped: Sequence[int]) -> Batches:
    return Batches([batch for index, batch in enumerate(batches) if index not in dropped])


def user_metrics(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value for name, value in trainer.callback_metrics.items() if not name.startswith("nan_callbacks/")}


def assert_as_if_never_drawn(
    module_type: type[Regression], spoiled: Sequence[int], dropped: Sequence[int], **settings: Any
):
    clean, guarded = module_type(), module_type()
    reference = make_trainer(**settings)
    reference.fit(clean, without(make_batches(COUNT), dropped))
    guard = quiet_guard()
    trainer = make_trainer(guard, **settings)
    trainer.fit(guarded, make_batches(COUNT, spoiled=spoiled))

    expected, received = user_metrics(reference), user_metrics(trainer)
    assert guard.summary["skipped_steps"] == settings["max_epochs"]
    assert len(expected) == 20
    assert expected.keys() == received.keys()
    for name, value in expected.items():
        assert torch.equal(received[name], value), name
    assert finite(received.values())
    assert equal(weights(clean), weights(guarded))


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("spoiled", [0, 3, COUNT - 1], ids=["first", "middle", "last"])
def test_every_epoch_metric_is_that_of_the_run_without_the_batch(spoiled: int, epochs: int):
    assert_as_if_never_drawn(LogsEverything, [spoiled], [spoiled], max_epochs=epochs)


@pytest.mark.parametrize("spoiled", [0, 3, COUNT - 1], ids=["first", "middle", "last"])
def test_every_epoch_metric_is_that_of_the_run_without_the_batch_in_manual_optimisation(spoiled: int):
    assert_as_if_never_drawn(LogsByHand, [spoiled], [spoiled], max_epochs=2)


@pytest.mark.parametrize("spoiled", [0, 3], ids=["first of its window", "last of its window"])
def test_a_whole_accumulation_window_leaves_nothing_in_the_metrics(spoiled: int):
    window = [spoiled // 2 * 2, spoiled // 2 * 2 + 1]
    assert_as_if_never_drawn(LogsEverything, [spoiled], window, max_epochs=2, accumulate_grad_batches=2)


class KeepRows(Logger):
    """Keeps what is logged at each step."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[int, dict[str, float]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.setdefault(step, {}).update(metrics)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def test_nothing_is_logged_at_the_step_that_did_not_happen():
    logger = KeepRows()
    make_trainer(quiet_guard(), logger=logger).fit(LogsEverything(), make_batches(COUNT, spoiled=[3]))

    logged = {step for step, row in logger.rows.items() if "train_loss_step" in row}
    assert logged == set(range(COUNT)) - {3}


def test_early_stopping_that_checks_for_finite_values_goes_on():
    def epochs(*guards: Any) -> int:
        stopping = EarlyStopping("train_loss_epoch", check_finite=True, patience=10, check_on_train_epoch_end=True)
        trainer = make_trainer(*guards, stopping, max_epochs=4)
        trainer.fit(LogsEverything(), make_batches(COUNT, spoiled=[3]))
        return trainer.current_epoch

    assert epochs() == 1
    assert epochs(quiet_guard()) == 4


class BreaksThreeSteps(Regression):
    """Three non-finite losses in a row, which the batches are not to blame for: they end in a rollback."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.trainer.global_step in (9, 10, 11):
            loss = loss * float("nan")
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        self.log("count", 1.0, on_step=False, on_epoch=True, reduce_fx="sum")
        return loss


def test_a_rollback_takes_the_steps_that_it_undoes_out_of_the_epoch_metrics():
    guard = quiet_guard(snapshot_every_n_steps=4, probation_steps=2)
    trainer = make_trainer(guard)
    trainer.fit(BreaksThreeSteps(), make_batches(20))

    assert [event["restored_step"] for event in guard.events if event["event"] == "rollback"] == [4]
    assert trainer.callback_metrics["count"] == 4 + (20 - 12)
    assert torch.isfinite(trainer.callback_metrics["train_loss"])


def test_a_rollback_into_an_earlier_epoch_leaves_the_present_epoch_metrics_alone():
    guard = quiet_guard(snapshot_every_n_steps=4, probation_steps=2)
    trainer = make_trainer(guard, max_epochs=2)
    trainer.fit(BreaksThreeSteps(), make_batches(8))

    assert [event["restored_step"] for event in guard.events if event["event"] == "rollback"] == [4]
    assert trainer.callback_metrics["count"] == 8 - 3


def test_buffers_of_batch_normalisation_stay_finite():
    class Normalised(Regression):
        def __init__(self) -> None:
            super().__init__(lambda module: SGD(module.parameters(), lr=0.05))
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def fit(batches: Batches, *guards: Any) -> list[Tensor]:
        module = Normalised()
        make_trainer(*guards).fit(module, batches)
        return weights(module)

    assert not finite(fit(make_batches(COUNT, spoiled=[3])))
    assert equal(fit(make_batches(COUNT, spoiled=[3]), quiet_guard()), fit(without(make_batches(COUNT), [3])))
