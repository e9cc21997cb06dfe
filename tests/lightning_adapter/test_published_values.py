"""What the guard counts is where users look for metrics: loggers, `callback_metrics`, and callbacks that monitor."""

import csv
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

from tests.lightning_adapter.set_ups import (
    CutAt,
    EvaluatedRegression,
    OptimizerMakesNaN,
    Regression,
    make_batches,
    make_trainer,
    quiet_guard,
)

NAMES = {f"nan_callbacks/{name}" for name in ("incidents", "skipped_steps", "rollbacks", "lr_scale", "grad_norm")}


def rows(folder: Path) -> list[dict[str, str]]:
    """The rows of a CSV log that hold values of ours."""
    with (folder / "metrics.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row.get("nan_callbacks/incidents")]


def fit_with_log(folder: Path, *, guard_settings: Any = (), **settings: Any) -> list[dict[str, str]]:
    logger = CSVLogger(folder, name="", version="")
    trainer = make_trainer(quiet_guard(**dict(guard_settings)), logger=logger, **settings)
    trainer.fit(Regression(), make_batches(12, spoiled=[5]))
    return rows(folder)


def test_the_totals_are_among_the_callback_metrics():
    trainer = make_trainer(quiet_guard())
    trainer.fit(Regression(), make_batches(12, spoiled=[5, 8]))

    ours = {name: float(value) for name, value in trainer.callback_metrics.items() if name in NAMES}
    assert set(ours) == NAMES
    assert (ours["nan_callbacks/incidents"], ours["nan_callbacks/skipped_steps"]) == (2, 2)
    assert (ours["nan_callbacks/rollbacks"], ours["nan_callbacks/lr_scale"]) == (0, 1)
    assert ours["nan_callbacks/grad_norm"] > 0


def test_a_total_is_visible_in_the_batch_in_which_it_changes():
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            self.seen.append(float(trainer.callback_metrics["nan_callbacks/skipped_steps"]))

    look = Look()
    make_trainer(quiet_guard(), look, log_every_n_steps=1000).fit(Regression(), make_batches(6, spoiled=[3]))

    assert look.seen == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("every", "steps"), [(1, list(range(12))), (4, [3, 7, 11]), (5, [4, 9])])
def test_loggers_get_a_row_as_often_as_the_trainer_logs(every: int, steps: list[int], tmp_path: Path):
    logged = fit_with_log(tmp_path, log_every_n_steps=every)

    assert [int(row["step"]) for row in logged] == steps
    assert all(set(row) >= NAMES for row in logged)


def test_the_guard_can_log_at_a_cadence_of_its_own(tmp_path: Path):
    logged = fit_with_log(tmp_path, guard_settings={"log_every_n_steps": 6})

    assert [int(row["step"]) for row in logged] == [5, 11]
    assert [float(row["nan_callbacks/skipped_steps"]) for row in logged] == [1, 1]


def test_an_accumulation_window_is_logged_once(tmp_path: Path):
    logged = fit_with_log(tmp_path, accumulate_grad_batches=3)

    assert [int(row["step"]) for row in logged] == [0, 1, 2, 3]


def test_the_rows_lie_at_the_steps_of_the_users_own_metrics(tmp_path: Path):
    class Logs(Regression):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss)
            return loss

    trainer = make_trainer(quiet_guard(), logger=CSVLogger(tmp_path, name="", version=""), log_every_n_steps=4)
    trainer.fit(Logs(), make_batches(12))
    with (tmp_path / "metrics.csv").open(encoding="utf-8") as file:
        table = list(csv.DictReader(file))

    ours = {row["step"] for row in table if row["nan_callbacks/incidents"]}
    assert ours == {row["step"] for row in table if row["train_loss"]} == {"3", "7", "11"}


def test_barebones_trainers_log_nothing_and_run():
    guard = quiet_guard()
    trainer = Trainer(barebones=True, accelerator="cpu", devices=1, max_epochs=1, callbacks=[guard])
    trainer.fit(Regression(), make_batches(6, spoiled=[2]))

    assert guard.summary["skipped_steps"] == 1


@pytest.mark.parametrize("validated", [False, True], ids=["train epoch end", "validation end"])
def test_early_stopping_can_monitor_the_incidents(validated: bool):
    stopping = EarlyStopping(
        "nan_callbacks/incidents",
        mode="max",
        patience=100,
        stopping_threshold=1.5,
        check_on_train_epoch_end=not validated,
    )
    trainer = make_trainer(quiet_guard(), stopping, max_epochs=5, log_every_n_steps=1000)
    trainer.fit(EvaluatedRegression(), make_batches(6, spoiled=[2]), make_batches(1))

    assert trainer.current_epoch == 2


def test_a_rollback_at_the_start_of_a_validation_is_visible_at_its_end():
    class Validated(OptimizerMakesNaN):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_loss", self.loss(batch))

    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
            self.seen.append(float(trainer.callback_metrics["nan_callbacks/rollbacks"]))

    look = Look()
    trainer = make_trainer(quiet_guard(), look, val_check_interval=2)
    trainer.fit(Validated(broken_at=3), make_batches(6), make_batches(1))

    assert look.seen == [0, 1, 1]


def test_checkpoints_can_be_chosen_by_the_gradient_norm_and_the_scale(tmp_path: Path):
    guard = quiet_guard()
    by_norm = ModelCheckpoint(tmp_path, filename="norm", monitor="nan_callbacks/grad_norm", mode="min")
    by_scale = ModelCheckpoint(
        tmp_path, filename="scale", monitor="nan_callbacks/lr_scale", mode="min", every_n_train_steps=2
    )
    trainer = make_trainer(
        CutAt(guard, 4), guard, by_norm, by_scale, enable_checkpointing=True, log_every_n_steps=1, max_epochs=2
    )
    trainer.fit(Regression(), make_batches(6))

    assert by_norm.best_model_score > 0
    assert by_scale.best_model_score == 0.5
